//! Programs whose output is the user's to read: cargo and its like.

use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use anyhow::Context as _;
use host::{child::Child, interrupt};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often a running program is interrupted by a look at the signals.
const TICK: Duration = Duration::from_millis(100);

/// What a program and its children may take to end when asked to.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// cargo as it called this xtask, in the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::workspace());
    command
}

/// Runs the program to its end; any exit but zero is an error. A signal to xtask ends the program
/// with all that it started. Call from the main thread: the program dies with the calling thread.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let shown = name.rsplit('/').next().unwrap_or(&name).to_owned();
    command.stdin(Stdio::null());
    let (sender, ended) = mpsc::channel();
    let child = Child::spawn(command, move |status| {
        // Nobody listens any more after an interrupt.
        let _ = sender.send(status);
    })
    .with_context(|| format!("cannot start {shown}"))?;
    loop {
        match ended.recv_timeout(TICK) {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => match status.signal() {
                Some(signal) => anyhow::bail!("{shown} was ended by signal {signal}"),
                None => anyhow::bail!("{shown} ended with {status}"),
            },
            Err(RecvTimeoutError::Timeout) if interrupt::pending() => {
                end(&child);
                anyhow::bail!("interrupted while {shown} ran");
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("{shown} was lost"),
        }
    }
}

/// Ends a program and its children: they share a process group that nobody else is in.
fn end(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(group) = group else { return };
    // A group that is gone needs no signal.
    let _ = kill_process_group(group, Signal::TERM);
    child.wait(END_DEADLINE);
    let _ = kill_process_group(group, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn end_of_a_program_is_told() {
        run(shell("exit 0")).expect("zero is success");
        let text = run(shell("exit 3")).expect_err("three is not").to_string();
        assert_eq!(text, "sh ended with exit status: 3");
        let text = run(shell("kill -KILL $$")).expect_err("killed").to_string();
        assert_eq!(text, "sh was ended by signal 9");
        let text = run(Command::new("no-such-program")).expect_err("absent").to_string();
        assert_eq!(text, "cannot start no-such-program");
    }

    #[test]
    fn grandchildren_end_too() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        // The grandchild holds the pipe open and does not care for SIGTERM.
        let mut command = shell("sh -c 'trap \"\" TERM; exec tail -f /dev/null' & wait");
        command.stdin(Stdio::null()).stdout(writer);
        let child = Child::spawn(command, |_| ()).expect("sh starts");
        end(&child);
        let read = std::io::Read::read(&mut reader, &mut [0]).expect("the pipe can be read");
        assert_eq!(read, 0, "somebody still holds the pipe");
    }
}
