//! One test under way.

use std::time::{Duration, Instant};

use control::{JournalPage, LunAddress};
use guest_protocol::{
    message::{EXIT_PASS, EXIT_SKIP, Exit, KernelRecord, MARK_BEGIN, MARK_END, RunId},
    needs::{Class, ScsiHost},
};

use crate::{
    outcome::{Outcome, TestRecord, Verdict},
    plan::Test,
    splat::{self, Splat},
};

/// libtest's words for exactly one passed test; a name that matches none passes zero.
const ONE_PASSED: &str = "test result: ok. 1 passed;";

/// Where a run is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// The process runs until this deadline.
    Running(Instant),
    /// It is late; the guest was asked for stacks.
    Dumping(Instant),
    /// Its processes were killed.
    Killing(Instant),
    /// Its process has ended; its SCSI host is being removed.
    Unplugging(Instant),
}

impl Phase {
    pub(super) fn deadline(self) -> Instant {
        match self {
            Phase::Running(at)
            | Phase::Dumping(at)
            | Phase::Killing(at)
            | Phase::Unplugging(at) => at,
        }
    }
}

/// What is known of a run.
#[derive(Debug)]
pub(super) struct Active {
    /// The test's place in the list.
    pub(super) member: usize,
    pub(super) name: String,
    class: Class,
    pub(super) phase: Phase,
    /// How long the process may run.
    pub(super) limit: Duration,
    started: Instant,
    pub(super) output: String,
    pub(super) kernel: Vec<KernelRecord>,
    /// Whether the kernel log is between its marks.
    pub(super) in_log: bool,
    /// Whether a splat came while other tests ran too.
    pub(super) contested: bool,
    pub(super) expected_splats: Vec<String>,
    pub(super) skip: Option<String>,
    pub(super) stacks: String,
    /// Set as soon as something is known that outweighs the process's exit code.
    pub(super) outcome: Option<Outcome>,
    duration_us: u64,
    clock_offset_us: i64,
}

impl Active {
    pub(super) fn new(member: usize, test: &Test, limit: Duration, clock_offset_us: i64) -> Self {
        let started = Instant::now();
        Active {
            member,
            name: test.name.clone(),
            class: test.class,
            phase: Phase::Running(started + limit),
            limit,
            started,
            output: String::new(),
            kernel: Vec::new(),
            // The probe of a host of its own begins before the test's mark, and is the test's doing.
            in_log: test.needs.host != ScsiHost::Shared,
            contested: false,
            expected_splats: Vec::new(),
            skip: None,
            stacks: String::new(),
            outcome: None,
            duration_us: 0,
            clock_offset_us,
        }
    }

    /// Opens and closes the window of the kernel log.
    pub(super) fn mark(&mut self, run: RunId, text: &str) {
        let names_run = |mark: &str| {
            let number = text.strip_prefix(mark).and_then(|rest| rest.split_whitespace().next());
            number == Some(run.to_string().as_str())
        };
        if names_run(MARK_BEGIN) {
            self.in_log = true;
        } else if names_run(MARK_END) && !matches!(self.phase, Phase::Unplugging(_)) {
            self.in_log = false;
        }
    }

    /// Notes a hang; a second one adds to the first.
    pub(super) fn hang(&mut self, what: String) {
        self.outcome = Some(match self.outcome.take() {
            Some(Outcome::Hang(first)) => Outcome::Hang(format!("{first}; {what}")),
            Some(other) => other,
            None => Outcome::Hang(what),
        });
    }

    /// The process has ended.
    pub(super) fn exited(&mut self, exit: Exit, duration_us: u64) {
        self.duration_us = duration_us;
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(match (exit, self.skip.take()) {
            (Exit::Code(EXIT_PASS), _) if self.output.contains(ONE_PASSED) => Outcome::Pass,
            (Exit::Code(EXIT_PASS), _) => {
                Outcome::BenchError("the test binary ran no test of this name".into())
            }
            (Exit::Code(EXIT_SKIP), Some(reason)) => Outcome::Skip(reason),
            (Exit::Code(_), _) => Outcome::Fail(panic_message(&self.output)),
            (Exit::Signal(number), _) => {
                Outcome::Fail(format!("the test process died of signal {number}"))
            }
        });
    }

    pub(super) fn is_bad(&self) -> bool {
        self.outcome.as_ref().is_none_or(Outcome::is_bad)
    }

    /// Holds the kernel's log against what the test expects; returns the splats it did not.
    pub(super) fn judge_splats(&mut self) -> Vec<Splat> {
        let mut unexpected = splat::find(&self.kernel);
        let mut missing = Vec::new();
        for pattern in &self.expected_splats {
            let before = unexpected.len();
            unexpected
                .retain(|splat| !splat.lines.iter().any(|line| line.contains(pattern.as_str())));
            if unexpected.len() == before {
                missing.push(pattern.clone());
            }
        }
        let passed = matches!(self.outcome, Some(Outcome::Pass | Outcome::Skip(_)));
        match unexpected.first() {
            Some(splat) if self.is_likely_cause(splat) => {
                self.outcome = Some(Outcome::KernelSplat(splat.headline.clone()));
            }
            None if passed && !missing.is_empty() => {
                let reason =
                    format!("expected a kernel splat with {:?}, but none came", missing.join(", "));
                self.outcome = Some(Outcome::Fail(reason));
            }
            _ => {}
        }
        unexpected
    }

    /// Whether a splat is the likelier cause of what happened: of a failed assertion always, of a hang
    /// unless it is the kernel's own remark that a task is stuck.
    fn is_likely_cause(&self, splat: &Splat) -> bool {
        match self.outcome {
            Some(Outcome::Pass | Outcome::Skip(_) | Outcome::Fail(_)) => true,
            Some(Outcome::Hang(_)) => !splat.is_about_a_hang(),
            _ => false,
        }
    }

    /// A test on a damaged kernel may never end: it gets this long from now, at most.
    pub(super) fn hurry(&mut self, patience: Duration) {
        if let Phase::Running(deadline) = &mut self.phase {
            *deadline = (*deadline).min(Instant::now() + patience);
        }
    }

    pub(super) fn into_record(self, journals: Vec<(LunAddress, JournalPage)>) -> TestRecord {
        let never_ended = || Outcome::BenchError("the run has no outcome".into());
        TestRecord {
            name: self.name,
            class: self.class,
            outcome: self.outcome.unwrap_or_else(never_ended),
            verdict: Verdict::New,
            output: self.output,
            kernel: self.kernel,
            journals,
            stacks: self.stacks,
            duration_us: self.duration_us,
            clock_offset_us: self.clock_offset_us,
            total_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// The first panic in a test's output as one line: `tests/x.rs:7:5: assertion failed: …`.
fn panic_message(output: &str) -> String {
    let mut lines = output
        .lines()
        .skip_while(|line| !line.contains("' panicked at ") && !line.contains(") panicked at "));
    let Some(place) = lines.next().and_then(|line| line.split(" panicked at ").nth(1)) else {
        return "the test process failed without a panic message".into();
    };
    let message = lines.next().unwrap_or_default();
    format!("{place} {message}")
}
