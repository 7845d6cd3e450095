//! JUnit XML.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::details;
use crate::outcome::{TestRecord, Verdict};

/// The run as one suite. Known defects and accidents are skips with their reason: a reader of JUnit
/// has no third colour.
pub fn junit(records: &[TestRecord], kernel: &str) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("sensecheck");
    let mut suite = TestSuite::new(kernel);
    for record in records {
        suite.add_test_case(case(record));
    }
    report.add_test_suite(suite);
    report.to_string()
}

fn case(record: &TestRecord) -> TestCase {
    let mut status = match &record.verdict {
        Verdict::Passed | Verdict::Fixed(_) => TestCaseStatus::success(),
        Verdict::Skipped | Verdict::Known(_) | Verdict::Accident => TestCaseStatus::skipped(),
        Verdict::New => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    let reason = match &record.verdict {
        Verdict::Known(why) | Verdict::Fixed(why) => why.clone(),
        _ => record.outcome.reason(),
    };
    if record.verdict != Verdict::Passed {
        status.set_message(reason);
    }
    if record.outcome.is_bad() {
        status.set_type(record.outcome.name()).set_description(details::output(record));
    }
    let (class, _) = record.name.rsplit_once("::").unwrap_or(("", &record.name));
    let mut case = TestCase::new(record.name.clone(), status);
    case.set_classname(class).set_time(Duration::from_micros(record.total_us));
    if record.outcome.is_bad() {
        case.set_system_out(details::timeline(record)).set_system_err(record.stacks.clone());
    }
    case
}

#[cfg(test)]
mod tests {
    use guest_protocol::needs::Class;

    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn a_failure_is_a_failure_and_a_known_one_is_not() {
        let record = |verdict| TestRecord {
            verdict,
            ..TestRecord::without_run(
                "a::b".into(),
                Class::Contract,
                Outcome::Fail("why & how".into()),
            )
        };
        let text = junit(&[record(Verdict::New), record(Verdict::Known("bug".into()))], "7.2");
        let text = text.expect("serializes");
        assert!(text.contains("tests=\"2\" skipped=\"1\" errors=\"0\" failures=\"1\""), "{text}");
        assert!(text.contains("message=\"why &amp; how\""), "{text}");
        assert!(text.contains("type=\"fail\""), "{text}");
    }
}
