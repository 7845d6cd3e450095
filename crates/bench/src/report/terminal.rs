//! The user's screen.

use std::{io::Write as _, time::Duration};

use guest_protocol::{
    message::Hello,
    needs::{Needs, ScsiHost},
};

use super::details;
use host::progress::Task;
use kernel::Kernel;

use crate::{
    compare::{Change, Comparison},
    outcome::{Outcome, TestRecord, Verdict},
    plan::Test,
    scheduler::Options,
    session::BootTimes,
};

/// Prints a line. Whoever reads may have gone, as in `vm-test | head`: the run goes on.
macro_rules! say {
    ($($arg:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

/// Prints a run as it happens.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    /// Whether runs are told about.
    verbose: bool,
    /// Where runs are counted instead, beside what fails.
    count: Option<Count>,
}

/// How far a run has come.
#[derive(Debug)]
struct Count {
    task: Task,
    done: usize,
    of: usize,
}

/// ANSI colours of the verdicts.
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// Standard output, coloured if it is a terminal.
    pub fn new() -> Self {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let color = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Terminal { color, verbose: true, count: None }
    }

    /// Nothing is said of how runs go from now on, for a command with runs for its details.
    pub fn mute(&mut self) {
        self.verbose = false;
    }

    /// From now on until [`Terminal::counted`], `task` says how many of `of` tests are done; only what
    /// fails is told in full.
    pub fn count(&mut self, task: Task, of: usize) {
        self.count = Some(Count { task, done: 0, of });
    }

    /// The end of a run that was counted.
    pub fn counted(&mut self) {
        self.count = None;
    }

    /// A line of a command's own.
    pub fn line(&self, text: &str) {
        say!("{text}");
    }

    /// A remark that belongs to no test.
    pub fn note(&self, text: &str) {
        match &self.count {
            Some(Count { task, .. }) => task.aside(|| say!("note: {text}")),
            None if self.verbose => say!("note: {text}"),
            None => {}
        }
    }

    /// A text of several lines.
    pub fn text(&self, text: &str) {
        say!("{text}");
    }

    /// A stage of the preparation and how long it took.
    pub fn stage(&self, name: &str, took: Duration, remark: &str) {
        if self.verbose && self.count.is_none() {
            say!("{name:>8}  {:>7.3} s  {remark}", took.as_secs_f64());
        }
    }

    /// A machine is up.
    pub fn booted(&self, hello: &Hello, times: BootTimes, machine: usize) {
        let remark = format!(
            "machine {machine}: Linux {}, {} CPU, target {} ms, kernel to init {} ms",
            hello.release,
            hello.cpus,
            times.target.as_millis(),
            times.kernel.as_millis()
        );
        self.stage("boot", times.guest, &remark);
        if self.count.is_none() && !hello.missing_modules.is_empty() {
            self.note(&format!("the kernel lacks {}", hello.missing_modules.join(", ")));
        }
    }

    /// The tests with class and needs.
    pub fn list_tests(&self, tests: &[Test]) {
        for test in tests {
            say!("{:<8}  {}{}", test.class.name(), test.name, needs(&test.needs));
        }
        say!("{} tests", tests.len());
    }

    /// One test is over.
    pub fn test(&mut self, record: &TestRecord, options: &Options) {
        let mut count = self.count.take();
        match &mut count {
            None if self.verbose => self.told(record, options),
            None => {}
            Some(Count { task, done, of }) => {
                // A test that ran with a culprit runs again.
                *done = (*done + 1).min(*of);
                task.step(&format!("{done} of {of} tests"));
                task.alive();
                if record.verdict == Verdict::New {
                    task.aside(|| self.told(record, options));
                }
            }
        }
        self.count = count;
    }

    fn told(&self, record: &TestRecord, options: &Options) {
        let (word, color) = self.word(record);
        let took = Duration::from_micros(record.total_us).as_secs_f64();
        let reason = match &record.verdict {
            Verdict::Known(why) | Verdict::Fixed(why) => format!("  ({why})"),
            Verdict::Skipped => format!("  ({})", record.outcome.reason()),
            Verdict::Passed | Verdict::New | Verdict::Accident => String::new(),
        };
        say!(
            "{}  {took:>7.3} s  {}{reason}",
            self.paint(&format!("{word:>12}"), color),
            record.name
        );
        if matches!(record.verdict, Verdict::New | Verdict::Accident) {
            self.details(record, options);
        }
    }

    fn word(&self, record: &TestRecord) -> (String, &'static str) {
        match &record.verdict {
            Verdict::Passed => ("pass".into(), GREEN),
            Verdict::Skipped => ("skip".into(), YELLOW),
            Verdict::Known(_) => ("known".into(), YELLOW),
            Verdict::Fixed(_) => ("fixed".into(), YELLOW),
            Verdict::Accident => ("accident".into(), YELLOW),
            Verdict::New => (record.outcome.name().into(), RED),
        }
    }

    fn paint(&self, text: &str, color: &str) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn details(&self, record: &TestRecord, options: &Options) {
        say!("    {}: {}", record.outcome.name(), record.outcome.reason());
        for other in &record.also {
            say!("    also {}: {}", other.name(), other.reason());
        }
        self.block("output", &details::output(record));
        self.block("kernel log and target journal of this test", &details::timeline(record));
        self.block("stacks", &record.stacks);
        if !record.name.starts_with('(') {
            say!("    again: {}", details::repro(record, options));
        }
    }

    fn block(&self, title: &str, text: &str) {
        if !text.trim().is_empty() {
            say!("    {title}:");
            for line in text.lines() {
                say!("      {line}");
            }
        }
    }

    /// The end of a run. The last line is for programs as well as for people.
    pub fn summary(&self, records: &[TestRecord], took: Duration) {
        let of = |wanted: fn(&Verdict) -> bool| {
            records.iter().filter(move |record| wanted(&record.verdict))
        };
        self.list(
            "fixed (remove it from the expectations)",
            of(|v| matches!(v, Verdict::Fixed(_))),
        );
        self.list("known", of(|v| matches!(v, Verdict::Known(_))));
        self.list("accident", of(|v| matches!(v, Verdict::Accident)));
        self.list("new", of(|v| matches!(v, Verdict::New)));
        let count = |wanted| of(wanted).count();
        let failed = count(|v| matches!(v, Verdict::New));
        let skipped = count(|v| matches!(v, Verdict::Skipped));
        let known = count(|v| matches!(v, Verdict::Known(_)));
        let accidents = count(|v| matches!(v, Verdict::Accident));
        let passed = records.len() - failed - skipped - known - accidents;
        if let Some((process, overhead)) = medians(records) {
            say!("per test (median): process {process:.1} ms, bench around it {overhead:.1} ms");
        }
        say!("{known} known, {accidents} accidents, {:.1} s", took.as_secs_f64());
        say!("{passed} passed, {failed} failed, {skipped} skipped");
    }

    /// What the second of two kernels does otherwise.
    pub fn comparison(
        &self,
        before: &Kernel,
        after: &Kernel,
        comparison: &Comparison,
        took: Duration,
    ) {
        let words = |kernel: &Kernel| format!("{} (Linux {})", kernel.name, kernel.release);
        say!("{} → {}:", words(before), words(after));
        for row in comparison.rows.iter().filter(|row| row.change != Change::Same) {
            let color = match row.change {
                Change::Broke => RED,
                Change::Fixed => GREEN,
                _ => YELLOW,
            };
            say!("{}  {row}", self.paint(&format!("{:>12}", row.change.name()), color));
        }
        let others: Vec<String> =
            [Change::Differs, Change::Accident, Change::Appeared, Change::Vanished]
                .into_iter()
                .map(|change| (change, comparison.count(change)))
                .filter(|(_, count)| *count > 0)
                .map(|(change, count)| format!(", {count} {}", change.name()))
                .collect();
        say!("{:.1} s", took.as_secs_f64());
        let count = |change| comparison.count(change);
        say!(
            "{} same, {} fixed, {} broke{}",
            count(Change::Same),
            count(Change::Fixed),
            count(Change::Broke),
            others.concat()
        );
    }

    fn list<'a>(&self, title: &str, records: impl Iterator<Item = &'a TestRecord>) {
        for record in records {
            say!("{title}: {}: {} {}", record.name, record.outcome.name(), record.outcome.reason());
        }
    }
}

/// What a test needs beyond the default, for a list.
fn needs(needs: &Needs) -> String {
    let mut words = Vec::new();
    if let ScsiHost::Own(_) = needs.host {
        words.push("own SCSI host".to_owned());
    }
    words.extend(needs.own_vm.then(|| "own machine".to_owned()));
    words.extend(needs.cpus.map(|cpus| format!("{cpus} CPUs")));
    words.extend(needs.memory_mib.map(|mib| format!("{mib} MiB")));
    words.extend(needs.kernel_args.iter().map(ToString::to_string));
    words.extend(needs.modules.iter().map(|module| format!("{} {}", module.name, module.params)));
    words.extend(needs.features.iter().map(|feature| format!("{feature:?}")));
    if words.is_empty() { String::new() } else { format!("  [{}]", words.join(", ")) }
}

/// Medians over the passed tests, in milliseconds: the test's own process, and what the bench adds.
fn medians(records: &[TestRecord]) -> Option<(f64, f64)> {
    let passed = || records.iter().filter(|record| record.outcome == Outcome::Pass);
    let process = median(passed().map(|record| record.duration_us).collect())?;
    let around = passed().map(|record| record.total_us.saturating_sub(record.duration_us));
    Some((process, median(around.collect())?))
}

fn median(mut values_us: Vec<u64>) -> Option<f64> {
    values_us.sort_unstable();
    let middle = *values_us.get(values_us.len() / 2)?;
    Some(Duration::from_micros(middle).as_secs_f64() * 1000.0)
}
