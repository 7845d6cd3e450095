//! What became of mutants, and what a run of them comes to.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::list::Mutant;
use crate::{exit, outcome::Outcome, scheduler::Results};

/// Stands for a test where the guest did not even come up.
const BOOT: &str = "(boot)";

/// What became of a mutant that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Ending {
    /// This test ended so.
    Killed { test: String, outcome: String, reason: String },
    /// Every test was as on the kernel without a change.
    Survived,
}

/// An ending, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Finding {
    pub(super) ending: Ending,
    /// Of the run of tests.
    pub(super) tests: Duration,
}

/// What is known of one mutant.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It ran, now or earlier.
    Found(Finding),
    /// The compiler did not take it: its entry is wrong.
    NotBuilt(String),
}

impl Ending {
    /// What the first failure of a run says, if there is one.
    pub(super) fn of(results: &Results) -> Option<Ending> {
        let record = results.failures().next()?;
        let never_up =
            results.boots.is_empty() && matches!(record.outcome, Outcome::BootTimeout(_));
        let reason = record.outcome.reason();
        Some(Ending::Killed {
            test: if never_up { BOOT.to_owned() } else { record.name.clone() },
            outcome: record.outcome.name().to_owned(),
            reason: reason.lines().next().unwrap_or_default().to_owned(),
        })
    }

    /// Whether the mutant was killed as it should; one without a killer needs not be.
    pub(super) fn is_as_told(&self, killer: Option<&str>) -> bool {
        match (killer, self) {
            (None, _) => true,
            (Some(_), Ending::Survived) => false,
            (Some(killer), Ending::Killed { test, .. }) => killer == test,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Survived => f.write_str("survived"),
            Ending::Killed { test, outcome, reason } => write!(f, "{outcome} of {test}: {reason}"),
        }
    }
}

/// Mutants and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) entries: Vec<(Mutant, Option<String>, Verdict)>,
}

impl Tally {
    /// The lines at the end. The last one is for programs as well as for people.
    pub(super) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut killed, mut survived, mut not_built) = (0, 0, 0);
        for (mutant, killer, verdict) in &self.entries {
            let Mutant { id, edit, why, .. } = mutant;
            let place = format!("{}:{}", edit.file, edit.function);
            match verdict {
                Verdict::NotBuilt(error) => {
                    not_built += 1;
                    lines.push(format!("did not build: {id} ({place}): {error}"));
                }
                Verdict::Found(Finding { ending: Ending::Survived, .. }) => {
                    survived += 1;
                    let despite = killer.as_ref().map(|killer| format!("; {killer} passed"));
                    let despite = despite.unwrap_or_default();
                    lines.push(format!("survived: {id} ({place}): {why}{despite}"));
                }
                Verdict::Found(Finding { ending, .. }) => {
                    killed += 1;
                    match killer {
                        Some(killer) if !ending.is_as_told(Some(killer.as_str())) => {
                            lines.push(format!("not killed by {killer}: {id}: {ending}"));
                        }
                        None if mutant.killer.is_none() => {
                            lines.push(format!("killed, and names no killer yet: {id}: {ending}"));
                        }
                        _ => {}
                    }
                }
            }
        }
        let total = self.entries.len();
        lines.push(format!(
            "{total} mutants: {killed} killed, {survived} survived, {not_built} did not build"
        ));
        lines
    }

    /// A mistake in the list is graver than a test that does not notice what it should.
    pub(super) fn exit_code(&self) -> u8 {
        let verdicts = || self.entries.iter();
        if verdicts().any(|(.., verdict)| matches!(verdict, Verdict::NotBuilt(_))) {
            return exit::BENCH_ERROR;
        }
        let is_as_told = |(_, killer, verdict): &(Mutant, Option<String>, Verdict)| match verdict {
            Verdict::Found(finding) => finding.ending.is_as_told(killer.as_deref()),
            Verdict::NotBuilt(_) => false,
        };
        if verdicts().all(is_as_told) { exit::PASS } else { exit::FAIL }
    }
}

/// The middle one, the later of two.
pub(super) fn median(mut values: Vec<Duration>) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use guest_protocol::needs::Class;
    use kernel::mutation::Edit;

    use super::*;
    use crate::outcome::{self, TestRecord};

    fn entry(
        id: &str,
        killer: Option<&str>,
        verdict: Verdict,
    ) -> (Mutant, Option<String>, Verdict) {
        let [file, function, find, replace] = ["a.c", "f", "1", "2"].map(str::to_owned);
        let edit = Edit { file, function, find, replace };
        let killer = killer.map(str::to_owned);
        let why = "it shows".to_owned();
        (Mutant { id: id.to_owned(), edit, killer: killer.clone(), why }, killer, verdict)
    }

    fn found(ending: Ending) -> Verdict {
        Verdict::Found(Finding { ending, tests: Duration::from_secs(2) })
    }

    fn killed(test: &str, outcome: &str, reason: &str) -> Ending {
        let [test, outcome, reason] = [test, outcome, reason].map(str::to_owned);
        Ending::Killed { test, outcome, reason }
    }

    fn killed_by(test: &str) -> Verdict {
        found(killed(test, "fail", "left 1"))
    }

    #[test]
    fn a_survivor_without_a_killer_is_told_and_is_no_failure() {
        let survived = found(Ending::Survived);
        let entries = vec![entry("one", Some("t"), killed_by("t")), entry("two", None, survived)];
        let tally = Tally { entries };
        assert_eq!(tally.exit_code(), 0);
        let last = "2 mutants: 1 killed, 1 survived, 0 did not build";
        assert_eq!(tally.summary(), ["survived: two (a.c:f): it shows", last]);
        let tally = Tally { entries: vec![entry("two", None, killed_by("t"))] };
        assert_eq!(tally.exit_code(), 0);
        let hint = "killed, and names no killer yet: two: fail of t: left 1";
        assert_eq!(tally.summary()[0], hint);
    }

    #[test]
    fn a_killer_that_does_not_kill_fails_whether_another_test_does_or_none() {
        for (verdict, line) in [
            (found(Ending::Survived), "survived: one (a.c:f): it shows; t passed"),
            (killed_by("u"), "not killed by t: one: fail of u: left 1"),
        ] {
            let tally = Tally { entries: vec![entry("one", Some("t"), verdict)] };
            assert_eq!(tally.exit_code(), 11, "{line}");
            assert_eq!(tally.summary()[0], line);
        }
    }

    #[test]
    fn a_mutant_that_does_not_build_is_no_kill() {
        let error = Verdict::NotBuilt("a.c:3: error".to_owned());
        let entries = vec![entry("one", None, error), entry("two", Some("t"), killed_by("t"))];
        let tally = Tally { entries };
        assert_eq!(tally.exit_code(), 10);
        assert_eq!(tally.summary()[0], "did not build: one (a.c:f): a.c:3: error");
        assert_eq!(tally.summary()[1], "2 mutants: 1 killed, 0 survived, 1 did not build");
    }

    #[test]
    fn the_first_failure_kills_and_a_known_one_does_not() {
        let record = |name: &str, outcome: Outcome, verdict| TestRecord {
            verdict,
            ..TestRecord::without_run(name.to_owned(), Class::Contract, outcome)
        };
        let fail = || Outcome::Fail("left 1\nright 2".to_owned());
        let known = record("a", fail(), outcome::Verdict::Known("so".to_owned()));
        let pass = record("b", Outcome::Pass, outcome::Verdict::Passed);
        let mut results = Results { records: vec![known, pass], ..Results::default() };
        assert_eq!(Ending::of(&results), None);
        results.records.push(record("c", fail(), outcome::Verdict::New));
        assert_eq!(Ending::of(&results), Some(killed("c", "fail", "left 1")));
        let late = Outcome::BootTimeout("late".to_owned());
        results.records = vec![record("c", late, outcome::Verdict::New)];
        assert_eq!(Ending::of(&results), Some(killed("(boot)", "boot-timeout", "late")));
    }
}
