//! The expectations file: known defects of kernels, with range, reason and evidence.

use std::{fs, iter, path::Path};

use guest_protocol::needs::Class;
use serde::Deserialize;

use crate::outcome::{Outcome, TestRecord, Verdict};
use kernel::{Kernel, manifest::Version};

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExpectationsError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not understood.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// An entry contradicts itself.
    #[error("{path}: entry for {test:?}: {reason}")]
    Entry {
        /// The file.
        path: String,
        /// The entry's pattern.
        test: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expectations {
    #[serde(default)]
    known: Vec<Known>,
}

/// One known defect.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Known {
    /// Test name, `*` standing for any characters; without it any test.
    #[serde(default = "any")]
    test: String,
    /// Text within the headline of the splat; without it the entry is about the test's failure.
    splat: Option<String>,
    /// Versions it applies to: comparisons joined by commas, all of which must hold.
    kernel: String,
    /// A configuration symbol without which the defect does not show.
    config: Option<String>,
    /// What is wrong in the kernel.
    reason: String,
    /// How one can see that the kernel, not the test, is wrong.
    evidence: String,
}

fn any() -> String {
    "*".into()
}

impl Expectations {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ExpectationsError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| ExpectationsError::Read { path: name.clone(), source })?;
        Self::parse(&text, name)
    }

    fn parse(text: &str, path: String) -> Result<Self, ExpectationsError> {
        let parsed: Expectations = toml::from_str(text).map_err(|source| {
            ExpectationsError::Parse { path: path.clone(), source: source.into() }
        })?;
        for known in &parsed.known {
            let entry = |reason: String| ExpectationsError::Entry {
                path: path.clone(),
                test: known.test.clone(),
                reason,
            };
            range_holds(&known.kernel, Version { major: 0, minor: 0, patch: 0 }).map_err(entry)?;
            if known.reason.trim().is_empty() || known.evidence.trim().is_empty() {
                return Err(entry("reason and evidence must say something".into()));
            }
            if known.splat.is_none() && known.test == "*" {
                return Err(entry("it excuses every test: name a test or a splat".into()));
            }
        }
        Ok(parsed)
    }

    /// Holds a record against the file and sets its verdict. Of several things that went wrong the
    /// first that nothing excuses becomes the record's outcome.
    pub fn judge(&self, record: &mut TestRecord, kernel: &Kernel) {
        self.judge_on(record, kernel.version, |symbol| kernel.config_has(symbol));
    }

    /// The kernel versions of the entry that gives this reason for a test's known failure.
    pub fn range_of(&self, test: &str, reason: &str) -> Option<&str> {
        let entry =
            self.known.iter().find(|known| matches(&known.test, test) && known.reason == reason);
        entry.map(|known| known.kernel.as_str())
    }

    fn judge_on(
        &self,
        record: &mut TestRecord,
        version: Version,
        config_has: impl Fn(&str) -> bool,
    ) {
        let applies = |known: &&Known| {
            matches(&known.test, &record.name)
                && range_holds(&known.kernel, version) == Ok(true)
                && known.config.as_ref().is_none_or(|symbol| config_has(symbol))
        };
        let known: Vec<&Known> = self.known.iter().filter(applies).collect();
        record.verdict = match &record.outcome {
            Outcome::Skip(_) => Verdict::Skipped,
            // An entry for several tests says nothing about a particular one that passes.
            Outcome::Pass => match known.iter().find(|known| !known.test.contains('*')) {
                Some(known) => Verdict::Fixed(known.reason.clone()),
                None => Verdict::Passed,
            },
            _ => judge_bad(record, &known),
        };
    }
}

/// The verdict on a record of which something went wrong.
fn judge_bad(record: &mut TestRecord, known: &[&Known]) -> Verdict {
    let verdict = |outcome: &Outcome| match known.iter().find(|known| known.explains(outcome)) {
        Some(known) => Verdict::Known(known.reason.clone()),
        None if record.class == Class::Accident && matches!(outcome, Outcome::Fail(_)) => {
            Verdict::Accident
        }
        None => Verdict::New,
    };
    let verdicts: Vec<Verdict> =
        iter::once(&record.outcome).chain(&record.also).map(verdict).collect();
    let first = |wanted: Verdict| verdicts.iter().position(|verdict| *verdict == wanted);
    let gravest = first(Verdict::New).or_else(|| first(Verdict::Accident)).unwrap_or(0);
    if let Some(other) = gravest.checked_sub(1) {
        std::mem::swap(&mut record.outcome, &mut record.also[other]);
    }
    verdicts[gravest].clone()
}

impl Known {
    fn explains(&self, outcome: &Outcome) -> bool {
        match (&self.splat, outcome) {
            (Some(text), Outcome::KernelSplat(line) | Outcome::GuestPanic(line)) => {
                line.contains(text.as_str())
            }
            (None, Outcome::Fail(_) | Outcome::Hang(_)) => true,
            _ => false,
        }
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| matches(tail, &rest[at..]))
        }),
    }
}

/// Whether a version lies within a range such as `>=7.1, <7.2.14`.
fn range_holds(range: &str, version: Version) -> Result<bool, String> {
    let mut holds = true;
    for comparison in range.split(',').map(str::trim) {
        let digits = comparison.find(|c: char| c.is_ascii_digit()).unwrap_or(comparison.len());
        let (operator, bound) = comparison.split_at(digits);
        let bound =
            Version::of_release(bound).ok_or_else(|| format!("{comparison:?} names no version"))?;
        holds &= match operator.trim() {
            ">=" => version >= bound,
            ">" => version > bound,
            "<" => version < bound,
            "<=" => version <= bound,
            "=" => version == bound,
            other => return Err(format!("{other:?} is none of >= > < <= =")),
        };
    }
    Ok(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_ranges() {
        assert!(matches("ublk::*", "ublk::server::killed"));
        assert!(matches("*zero_copy*", "ublk::zero_copy::read"));
        assert!(!matches("ublk::*::x", "ublk::x"));
        assert!(!matches("ublk", "ublk::x"));
        let holds =
            |range, version| range_holds(range, Version::of_release(version).expect("a version"));
        assert_eq!(holds(">=7.1, <7.2.14", "7.2.12+deb13-cloud-amd64"), Ok(true));
        assert_eq!(holds(">=7.1, <7.2.14", "7.2.14"), Ok(false));
        assert_eq!(holds("=7.3", "7.3-rc1"), Ok(true));
        assert!(holds("7.1", "7.1").is_err());
    }

    fn judged(file: &str, class: Class, outcomes: &[Outcome]) -> TestRecord {
        let file = Expectations::parse(file, "file".into()).expect("a good file");
        let mut record = TestRecord::without_run("a::b".into(), class, outcomes[0].clone());
        record.also = outcomes[1..].to_vec();
        let version = Version { major: 7, minor: 2, patch: 13 };
        file.judge_on(&mut record, version, |_| true);
        record
    }

    const KNOWN_SPLAT: &str = "[[known]]\ntest = 'a::*'\nsplat = 'UBSAN: x'\nkernel = '>=7.0'\n\
        reason = 'r'\nevidence = 'e'\n";

    #[test]
    fn a_known_splat_excuses_no_other_splat_and_no_failed_assertion() {
        let known = Outcome::KernelSplat("UBSAN: x in y".into());
        let record = judged(KNOWN_SPLAT, Class::Contract, std::slice::from_ref(&known));
        assert_eq!(record.verdict, Verdict::Known("r".into()));
        for other in [Outcome::KernelSplat("WARNING: z".into()), Outcome::Fail("1 != 2".into())] {
            let record = judged(KNOWN_SPLAT, Class::Contract, &[known.clone(), other.clone()]);
            assert_eq!((record.verdict, record.outcome), (Verdict::New, other));
            assert_eq!(record.also, std::slice::from_ref(&known));
        }
    }

    #[test]
    fn only_a_failed_assertion_is_an_accident() {
        let fail = Outcome::Fail("1 != 2".into());
        let record = judged("", Class::Accident, std::slice::from_ref(&fail));
        assert_eq!(record.verdict, Verdict::Accident);
        let warning = Outcome::KernelSplat("WARNING: z".into());
        for grave in [warning, Outcome::BenchError("no room".into()), Outcome::Hang("late".into())]
        {
            assert_eq!(judged("", Class::Accident, &[grave]).verdict, Verdict::New);
        }
    }

    #[test]
    fn only_an_entry_for_one_test_can_be_out_of_date_by_its_pass() {
        let record = judged(KNOWN_SPLAT, Class::Contract, &[Outcome::Pass]);
        assert_eq!(record.verdict, Verdict::Passed);
        let exact = KNOWN_SPLAT.replace("a::*", "a::b");
        let record = judged(&exact, Class::Contract, &[Outcome::Pass]);
        assert_eq!(record.verdict, Verdict::Fixed("r".into()));
    }

    #[test]
    fn the_range_is_that_of_the_entry_that_gave_the_reason() {
        let other = KNOWN_SPLAT.replace("'r'", "'s'").replace(">=7.0", ">=7.3");
        let file = Expectations::parse(&format!("{KNOWN_SPLAT}{other}"), "file".into());
        let file = file.expect("a good file");
        assert_eq!(file.range_of("a::b", "r"), Some(">=7.0"));
        assert_eq!(file.range_of("a::b", "s"), Some(">=7.3"));
        assert_eq!(file.range_of("b", "s"), None);
    }

    #[test]
    fn an_entry_without_evidence_or_for_everything_is_refused() {
        let parse = |text: &str| Expectations::parse(text, "file".into());
        let whole = "[[known]]\ntest = 'a'\nkernel = '>=7.0'\nreason = 'r'\nevidence = 'e'\n";
        assert!(parse(whole).is_ok());
        assert!(parse(&whole.replace("'e'", "''")).is_err());
        assert!(parse(&whole.replace("'a'", "'*'")).is_err());
        assert!(parse(&whole.replace(">=7.0", "about 7.0")).is_err());
        let typo = parse(&whole.replace("reason", "raeson")).expect_err("unknown key").to_string();
        assert!(typo.contains("raeson") && typo.contains("reason"), "{typo}");
    }
}
