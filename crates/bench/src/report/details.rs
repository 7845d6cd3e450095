//! Everything that helps with one bad test, as text: message, output, timeline, stacks, repro.

use std::fmt::Write as _;

use crate::{outcome::TestRecord, scheduler::Options};

/// libtest's own lines say nothing that the outcome does not.
const NOISE: [&str; 4] =
    ["running 1 test", "test result: ", "failures:", "note: run with `RUST_BACKTRACE"];

/// What the test printed, without libtest's frame.
pub(super) fn output(record: &TestRecord) -> String {
    let frame = format!("test {} ... ", record.name);
    let repeated = format!("    {}", record.name);
    let lines = record.output.lines().map(|line| line.strip_prefix(&frame).unwrap_or(line));
    let own = lines.filter(|line| {
        let noise = NOISE.iter().any(|noise| line.starts_with(noise));
        !noise && *line != repeated && !matches!(line.trim(), "" | "ok" | "FAILED")
    });
    own.collect::<Vec<_>>().join("\n")
}

/// Kernel log and target journals in one sequence on one clock, in milliseconds since the first line.
pub(super) fn timeline(record: &TestRecord) -> String {
    let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    let kernel = record.kernel.iter().map(|line| {
        (
            signed(line.at_us).saturating_add(record.clock_offset_us),
            format!("kernel     {}", line.text),
        )
    });
    let mut lines: Vec<(i64, String)> = kernel.collect();
    for (address, page) in &record.journals {
        let place = format!("target {}:{}", address.target, address.lun);
        if page.dropped > 0 {
            lines.push((i64::MIN, format!("{place} {} older commands dropped", page.dropped)));
        }
        for entry in &page.entries {
            let mut text = format!("{place} {} cdb {}", entry.command, entry.cdb);
            let lengths = (entry.data_out_len, entry.data_in_len, entry.residual);
            write!(text, " out {} in {} residual {}", lengths.0, lengths.1, lengths.2)
                .and_then(|()| {
                    write!(text, " → status {:02x} response {}", entry.status, entry.response)
                })
                .expect("a String takes everything");
            if !entry.sense.is_empty() {
                text.push_str(&format!(" sense {}", entry.sense));
            }
            if entry.held {
                text.push_str(" (was held)");
            }
            lines.push((signed(entry.fetched_us), text));
        }
        for entry in &page.task_management {
            let (function, tag, response) = (&entry.function, entry.tag, entry.response);
            let held = if entry.held { " (was held)" } else { "" };
            let text = format!("{place} {function} tag {tag:#x} → response {response}{held}");
            lines.push((signed(entry.fetched_us), text));
        }
        for entry in &page.held {
            let text = format!("{place} {} tag {:#x}, still held", entry.name, entry.tag);
            lines.push((signed(entry.fetched_us), text));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    let first = lines.iter().map(|(at, _)| *at).find(|at| *at != i64::MIN).unwrap_or(0);
    let mut text = String::new();
    for same in lines.chunk_by(|(_, a), (_, b)| a == b) {
        let (at, line) = &same[0];
        let since = at.saturating_sub(first).max(0);
        let times =
            if same.len() > 1 { format!("  ({} times)", same.len()) } else { String::new() };
        writeln!(text, "{:>6}.{:03} ms  {line}{times}", since / 1000, since % 1000)
            .expect("a String takes everything");
    }
    text
}

/// The command that runs this test again as it was run.
pub(super) fn repro(record: &TestRecord, options: &Options) -> String {
    let words = &options.repro;
    format!("cargo xtask vm-test --exact '{}' --seed {}{words}", record.name, options.seed)
}
