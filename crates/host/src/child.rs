//! Child processes that never outlive the bench.
#![expect(unsafe_code, reason = "prctl(PR_SET_PDEATHSIG) has to run between fork and exec")]

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

/// How long a killed process may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A child process that is killed when this value is dropped, and by the kernel when the thread that
/// spawned it ends: spawn from the main thread.
#[derive(Debug)]
pub struct Child {
    pidfd: rustix::fd::OwnedFd,
    pid: u32,
    ended: mpsc::Receiver<()>,
}

impl Child {
    /// Starts the command in a process group of its own, so that a Ctrl-C on the terminal reaches the
    /// bench alone, which then ends its children in order. `on_exit` is called from a waiting thread.
    pub fn spawn(
        mut command: Command,
        on_exit: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> io::Result<Self> {
        let parent = getpid();
        command.process_group(0);
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the call above took effect.
                if getppid() != Some(parent) {
                    return Err(io::Error::other("the bench died while it started a process"));
                }
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let pid = child.id();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
            on_exit(status);
            drop(sender);
        });
        Ok(Child { pidfd, pid, ended })
    }

    /// Process id, for messages.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; a process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended; false after `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        // Nothing is ever sent: the channel closes when the process has ended.
        matches!(self.ended.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Disconnected))
    }

    /// Kills the process and waits until it is gone.
    pub fn kill(&self) {
        if self.signal(Signal::KILL).is_ok() {
            self.wait(KILL_DEADLINE);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_child_ends_it() {
        let (sender, receiver) = mpsc::channel();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let child = Child::spawn(command, move |status| {
            sender.send(status.signal()).expect("the test listens");
        });
        drop(child.expect("sleep starts"));
        assert_eq!(receiver.recv().expect("it ended"), Some(9));
    }
}
