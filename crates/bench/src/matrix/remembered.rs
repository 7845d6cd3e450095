//! What is kept of a test that ended well, or in a way an entry of the expectations can explain.

use serde::{Deserialize, Serialize};

use crate::{
    outcome::{Outcome, TestRecord, Verdict},
    plan::Test,
};

/// How a test ended. Whether that is known is judged anew each time: the expectations may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Remembered {
    outcome: Ending,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<Ending>,
}

/// The outcomes that can be worth keeping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Ending {
    Pass,
    Skip(String),
    Fail(String),
    KernelSplat(String),
    GuestPanic(String),
    Hang(String),
}

impl Remembered {
    /// What is kept of a record, with the test's name. Nothing is of a failure nobody knows: it may have
    /// been an accident of the host's, and is tried again.
    pub(super) fn of(record: &TestRecord) -> Option<(String, Remembered)> {
        if record.verdict == Verdict::New {
            return None;
        }
        let outcome = Ending::of(&record.outcome)?;
        let also = record.also.iter().map(Ending::of).collect::<Option<Vec<Ending>>>()?;
        Some((record.name.clone(), Remembered { outcome, also }))
    }

    /// The record of a test, not judged.
    pub(super) fn record(&self, test: &Test) -> TestRecord {
        let outcome = self.outcome.outcome();
        let also = self.also.iter().map(Ending::outcome).collect();
        TestRecord { also, ..TestRecord::without_run(test.name.clone(), test.class, outcome) }
    }
}

impl Ending {
    fn of(outcome: &Outcome) -> Option<Ending> {
        Some(match outcome {
            Outcome::Pass => Ending::Pass,
            Outcome::Skip(text) => Ending::Skip(text.clone()),
            Outcome::Fail(text) => Ending::Fail(text.clone()),
            Outcome::KernelSplat(text) => Ending::KernelSplat(text.clone()),
            Outcome::GuestPanic(text) => Ending::GuestPanic(text.clone()),
            Outcome::Hang(text) => Ending::Hang(text.clone()),
            Outcome::TargetDied(_)
            | Outcome::VmDied(_)
            | Outcome::BootTimeout(_)
            | Outcome::BenchError(_) => return None,
        })
    }

    fn outcome(&self) -> Outcome {
        match self.clone() {
            Ending::Pass => Outcome::Pass,
            Ending::Skip(text) => Outcome::Skip(text),
            Ending::Fail(text) => Outcome::Fail(text),
            Ending::KernelSplat(text) => Outcome::KernelSplat(text),
            Ending::GuestPanic(text) => Outcome::GuestPanic(text),
            Ending::Hang(text) => Outcome::Hang(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::needs::{Class, Needs};

    use super::*;

    fn record(outcome: Outcome, also: Vec<Outcome>, verdict: Verdict) -> TestRecord {
        let record = TestRecord::without_run("a::b".to_owned(), Class::Quirk, outcome);
        TestRecord { also, verdict, ..record }
    }

    #[test]
    fn what_is_remembered_comes_back_and_a_new_failure_is_not() {
        let splat = || Outcome::KernelSplat("WARNING: x".to_owned());
        let fail = || Outcome::Fail("1 != 2".to_owned());
        let known = record(splat(), vec![fail()], Verdict::Known("so".to_owned()));
        let (name, kept) = Remembered::of(&known).expect("it is known");
        let json = serde_json::to_string(&kept).expect("plain data");
        let kept: Remembered = serde_json::from_str(&json).expect("what was written");
        let (function, class) = (name.clone(), Class::Quirk);
        let back = kept.record(&Test { name, function, class, needs: Needs::DEFAULT });
        assert_eq!((back.name, back.class), ("a::b".to_owned(), Class::Quirk));
        assert_eq!((back.outcome, back.also), (splat(), vec![fail()]));
        assert_eq!(Remembered::of(&record(fail(), Vec::new(), Verdict::New)), None);
    }
}
