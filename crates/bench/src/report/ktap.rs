//! KTAP, the kernel's own test protocol (Documentation/dev-tools/ktap.rst).

use std::fmt::Write as _;

use super::details;
use crate::outcome::{TestRecord, Verdict};

/// The run as a flat KTAP document.
pub fn ktap(records: &[TestRecord]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", records.len());
    for (number, record) in (1..).zip(records) {
        write_case(&mut text, number, record).expect("a String takes everything");
    }
    text
}

fn write_case(text: &mut String, number: usize, record: &TestRecord) -> std::fmt::Result {
    let (result, directive) = match &record.verdict {
        Verdict::Passed => ("ok", String::new()),
        Verdict::Skipped => ("ok", format!(" # SKIP {}", record.outcome.reason())),
        Verdict::Fixed(why) => ("ok", format!(" # fixed: {why}")),
        // XFAIL is KTAP's word for a failure that was expected.
        Verdict::Known(why) => ("ok", format!(" # XFAIL {why}")),
        Verdict::Accident => ("ok", " # XFAIL accident of another kernel's behaviour".into()),
        Verdict::New => ("not ok", String::new()),
    };
    if record.outcome.is_bad() {
        writeln!(text, "# {}: {}", record.outcome.name(), one_line(&record.outcome.reason()))?;
        for line in details::output(record).lines().chain(details::timeline(record).lines()) {
            writeln!(text, "# {line}")?;
        }
    }
    // `#` begins a directive, so it may not be part of a name.
    let name = record.name.replace('#', "_");
    writeln!(text, "{result} {number} {name}{}", one_line(&directive))
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use guest_protocol::needs::Class;

    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn lines_follow_the_kernels_document() {
        let record = |outcome, verdict| TestRecord {
            verdict,
            ..TestRecord::without_run("a::b".into(), Class::Contract, outcome)
        };
        let records = [
            record(Outcome::Pass, Verdict::Passed),
            record(Outcome::Skip("no disk".into()), Verdict::Skipped),
            record(Outcome::Fail("x\ny".into()), Verdict::New),
        ];
        let expected = "KTAP version 1\n1..3\n\
            ok 1 a::b\n\
            ok 2 a::b # SKIP no disk\n\
            # fail: x y\n\
            not ok 3 a::b\n";
        assert_eq!(ktap(&records), expected);
    }
}
