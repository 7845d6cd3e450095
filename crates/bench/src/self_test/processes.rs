//! The processes of a run, known by its runtime directory on their command lines.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Finds processes that name a directory.
#[derive(Debug)]
pub(super) struct Processes {
    dir: PathBuf,
}

impl Processes {
    pub(super) fn below(dir: &Path) -> Self {
        Processes { dir: dir.to_owned() }
    }

    /// (process id, command line) of each.
    fn list(&self) -> Vec<(i32, String)> {
        let dir = self.dir.display().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let with_line = pids.filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        });
        with_line.filter(|(_, line)| line.contains(&dir)).collect()
    }

    /// Signals the one whose program is called so.
    pub(super) fn signal(&self, program: &str, signal: Signal) -> Result<(), String> {
        let list = self.list();
        let is_it =
            |line: &str| line.split(' ').next().is_some_and(|first| first.contains(program));
        let found = list.iter().find(|(_, line)| is_it(line));
        let (pid, _) = found.ok_or_else(|| format!("no process {program} in {list:?}"))?;
        let pid = Pid::from_raw(*pid).ok_or("process 0")?;
        pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_send_signal(process, signal))
            .map_err(|error| format!("cannot signal {program}: {error}"))
    }

    /// Waits until none is left; says which are.
    pub(super) fn wait_until_gone(&self, limit: Duration) -> Option<String> {
        let gone = wait::until(limit, "their end", || self.list().is_empty().then_some(()));
        gone.err().map(|_| format!("it left processes behind: {:?}", self.list()))
    }
}
