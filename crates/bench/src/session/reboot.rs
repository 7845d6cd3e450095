//! A test that boots its machine again. Daemons, sockets and units outlive that; the test process does not, and is
//! run again with what it has noted.

use guest_protocol::message::{Hello, KernelRecord, REBOOTED_ENV, RunId, ToGuest};

use super::{
    Session,
    boot::{host_us, panic_line},
};
use crate::outcome::Outcome;

impl Session {
    /// Prepares for the guest to boot again, for a test that has the machine to itself.
    pub(super) fn reboot(&mut self, run: RunId, note: String) -> Result<(), String> {
        let active = self.active.get_mut(&run).ok_or("this run is over")?;
        if !active.own_vm {
            return Err("the machine is shared: declare one of the test's own".into());
        }
        active.note = note;
        // Otherwise QEMU would end.
        self.vm.allow_reboot(true).map_err(|error| error.to_string())?;
        self.rebooting = Some(run);
        Ok(())
    }

    /// The agent has said hello once more; what went wrong, if nobody has asked for that.
    pub(super) fn booted_again(&mut self, hello: Hello) -> Option<Outcome> {
        if let Some(line) = panic_line(&self.vm.console()) {
            return Some(Outcome::GuestPanic(line));
        }
        let offset_us = host_us() - i64::try_from(hello.uptime_us).unwrap_or(0);
        let lost_us = u64::try_from(offset_us - self.clock_offset_us).unwrap_or(0);
        let Some(run) = self.end_reboot(lost_us) else {
            return Some(Outcome::BenchError("the agent said hello twice".into()));
        };
        self.hello = hello;
        let active = self.active.get(&run)?;
        let mut env = self.environment();
        env.push((REBOOTED_ENV.into(), active.note.clone()));
        let test = active.name.clone();
        let restarted =
            self.vm.allow_reboot(false).map_err(|error| error.to_string()).and_then(|()| {
                self.vm.send(&ToGuest::Run { run, test, env }).map_err(|error| error.to_string())
            });
        restarted.err().map(|reason| self.unreachable(&reason))
    }

    /// Files what the kernel has said since a reboot began: the last words of the old boot, and the first of the new
    /// one, whose clock and numbers begin again. The run that waited, if there was a reboot.
    pub(super) fn end_reboot(&mut self, lost_us: u64) -> Option<RunId> {
        let run = self.rebooting.take()?;
        let said = std::mem::take(&mut self.boot_log);
        let expected = self.next_record.unwrap_or(0);
        let is_new = |record: &KernelRecord| record.seq < expected;
        let boundary = said.iter().position(is_new).unwrap_or(said.len());
        for (at, record) in said.into_iter().enumerate() {
            if at == boundary {
                self.clock_lost_us = lost_us;
                self.next_record = None;
            }
            self.log(record);
        }
        Some(run)
    }
}
