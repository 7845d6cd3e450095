//! What a person sees while something takes long.
//!
//! On a terminal: a bar or spinner that disappears when done. Elsewhere (a log of a CI job): plain
//! lines, one at the start, one every few seconds, one at the end. Standard output stays free for
//! results; everything here goes to standard error.

use std::{
    fmt,
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Off a terminal, a running task is reported again after this long, and then each time it has taken
/// a fifth longer: a build of minutes should not fill the log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A number of bytes, shown in the decimal units that disks and download sizes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0 => return f.write_str("more space"),
            1..=999_999 => return write!(f, "{} kB", self.0.div_ceil(1000)),
            1_000_000..=999_999_999 => (1_000_000, "MB"),
            _ => (1_000_000_000, "GB"),
        };
        write!(f, "{}.{} {name}", self.0 / unit, self.0 % unit * 10 / unit)
    }
}

/// Where progress goes.
#[derive(Clone, Debug)]
pub struct Progress {
    sink: Sink,
}

#[derive(Clone, Debug)]
enum Sink {
    Terminal,
    Lines,
    Quiet,
    Recording(Recorded),
}

/// Lines a [`Progress::recording`] has collected.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Recorded {
    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Blocks until a line contains `text`.
    ///
    /// # Panics
    /// After 30 s without such a line.
    pub fn wait_for(&self, text: &str) {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, _) = self
            .lines
            .1
            .wait_timeout_while(lines, Duration::from_secs(30), |lines| {
                !lines.iter().any(|line| line.contains(text))
            })
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            lines.iter().any(|line| line.contains(text)),
            "no line with {text:?} within 30 s; lines: {lines:?}"
        );
    }

    fn push(&self, line: &str) {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        self.lines.1.notify_all();
    }
}

impl Progress {
    /// Bars if standard error is a terminal, lines if not.
    pub fn auto() -> Progress {
        let sink = if std::io::stderr().is_terminal() { Sink::Terminal } else { Sink::Lines };
        Progress { sink }
    }

    /// Nothing at all.
    pub fn quiet() -> Progress {
        Progress { sink: Sink::Quiet }
    }

    /// Lines kept for a test to look at.
    pub fn recording() -> (Progress, Recorded) {
        let recorded = Recorded::default();
        (Progress { sink: Sink::Recording(recorded.clone()) }, recorded)
    }

    /// One line that stays.
    pub fn note(&self, line: &str) {
        match &self.sink {
            Sink::Terminal | Sink::Lines => {
                // A closed standard error must not end the run.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            Sink::Quiet => {}
            Sink::Recording(recorded) => recorded.push(line),
        }
    }

    /// Begins something that takes a while. With `total` bytes known there is a bar.
    pub fn task(&self, what: &str, total: Option<u64>) -> Task {
        let bar = match (&self.sink, total) {
            (Sink::Terminal, Some(total)) => {
                let bar = ProgressBar::new(total);
                bar.set_style(style(
                    "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {eta}",
                ));
                bar
            }
            (Sink::Terminal, None) => {
                let bar = ProgressBar::new_spinner();
                bar.set_style(style("{spinner} {msg} {elapsed}"));
                bar
            }
            _ => {
                let size = total.map(|total| format!(", {}", Bytes(total))).unwrap_or_default();
                self.note(&format!("{what}{size} …"));
                ProgressBar::hidden()
            }
        };
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        let now = Instant::now();
        Task {
            progress: self.clone(),
            what: what.to_owned(),
            step: String::new(),
            bar,
            total,
            begun: now,
            told: now,
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("templates are literals of this file")
}

/// Something under way. Dropped without [`Task::done`], it leaves no line: the error speaks.
#[derive(Debug)]
pub struct Task {
    progress: Progress,
    what: String,
    step: String,
    bar: ProgressBar,
    total: Option<u64>,
    begun: Instant,
    told: Instant,
}

impl Task {
    /// So many bytes are done.
    pub fn at(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        if self.is_due() {
            self.told = Instant::now();
            let of = self.total.map(|total| format!(" of {}", Bytes(total))).unwrap_or_default();
            self.progress.note(&format!("{}: {}{of}", self.what, Bytes(bytes.max(1))));
        }
    }

    /// Another part of it has begun.
    pub fn step(&mut self, step: &str) {
        self.step = format!(" ({step})");
        self.bar.set_message(format!("{}{}", self.what, self.step));
    }

    /// Does something that prints, with the bar out of its way.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Still working, with nothing to count.
    pub fn alive(&mut self) {
        if self.is_due() {
            self.told = Instant::now();
            let seconds = self.begun.elapsed().as_secs();
            self.progress.note(&format!("{} … {seconds} s{}", self.what, self.step));
        }
    }

    /// Finished: one line with the time it took.
    pub fn done(self) {
        self.bar.finish_and_clear();
        let took = self.begun.elapsed();
        self.progress.note(&format!("{}: done in {:.1} s", self.what, took.as_secs_f64()));
    }

    /// Whether it is time for another line where lines are shown.
    fn is_due(&self) -> bool {
        matches!(self.progress.sink, Sink::Lines | Sink::Recording(_))
            && self.told.elapsed() >= LINE_EVERY.max(self.begun.elapsed() / 5)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_like_download_sizes() {
        assert_eq!(Bytes(13_389_360).to_string(), "13.3 MB");
        assert_eq!(Bytes(1_500_000_000).to_string(), "1.5 GB");
        assert_eq!(Bytes(1).to_string(), "1 kB");
    }

    #[test]
    fn off_a_terminal_a_task_says_its_beginning_and_its_end() {
        let (progress, recorded) = Progress::recording();
        progress.task("downloading x.deb", Some(13_400_000)).done();
        let lines = recorded.lines();
        assert_eq!(lines[0], "downloading x.deb, 13.4 MB …");
        assert!(lines[1].starts_with("downloading x.deb: done in "), "{lines:?}");
    }
}
