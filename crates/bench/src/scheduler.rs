//! A whole run: groups of tests on machines, a fresh machine after a lost one, culprits found.

use std::{cell::Cell, collections::VecDeque, ops::Range, path::PathBuf, time::Duration};

use guest_protocol::needs::Class;

use crate::{
    cargo::Binaries,
    coverage::{self, Coverage},
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
};
use host::interrupt;
use kernel::Kernel;

/// With `--until-fail`, how many rounds run on one set of machines before the next look.
const ROUNDS_BETWEEN_LOOKS: usize = 10;

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
    /// Tests that run side by side on one machine.
    pub jobs: usize,
    /// Whether a machine with a failed test is left running until the user ends it.
    pub keep: bool,
    /// How long a test may run if it declares nothing, before the stretch for emulation.
    pub deadline: Duration,
    /// How long a guest may take to come up, before the stretch for emulation.
    pub boot_deadline: Duration,
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
    pub decoder: Decoder,
    /// Sockets and logs.
    pub run_dir: &'a mut RunDir,
    /// The user's screen.
    pub terminal: &'a mut Terminal,
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
}

impl Bench<'_> {
    /// Runs the tests.
    pub fn run(&mut self, tests: &[Test]) -> Results {
        let mut results = Results::default();
        if !self.options.until_fail {
            self.run_rounds(tests, 0..self.options.repeat, &mut results);
            return results;
        }
        for round in (0..).step_by(ROUNDS_BETWEEN_LOOKS) {
            let before = results.records.len();
            let end = round + u32::try_from(ROUNDS_BETWEEN_LOOKS).unwrap_or(1);
            self.run_rounds(tests, round..end, &mut results);
            // What only ever skips will never fail.
            let idle =
                results.records[before..].iter().all(|record| record.verdict == Verdict::Skipped);
            if idle
                || results.kept
                || results.interrupted
                || interrupt::pending()
                || results.failed()
            {
                break;
            }
        }
        results
    }

    /// Runs every test once a round; the rounds share machines.
    fn run_rounds(&mut self, tests: &[Test], rounds: Range<u32>, results: &mut Results) {
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
            self.file(tests[member].skipped(reason), results);
        }
        let mut groups: VecDeque<Group> = plan::group(tests, &able).into();
        while let Some(group) = groups.pop_front() {
            if self.options.fail_fast && results.failed() {
                return;
            }
            let rest = self.run_group(tests, &group, results);
            if rest.kept {
                // The signal that ends it is the answer to the bench's own words.
                results.kept = true;
                return;
            }
            if rest.interrupted || interrupt::pending() {
                results.interrupted = true;
                return;
            }
            if !rest.unrun.is_empty() {
                groups.push_front(Group { members: rest.unrun, ..group.clone() });
            }
            for suspects in rest.suspects {
                self.find_culprit(tests, &group, suspects, &rest.announced, results);
                if results.kept || results.interrupted {
                    return;
                }
            }
        }
    }

    /// Runs the members of a group that was caught in an accident one after the other.
    fn find_culprit(
        &mut self,
        tests: &[Test],
        group: &Group,
        suspects: Suspects,
        announced: &[String],
        results: &mut Results,
    ) {
        let Suspects { accident, mut members } = suspects;
        let names = members.iter().map(|member| tests[*member].name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let what = format!("{}: {}", accident.name(), accident.reason());
        self.terminal
            .note(&format!("{what}\n  while several tests ran; each runs again alone: {names}"));
        let before = results.records.len();
        while !members.is_empty() && !results.interrupted && !results.kept {
            let alone = Group { members, alone: true, ..group.clone() };
            let rest = self.run_group(tests, &alone, results);
            results.interrupted |= rest.interrupted;
            results.kept |= rest.kept;
            members = rest.unrun;
        }
        let found = results.records[before..].iter().any(|record| record.outcome.is_bad());
        // A test that is not among them may have wanted it.
        let wanted = matches!(&accident, Outcome::KernelSplat(line) if announced.contains(line));
        if !found && !wanted && !results.interrupted && !results.kept {
            let name = format!("(together) {names}");
            self.file(TestRecord::without_run(name, Class::Contract, accident), results);
        }
    }

    /// Boots a machine for a group and runs what it can.
    fn run_group(&mut self, tests: &[Test], group: &Group, results: &mut Results) -> Rest {
        let mut session = match self.boot(group, results) {
            Ok(session) => session,
            Err(BootError::Interrupted) => return Rest { interrupted: true, ..Rest::default() },
            Err(error) => {
                self.fail_all(tests, group, &error, results);
                return Rest::default();
            }
        };
        let mut filed = Vec::new();
        let (failed, enough) = (Cell::new(false), Cell::new(false));
        let mut terminal = &mut *self.terminal;
        let (expectations, kernel, options) = (self.expectations, self.kernel, self.options);
        let decoder = &mut self.decoder;
        let coverage = self.coverage;
        let mut rest = session.run(tests, &group.members, &enough, &mut |_, mut record| {
            if let Some(coverage) = coverage {
                coverage.belongs_to(&record.name);
            }
            expectations.judge(&mut record, kernel);
            if record.verdict == Verdict::New {
                decoder.decode(&mut record);
            }
            terminal.test(&record, options);
            if record.verdict == Verdict::New {
                failed.set(true);
                enough.set(options.fail_fast);
            }
            filed.push(record);
        });
        results.records.append(&mut filed);
        terminal = self.terminal;
        if failed.get() && options.keep && !rest.interrupted {
            self.run_dir.keep();
            if session.is_gone() {
                terminal.note(&format!("the machine has ended; {}", session.describe()));
            } else {
                let kept = session.describe();
                terminal.note(&format!("the machine is kept: {kept}\nCtrl-C ends it"));
                session.wait_for_interrupt();
            }
            rest.kept = true;
        } else if !rest.interrupted {
            rest.stray.extend(session.finish().stray);
        }
        for Stray { place, outcome, kernel } in std::mem::take(&mut rest.stray) {
            let record = TestRecord::without_run(format!("({place})"), Class::Contract, outcome);
            self.file(TestRecord { kernel, ..record }, results);
        }
        rest
    }

    fn boot(&mut self, group: &Group, results: &mut Results) -> Result<Session, BootError> {
        let mut attempt = 0;
        loop {
            let dir = self.run_dir.machine();
            match self.boot_once(group, dir) {
                Ok((session, times)) => {
                    self.terminal.booted(session.hello(), times, results.boots.len());
                    results.boots.push(times);
                    return Ok(session);
                }
                // One stall of an emulated machine on a busy host says nothing about the kernel.
                Err(error @ BootError::Guest { .. }) if attempt == 0 => {
                    attempt += 1;
                    self.terminal
                        .note(&format!("the guest did not come up, trying once more: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn boot_once(&self, group: &Group, dir: PathBuf) -> Result<(Session, BootTimes), BootError> {
        let shape = &group.shape;
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
            jobs: if group.alone { 1 } else { self.options.jobs },
            seed: self.options.seed,
            cases: self.options.cases,
            deadline: self.options.deadline,
            boot_deadline: self.options.boot_deadline * self.accel.slowdown(),
        };
        let booted = Session::boot(&config, settings);
        if let Some(recorder) = recorder {
            recorder.belongs_to(coverage::BOOT);
        }
        booted
    }

    fn fail_all(
        &mut self,
        tests: &[Test],
        group: &Group,
        error: &BootError,
        results: &mut Results,
    ) {
        // The console is told once.
        let whole = error.to_string();
        let first_line = whole.lines().next().unwrap_or_default();
        for (place, &member) in group.members.iter().enumerate() {
            let test = &tests[member];
            let reason = if place == 0 { &whole } else { first_line };
            let outcome = match error {
                BootError::Guest { panic: Some(line), .. } => Outcome::GuestPanic(line.clone()),
                BootError::Guest { .. } => Outcome::BootTimeout(reason.to_owned()),
                _ => Outcome::BenchError(reason.to_owned()),
            };
            self.file(TestRecord::without_run(test.name.clone(), test.class, outcome), results);
        }
    }

    fn file(&mut self, mut record: TestRecord, results: &mut Results) {
        self.expectations.judge(&mut record, self.kernel);
        self.terminal.test(&record, self.options);
        results.records.push(record);
    }
}
