//! What happened to a request, on one clock: what the application asked and got, what the server of a bridge saw, what
//! the target did.

use std::{cmp::Reverse, time::Instant};

use bridge::log::{Event, Seen, ended};
use control::JournalEntry;

/// Collects what an application does, and tells it with what others saw.
#[derive(Debug)]
pub struct Timeline {
    begin: Instant,
    application: Vec<(Instant, String)>,
}

/// Microseconds since the beginning, and who says what.
type Line = (i64, &'static str, String);

impl Timeline {
    /// Time begins now.
    #[must_use]
    pub fn begin() -> Self {
        Timeline { begin: Instant::now(), application: Vec::new() }
    }

    /// The application does something, or gets something, now.
    pub fn application(&mut self, words: impl Into<String>) {
        self.application.push((Instant::now(), words.into()));
    }

    /// Everything in its order, a line each: time, who, what. `journal` is what the target did in the order of its
    /// answers, by a clock of its own; `seen` is what the server saw.
    #[must_use]
    pub fn told(&self, seen: &[Event], journal: &[JournalEntry]) -> Vec<String> {
        let mut lines: Vec<Line> = Vec::new();
        for (at, words) in &self.application {
            lines.push((self.micros(*at), "application", words.clone()));
        }
        for event in seen {
            lines.push((self.micros(event.at), "server", event.what.to_string()));
        }
        let behind = self.target_clock(seen, journal);
        for entry in journal {
            let at = i64::try_from(entry.completed_us).expect("a time") - behind;
            lines.push((at, "target", of_target(entry)));
        }
        lines.sort_by_key(|(at, ..)| *at);
        let line =
            |(at, who, words)| format!("{:>9}.{:03} ms  {who:<11}  {words}", at / 1000, at % 1000);
        lines.into_iter().map(line).collect()
    }

    fn micros(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.begin).as_micros()).expect("a short time")
    }

    /// By how much the target's clock is ahead of this one. A command is sent before it is fetched, and completed before
    /// it is answered; of all differences that make it so this is the middle one.
    fn target_clock(&self, seen: &[Event], journal: &[JournalEntry]) -> i64 {
        let times = |wanted: fn(&Seen) -> bool| {
            seen.iter().filter(move |event| wanted(&event.what)).map(|event| self.micros(event.at))
        };
        let sent: Vec<i64> = times(|what| matches!(what, Seen::Sent { .. })).collect();
        let answered: Vec<i64> = times(|what| matches!(what, Seen::Answered { .. })).collect();
        let time = |us: u64| i64::try_from(us).expect("a time");
        let mut fetched: Vec<i64> = journal.iter().map(|entry| time(entry.fetched_us)).collect();
        let mut completed: Vec<i64> =
            journal.iter().map(|entry| time(entry.completed_us)).collect();
        fetched.sort_unstable();
        completed.sort_unstable();
        // A unit that is busy is asked more often than the server asks: then the first and the last are what is known.
        if fetched.len() > sent.len() {
            fetched.truncate(1);
            completed.sort_unstable_by_key(|at| Reverse(*at));
            completed.truncate(1);
            let last = answered.last().copied();
            return middle(
                fetched.iter().zip(&sent).map(|(fetched, sent)| fetched - sent).min(),
                completed.iter().zip(last).map(|(completed, answered)| completed - answered).max(),
            );
        }
        middle(
            fetched.iter().zip(&sent).map(|(fetched, sent)| fetched - sent).min(),
            completed.iter().zip(&answered).map(|(completed, answered)| completed - answered).max(),
        )
    }
}

fn middle(most: Option<i64>, least: Option<i64>) -> i64 {
    match (most, least) {
        (Some(most), Some(least)) => i64::midpoint(most, least),
        (one, other) => one.or(other).unwrap_or(0),
    }
}

/// READ and WRITE (10) (SBC-3): LOGICAL BLOCK ADDRESS from byte 2, TRANSFER LENGTH from byte 7.
fn place(cdb: &str) -> Option<String> {
    let field = |at: usize, digits: usize| u32::from_str_radix(cdb.get(at..at + digits)?, 16).ok();
    match cdb.get(..2)? {
        "28" | "2a" => Some(format!(", {} blocks at {}", field(14, 4)?, field(4, 8)?)),
        _ => None,
    }
}

fn of_target(entry: &JournalEntry) -> String {
    let mut words = format!("{}{}: ", entry.command, place(&entry.cdb).unwrap_or_default());
    let byte = |at: usize| u8::from_str_radix(&entry.sense[at..at + 2], 16).expect("hex");
    let sense: Vec<u8> = (0..entry.sense.len()).step_by(2).map(byte).collect();
    words += &match entry.response {
        0 => ended(entry.status, &sense, entry.residual),
        other => format!("response {other}"),
    };
    if let Some(rule) = &entry.rule {
        words += &format!("  (fault: {rule})");
    }
    words
}

/// What a line says, without its time.
///
/// # Panics
/// If it is no line of [`Timeline::told`].
#[must_use]
pub fn without_time(line: &str) -> &str {
    line.split_once(" ms  ").expect("a line has a time").1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bridge::verdict::Verdict;

    use super::*;

    fn entry(fetched_us: u64, completed_us: u64, residual: u32) -> JournalEntry {
        JournalEntry {
            arrival: 0,
            fetched_us,
            completed_us,
            tag: 0,
            nexus: 0,
            held: false,
            rule: (residual > 0).then(|| "short".to_owned()),
            command: "READ(10)".into(),
            cdb: "28000000006000000800".into(),
            data_out_len: 0,
            data_in_len: 4096,
            status: 0,
            sense: String::new(),
            residual,
            response: 0,
        }
    }

    #[test]
    fn clocks_are_told_apart_by_what_causes_what() {
        let mut timeline = Timeline::begin();
        let begin = timeline.begin;
        let at = |ms| begin + Duration::from_millis(ms);
        timeline.application = vec![(at(0), "reads".into()), (at(50), "gets 4096 bytes".into())];
        let answered = |residual| Seen::Answered {
            host_status: 0,
            status: 0,
            sense: Vec::new(),
            residual,
            verdict: Verdict::Done(4096 - residual),
        };
        let sent = || Seen::Sent { cdb: vec![0x28, 0, 0, 0, 0, 0x60, 0, 0, 8, 0] };
        let event = |ms, what| Event { at: at(ms), queue: 0, tag: 0, what };
        let seen = [
            event(10, sent()),
            event(20, answered(512)),
            event(30, sent()),
            event(40, answered(0)),
        ];
        // A clock that is an hour ahead.
        let journal =
            [entry(3_600_012_000, 3_600_018_000, 512), entry(3_600_034_000, 3_600_036_000, 0)];
        let told = timeline.told(&seen, &journal);
        assert_eq!(
            told,
            [
                "        0.000 ms  application  reads",
                "       10.000 ms  server       sends READ(10)",
                "       18.000 ms  target       READ(10), 8 blocks at 96: GOOD, 512 bytes missing  (fault: short)",
                "       20.000 ms  server       GOOD, 512 bytes missing",
                "       30.000 ms  server       sends READ(10)",
                "       36.000 ms  target       READ(10), 8 blocks at 96: GOOD",
                "       40.000 ms  server       GOOD",
                "       50.000 ms  application  gets 4096 bytes",
            ]
        );
        assert_eq!(without_time(&told[0]), "application  reads");
        // Three attempts of the kernel's for one command of the server's.
        let retried =
            [entry(12_000, 13_000, 0), entry(14_000, 15_000, 0), entry(36_000, 39_000, 0)];
        let seen = [event(10, sent()), event(40, answered(0))];
        let told = timeline.told(&seen, &retried);
        let targets = told.iter().filter(|line| line.contains("target ")).count();
        assert!(told[1].contains("sends") && told[5].contains("GOOD") && targets == 3, "{told:?}");
    }
}
