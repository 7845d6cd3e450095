//! What became of a test.

use std::process::ExitStatus;

use control::{JournalPage, LunAddress};
use guest_protocol::{message::KernelRecord, needs::Class};

use crate::exit;

/// The distinct ways a test can end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every assertion held and the kernel was quiet.
    Pass,
    /// It did not run, or stopped at once, for this reason.
    Skip(String),
    /// An assertion failed; this is the process's end.
    Fail(String),
    /// The kernel logged this line and went on.
    KernelSplat(String),
    /// The kernel panicked with this line.
    GuestPanic(String),
    /// It was not over at its deadline; this says what could be done about it.
    Hang(String),
    /// The target daemon it worked on ended.
    TargetDied(ExitStatus),
    /// QEMU ended without a panic of the guest.
    VmDied(String),
    /// The guest did not come up, for this reason.
    BootTimeout(String),
    /// The bench could not do its part.
    BenchError(String),
}

impl Outcome {
    /// The word in lists and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Skip(_) => "skip",
            Outcome::Fail(_) => "fail",
            Outcome::KernelSplat(_) => "kernel-splat",
            Outcome::GuestPanic(_) => "guest-panic",
            Outcome::Hang(_) => "hang",
            Outcome::TargetDied(_) => "target-died",
            Outcome::VmDied(_) => "vm-died",
            Outcome::BootTimeout(_) => "boot-timeout",
            Outcome::BenchError(_) => "bench-error",
        }
    }

    /// One line that says why; empty for a pass.
    pub fn reason(&self) -> String {
        match self {
            Outcome::Pass => String::new(),
            Outcome::TargetDied(status) => format!("the target daemon ended: {status}"),
            Outcome::Skip(text)
            | Outcome::Fail(text)
            | Outcome::KernelSplat(text)
            | Outcome::GuestPanic(text)
            | Outcome::Hang(text)
            | Outcome::VmDied(text)
            | Outcome::BootTimeout(text)
            | Outcome::BenchError(text) => text.clone(),
        }
    }

    /// Whether this is neither a pass nor a skip.
    pub fn is_bad(&self) -> bool {
        !matches!(self, Outcome::Pass | Outcome::Skip(_))
    }

    /// Where several outcomes mix, the one with the greatest counts.
    pub fn gravity(&self) -> u8 {
        self.exit_code().0
    }

    /// The exit code of a run in which this is the gravest outcome, with its gravity: where outcomes
    /// mix, the one that casts doubt on the others decides.
    fn exit_code(&self) -> (u8, u8) {
        match self {
            Outcome::Pass | Outcome::Skip(_) => (0, exit::PASS),
            Outcome::Fail(_) => (1, exit::FAIL),
            Outcome::KernelSplat(_) => (2, exit::KERNEL_SPLAT),
            Outcome::Hang(_) => (3, exit::HANG),
            Outcome::GuestPanic(_) => (4, exit::GUEST_PANIC),
            Outcome::TargetDied(_) => (5, exit::TARGET_DIED),
            Outcome::VmDied(_) => (6, exit::VM_DIED),
            Outcome::BootTimeout(_) => (7, exit::BOOT_TIMEOUT),
            Outcome::BenchError(_) => (8, exit::BENCH_ERROR),
        }
    }
}

/// How an outcome stands against what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed, and nothing else was expected.
    Passed,
    /// Did not run.
    Skipped,
    /// Bad, and nobody knew: this fails the run.
    New,
    /// Bad in the way the expectations file says, for this reason.
    Known(String),
    /// Passed although the expectations file says it does not, for this reason.
    Fixed(String),
    /// An accident of today's behaviour has changed: listed, never a failure. Only an assertion can say
    /// so; a kernel that warns or dies is broken whatever the test is about.
    Accident,
}

/// Everything there is to say about one execution of one test.
#[derive(Clone, Debug)]
pub struct TestRecord {
    /// libtest's full name.
    pub name: String,
    /// How binding the asserted behaviour is.
    pub class: Class,
    /// What became of it.
    pub outcome: Outcome,
    /// What went wrong beside that: further splats, or the failure of a test that met one.
    pub also: Vec<Outcome>,
    /// How that stands against what is expected.
    pub verdict: Verdict,
    /// What the process printed.
    pub output: String,
    /// The kernel's log while it ran.
    pub kernel: Vec<KernelRecord>,
    /// What its logical units were asked and answered.
    pub journals: Vec<(LunAddress, JournalPage)>,
    /// Stacks of its tasks, if it hung.
    pub stacks: String,
    /// Host CLOCK_MONOTONIC less the guest's in microseconds: puts kernel log and journal on one clock.
    pub clock_offset_us: i64,
    /// From start to end of the process, in microseconds of the guest's clock.
    pub duration_us: u64,
    /// From the request to run it until everything was cleaned up, in microseconds of the host's.
    pub total_us: u64,
}

impl TestRecord {
    /// A record for something that is not the execution of a test.
    pub fn without_run(name: String, class: Class, outcome: Outcome) -> Self {
        TestRecord {
            name,
            class,
            outcome,
            also: Vec::new(),
            verdict: Verdict::New,
            output: String::new(),
            kernel: Vec::new(),
            journals: Vec::new(),
            stacks: String::new(),
            clock_offset_us: 0,
            duration_us: 0,
            total_us: 0,
        }
    }
}

/// The exit code of a whole run.
pub fn exit_code(records: &[TestRecord]) -> u8 {
    if records.iter().all(|record| record.verdict == Verdict::Skipped) {
        return exit::NOTHING_RAN;
    }
    let new = records.iter().filter(|record| record.verdict == Verdict::New);
    gravest(new.map(|record| &record.outcome))
}

/// The exit code that the gravest of `outcomes` asks for.
pub fn gravest<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> u8 {
    outcomes.map(Outcome::exit_code).max().map_or(exit::PASS, |(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(outcome: Outcome, verdict: Verdict) -> TestRecord {
        TestRecord { verdict, ..TestRecord::without_run("t".into(), Class::Contract, outcome) }
    }

    #[test]
    fn the_gravest_new_outcome_decides_the_exit_code() {
        let pass = record(Outcome::Pass, Verdict::Passed);
        let fail = record(Outcome::Fail("x".into()), Verdict::New);
        let panic = record(Outcome::GuestPanic("x".into()), Verdict::New);
        let known = record(Outcome::BenchError("x".into()), Verdict::Known("r".into()));
        let skip = record(Outcome::Skip("x".into()), Verdict::Skipped);
        assert_eq!(exit_code(&[pass.clone(), fail.clone(), panic, skip.clone()]), 13);
        assert_eq!(exit_code(&[fail, known.clone(), pass]), 11);
        assert_eq!(exit_code(&[known]), 0);
        assert_eq!(exit_code(&[skip]), 18);
        assert_eq!(exit_code(&[]), 18);
    }
}
