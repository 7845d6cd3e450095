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

/// Length in bytes at which the middle of a test's output is dropped.
const OUTPUT_LEN_MAX: usize = 1 << 20;

/// What stands in its place.
const OUTPUT_CUT: &str = "\n(output was dropped here: the test printed too much)\n";

/// How long a test may still run on a kernel that has just lost a task to an Oops or a BUG.
pub(super) const AFTER_DAMAGE: Duration = Duration::from_secs(1);

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
    /// Whether the machine is this test's alone.
    pub(super) own_vm: bool,
    /// What the test has noted before the machine booted again.
    pub(super) note: String,
    pub(super) phase: Phase,
    /// How long the process may run.
    pub(super) limit: Duration,
    started: Instant,
    output: String,
    pub(super) kernel: Vec<KernelRecord>,
    /// Kernel records that were overwritten before the agent read them.
    pub(super) records_lost: u64,
    /// Whether the kernel log is between its marks.
    pub(super) in_log: bool,
    /// Whether a splat came while other tests ran too.
    pub(super) contested: bool,
    pub(super) expected_splats: Vec<String>,
    pub(super) skip: Option<String>,
    pub(super) stacks: String,
    /// What went wrong beside the outcome.
    also: Vec<Outcome>,
    /// Headlines of the splats that came and were announced by the test.
    pub(super) announced: Vec<String>,
    /// Whether the kernel may be damaged by a splat, expected or not.
    pub(super) spoils_the_kernel: bool,
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
            own_vm: test.needs.own_vm,
            note: String::new(),
            phase: Phase::Running(started + limit),
            limit,
            started,
            output: String::new(),
            kernel: Vec::new(),
            records_lost: 0,
            // The probe of a host of its own begins before the test's mark, and is the test's doing.
            in_log: test.needs.host != ScsiHost::Shared,
            contested: false,
            expected_splats: Vec::new(),
            skip: None,
            stacks: String::new(),
            also: Vec::new(),
            announced: Vec::new(),
            spoils_the_kernel: false,
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

    /// Notes a hang; a second one adds to the first. What hangs after its process has ended well, when
    /// its host is removed, has not passed.
    pub(super) fn hang(&mut self, what: String) {
        self.outcome = Some(match self.outcome.take() {
            Some(Outcome::Hang(first)) => Outcome::Hang(format!("{first}; {what}")),
            None | Some(Outcome::Pass | Outcome::Skip(_)) => Outcome::Hang(what),
            Some(other) => other,
        });
    }

    /// Keeps the beginning of a test's output and the end, where libtest says how it went.
    pub(super) fn printed(&mut self, text: &str) {
        self.output.push_str(text);
        if self.output.len() > OUTPUT_LEN_MAX {
            let ends = (OUTPUT_LEN_MAX / 4, self.output.len() - OUTPUT_LEN_MAX / 4);
            let from = self.output.ceil_char_boundary(ends.0);
            let to = self.output.floor_char_boundary(ends.1);
            self.output.replace_range(from..to, OUTPUT_CUT);
        }
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

    /// A fault that never happened has tested nothing.
    pub(super) fn judge_faults(&mut self, unfired: Result<Vec<String>, String>) {
        if self.outcome != Some(Outcome::Pass) {
            return;
        }
        self.outcome = Some(match unfired {
            Ok(rules) if rules.is_empty() => Outcome::Pass,
            Ok(rules) => Outcome::Fail(format!("faults that never fired: {}", rules.join(", "))),
            Err(reason) => Outcome::BenchError(format!("did the faults fire? {reason}")),
        });
    }

    pub(super) fn is_bad(&self) -> bool {
        self.outcome.as_ref().is_none_or(Outcome::is_bad)
    }

    /// Holds the kernel's log against what the test expects. Everything that went wrong is kept, for
    /// one of it may be known and another not. Returns the unexpected splats.
    pub(super) fn judge_splats(&mut self) -> Vec<Splat> {
        let all = splat::find(&self.kernel);
        self.spoils_the_kernel = all.iter().any(Splat::spoils_the_kernel);
        let announced =
            |splat: &Splat| self.expected_splats.iter().any(|pattern| splat.contains(pattern));
        let missing: Vec<_> = self
            .expected_splats
            .iter()
            .filter(|pattern| !all.iter().any(|splat| splat.contains(pattern)))
            .cloned()
            .collect();
        let (announced, unexpected): (Vec<Splat>, Vec<Splat>) =
            all.iter().cloned().partition(announced);
        self.announced = announced.into_iter().map(|splat| splat.headline).collect();

        if self.outcome == Some(Outcome::Pass) && !missing.is_empty() {
            let reason =
                format!("expected a kernel splat with {:?}, but none came", missing.join(", "));
            self.outcome = Some(Outcome::Fail(reason));
        }
        let (causes, others): (Vec<&Splat>, Vec<&Splat>) =
            unexpected.iter().partition(|splat| self.is_likely_cause(splat));
        let splat = |splat: &Splat| Outcome::KernelSplat(splat.headline.clone());
        // A task that an Oops has killed or left waiting is its consequence, and no news beside it.
        let damage = causes.iter().any(|splat| splat.spoils_the_kernel());
        let is_news =
            |own: &Outcome| !(damage && matches!(own, Outcome::Fail(_) | Outcome::Hang(_)));
        let own = self.outcome.take_if(|outcome| outcome.is_bad()).filter(is_news);
        let causes = causes.into_iter().map(splat);
        let mut bad = causes.chain(own).chain(others.into_iter().map(splat));
        if let Some(first) = bad.next() {
            self.outcome = Some(first);
            self.also = bad.collect();
        }
        if self.records_lost > 0 && !self.is_bad() {
            let reason = format!(
                "{} kernel records were lost, and maybe a splat with them",
                self.records_lost
            );
            self.outcome = Some(Outcome::BenchError(reason));
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
            self.limit = self.limit.min(self.started.elapsed() + patience);
        }
    }

    pub(super) fn into_record(self, journals: Vec<(LunAddress, JournalPage)>) -> TestRecord {
        let never_ended = || Outcome::BenchError("the run has no outcome".into());
        TestRecord {
            name: self.name,
            class: self.class,
            outcome: self.outcome.unwrap_or_else(never_ended),
            also: self.also,
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

#[cfg(test)]
mod tests {
    use guest_protocol::needs::Needs;

    use super::*;

    fn active() -> Active {
        let test = Test {
            name: "a::b".into(),
            function: "a::b".into(),
            class: Class::Contract,
            needs: Needs::DEFAULT,
        };
        Active::new(0, &test, Duration::from_secs(1), 0)
    }

    fn log(active: &mut Active, lines: &[&str]) {
        for text in lines {
            let text = (*text).to_owned();
            active.kernel.push(KernelRecord { seq: 0, at_us: 0, level: 4, facility: 0, text });
        }
    }

    const WARNING: &[&str] = &["WARNING: x.c:1 at f+0x1/0x2, CPU#0: a/1", "---[ end trace 0 ]---"];
    const UBSAN: &[&str] = &["UBSAN: array-index-out-of-bounds in x.c:1:2"];
    const BUG: &[&str] = &["BUG: sleeping function called from invalid context at x.c:1"];

    #[test]
    fn output_without_end_keeps_its_beginning_and_its_end() {
        let mut active = active();
        active.printed("the beginning\n");
        for _ in 0..1000 {
            active.printed(&"…".repeat(10_000));
            assert!(active.output.len() <= OUTPUT_LEN_MAX);
        }
        active.printed(ONE_PASSED);
        active.exited(Exit::Code(EXIT_PASS), 1);
        assert_eq!(active.outcome, Some(Outcome::Pass));
        assert!(active.output.starts_with("the beginning\n"));
        assert!(active.output.contains(OUTPUT_CUT));
    }

    #[test]
    fn a_host_that_cannot_be_removed_is_no_pass() {
        let mut active = active();
        active.printed(ONE_PASSED);
        active.exited(Exit::Code(EXIT_PASS), 1);
        active.hang("its SCSI host cannot be unplugged".into());
        let hang = Outcome::Hang("its SCSI host cannot be unplugged".into());
        assert_eq!(active.outcome, Some(hang));
    }

    #[test]
    fn a_fault_that_never_fired_is_no_pass() {
        for (unfired, outcome) in [
            (Ok(vec![]), Outcome::Pass),
            (
                Ok(vec!["a".into(), "b".into()]),
                Outcome::Fail("faults that never fired: a, b".into()),
            ),
            (Err("gone".into()), Outcome::BenchError("did the faults fire? gone".into())),
        ] {
            let mut active = active();
            active.printed(ONE_PASSED);
            active.exited(Exit::Code(EXIT_PASS), 1);
            active.judge_faults(unfired);
            assert_eq!(active.outcome, Some(outcome));
        }
        let mut failed = active();
        failed.exited(Exit::Code(101), 1);
        let outcome = failed.outcome.clone();
        failed.judge_faults(Ok(vec!["a".into()]));
        assert_eq!(failed.outcome, outcome, "what failed before is not outweighed");
    }

    #[test]
    fn a_log_with_a_gap_is_no_pass() {
        let mut active = active();
        active.printed(ONE_PASSED);
        active.exited(Exit::Code(EXIT_PASS), 1);
        active.records_lost = 3;
        active.judge_splats();
        assert_eq!(active.outcome.as_ref().map(Outcome::name), Some("bench-error"));
    }

    #[test]
    fn everything_that_went_wrong_is_kept() {
        let mut active = active();
        log(&mut active, WARNING);
        log(&mut active, UBSAN);
        active.exited(Exit::Code(101), 1);
        assert_eq!(active.judge_splats().len(), 2);
        let record = active.into_record(Vec::new());
        assert_eq!(record.outcome.name(), "kernel-splat");
        let also: Vec<_> = record.also.iter().map(Outcome::name).collect();
        assert_eq!(also, ["kernel-splat", "fail"]);
    }

    #[test]
    fn an_oops_outweighs_the_hang_it_causes_and_a_hung_tasks_report_does_not() {
        let mut active = active();
        log(&mut active, &["INFO: task a:1 blocked for more than 120 seconds."]);
        log(
            &mut active,
            &["BUG: unable to handle page fault for address: 0", "---[ end trace 0 ]---"],
        );
        active.hang("late".into());
        active.judge_splats();
        let outcomes = std::iter::chain(active.outcome.iter(), &active.also);
        let reasons: Vec<_> = outcomes.map(Outcome::reason).collect();
        assert_eq!(reasons.len(), 2, "the hang is the consequence of the Oops: {reasons:?}");
        assert!(reasons[0].starts_with("BUG: unable") && reasons[1].starts_with("INFO: task"));
    }

    #[test]
    fn an_expected_splat_can_still_have_damaged_the_kernel() {
        let mut active = active();
        active.expected_splats.push("sleeping function".into());
        log(&mut active, BUG);
        active.outcome = Some(Outcome::Pass);
        assert!(active.judge_splats().is_empty());
        assert!(active.spoils_the_kernel && active.announced == [BUG[0]]);
        assert_eq!(active.outcome, Some(Outcome::Pass));
    }

    #[test]
    fn a_test_that_skips_owes_no_splat() {
        let mut active = active();
        active.expected_splats.push("never".into());
        active.outcome = Some(Outcome::Skip("too old".into()));
        active.judge_splats();
        assert_eq!(active.outcome, Some(Outcome::Skip("too old".into())));
    }
}
