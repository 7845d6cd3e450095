//! A request queue: fetch a command, execute it, complete it. The three are separate steps of a
//! [`Command`] that owns all it needs, so that a command may be executed or completed later and
//! elsewhere than where it was fetched.

use std::mem::size_of;

use device_server::{DataBuffers, Lookup, LunAddress, NexusId, Outcome, SgList, TaskContext};
use tracing::{debug, trace};

use crate::{
    backend::{Ring, RingError},
    chain::Chain,
    journal::{CommandRecord, now_us},
    target::Target,
    unit::Running,
    wire::{CDB_SIZE, CmdReq, CmdResp, Response, SENSE_SIZE, task_attribute},
};

/// Length of the device-readable header.
const REQUEST_LEN: u32 = 51;
/// Length of the device-writable header.
const RESPONSE_LEN: u32 = 108;

const _: () = assert!(size_of::<CmdReq>() == REQUEST_LEN as usize);
const _: () = assert!(size_of::<CmdResp>() == RESPONSE_LEN as usize);

/// Serves everything that is available on the queue.
pub(crate) fn serve(target: &Target, nexus: NexusId, queue: usize, ring: &Ring) {
    ring.drain(|ring| match fetch(target, nexus, queue, ring)? {
        Fetched::Nothing => Ok(false),
        Fetched::Held => Ok(true),
        Fetched::Command(command) => {
            command.carry_out(target);
            Ok(true)
        }
        Fetched::Refused(chain, why) => {
            refuse(target, chain, why);
            Ok(true)
        }
    });
}

/// What a look at the queue brought.
enum Fetched {
    Nothing,
    /// A command that its unit holds.
    Held,
    Command(Command),
    Refused(Chain, Refusal),
}

/// Why a chain is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It is no command.
    Malformed(&'static str),
    /// It addresses no target.
    BadTarget,
}

/// A command between fetching and completion.
#[derive(Debug)]
pub(crate) struct Command {
    chain: Chain,
    request: CmdReq,
    nexus: NexusId,
    address: LunAddress,
    /// Absent if the target is there but the logical unit is not, and while the unit holds it.
    running: Option<Running>,
    fetched_us: u64,
    /// Whether its unit has held it.
    held: bool,
}

fn fetch(target: &Target, nexus: NexusId, queue: usize, ring: &Ring) -> Result<Fetched, RingError> {
    let _fetching = target.fetching(nexus, queue);
    Ok(match ring.pop()? {
        None => Fetched::Nothing,
        Some(chain) => match parse(target, &chain) {
            Ok((request, address)) => {
                let fetched_us = now_us();
                let command = Command {
                    chain,
                    request,
                    nexus,
                    address,
                    running: None,
                    fetched_us,
                    held: false,
                };
                match target.unit(address) {
                    None => Fetched::Command(command),
                    Some(unit) => unit.admit(command).map_or(Fetched::Held, Fetched::Command),
                }
            }
            Err(why) => Fetched::Refused(chain, why),
        },
    })
}

fn parse(target: &Target, chain: &Chain) -> Result<(CmdReq, LunAddress), Refusal> {
    if chain.fault().is_some() {
        return Err(Refusal::Malformed("descriptor chain"));
    }
    if chain.writable_len() < RESPONSE_LEN {
        return Err(Refusal::Malformed("no room for a response"));
    }
    let request: CmdReq =
        chain.read_header().ok_or(Refusal::Malformed("shorter than a request"))?;
    if chain.readable_len() > REQUEST_LEN && chain.writable_len() > RESPONSE_LEN {
        // VIRTIO_SCSI_F_INOUT is not offered.
        return Err(Refusal::Malformed("data in both directions"));
    }
    let address = LunAddress::from_virtio(&request.lun).ok_or(Refusal::BadTarget)?;
    match target.device().lookup(address.target, address.lun) {
        Lookup::NoTarget => Err(Refusal::BadTarget),
        Lookup::AbsentUnit | Lookup::Unit => Ok((request, address)),
    }
}

/// Answers a chain that is not executed, if it has room for an answer.
fn refuse(target: &Target, chain: Chain, why: Refusal) {
    let response = match why {
        Refusal::Malformed(reason) => {
            debug!(reason, fault = chain.fault().map(tracing::field::display), "malformed command");
            target.count_malformed();
            Response::Failure
        }
        Refusal::BadTarget => {
            target.count_command();
            Response::BadTarget
        }
    };
    // Nothing was moved, so all data offered is residual.
    let offered = chain.readable_len().saturating_sub(REQUEST_LEN)
        + chain.writable_len().saturating_sub(RESPONSE_LEN);
    let answered = chain.write_header(&CmdResp::of_transport(response, offered));
    chain.complete(if answered { RESPONSE_LEN } else { 0 });
}

impl Command {
    pub(crate) fn nexus(&self) -> NexusId {
        self.nexus
    }

    pub(crate) fn tag(&self) -> u64 {
        self.request.tag.get()
    }

    pub(crate) fn cdb(&self) -> &[u8; CDB_SIZE] {
        &self.request.cdb
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(crate) fn fetched_us(&self) -> u64 {
        self.fetched_us
    }

    /// It is registered with its unit.
    pub(crate) fn runs(&mut self, running: Running) {
        self.running = Some(running);
    }

    /// As [`Command::runs`], after it was held.
    pub(crate) fn resume(&mut self, running: Running) {
        self.held = true;
        self.runs(running);
    }

    /// Executes and completes it.
    pub(crate) fn carry_out(self, target: &Target) {
        let outcome = self.execute(target);
        self.complete(target, outcome);
    }

    /// Completes it without having executed it.
    pub(crate) fn end(self, target: &Target, response: Response) {
        // Nothing was moved, so all data offered is residual.
        let residual = self.data_out_len() + self.data_in_len();
        self.finish(target, &CmdResp::of_transport(response, residual), response, 0);
    }

    fn data_out_len(&self) -> u32 {
        self.chain.readable_len() - REQUEST_LEN
    }

    fn data_in_len(&self) -> u32 {
        self.chain.writable_len() - RESPONSE_LEN
    }

    /// Lets the device server execute it, moving data straight between medium and guest.
    fn execute(&self, target: &Target) -> Outcome {
        let task = TaskContext {
            tag: self.request.tag.get(),
            attribute: task_attribute(self.request.task_attr),
            cdb: &self.request.cdb,
        };
        let mut data = DataBuffers {
            data_out: SgList::new(self.chain.readable_slices(REQUEST_LEN)),
            data_in: SgList::new(self.chain.writable_slices(RESPONSE_LEN)),
        };
        target.device().execute(self.nexus, self.address, &task, &mut data)
    }

    /// Completes it with what the device server made of it.
    fn complete(self, target: &Target, outcome: Outcome) {
        let moved = outcome.data_out_len + outcome.data_in_len;
        let residual = u64::from(self.data_out_len() + self.data_in_len())
            .checked_sub(moved)
            .and_then(|residual| u32::try_from(residual).ok())
            .expect("the device server moves no more than it was offered");
        let response = if outcome.overrun { Response::Overrun } else { Response::Ok };
        let sense = outcome.sense.unwrap_or_default();
        let answer =
            answer(&sense, residual, outcome.status_qualifier, outcome.status as u8, response);
        let data_in_moved = u32::try_from(outcome.data_in_len).expect("no more than was offered");
        self.finish(target, &answer, response, data_in_moved);
    }

    /// Writes response and journal, then gives the chain back to the driver.
    fn finish(self, target: &Target, answer: &CmdResp, response: Response, data_in_moved: u32) {
        let residual = answer.resid.get();
        trace!(
            target = self.address.target,
            lun = self.address.lun,
            tag = self.request.tag.get(),
            command = scsi::command::Command::lookup(&self.request.cdb).map(|command| command.name()),
            cdb = ?self.request.cdb,
            status = answer.status,
            ?response,
            residual,
            "answered"
        );

        target.count_command();
        let answered = self.chain.write_header(answer);
        if let Some(running) = &self.running {
            running.unit().record(CommandRecord {
                fetched_us: self.fetched_us,
                completed_us: now_us(),
                tag: self.tag(),
                held: self.held,
                cdb: self.request.cdb,
                data_out_len: self.data_out_len(),
                data_in_len: self.data_in_len(),
                status: answer.status,
                sense: answer.sense[..answer.sense_len.get() as usize].into(),
                residual,
                response,
            });
        }
        self.chain.complete(if answered { RESPONSE_LEN + data_in_moved } else { 0 });
        // Only now has the command ended for those who wait for it.
        drop(self.running);
    }
}

fn answer(
    sense: &[u8],
    residual: u32,
    status_qualifier: u16,
    status: u8,
    response: Response,
) -> CmdResp {
    let sense_len = sense.len().min(SENSE_SIZE);
    let mut answer = CmdResp::of_transport(response, residual);
    answer.sense[..sense_len].copy_from_slice(&sense[..sense_len]);
    answer.sense_len = u32::try_from(sense_len).expect("at most SENSE_SIZE").into();
    answer.status_qualifier = status_qualifier.into();
    answer.status = status;
    answer
}
