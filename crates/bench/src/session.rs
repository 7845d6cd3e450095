//! One booted machine running tests until they are done or the machine is lost.
//!
//! It must not know filters, repetition or reports. It says of each test what became of it, or that
//! it has to be run again because it was caught in somebody else's accident.

mod active;
mod boot;
mod calls;
mod hosts;
mod limits;
mod reboot;
mod rest;

use std::{
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use guest_protocol::{
    message::{Call, Exit, FromGuest, Hello, KernelRecord, RunId, ToGuest},
    needs::ScsiHost,
};

use self::{
    active::{AFTER_DAMAGE, Active, Phase},
    boot::{panic_line, tail},
    hosts::Hosts,
    limits::{END_DEADLINE, PATIENCE, POWER_OFF_DEADLINE},
};
pub use self::{
    boot::{BootError, BootTimes, Settings},
    rest::{Rest, Stray, Suspects},
};
use crate::{
    agenda::Share,
    outcome::{Outcome, TestRecord},
    plan::{self, Test},
    splat,
    vm::{Accel, Vm, VmEvent},
};
use host::interrupt;

/// Name of the host every test shares.
const SHARED: &str = "shared";

/// How often the loop looks at deadlines and signals when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// A machine that is up.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    accel: Accel,
    vm: Vm,
    hosts: Hosts,
    events: mpsc::Receiver<VmEvent>,
    events_sender: mpsc::Sender<VmEvent>,
    hello: Hello,
    /// Host's CLOCK_MONOTONIC less the guest's, in microseconds: puts both on one clock.
    clock_offset_us: i64,
    next_run: RunId,
    active: BTreeMap<RunId, Active>,
    /// Why no further test may start here.
    spoiled: Option<String>,
    /// Kernel records outside every test, by the place they appeared in.
    stray: Vec<(String, Vec<KernelRecord>)>,
    last_ended: Option<String>,
    /// The run that waits for the machine to boot again.
    rebooting: Option<RunId>,
    /// What the kernel has said since.
    boot_log: Vec<KernelRecord>,
    /// What the guest's clock has lost by booting again, in microseconds.
    clock_lost_us: u64,
    /// Sequence number the next kernel record should have.
    next_record: Option<u64>,
}

impl Session {
    /// What the agent said of the guest.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Runs tests, by their places in `tests`, as long as there are any to take; every finished one goes
    /// to `sink`.
    pub fn run(
        &mut self,
        tests: &[Test],
        share: &Share<'_>,
        sink: &mut dyn FnMut(usize, TestRecord),
    ) -> Rest {
        let mut rest = Rest::default();
        loop {
            if interrupt::pending() {
                rest.interrupted = true;
                break;
            }
            while self.spoiled.is_none() && self.active.len() < self.settings.jobs {
                // A test whose own host has no slot yet lets others go first.
                let has_room = |member: &usize| self.hosts.has_room(tests[*member].needs.host);
                let Some(member) = share.take(has_room) else { break };
                match plan::unmet_in_guest(&tests[member].needs, &self.hello) {
                    Some(reason) => sink(member, tests[member].skipped(reason)),
                    None => self.start(member, &tests[member], sink, &mut rest),
                }
            }
            let no_more = self.spoiled.is_some() || share.is_done();
            if self.active.is_empty() && no_more {
                break;
            }
            let timeout = self.next_deadline().saturating_duration_since(Instant::now()).min(TICK);
            if let Ok(event) = self.events.recv_timeout(timeout)
                && let Some(outcome) = self.handle(event, sink, &mut rest)
            {
                self.lose(outcome, sink, &mut rest);
                break;
            }
            // At every turn: a test that talks all the time is late like any other.
            if let Some(run) = self.overdue() {
                self.overrun(run, sink, &mut rest);
            }
        }
        self.report_stray(&mut rest);
        rest
    }

    /// Powers the machine off, or kills it if it does not obey. What the last test has left behind may
    /// show only now.
    pub fn finish(mut self) -> Rest {
        let mut rest = Rest::default();
        if self.spoiled.is_none()
            && let Some(outcome) = self.power_off()
        {
            rest.stray.push(Stray { place: self.place(), outcome, kernel: Vec::new() });
        }
        self.report_stray(&mut rest);
        rest
    }

    /// Waits for the end of a machine that was told to power off; what went wrong, if anything did.
    fn power_off(&mut self) -> Option<Outcome> {
        if let Err(error) = self.vm.send(&ToGuest::PowerOff) {
            return Some(self.unreachable(&error.to_string()));
        }
        let limit = POWER_OFF_DEADLINE * self.accel.slowdown();
        let deadline = Instant::now() + limit;
        let mut heard_all = false;
        while !interrupt::pending() {
            match self.events.recv_timeout(TICK) {
                Ok(VmEvent::Guest(FromGuest::Kernel(record))) => self.log(record),
                // The port usually closes before QEMU has ended.
                Ok(VmEvent::LinkLost(_)) => heard_all = true,
                Ok(VmEvent::TargetExited(host, status)) if host == SHARED && !status.success() => {
                    return Some(Outcome::TargetDied(status));
                }
                Ok(VmEvent::Exited(status)) => {
                    if !heard_all {
                        self.hear_last_words();
                    }
                    let death = self.death(&format!("QEMU ended: {status}"));
                    let in_order = status.success() && matches!(death, Outcome::VmDied(_));
                    return (!in_order).then_some(death);
                }
                _ => {}
            }
            if Instant::now() > deadline {
                let limit = limit.as_secs();
                return Some(Outcome::Hang(format!("the guest did not power off in {limit} s")));
            }
        }
        None
    }

    /// Whether the machine has ended.
    pub fn is_gone(&self) -> bool {
        self.vm.wait(Duration::ZERO)
    }

    /// Keeps the machine until a signal comes or it ends by itself.
    pub fn wait_for_interrupt(&mut self) {
        while !interrupt::pending() {
            if let Ok(VmEvent::Exited(_)) = self.events.recv_timeout(TICK) {
                return;
            }
        }
    }

    /// Process ids and sockets, for a machine that is kept.
    pub fn describe(&self) -> String {
        format!(
            "QEMU is process {}; its console, sockets and logs are in {}",
            self.vm.pid(),
            self.settings.dir.display()
        )
    }

    fn start(
        &mut self,
        member: usize,
        test: &Test,
        sink: &mut dyn FnMut(usize, TestRecord),
        rest: &mut Rest,
    ) {
        let run = self.next_run;
        self.next_run += 1;
        let limit =
            test.needs.deadline_s.map_or(self.settings.deadline, |s| Duration::from_secs(s.into()));
        let limit = limit * self.accel.slowdown();
        let mut active = Active::new(member, test, limit, self.clock_offset_us);
        let started = self.hosts.prepare(
            run,
            &test.needs,
            &mut self.vm,
            &self.settings.target,
            &self.settings.dir,
            &self.events_sender,
        );
        let message = ToGuest::Run { run, test: test.name.clone(), env: self.environment() };
        let sent = started.and_then(|()| self.vm.send(&message).map_err(|error| error.to_string()));
        match sent {
            Ok(()) => drop(self.active.insert(run, active)),
            Err(reason) => {
                let outcome = self.unreachable(&reason);
                self.spoiled = Some(reason);
                // A machine that was gone before the test asked for anything is the doing of those
                // before it.
                if self.last_ended.is_some()
                    && test.needs.host == ScsiHost::Shared
                    && !matches!(outcome, Outcome::BenchError(_))
                {
                    rest.unrun.push(member);
                    rest.stray.push(Stray { place: self.place(), outcome, kernel: Vec::new() });
                } else {
                    active.outcome = Some(outcome);
                    sink(member, active.into_record(Vec::new()));
                }
            }
        }
    }

    /// What every test process finds in its environment.
    fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("PROPTEST_RNG_SEED".into(), self.settings.seed.to_string()),
            ("PROPTEST_CASES".into(), self.settings.cases.to_string()),
            ("PROPTEST_DISABLE_FAILURE_PERSISTENCE".into(), "1".into()),
        ]
    }

    /// Why the guest or QEMU cannot be spoken to: the usual cause is a machine that has just died, and
    /// its end tells more.
    fn unreachable(&mut self, reason: &str) -> Outcome {
        if self.vm.wait(END_DEADLINE) {
            self.hear_last_words();
            self.death(reason)
        } else {
            Outcome::BenchError(reason.to_owned())
        }
    }

    /// Takes what a machine that has ended had still said.
    fn hear_last_words(&mut self) {
        let deadline = Instant::now() + END_DEADLINE;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(event) = self.events.recv_timeout(left()) {
            match event {
                VmEvent::Guest(FromGuest::Kernel(record)) => self.log(record),
                VmEvent::Guest(FromGuest::Output { run, text }) => self.print(run, &text),
                VmEvent::LinkLost(_) => return,
                _ => {}
            }
        }
    }

    fn print(&mut self, run: RunId, text: &str) {
        if let Some(active) = self.active.get_mut(&run) {
            active.printed(text);
        }
    }

    /// Handles one event; the outcome of an accident that ends the machine, if it is one.
    fn handle(
        &mut self,
        event: VmEvent,
        sink: &mut dyn FnMut(usize, TestRecord),
        rest: &mut Rest,
    ) -> Option<Outcome> {
        match event {
            VmEvent::Guest(message) => self.hear(message, sink, rest),
            VmEvent::LinkLost(reason) => {
                // The usual cause is a machine that has just died: its end tells more.
                self.vm.wait(END_DEADLINE);
                Some(self.death(&format!("the agent's port: {reason}")))
            }
            VmEvent::Exited(status) => {
                self.hear_last_words();
                Some(self.death(&format!("QEMU ended: {status}")))
            }
            VmEvent::DeviceDeleted(id) => {
                if let Some((run, all)) = self.hosts.unplugged(&id, &mut self.vm) {
                    self.host_gone(run, all, sink, rest);
                }
                None
            }
            VmEvent::TargetExited(host, status) => self.target_exited(&host, status),
        }
    }

    /// A run's own host is unplugged, in part or `all` of it; unless the run's process has ended, nobody has
    /// asked for that.
    fn host_gone(
        &mut self,
        run: RunId,
        all: bool,
        sink: &mut dyn FnMut(usize, TestRecord),
        rest: &mut Rest,
    ) {
        match self.active.get_mut(&run) {
            Some(active) if active.outcome.is_none() => {
                let reason = "the guest gave up the test's SCSI host while the test ran";
                active.outcome = Some(Outcome::BenchError(reason.into()));
                self.kill(run);
            }
            _ if all => self.conclude(run, sink, rest),
            _ => {}
        }
    }

    fn target_exited(&mut self, host: &str, status: std::process::ExitStatus) -> Option<Outcome> {
        if host == SHARED {
            return Some(Outcome::TargetDied(status));
        }
        let run = self.hosts.run_of(host)?;
        if let Some(active) = self.active.get_mut(&run) {
            active.outcome = Some(Outcome::TargetDied(status));
        }
        self.kill(run);
        None
    }

    fn hear(
        &mut self,
        message: FromGuest,
        sink: &mut dyn FnMut(usize, TestRecord),
        rest: &mut Rest,
    ) -> Option<Outcome> {
        match message {
            FromGuest::Hello(hello) => self.booted_again(hello),
            FromGuest::Failed { reason } => {
                Some(Outcome::BenchError(format!("the agent: {reason}")))
            }
            FromGuest::Kernel(record) => {
                self.log(record);
                None
            }
            FromGuest::Output { run, text } => {
                self.print(run, &text);
                None
            }
            // The recorder has it.
            FromGuest::ModuleCode { .. } => None,
            FromGuest::Call { run, call, request } => {
                let reboots = matches!(request, Call::Reboot { .. });
                let result = self.answer(run, request);
                let reboots = reboots && result.is_ok();
                let mut sent = self.vm.send(&ToGuest::Answer { run, call, result });
                // The last word this boot hears: what it had not heard, the next would.
                if reboots && sent.is_ok() {
                    sent = self.vm.send(&ToGuest::Reboot);
                }
                sent.err().map(|error| self.unreachable(&error.to_string()))
            }
            FromGuest::Stacks { run, text } => {
                if let Some(active) = self.active.get_mut(&run) {
                    active.stacks.push_str(&text);
                    self.kill(run);
                }
                None
            }
            FromGuest::Finished { run, exit, duration_us } => {
                self.finished(run, exit, duration_us, sink, rest);
                None
            }
        }
    }

    /// Files a kernel record under every test whose window is open. The kernel overwrites records that
    /// are not read in time; a gap in the numbers becomes a record of its own.
    fn log(&mut self, mut record: KernelRecord) {
        if self.rebooting.is_some() {
            return self.boot_log.push(record);
        }
        record.at_us += self.clock_lost_us;
        let expected = self.next_record.replace(record.seq.saturating_add(1)).unwrap_or(record.seq);
        if let lost @ 1.. = record.seq.saturating_sub(expected) {
            for active in self.active.values_mut().filter(|active| active.in_log) {
                active.records_lost += lost;
            }
            let text = format!("({lost} kernel records were lost here)");
            self.file_record(KernelRecord { text, ..record.clone() });
        }
        self.file_record(record);
    }

    fn file_record(&mut self, record: KernelRecord) {
        for (run, active) in &mut self.active {
            active.mark(*run, &record.text);
        }
        let open = self.active.values().filter(|active| active.in_log).count();
        if open == 0 {
            // A kernel that comes up with a splat would be given up before every test.
            if self.last_ended.is_some() && splat::spoils_the_kernel(&record) {
                self.spoiled = Some("the kernel is damaged by a splat outside every test".into());
            }
            let place = self.place();
            match self.stray.last_mut() {
                Some((last, records)) if *last == place => records.push(record),
                _ => self.stray.push((place, vec![record])),
            }
            return;
        }
        let contested = open > 1 && splat::announces_splat(&record);
        let damaged = splat::announces_damage(&record);
        for active in self.active.values_mut().filter(|active| active.in_log) {
            active.contested |= contested;
            if damaged {
                active.hurry(AFTER_DAMAGE * self.accel.slowdown());
            }
            active.kernel.push(record.clone());
        }
    }

    /// The process is gone; what is left is the test's own host, if it has one.
    fn finished(
        &mut self,
        run: RunId,
        exit: Exit,
        duration_us: u64,
        sink: &mut dyn FnMut(usize, TestRecord),
        rest: &mut Rest,
    ) {
        let Some(active) = self.active.get_mut(&run) else { return };
        active.exited(exit, duration_us);
        active.judge_faults(self.hosts.unfired(run));
        match self.hosts.unplug(run, &mut self.vm) {
            Ok(true) => {
                // What the kernel says while it removes the host is this test's doing.
                active.in_log = true;
                let limit = Duration::from_secs(10) * self.accel.slowdown();
                active.phase = Phase::Unplugging(Instant::now() + limit);
            }
            Ok(false) => self.conclude(run, sink, rest),
            Err(reason) => {
                active.outcome = Some(Outcome::BenchError(reason.clone()));
                self.spoiled = Some(reason);
                self.conclude(run, sink, rest);
            }
        }
    }

    /// Everything about a run is known: file it.
    fn conclude(&mut self, run: RunId, sink: &mut dyn FnMut(usize, TestRecord), rest: &mut Rest) {
        let Some(mut active) = self.active.remove(&run) else { return };
        let splats = active.judge_splats();
        if active.spoils_the_kernel {
            self.spoiled = Some("the kernel is damaged by an earlier splat".into());
        }
        let journals = self.hosts.release(run, active.is_bad());
        self.last_ended = Some(active.name.clone());
        rest.announced.append(&mut active.announced);
        if active.contested && !splats.is_empty() {
            for splat in splats {
                rest.suspect(active.member, &Outcome::KernelSplat(splat.headline));
            }
        } else {
            sink(active.member, active.into_record(journals));
        }
    }

    /// The machine is gone. Of several tests nobody knows who did it; a single one is the culprit.
    fn lose(&mut self, outcome: Outcome, sink: &mut dyn FnMut(usize, TestRecord), rest: &mut Rest) {
        self.spoiled = Some(outcome.reason());
        self.end_reboot(self.clock_lost_us);
        let mut active: Vec<_> = std::mem::take(&mut self.active).into_iter().collect();
        // A test that was already past its deadline, or has lost its target, is the culprit.
        let culprit = active.iter().position(|(_, active)| active.outcome.is_some());
        let alone = (active.len() == 1).then_some(0);
        if let Some(at) = culprit.or(alone) {
            let (run, mut active) = active.swap_remove(at);
            active.outcome.get_or_insert(outcome);
            active.stacks.push_str(&self.last_words());
            // A stopped daemon gives no journal.
            if let Err(reason) = self.hosts.resume(run) {
                active.stacks.push_str(&format!("{reason}\n"));
            }
            let journals = self.hosts.release(run, true);
            sink(active.member, active.into_record(journals));
        } else {
            for (_, active) in active.drain(..) {
                rest.suspect(active.member, &outcome);
            }
        }
        rest.unrun.extend(active.iter().map(|(_, active)| active.member));
    }

    /// What became of a machine that has ended: its console knows of a panic.
    fn death(&self, otherwise: &str) -> Outcome {
        match panic_line(&self.vm.console()) {
            Some(line) => Outcome::GuestPanic(line),
            None => Outcome::VmDied(otherwise.to_owned()),
        }
    }

    fn last_words(&self) -> String {
        format!("{}\nserial console:\n{}\n", self.vm.log(), tail(&self.vm.console(), 60))
    }

    fn next_deadline(&self) -> Instant {
        let deadlines = self.active.values().map(|active| active.phase.deadline());
        deadlines.min().unwrap_or_else(|| Instant::now() + TICK)
    }

    fn overdue(&self) -> Option<RunId> {
        let now = Instant::now();
        self.active.iter().find(|(_, active)| active.phase.deadline() <= now).map(|(run, _)| *run)
    }

    /// A deadline has passed: ask for stacks, then kill, then give the machine up.
    fn overrun(&mut self, run: RunId, sink: &mut dyn FnMut(usize, TestRecord), rest: &mut Rest) {
        let Some(active) = self.active.get_mut(&run) else { return };
        match active.phase {
            Phase::Running(_) => {
                active.hang(format!("not over after {} s", active.limit.as_secs()));
                active.phase = Phase::Dumping(Instant::now() + PATIENCE * self.accel.slowdown());
                if let Err(error) = self.vm.send(&ToGuest::Blocked { run }) {
                    active.stacks.push_str(&format!("cannot ask for stacks: {error}\n"));
                }
            }
            Phase::Dumping(_) => {
                let registers = self.vm.registers();
                active
                    .stacks
                    .push_str(&format!("the guest does not answer; its CPUs:\n{registers}\n"));
                let lost = Outcome::Hang("the guest does not answer any more".into());
                self.lose(lost, sink, rest);
            }
            Phase::Killing(_) => {
                active.hang("its processes cannot be killed: they are stuck in the kernel".into());
                self.lose(Outcome::Hang(String::new()), sink, rest);
            }
            Phase::Unplugging(_) => {
                active.hang("its SCSI host cannot be unplugged".into());
                self.lose(Outcome::Hang(String::new()), sink, rest);
            }
        }
    }

    /// Kills a run's processes. A target the test has stopped goes on, so that a task which waits for
    /// it can die.
    fn kill(&mut self, run: RunId) {
        let Some(active) = self.active.get_mut(&run) else { return };
        active.phase = Phase::Killing(Instant::now() + PATIENCE * self.accel.slowdown());
        if let Err(reason) = self.hosts.resume(run) {
            active.stacks.push_str(&format!("{reason}\n"));
        }
        if let Err(error) = self.vm.send(&ToGuest::Kill { run }) {
            active.stacks.push_str(&format!("cannot ask for the kill: {error}\n"));
        }
    }

    /// Where the kernel log is while no test runs.
    fn place(&self) -> String {
        match &self.last_ended {
            Some(name) => format!("after {name}"),
            None => "before the first test".to_owned(),
        }
    }

    fn report_stray(&mut self, rest: &mut Rest) {
        for (place, kernel) in std::mem::take(&mut self.stray) {
            for splat in splat::find(&kernel) {
                let outcome = Outcome::KernelSplat(splat.headline);
                rest.stray.push(Stray { place: place.clone(), outcome, kernel: kernel.clone() });
            }
        }
    }
}
