//! The expectations file: known defects of kernels, with range, reason and evidence.

use std::{fs, path::Path};

use guest_protocol::needs::Class;
use serde::Deserialize;

use crate::{
    kernel::{Kernel, manifest::Version},
    outcome::{Outcome, TestRecord, Verdict},
};

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
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expectations {
    #[serde(default)]
    known: Vec<Known>,
}

/// One known defect.
#[derive(Debug, Deserialize)]
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

    /// Holds a record against the file and sets its verdict.
    pub fn judge(&self, record: &mut TestRecord, kernel: &Kernel) {
        let applies = |known: &&Known| {
            matches(&known.test, &record.name)
                && range_holds(&known.kernel, kernel.version) == Ok(true)
                && known.config.as_ref().is_none_or(|symbol| kernel.config_has(symbol))
        };
        let mut known = self.known.iter().filter(applies);
        record.verdict = match &record.outcome {
            Outcome::Skip(_) => Verdict::Skipped,
            // A splat entry for any test says nothing about a particular test that passes.
            Outcome::Pass => match known.find(|known| known.test != "*") {
                Some(known) => Verdict::Fixed(known.reason.clone()),
                None => Verdict::Passed,
            },
            outcome => match known.find(|known| known.explains(outcome)) {
                Some(known) => Verdict::Known(known.reason.clone()),
                None if record.class == Class::Accident => Verdict::Accident,
                None => Verdict::New,
            },
        };
    }
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
