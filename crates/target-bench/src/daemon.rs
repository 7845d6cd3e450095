//! A daemon that is measured: started on its CPU, asked what it has used, and ended.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Arc, OnceLock},
    time::Duration,
};

use host::child::Child;
use nix::{sys::time::TimeValLike, time::ClockId, unistd::Pid};

use crate::{Error, cpus::Pinned};

/// Lines of a daemon's standard error that go into an error.
const LINES_SAID: usize = 10;

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    clock: ClockId,
    log: PathBuf,
    status: Arc<OnceLock<ExitStatus>>,
}

impl Daemon {
    /// Starts a program on a CPU; what it says goes to the file `log`.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        cpu: usize,
        log: &Path,
    ) -> Result<Self, Error> {
        let file = File::create(log).map_err(Error::file("make", log))?;
        let copy = file.try_clone().map_err(Error::file("open", log))?;
        command.stdin(std::process::Stdio::null()).stdout(copy).stderr(file);
        let status = Arc::new(OnceLock::new());
        let program = PathBuf::from(command.get_program());
        let child = {
            // What a thread starts runs where the thread does.
            let _pinned = Pinned::to(cpu)?;
            let status = Arc::clone(&status);
            Child::spawn(command, move |code| {
                status.set(code).expect("a process ends once");
            })
        };
        let child = child.map_err(|source| Error::Start { program, source })?;
        let pid = i32::try_from(child.id()).expect("process ids are positive i32s");
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).map_err(clock_error)?;
        Ok(Daemon { name: name.to_owned(), child, clock, log: log.to_owned(), status })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// CPU time of all its threads so far, those that have ended included. The kernel brings the
    /// clock of a running process up to date when it is read, which `/proc` does not.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Error> {
        let time = self.clock.now().map_err(clock_error)?;
        Ok(Duration::from_nanos(u64::try_from(time.num_nanoseconds()).expect("since its start")))
    }

    /// Memory it has touched and not given back, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64, Error> {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        parse_resident_kib(&text).ok_or_else(|| {
            Error::file("find VmRSS in", &path)(io::Error::from(io::ErrorKind::InvalidData))
        })
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        let ended = self.child.wait(Duration::ZERO);
        let status = self.status.get().copied();
        ended.then(|| Error::Ended { name: self.name.clone(), status, said: self.said() })
    }

    /// The last it said, each line indented on a line of its own.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&text))
    }
}

fn clock_error(error: nix::errno::Errno) -> Error {
    Error::system("read a daemon's CPU time")(error.into())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_SAID)..];
    last.iter().map(|line| format!("\n  {line}")).collect()
}

fn parse_resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn resident_memory_is_read_as_proc_writes_it() {
        let status = "Name:\tx\nVmHWM:\t    9000 kB\nVmRSS:\t    3456 kB\nRssAnon:\t     100 kB\n";
        assert_eq!(parse_resident_kib(status), Some(3456));
        // A process that has ended has no such line.
        assert_eq!(parse_resident_kib("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn last_words_are_few() {
        let text: String = (1..=12).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_lines(&text), "\n  3\n  4\n  5\n  6\n  7\n  8\n  9\n  10\n  11\n  12");
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn cpu_time_is_that_of_work_done_and_stands_still_without() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sh");
        command
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; read x"]);
        // Its input must stay open: `read` waits for ever.
        let log = directory.path().join("log");
        let file = File::create(&log).expect("a log");
        let (reader, _writer) = io::pipe().expect("a pipe");
        command.stdin(reader).stdout(file);
        let child = Child::spawn(command, |_| ()).expect("a shell");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let clock = ClockId::pid_cpu_clock_id(pid).expect("a clock");
        wait::until(Duration::from_secs(60), "the loop's end", || {
            (std::fs::read(&log).ok()? == b"done\n").then_some(())
        })
        .expect("it ends");
        let asleep = || {
            let now = clock.now().expect("alive").num_nanoseconds();
            let again = clock.now().expect("alive").num_nanoseconds();
            (now == again).then_some(now)
        };
        let used = wait::until(Duration::from_secs(10), "the shell to sleep", asleep).expect("ok");
        assert!(used > 5_000_000, "200000 turns took {used} ns");
    }
}
