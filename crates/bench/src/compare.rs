//! Two kernels, the same tests: what is the same, what got better, what broke.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    exit,
    outcome::{self, Outcome, TestRecord, Verdict},
    scheduler::Results,
};

/// What a test did on the second kernel, seen from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was good, and is bad.
    Broke,
    /// It was bad, and is good.
    Fixed,
    /// It is bad in another way.
    Differs,
    /// It pins an accident of today's behaviour, and that has changed.
    Accident,
    /// It was skipped, and is good now.
    Appeared,
    /// It was good, and is skipped now.
    Vanished,
    /// Nothing to be told.
    Same,
}

impl Change {
    /// The word in lists.
    pub fn name(self) -> &'static str {
        match self {
            Change::Broke => "broke",
            Change::Fixed => "fixed",
            Change::Differs => "differs",
            Change::Accident => "accident",
            Change::Appeared => "runs now",
            Change::Vanished => "skipped now",
            Change::Same => "same",
        }
    }
}

/// How a test ended on one kernel, all its executions taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ending {
    /// The gravest outcome.
    outcome: Outcome,
    is_accident: bool,
    bad: usize,
    runs: usize,
}

impl Ending {
    fn of(records: &[&TestRecord]) -> Option<Ending> {
        let worst = records.iter().max_by_key(|record| record.outcome.gravity())?;
        Some(Ending {
            outcome: worst.outcome.clone(),
            is_accident: worst.verdict == Verdict::Accident,
            bad: records.iter().filter(|record| record.outcome.is_bad()).count(),
            runs: records.len(),
        })
    }

    fn is_skip(&self) -> bool {
        matches!(self.outcome, Outcome::Skip(_))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.outcome.name())?;
        if self.bad > 0 && self.runs > 1 {
            write!(f, " ({} of {})", self.bad, self.runs)?;
        }
        Ok(())
    }
}

/// One test on both kernels.
#[derive(Clone, Debug)]
pub struct Row {
    /// The test.
    pub name: String,
    /// What is different.
    pub change: Change,
    before: Option<Ending>,
    after: Option<Ending>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |ending: &Option<Ending>| {
            ending.as_ref().map_or_else(|| "not run".to_owned(), ToString::to_string)
        };
        write!(f, "{}: {} → {}", self.name, word(&self.before), word(&self.after))?;
        let told = if self.change == Change::Fixed { &self.before } else { &self.after };
        match told.as_ref().map(|ending| ending.outcome.reason()) {
            Some(reason) if !reason.is_empty() => write!(f, "  ({reason})"),
            _ => Ok(()),
        }
    }
}

/// The comparison of two runs.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Every test, what broke first.
    pub rows: Vec<Row>,
    code: u8,
}

impl Comparison {
    /// Compares the same tests on two kernels.
    pub fn of(before: &Results, after: &Results) -> Comparison {
        let (old, new) = (by_test(&before.records), by_test(&after.records));
        let names = old.keys().chain(new.keys()).copied();
        let names: BTreeSet<&str> = names.collect();
        let ending = |runs: &BTreeMap<&str, Vec<&TestRecord>>, name| {
            runs.get(name).and_then(|records| Ending::of(records))
        };
        let mut rows: Vec<Row> = names
            .into_iter()
            .map(|name| {
                let (before, after) = (ending(&old, name), ending(&new, name));
                let change = change(before.as_ref(), after.as_ref());
                Row { name: name.to_owned(), change, before, after }
            })
            .collect();
        rows.sort_by_key(|row| row.change);
        let code = code(&rows, before, after);
        Comparison { rows, code }
    }

    /// How many tests changed in this way.
    pub fn count(&self, change: Change) -> usize {
        self.rows.iter().filter(|row| row.change == change).count()
    }

    /// The exit code: what broke decides, and what is bad on both kernels does not count.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

fn by_test(records: &[TestRecord]) -> BTreeMap<&str, Vec<&TestRecord>> {
    let mut tests: BTreeMap<&str, Vec<&TestRecord>> = BTreeMap::new();
    for record in records {
        tests.entry(&record.name).or_default().push(record);
    }
    tests
}

fn change(before: Option<&Ending>, after: Option<&Ending>) -> Change {
    let (Some(before), Some(after)) = (before, after) else {
        // What one run did not come to, or what belongs to no test (`(boot)`), shows by itself.
        return match (before, after) {
            (None, Some(after)) if after.outcome.is_bad() => Change::Broke,
            (Some(before), None) if before.outcome.is_bad() => Change::Fixed,
            _ => Change::Same,
        };
    };
    match (before.outcome.is_bad(), after.outcome.is_bad()) {
        (false, true) if after.is_accident => Change::Accident,
        (false, true) => Change::Broke,
        (true, false) => Change::Fixed,
        (true, true) if before.outcome.name() != after.outcome.name() => Change::Differs,
        // An execution more or less that fails is not worth a line; all against some is.
        (true, true) if (before.bad == before.runs) != (after.bad == after.runs) => Change::Differs,
        _ if before.is_skip() && !after.is_skip() => Change::Appeared,
        _ if !before.is_skip() && after.is_skip() => Change::Vanished,
        _ => Change::Same,
    }
}

fn code(rows: &[Row], before: &Results, after: &Results) -> u8 {
    if before.interrupted || after.interrupted {
        return exit::INTERRUPTED;
    }
    let is_bench_error = |record: &&TestRecord| matches!(record.outcome, Outcome::BenchError(_));
    let records = || before.records.iter().chain(&after.records);
    if records().any(|record| is_bench_error(&record)) {
        return exit::BENCH_ERROR;
    }
    if records().all(|record| record.verdict == Verdict::Skipped) {
        return exit::NOTHING_RAN;
    }
    let broke = rows.iter().filter(|row| row.change == Change::Broke);
    let worst = broke.filter_map(|row| row.after.as_ref()).map(|ending| &ending.outcome);
    outcome::gravest(worst)
}

#[cfg(test)]
mod tests {
    use guest_protocol::needs::Class;

    use super::*;

    fn results(endings: &[(&str, Outcome)]) -> Results {
        let records = endings.iter().map(|(name, outcome)| {
            let verdict = match outcome {
                Outcome::Pass => Verdict::Passed,
                Outcome::Skip(_) => Verdict::Skipped,
                _ => Verdict::New,
            };
            let record = TestRecord::without_run;
            TestRecord { verdict, ..record((*name).into(), Class::Contract, outcome.clone()) }
        });
        Results { records: records.collect(), ..Results::default() }
    }

    fn fail() -> Outcome {
        Outcome::Fail("exit status: 101".into())
    }

    #[test]
    fn each_pair_of_endings_has_its_word() {
        let skip = || Outcome::Skip("old".into());
        let hang = || Outcome::Hang("late".into());
        for (before, after, change, code) in [
            (Outcome::Pass, Outcome::Pass, Change::Same, exit::PASS),
            (Outcome::Pass, fail(), Change::Broke, exit::FAIL),
            (Outcome::Pass, hang(), Change::Broke, exit::HANG),
            (skip(), fail(), Change::Broke, exit::FAIL),
            (fail(), Outcome::Pass, Change::Fixed, exit::PASS),
            (fail(), fail(), Change::Same, exit::PASS),
            (fail(), hang(), Change::Differs, exit::PASS),
            (skip(), Outcome::Pass, Change::Appeared, exit::PASS),
            (Outcome::Pass, skip(), Change::Vanished, exit::PASS),
            (skip(), skip(), Change::Same, exit::NOTHING_RAN),
        ] {
            let words = format!("{before:?} then {after:?}");
            let comparison = Comparison::of(&results(&[("t", before)]), &results(&[("t", after)]));
            assert_eq!(comparison.rows[0].change, change, "{words}");
            assert_eq!(comparison.exit_code(), code, "{words}");
        }
    }

    #[test]
    fn one_failure_of_several_executions_is_a_failure_and_says_how_often() {
        let before = results(&[("t", Outcome::Pass), ("t", Outcome::Pass)]);
        let after = results(&[("t", Outcome::Pass), ("t", fail())]);
        let comparison = Comparison::of(&before, &after);
        assert_eq!(comparison.rows[0].change, Change::Broke);
        let line = comparison.rows[0].to_string();
        assert_eq!(line, "t: pass → fail (1 of 2)  (exit status: 101)");
    }

    #[test]
    fn an_accident_that_changed_is_told_and_does_not_fail() {
        let mut after = results(&[("t", fail())]);
        after.records[0].verdict = Verdict::Accident;
        let comparison = Comparison::of(&results(&[("t", Outcome::Pass)]), &after);
        assert_eq!(comparison.rows[0].change, Change::Accident);
        assert_eq!(comparison.exit_code(), exit::PASS);
    }

    #[test]
    fn what_broke_comes_first_and_the_gravest_decides() {
        let before = results(&[("a", Outcome::Pass), ("b", fail()), ("c", Outcome::Pass)]);
        let after = results(&[
            ("a", Outcome::Pass),
            ("b", Outcome::Pass),
            ("c", Outcome::GuestPanic("oops".into())),
        ]);
        let comparison = Comparison::of(&before, &after);
        let names: Vec<&str> = comparison.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a"]);
        assert_eq!(comparison.exit_code(), exit::GUEST_PANIC);
        assert_eq!(comparison.count(Change::Fixed), 1);
    }
}
