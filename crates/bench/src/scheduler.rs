//! A whole run: groups of tests on machines side by side, a fresh machine after a lost one, culprits found.

use std::{
    num::NonZero,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use guest_protocol::needs::{Class, VmShape};

use crate::{
    agenda::{Agenda, Share},
    cargo::Binaries,
    coverage::{self, Coverage, Recorder},
    decode::Decoder,
    expectations::Expectations,
    image::Images,
    outcome::{Outcome, TestRecord, Verdict},
    plan::{self, Group, Test},
    qemu::Qemu,
    report::Terminal,
    run_dir::RunDir,
    session::{BootError, BootTimes, Rest, Session, Settings, Stray, Suspects},
    vm::{Accel, VmConfig},
    vm_test,
};
use host::interrupt;
use kernel::Kernel;

/// With `--until-fail`, how many rounds run on one set of machines before the next look.
const ROUNDS_BETWEEN_LOOKS: usize = 10;

/// More machines side by side than this would boot for longer than they help.
const MACHINES_MAX: usize = 4;

/// How the user wants the tests run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each test runs.
    pub repeat: u32,
    /// Whether to go on until one fails.
    pub until_fail: bool,
    /// Whether to stop at the first failure.
    pub fail_fast: bool,
    /// Whether the order is drawn from the seed.
    pub shuffle: bool,
    /// Seed of order and proptest.
    pub seed: u64,
    /// Cases a property is tried on.
    pub cases: u32,
    /// What a command that repeats this run needs beside test and seed, each word after a space.
    pub repro: String,
    /// Words appended to the kernel command line.
    pub append: String,
    /// Virtual CPUs of machines whose tests do not say.
    pub cpus: u16,
    /// Memory in MiB of machines whose tests do not say.
    pub memory_mib: u32,
    /// Machines that run side by side; with `keep` it is one.
    pub machines: usize,
    /// Tests that run side by side on one machine.
    pub jobs: usize,
    /// Whether a machine with a failed test is left running until the user ends it.
    pub keep: bool,
    /// How long a test may run if it declares nothing, before the stretch for emulation.
    pub deadline: Duration,
    /// How long a guest may take to come up, before the stretch for emulation.
    pub boot_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        Options {
            repeat: 1,
            until_fail: false,
            fail_fast: false,
            shuffle: false,
            seed: 0,
            cases: vm_test::CASES,
            repro: String::new(),
            append: String::new(),
            cpus: 1,
            memory_mib: 512,
            // One keeps a CPU busy for four fifths of the time.
            machines: cpus.min(MACHINES_MAX),
            jobs: 1,
            keep: false,
            deadline: Duration::from_secs(20),
            boot_deadline: Duration::from_secs(20),
        }
    }
}

/// What a run works with.
#[derive(Debug)]
pub struct Bench<'a> {
    /// What the user wants.
    pub options: &'a Options,
    /// The kernel under test.
    pub kernel: &'a Kernel,
    /// The QEMU for machines whose tests have no wish.
    pub qemu: &'a Qemu,
    /// The QEMU for tests that need one which reconnects, or why there is none.
    pub reconnecting_qemu: &'a Result<Qemu, String>,
    /// The guests' initramfs images.
    pub images: &'a Images,
    /// Executables.
    pub binaries: &'a Binaries,
    /// How guests are executed.
    pub accel: Accel,
    /// What the kernel's code is recorded for, if it is.
    pub coverage: Option<&'a Coverage>,
    /// Known defects.
    pub expectations: &'a Expectations,
    /// Says which lines of the source a bad kernel's addresses are.
    pub decoder: Mutex<Decoder>,
    /// Sockets and logs.
    pub run_dir: &'a RunDir,
    /// What has come of the run so far, and who tells the user.
    pub desk: Mutex<Desk<'a>>,
}

/// Where what machines do is collected and told.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The user's screen.
    pub terminal: &'a mut Terminal,
    /// What has come of the run so far.
    pub results: Results,
}

/// Everything that came of a run.
#[derive(Debug, Default)]
pub struct Results {
    /// One record for each execution, in order of completion.
    pub records: Vec<TestRecord>,
    /// How long each machine took to come up.
    pub boots: Vec<BootTimes>,
    /// Whether a signal ended it.
    pub interrupted: bool,
    /// Whether it ended with a machine that was kept after a failed test.
    pub kept: bool,
}

impl Results {
    /// What nobody knew to go wrong.
    pub fn failures(&self) -> impl Iterator<Item = &TestRecord> {
        self.records.iter().filter(|record| record.verdict == Verdict::New)
    }

    fn failed(&self) -> bool {
        self.failures().next().is_some()
    }

    /// Whether the run ends before its time.
    fn ended(&self) -> bool {
        self.kept || self.interrupted || interrupt::pending()
    }
}

impl<'a> Bench<'a> {
    /// Runs the tests.
    pub fn run(self, tests: &[Test]) -> Results {
        if self.options.until_fail {
            self.run_until_failure(tests);
        } else {
            self.run_rounds(tests, 0..self.options.repeat);
        }
        self.desk.into_inner().expect("no thread panics with the lock").results
    }

    fn run_until_failure(&self, tests: &[Test]) {
        for round in (0..).step_by(ROUNDS_BETWEEN_LOOKS) {
            let before = self.desk().results.records.len();
            let end = round + u32::try_from(ROUNDS_BETWEEN_LOOKS).unwrap_or(1);
            self.run_rounds(tests, round..end);
            let results = &self.desk().results;
            // What only ever skips will never fail.
            let idle =
                results.records[before..].iter().all(|record| record.verdict == Verdict::Skipped);
            if idle || results.ended() || results.failed() {
                break;
            }
        }
    }

    /// Runs every test once a round; the rounds share machines.
    fn run_rounds(&self, tests: &[Test], rounds: Range<u32>) {
        let in_order = |round: u32| {
            if self.options.shuffle {
                plan::shuffled(tests.len(), self.options.seed.wrapping_add(round.into()))
            } else {
                (0..tests.len()).collect()
            }
        };
        let order: Vec<usize> = rounds.flat_map(in_order).collect();
        let (mut able, mut unable) = (Vec::new(), Vec::new());
        for member in order {
            match plan::unmet(&tests[member].needs, self.kernel, self.reconnecting_qemu) {
                None => able.push(member),
                Some(reason) => unable.push((member, reason)),
            }
        }
        for (member, reason) in unable {
            self.file(tests[member].skipped(reason));
        }
        let agenda = Agenda::new(plan::group(tests, &able));
        let machines = if self.options.keep { 1 } else { self.options.machines };
        // A machine's processes end with the thread that has started them.
        thread::scope(|scope| {
            for _ in 0..machines {
                scope.spawn(|| self.work(tests, &agenda));
            }
        });
    }

    /// One machine after the other, until nothing is left to do.
    fn work(&self, tests: &[Test], agenda: &Agenda) {
        while let Some(share) = agenda.next() {
            let rest = self.run_share(tests, &share);
            for suspects in rest.suspects {
                if !self.desk().results.ended() {
                    self.find_culprit(tests, &share.shape, suspects, &rest.announced);
                }
            }
            let results = &self.desk().results;
            if results.ended() || (self.options.fail_fast && results.failed()) {
                agenda.stop();
            }
        }
    }

    /// Runs tests that were caught in an accident one after the other.
    fn find_culprit(
        &self,
        tests: &[Test],
        shape: &VmShape,
        suspects: Suspects,
        announced: &[String],
    ) {
        let Suspects { accident, members } = suspects;
        let names = members.iter().map(|member| tests[*member].name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let what = format!("{}: {}", accident.name(), accident.reason());
        self.desk()
            .terminal
            .note(&format!("{what}\n  while several tests ran; each runs again alone: {names}"));
        let mut found = false;
        let alone = Agenda::new(vec![Group { shape: shape.clone(), members, alone: true }]);
        while let Some(share) = alone.next() {
            found |= self.run_share(tests, &share).bad;
            if self.desk().results.ended() {
                return;
            }
        }
        // A test that is not among them may have wanted it.
        let wanted = matches!(&accident, Outcome::KernelSplat(line) if announced.contains(line));
        if !found && !wanted {
            let name = format!("(together) {names}");
            self.file(TestRecord::without_run(name, Class::Contract, accident));
        }
    }

    /// Boots a machine and runs on it what it can.
    fn run_share(&self, tests: &[Test], share: &Share<'_>) -> Rest {
        let (mut session, recorder) = match self.boot(share) {
            Ok(booted) => booted,
            Err(BootError::Interrupted) => {
                self.desk().results.interrupted = true;
                return Rest::default();
            }
            Err(error) => {
                self.fail_all(tests, share, &error);
                return Rest { bad: true, ..Rest::default() };
            }
        };
        let (mut failed, mut bad) = (false, false);
        let mut rest = session.run(tests, share, &mut |_, record| {
            if let Some(recorder) = &recorder {
                recorder.belongs_to(&record.name);
            }
            bad |= record.outcome.is_bad();
            if self.file(record) == Verdict::New {
                failed = true;
                if self.options.fail_fast {
                    share.stop_all();
                }
            }
        });
        share.give_back(std::mem::take(&mut rest.unrun));
        rest.bad = bad;
        if rest.interrupted {
            self.desk().results.interrupted = true;
        } else if failed && self.options.keep {
            self.keep(&mut session);
        } else {
            rest.stray.extend(session.finish().stray);
        }
        for Stray { place, outcome, kernel } in std::mem::take(&mut rest.stray) {
            rest.bad |= outcome.is_bad();
            let record = TestRecord::without_run(format!("({place})"), Class::Contract, outcome);
            self.file(TestRecord { kernel, ..record });
        }
        rest
    }

    /// Leaves a machine to the user until a signal comes, which is the answer to the bench's own words.
    fn keep(&self, session: &mut Session) {
        let what = session.describe();
        let mut desk = self.desk();
        desk.results.kept = true;
        if session.is_gone() {
            desk.terminal.note(&format!("the machine has ended; {what}"));
        } else {
            desk.terminal.note(&format!("the machine is kept: {what}\nCtrl-C ends it"));
            drop(desk);
            session.wait_for_interrupt();
        }
    }

    fn boot(&self, share: &Share<'_>) -> Result<(Session, Option<Arc<Recorder>>), BootError> {
        let mut attempt = 0;
        loop {
            let dir = self.run_dir.machine();
            match self.boot_once(share, dir) {
                Ok((session, times, recorder)) => {
                    let desk = &mut *self.desk();
                    desk.terminal.booted(session.hello(), times, desk.results.boots.len());
                    desk.results.boots.push(times);
                    return Ok((session, recorder));
                }
                // One stall of an emulated machine on a busy host says nothing about the kernel.
                Err(error @ BootError::Guest { .. }) if attempt == 0 => {
                    attempt += 1;
                    self.desk()
                        .terminal
                        .note(&format!("the guest did not come up, trying once more: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn boot_once(
        &self,
        share: &Share<'_>,
        dir: PathBuf,
    ) -> Result<(Session, BootTimes, Option<Arc<Recorder>>), BootError> {
        let shape = &share.shape;
        let recorder = self.coverage.map(|coverage| coverage.machine(&dir)).transpose();
        let recorder = recorder.map_err(|source| BootError::Dir { path: dir.clone(), source })?;
        let config = VmConfig {
            qemu: match self.reconnecting_qemu {
                Ok(qemu) if shape.reconnect => qemu,
                _ => self.qemu,
            },
            kernel: self.kernel,
            image: self.images.of(shape).map_err(BootError::Image)?,
            accel: self.accel,
            cpus: shape.cpus.unwrap_or(self.options.cpus),
            memory_mib: shape.memory_mib.unwrap_or(self.options.memory_mib),
            append: &self.options.append,
            shape,
            recorder: recorder.as_ref(),
        };
        let settings = Settings {
            target: self.binaries.target.clone(),
            dir,
            jobs: if share.alone { 1 } else { self.options.jobs },
            seed: self.options.seed,
            cases: self.options.cases,
            deadline: self.options.deadline,
            boot_deadline: self.options.boot_deadline * self.accel.slowdown(),
        };
        let booted = Session::boot(&config, settings);
        if let Some(recorder) = &recorder {
            recorder.belongs_to(coverage::BOOT);
        }
        booted.map(|(session, times)| (session, times, recorder))
    }

    fn fail_all(&self, tests: &[Test], share: &Share<'_>, error: &BootError) {
        // The console is told once.
        let whole = error.to_string();
        let first_line = whole.lines().next().unwrap_or_default();
        for (place, member) in share.take_all().into_iter().enumerate() {
            let test = &tests[member];
            let reason = if place == 0 { &whole } else { first_line };
            let outcome = match error {
                BootError::Guest { panic: Some(line), .. } => Outcome::GuestPanic(line.clone()),
                BootError::Guest { .. } => Outcome::BootTimeout(reason.to_owned()),
                _ => Outcome::BenchError(reason.to_owned()),
            };
            self.file(TestRecord::without_run(test.name.clone(), test.class, outcome));
        }
    }

    /// Judges, tells and keeps what became of a test.
    fn file(&self, mut record: TestRecord) -> Verdict {
        self.expectations.judge(&mut record, self.kernel);
        if record.verdict == Verdict::New {
            // Not at the desk: it takes seconds, and other machines go on.
            self.decoder.lock().expect("no thread panics with the lock").decode(&mut record);
        }
        let verdict = record.verdict.clone();
        let desk = &mut *self.desk();
        desk.terminal.test(&record, self.options);
        desk.results.records.push(record);
        verdict
    }

    fn desk(&self) -> MutexGuard<'_, Desk<'a>> {
        self.desk.lock().expect("no thread panics with the lock")
    }
}
