//! What a test asks of the bench.

use guest_protocol::message::{Answer, Call, RunId};

use super::Session;
use crate::outcome::Outcome;

impl Session {
    /// Carries out a call of a run; the error is for the test to read.
    pub(super) fn answer(&mut self, run: RunId, request: Call) -> Result<Answer, String> {
        let active = self.active.get_mut(&run).ok_or("this run is over")?;
        match request {
            Call::Lun { spec } => {
                let lease = self.hosts.lease(run, spec).inspect_err(|error| {
                    if error.ends_the_conversation() {
                        active.outcome = Some(Outcome::BenchError(error.to_string()));
                        self.spoiled = Some(error.to_string());
                    }
                });
                lease.map(Answer::Lun).map_err(|error| error.to_string())
            }
            Call::Renew { address } => done(self.hosts.renew(run, address)),
            Call::Host => Ok(Answer::Host(self.hosts.place(run))),
            Call::Journal { address } => self.hosts.journal(run, address).map(Answer::Journal),
            Call::Faults { address, faults, may_stay_unfired } => {
                done(self.hosts.faults(run, address, faults, may_stay_unfired))
            }
            Call::AllFaults { faults, may_stay_unfired } => {
                done(self.hosts.all_faults(run, faults, &may_stay_unfired))
            }
            Call::Release { address, order } => done(self.hosts.release_held(run, address, order)),
            Call::Control { command } => done(self.hosts.control(run, command)),
            Call::Target { signal } => done(self.hosts.signal(run, signal)),
            Call::Adapter { plugged: false } => done(self.hosts.pull(run, &mut self.vm)),
            Call::Adapter { plugged: true } => done(self.hosts.plug_again(run, &mut self.vm)),
            Call::Reboot { note } => done(self.reboot(run, note)),
            Call::ExpectSplat { pattern } => {
                active.expected_splats.push(pattern);
                Ok(Answer::Done)
            }
            Call::Skip { reason } => {
                active.skip = Some(reason);
                Ok(Answer::Done)
            }
            Call::KillVm => done(self.vm.kill().map_err(|error| error.to_string())),
        }
    }
}

/// The answer to a call whose success has nothing to tell.
fn done(result: Result<(), String>) -> Result<Answer, String> {
    result.map(|()| Answer::Done)
}
