//! What came of every test on every kernel, as it is kept beside the table.

use std::collections::BTreeMap;

use guest_protocol::needs;
use kernel::{Kernel, manifest::Version};
use serde::{Deserialize, Serialize};

use crate::{
    expectations::Expectations,
    outcome::{TestRecord, Verdict},
    plan::Test,
};

/// What came of the tests on one kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) records: &'a [TestRecord],
}

/// All results. Nothing in it depends on when or where they were got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Record {
    /// In the order of the outcomes of each row.
    pub(super) kernels: Vec<Column>,
    /// Series that were wanted and not to be had.
    pub(super) missing: Vec<Version>,
    /// Tests that ended alike on each kernel, in the order of the first of them.
    pub(super) rows: Vec<Row>,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Column {
    /// Its version, or what it was called where two have the same.
    pub(super) name: String,
    pub(super) release: String,
    /// The package's version, or what else it was made of.
    pub(super) origin: String,
}

/// Tests that ended alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Row {
    /// One for each kernel.
    pub(super) outcomes: Vec<Cell>,
    /// Functions and the names of their cases; of a function that is itself the test, one empty name.
    #[serde(with = "lines")]
    pub(super) tests: BTreeMap<String, Vec<String>>,
}

/// The cases of a function in one line, so that a difference between two files can be read.
mod lines {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    type Tests = BTreeMap<String, Vec<String>>;

    pub(super) fn serialize<S: Serializer>(
        tests: &Tests,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(tests.iter().map(|(function, cases)| (function, cases.join(" "))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Tests, D::Error> {
        let lines = BTreeMap::<String, String>::deserialize(deserializer)?;
        let cases = |line: String| line.split(' ').map(str::to_owned).collect();
        Ok(lines.into_iter().map(|(function, line)| (function, cases(line))).collect())
    }
}

/// How a test ended on a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Cell {
    Pass,
    /// For this reason, without what it says of one kernel or machine.
    Skip(String),
    /// A defect of the expectations file, which has it for these versions.
    Known {
        reason: String,
        kernel: String,
    },
    /// Nobody knew; this is the outcome's word.
    New(String),
    /// Otherwise than the accident that the test asserts.
    Accident,
    /// The run did not come to it.
    NotRun,
}

impl Record {
    /// All that came of the tests on each kernel.
    pub(super) fn of(
        tests: &[Test],
        runs: &[Run<'_>],
        missing: &[Version],
        expectations: &Expectations,
    ) -> Record {
        let cells: Vec<BTreeMap<&str, Cell>> =
            runs.iter().map(|run| cells(run.records, expectations)).collect();
        // What belongs to no test, such as a splat between two of them, has a row too.
        let functions: BTreeMap<&str, &str> =
            tests.iter().map(|test| (test.name.as_str(), test.function.as_str())).collect();
        let strays = cells.iter().flat_map(BTreeMap::keys).map(|name| (*name, *name));
        let names: BTreeMap<&str, &str> = strays.chain(functions).collect();
        let mut rows: BTreeMap<Vec<Cell>, BTreeMap<String, Vec<String>>> = BTreeMap::new();
        for (name, function) in names {
            let of_kernel =
                |cells: &BTreeMap<&str, Cell>| cells.get(name).cloned().unwrap_or(Cell::NotRun);
            let outcomes = cells.iter().map(of_kernel).collect();
            let case = name[function.len()..].trim_start_matches("::").to_owned();
            rows.entry(outcomes).or_default().entry(function.to_owned()).or_default().push(case);
        }
        let mut rows: Vec<Row> =
            rows.into_iter().map(|(outcomes, tests)| Row { outcomes, tests }).collect();
        rows.sort_by(|one, other| one.tests.keys().cmp(other.tests.keys()));
        Record { kernels: columns(runs), missing: missing.to_vec(), rows }
    }

    /// As it is written to a file.
    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data has a JSON form");
        text.push('\n');
        text
    }
}

fn columns(runs: &[Run<'_>]) -> Vec<Column> {
    let is_alone = |kernel: &Kernel| {
        runs.iter().filter(|run| run.kernel.version == kernel.version).count() == 1
    };
    let column = |Run { kernel, .. }: &Run<'_>| Column {
        name: if is_alone(kernel) { kernel.version.to_string() } else { kernel.name.clone() },
        release: kernel.release.clone(),
        origin: kernel.origin.clone(),
    };
    runs.iter().map(column).collect()
}

/// The ending of each test; of one that ran more than once, because a culprit was looked for, the gravest.
fn cells<'a>(records: &'a [TestRecord], expectations: &Expectations) -> BTreeMap<&'a str, Cell> {
    let mut gravest: BTreeMap<&str, &TestRecord> = BTreeMap::new();
    for record in records {
        let slot = gravest.entry(&record.name).or_insert(record);
        let weight = |record: &TestRecord| (is_new(record), record.outcome.gravity());
        if weight(record) > weight(slot) {
            *slot = record;
        }
    }
    gravest.into_iter().map(|(name, record)| (name, Cell::of(record, expectations))).collect()
}

fn is_new(record: &TestRecord) -> bool {
    record.verdict == Verdict::New
}

impl Cell {
    fn of(record: &TestRecord, expectations: &Expectations) -> Cell {
        match &record.verdict {
            Verdict::Passed | Verdict::Fixed(_) => Cell::Pass,
            Verdict::Skipped => Cell::Skip(needs::skip_reason(&record.outcome.reason()).to_owned()),
            Verdict::Known(reason) => {
                let kernel = expectations.range_of(&record.name, reason).unwrap_or_default();
                Cell::Known { reason: reason.clone(), kernel: kernel.to_owned() }
            }
            Verdict::New => Cell::New(record.outcome.name().to_owned()),
            Verdict::Accident => Cell::Accident,
        }
    }
}

impl Row {
    /// Whether its tests ended otherwise on one kernel than on another.
    pub(super) fn differs(&self) -> bool {
        self.outcomes.iter().any(|cell| *cell != self.outcomes[0])
    }

    /// How many tests it stands for.
    pub(super) fn count(&self) -> usize {
        self.tests.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use guest_protocol::needs::{Class, Needs};

    use super::*;
    use crate::outcome::Outcome;

    fn test(name: &str, function: &str) -> Test {
        let [name, function] = [name, function].map(str::to_owned);
        Test { name, function, class: Class::Contract, needs: Needs::DEFAULT }
    }

    fn record(name: &str, outcome: Outcome, verdict: Verdict) -> TestRecord {
        let record = TestRecord::without_run(name.to_owned(), Class::Contract, outcome);
        TestRecord { verdict, ..record }
    }

    fn kernel(release: &str, name: &str) -> Kernel {
        let mut kernel = Kernel::for_test(release, Path::new(""), "");
        kernel.name = name.to_owned();
        kernel
    }

    #[test]
    fn tests_that_end_alike_share_a_row_and_a_reason_has_no_release_in_it() {
        let tests = ["a::f::case_1", "a::f::case_2", "a::g"]
            .map(|name| test(name, if name.starts_with("a::f") { "a::f" } else { name }));
        let skipped = |name, release| {
            let reason = format!("needs Linux 7.1 or newer: this is {release}");
            record(name, Outcome::Skip(reason), Verdict::Skipped)
        };
        let pass = |name| record(name, Outcome::Pass, Verdict::Passed);
        let old = |release| {
            vec![skipped("a::f::case_1", release), skipped("a::f::case_2", release), pass("a::g")]
        };
        let (one, two) = (kernel("6.12.1", "6.12.1"), kernel("6.18.1", "6.18.1"));
        let records = [old("6.12.1"), old("6.18.1")];
        let runs = [
            Run { kernel: &one, records: &records[0] },
            Run { kernel: &two, records: &records[1] },
        ];
        let made = Record::of(&tests, &runs, &[], &Expectations::default());
        let skip = Cell::Skip("needs Linux 7.1 or newer".to_owned());
        assert_eq!(made.rows.len(), 2);
        assert_eq!(made.rows[0].outcomes, [skip.clone(), skip]);
        assert_eq!(made.rows[0].tests["a::f"], ["case_1", "case_2"]);
        assert_eq!((made.rows[0].count(), made.rows[1].count()), (2, 1));
        assert_eq!(made.rows[1].tests["a::g"], [""]);
    }

    /// A splat between tests is nobody's, and a culprit that was looked for ran twice.
    #[test]
    fn what_belongs_to_no_test_is_in_a_row_and_the_gravest_of_several_runs_counts() {
        let splat = || Outcome::KernelSplat("WARNING: x".to_owned());
        let records = [
            record("a::f", splat(), Verdict::New),
            record("a::f", Outcome::Pass, Verdict::Passed),
            record("(boot)", splat(), Verdict::New),
        ];
        let kernel = kernel("7.2.1", "7.2.1");
        let tests = [test("a::f", "a::f"), test("a::g", "a::g")];
        let runs = [Run { kernel: &kernel, records: &records }];
        let made = Record::of(&tests, &runs, &[], &Expectations::default());
        let bad = &made.rows[0];
        assert_eq!(bad.outcomes, [Cell::New("kernel-splat".to_owned())]);
        assert_eq!(Vec::from_iter(bad.tests.keys()), ["(boot)", "a::f"]);
        assert_eq!(made.rows[1].outcomes, [Cell::NotRun]);
    }

    #[test]
    fn kernels_of_one_version_are_called_by_their_names() {
        let kernels = [
            kernel("7.2.12", "source"),
            kernel("7.2.12", "patched"),
            kernel("7.3.4", "stock-next"),
        ];
        let runs = kernels.each_ref().map(|kernel| Run { kernel, records: &[] });
        let names = columns(&runs).into_iter().map(|column| column.name);
        assert_eq!(Vec::from_iter(names), ["source", "patched", "7.3.4"]);
    }
}
