//! A request queue: fetch a command, execute it, complete it. The three are separate steps of a
//! [`Command`] that owns all it needs, so that a command may be executed or completed later and
//! elsewhere than where it was fetched.

use std::{io, mem::size_of, sync::Arc};

use device_server::{
    Aborts, Begun, DataBuffers, Lookup, LunAddress, NexusId, Outcome, SgList, TaskContext, Wait,
};
use scsi::{SenseFormat, Status, task::TaskAttribute};
use scsi_fault::{DataIn, DiePoint, Direction, WriteFault};
use tracing::{debug, trace};
use vm_memory::VolatileSlice;

use crate::{
    backend::{Ring, RingError},
    batch::{Batch, Finished},
    chain::Chain,
    faults::{Conduct, Event, Fired, die},
    journal::{CommandRecord, now_us},
    target::Target,
    unit::{Admitted, Running, Turn},
    wire::{CDB_SIZE, CmdReq, CmdResp, Response, SENSE_SIZE, task_attribute},
};

/// What a fault fills a buffer with that is longer than the data.
const EXTENSION: u8 = 0xa5;

/// Before a command with more data than this, in bytes, the driver is told of what came before.
const QUICK_LEN_MAX: u32 = 64 << 10;

/// Length of the device-readable header.
const REQUEST_LEN: u32 = 51;
/// Length of the device-writable header.
const RESPONSE_LEN: u32 = 108;

const _: () = assert!(size_of::<CmdReq>() == REQUEST_LEN as usize);
const _: () = assert!(size_of::<CmdResp>() == RESPONSE_LEN as usize);

/// Serves everything that is available on the queue.
pub(crate) fn serve(target: &Target, nexus: NexusId, queue: usize, ring: &Ring) {
    let mut batch = Batch::new(target, ring);
    ring.drain(|ring| {
        if target.is_changing() {
            // Whoever waits for what runs shall not meet what has ended.
            batch.give_back();
        }
        match fetch(target, nexus, queue, ring, &mut batch)? {
            Fetched::Nothing => {
                batch.give_back();
                return Ok(false);
            }
            Fetched::Waits => {}
            Fetched::Command(command) => {
                if command.may_take_long() {
                    batch.give_back();
                    ring.tell();
                }
                if let Some(finished) = command.carry_out(target) {
                    batch.add(finished);
                }
            }
            Fetched::Together(all) => {
                batch.give_back();
                all.into_iter().for_each(|turn| turn.take(target));
            }
            Fetched::Refused(chain, why) => {
                batch.give_back();
                refuse(target, chain, why);
            }
        }
        Ok(true)
    });
    // The ring may have broken.
    if batch.give_back() {
        ring.tell();
    }
}

/// What a look at the queue brought.
enum Fetched {
    Nothing,
    /// A command that waits at its unit.
    Waits,
    Command(Command),
    /// A command, and others that have waited for it, in the order of their turns.
    Together(Vec<Turn>),
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
    /// What goes wrong with it.
    fault: Option<Fired>,
    /// The status it ends with because its task set has no room for it.
    refused: Option<Status>,
}

/// What the driver will read of a command's end.
#[derive(Debug, Default)]
struct Reply {
    sense: Vec<u8>,
    residual: u32,
    status_qualifier: u16,
    status: u8,
    response: u8,
    /// Bytes of the Data-In Buffer that were written.
    data_in_len: u32,
}

fn fetch(
    target: &Target,
    nexus: NexusId,
    queue: usize,
    ring: &Ring,
    batch: &mut Batch<'_>,
) -> Result<Fetched, RingError> {
    let _fetching = target.fetching(nexus, queue);
    Ok(match ring.pop()? {
        None => Fetched::Nothing,
        Some(chain) => match parse(target, &chain) {
            Ok((request, address)) => {
                let fetched_us = if target.keeps_journals() { batch.now_us() } else { 0 };
                let command = Command {
                    chain,
                    request,
                    nexus,
                    address,
                    running: None,
                    fetched_us,
                    held: false,
                    fault: None,
                    refused: None,
                };
                let Some(unit) = target.unit_or_absent(address) else {
                    return Ok(Fetched::Command(command));
                };
                match unit.admit(target.timers(), command) {
                    Admitted::Runs(command) => Fetched::Command(command),
                    Admitted::Waits => Fetched::Waits,
                    Admitted::Together(all) => Fetched::Together(all),
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

    /// As [`Command::runs`], after it has waited. Whether it had to wait for others is a matter of time,
    /// which no journal is about.
    pub(crate) fn resume(&mut self, running: Running) {
        self.held = self.fault.as_ref().is_some_and(|fired| fired.rule.effect.wait.is_some());
        self.runs(running);
    }

    pub(crate) fn attribute(&self) -> TaskAttribute {
        task_attribute(self.request.task_attr)
    }

    /// It will not be executed: its task set has no room for it.
    pub(crate) fn refuse(&mut self, status: Status) {
        self.refused = Some(status);
    }

    /// What a rule may be about.
    pub(crate) fn event(&self) -> Event<'_> {
        let direction = match (self.data_out_len(), self.data_in_len()) {
            (0, 0) => Direction::None,
            (0, _) => Direction::In,
            _ => Direction::Out,
        };
        Event::Command { nexus: self.nexus.0, cdb: &self.request.cdb, direction }
    }

    /// What goes wrong with it, decided when it came to its unit.
    pub(crate) fn fault(&self) -> Option<&Fired> {
        self.fault.as_ref()
    }

    /// See [`Command::fault`].
    pub(crate) fn set_fault(&mut self, fault: Option<Fired>) {
        self.fault = fault;
    }

    /// Whether the driver had better know before it is carried out of what has come to an end. What goes
    /// wrong may end everything.
    fn may_take_long(&self) -> bool {
        self.fault.is_some()
            || self.data_len() > QUICK_LEN_MAX
            || self.running.as_ref().is_some_and(|running| running.unit().may_block())
                && scsi::Command::lookup(&self.request.cdb)
                    .is_some_and(|command| command.spec().reaches_medium())
    }

    /// Executes it, as the fault that befalls it wants, and answers it.
    pub(crate) fn carry_out(self, target: &Target) -> Option<Finished> {
        if let Some(status) = self.refused {
            let residual = self.data_len();
            let reply = Reply { status: status as u8, residual, ..Reply::default() };
            return self.finish(target, reply);
        }
        let Some(fired) = self.fault.clone() else { return self.carry_out_soundly(target) };
        let conduct = &fired.rule.effect;
        self.die_at(DiePoint::Fetched);
        if conduct.vanish {
            target.vanish(self.address);
        }
        if conduct.drop_socket {
            // Its chain is abandoned with it.
            target.hang_up(self.nexus);
            if let Some(running) = self.running {
                running.end(target);
            }
            return None;
        }
        let mut reply = if conduct.execute {
            self.execute_badly(target, conduct)
        } else {
            Reply { residual: self.data_len(), ..Reply::default() }
        };
        self.die_at(DiePoint::Executed);
        let sense_format = target.device().sense_format(self.address);
        reply.spoil(conduct, sense_format);
        self.finish(target, reply)
    }

    /// Executes and answers it. If it has to wait for the host's storage, it is answered elsewhere.
    fn carry_out_soundly(self, target: &Target) -> Option<Finished> {
        let may_block = self.running.as_ref().is_some_and(|running| running.unit().may_block());
        let Some(storage) = may_block.then(|| target.storage()).flatten() else {
            let outcome = self.execute(target, None);
            return self.answer(target, &outcome);
        };
        let begun =
            target.device().begin(self.nexus, self.address, &self.task(), &mut self.data_buffers());
        match begun {
            Begun::Ended(outcome) => {
                self.abort_others(target, &outcome);
                self.answer(target, &outcome)
            }
            Begun::Waits(wait) => {
                let (command, wait) = storage.wait(self, wait)?;
                command.has_waited(target, wait, None)
            }
        }
    }

    /// Answers it after what it has waited for, with this result; none if that was not done.
    pub(crate) fn has_waited(
        self,
        target: &Target,
        wait: Wait,
        result: Option<io::Result<u64>>,
    ) -> Option<Finished> {
        let outcome = wait.end(result, &self.data_buffers());
        self.abort_others(target, &outcome);
        self.answer(target, &outcome)
    }

    fn answer(self, target: &Target, outcome: &Outcome) -> Option<Finished> {
        let reply = self.reply(outcome);
        self.finish(target, reply)
    }

    /// Completes it without having executed it.
    pub(crate) fn end(self, target: &Target, response: Response) {
        // Nothing was moved, so all data offered is residual.
        let reply =
            Reply { residual: self.data_len(), response: response as u8, ..Reply::default() };
        if let Some(finished) = self.finish(target, reply) {
            finished.complete(target);
        }
    }

    fn die_at(&self, point: DiePoint) {
        if self.fault.as_ref().is_some_and(|fired| fired.rule.effect.die == Some(point)) {
            die();
        }
    }

    fn data_out_len(&self) -> u32 {
        self.chain.readable_len() - REQUEST_LEN
    }

    fn data_in_len(&self) -> u32 {
        self.chain.writable_len() - RESPONSE_LEN
    }

    /// Length of its buffers, of which it has one at most.
    fn data_len(&self) -> u32 {
        self.data_out_len() + self.data_in_len()
    }

    /// Lets the device server execute it, moving data straight between medium and guest.
    fn execute(&self, target: &Target, write: Option<WriteFault>) -> Outcome {
        self.execute_with(target, write, |data_in| data_in)
    }

    fn execute_with(
        &self,
        target: &Target,
        write: Option<WriteFault>,
        adjust: impl for<'a> FnOnce(SgList<'a>) -> SgList<'a>,
    ) -> Outcome {
        let DataBuffers { data_out, data_in } = self.data_buffers();
        let mut data = DataBuffers { data_out, data_in: adjust(data_in) };
        let (device, task) = (target.device(), self.task());
        let outcome = device.execute_faulty(self.nexus, self.address, &task, &mut data, write);
        self.abort_others(target, &outcome);
        outcome
    }

    fn task(&self) -> TaskContext<'_> {
        TaskContext {
            tag: self.request.tag.get(),
            attribute: self.attribute(),
            cdb: &self.request.cdb,
        }
    }

    fn data_buffers(&self) -> DataBuffers<'_> {
        DataBuffers {
            data_out: SgList::new(self.chain.readable_slices(REQUEST_LEN)),
            data_in: SgList::new(self.data_in_slices()),
        }
    }

    /// The memory of its Data-In Buffer.
    pub(crate) fn data_in_slices(&self) -> Vec<VolatileSlice<'_>> {
        self.chain.writable_slices(RESPONSE_LEN)
    }

    /// Others may end with it.
    fn abort_others(&self, target: &Target, outcome: &Outcome) {
        if let (Some(running), false) = (&self.running, outcome.aborts == Aborts::Nothing) {
            target.abort(running.unit(), self.address, self.nexus, &outcome.aborts);
        }
    }

    /// Executes it with its data and its medium as a fault wants them.
    fn execute_badly(&self, target: &Target, conduct: &Conduct) -> Reply {
        // What is not taken is not written either.
        let write = conduct.write.or(conduct.data_out_limit.map(WriteFault::Torn));
        let mut outcome = match conduct.data_in {
            Some(DataIn::Limit(limit)) => {
                let outcome = self.execute_with(target, write, |data_in| data_in.limited(limit));
                // That there was no room for the rest is our doing.
                Outcome { overrun: false, ..outcome }
            }
            _ => self.execute(target, write),
        };
        if let Some(limit) = conduct.data_out_limit {
            outcome.data_out_len = outcome.data_out_len.min(limit);
        }
        let data_in = SgList::new(self.data_in_slices());
        match conduct.data_in {
            Some(DataIn::Extend(more)) => {
                let from = outcome.data_in_len;
                let filled = data_in.fill_with(EXTENSION, from, more);
                outcome.data_in_len += filled;
            }
            Some(DataIn::CorruptFrom(from)) => data_in.corrupt(from, outcome.data_in_len),
            Some(DataIn::Limit(_)) | None => {}
        }
        self.reply(&outcome)
    }

    /// What the device server made of it.
    fn reply(&self, outcome: &Outcome) -> Reply {
        let moved = outcome.data_out_len + outcome.data_in_len;
        let residual = u64::from(self.data_len())
            .checked_sub(moved)
            .and_then(|residual| u32::try_from(residual).ok())
            .expect("the device server moves no more than it was offered");
        let response = if outcome.overrun { Response::Overrun } else { Response::Ok };
        Reply {
            sense: outcome.sense.clone().unwrap_or_default(),
            residual,
            status_qualifier: outcome.status_qualifier,
            status: outcome.status as u8,
            response: response as u8,
            data_in_len: u32::try_from(outcome.data_in_len).expect("no more than was offered"),
        }
    }

    /// Writes response and journal. What is left to do is to give the chain back to the driver, unless
    /// that has been done in some wrong way.
    fn finish(self, target: &Target, reply: Reply) -> Option<Finished> {
        let response = reply.response;
        trace!(
            target = self.address.target,
            lun = self.address.lun,
            tag = self.request.tag.get(),
            command = scsi::command::Command::lookup(&self.request.cdb).map(|command| command.name()),
            cdb = ?self.request.cdb,
            status = reply.status,
            response,
            residual = reply.residual,
            "answered"
        );

        target.count_command();
        let hostile = self.fault.as_ref().and_then(|fired| fired.rule.effect.hostile);
        let mut answer = reply.encode();
        let sense_len = answer.sense_len.get() as usize;
        if let Some(hostile) = hostile {
            answer.response = hostile.response.unwrap_or(answer.response);
            answer.sense_len = hostile.sense_len.map_or(answer.sense_len, Into::into);
            if let Some(event) = hostile.event {
                target.send_raw_event(self.nexus, event);
            }
        }
        let answered = self.chain.write_header(&answer);
        self.die_at(DiePoint::Answered);
        let ended_us = self.record(answer.status, &answer.sense[..sense_len], &reply);
        let used_len = if answered { RESPONSE_LEN + reply.data_in_len } else { 0 };
        let dies = self
            .fault
            .as_ref()
            .is_some_and(|fired| fired.rule.effect.die == Some(DiePoint::Completed));
        let finished = Finished { chain: self.chain, used_len, ended_us, running: self.running };
        if dies {
            finished.complete(target);
            die();
        }
        match hostile {
            Some(hostile) => {
                finished.complete_falsely(target, hostile);
                None
            }
            None => Some(finished),
        }
    }

    /// Writes the journal; when that was, if there is one.
    fn record(&self, status: u8, sense: &[u8], reply: &Reply) -> Option<u64> {
        let mut ended_us = None;
        let running = self.running.as_ref()?;
        running.unit().record(|| CommandRecord {
            arrival: running.arrival(),
            fetched_us: self.fetched_us,
            completed_us: *ended_us.insert(now_us()),
            tag: self.tag(),
            nexus: self.nexus.0,
            held: self.held,
            rule: self.fault.as_ref().map(|fired| Arc::clone(&fired.rule)),
            cdb: self.request.cdb,
            data_out_len: self.data_out_len(),
            data_in_len: self.data_in_len(),
            status,
            sense: sense.into(),
            residual: reply.residual,
            response: reply.response,
        });
        ended_us
    }
}

impl Reply {
    /// Says what a fault wants said instead.
    fn spoil(&mut self, conduct: &Conduct, sense_format: SenseFormat) {
        let fault = &conduct.answer;
        if let Some(status) = fault.status {
            // The sense data of another status is none of this one's.
            self.sense.clear();
            self.status = status;
        }
        if let Some(sense) = &fault.sense {
            self.sense = sense.bytes(sense_format);
        }
        self.status_qualifier = fault.status_qualifier.unwrap_or(self.status_qualifier);
        self.residual = fault.residual.unwrap_or(self.residual);
        self.response = fault.response.unwrap_or(self.response);
    }

    /// As it lies in memory; sense data beyond its place is cut off.
    fn encode(&self) -> CmdResp {
        let sense_len = self.sense.len().min(SENSE_SIZE);
        let mut answer = CmdResp::of_transport(Response::Ok, self.residual);
        answer.response = self.response;
        answer.sense[..sense_len].copy_from_slice(&self.sense[..sense_len]);
        answer.sense_len = u32::try_from(sense_len).expect("at most SENSE_SIZE").into();
        answer.status_qualifier = self.status_qualifier.into();
        answer.status = self.status;
        answer
    }
}
