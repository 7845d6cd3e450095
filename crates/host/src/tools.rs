//! Programs of the host: running them, and installing the ones that are missing.
//!
//! Every program runs with `LC_ALL=C`, because its messages are read here, and in this process's
//! own group, so that Ctrl-C on the terminal reaches it too.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::progress::Progress;

/// Why a program of the host could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error(
        "{program} is not installed; install the Debian package that has it: {}",
        install_command(std::slice::from_ref(package))
    )]
    Missing {
        /// The program.
        program: String,
        /// The Debian package that ships it.
        package: String,
    },
    /// The program could not be started.
    #[error("cannot start {program}: {source}; check that it runs by hand")]
    Start {
        /// The program.
        program: String,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// A signal ended the program, as Ctrl-C does.
    #[error(
        "{program} was ended by signal {signal}; nothing half done is kept, run the same command again"
    )]
    Signal {
        /// The program.
        program: String,
        /// The signal's number.
        signal: i32,
    },
    /// The user wants the bench to stop.
    #[error(
        "interrupted while {program} ran; nothing half done is kept, run the same command again"
    )]
    Interrupted {
        /// The program, which has been ended.
        program: String,
    },
    /// The program failed.
    #[error("{program} failed ({status}):\n{output}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// Packages are missing and neither root nor sudo without a password is at hand.
    #[error("Debian packages are missing: {}; run `{}`, then the same command again", packages.join(" "), install_command(packages))]
    NeedsInstall {
        /// The packages.
        packages: Vec<String>,
    },
    /// Packages are missing on a host without apt.
    #[error(
        "missing: {what}. This host has no apt-get, so nothing can be installed for you: install \
         what your distribution calls {} and run the same command again",
        packages.join(", ")
    )]
    NotDebian {
        /// What was looked for.
        what: String,
        /// Debian's names of the packages.
        packages: Vec<String>,
    },
}

/// The command a person types to install `packages`.
pub fn install_command<S: AsRef<str>>(packages: &[S]) -> String {
    let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
    let packages: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    format!("{sudo}apt-get install --no-install-recommends {}", packages.join(" "))
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Both streams, for messages.
    pub fn text(&self) -> String {
        format!("{}{}", self.stderr, self.stdout)
    }
}

/// The program `name` on `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    find_on(&std::env::var_os("PATH")?, name)
}

/// The first executable called `name` in the directories of `path`, a value of `PATH`.
pub fn find_on(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| {
        file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    })
}

/// Runs a program to its end. A non-zero exit is not an error here; death by a signal is.
///
/// `package` is the Debian package to name if the program is missing.
pub fn run(command: &mut Command, package: &'static str) -> Result<Output, Error> {
    watch(command, package, Duration::from_millis(200), |_| {})
}

/// As [`run`], and any exit but zero is an error with the program's own words.
pub fn check(command: &mut Command, package: &'static str) -> Result<Output, Error> {
    let output = run(command, package)?;
    if output.status.success() { Ok(output) } else { Err(failed(command, &output)) }
}

/// The error of a program that ran and failed.
pub fn failed(command: &Command, output: &Output) -> Error {
    let text = output.text();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    Error::Failed { program: words(command), status: output.status, output: tail }
}

/// As [`run`], and calls `on_event` with each line of output, and with `None` after every `tick`
/// without one.
pub fn watch(
    command: &mut Command,
    package: &'static str,
    tick: Duration,
    on_event: impl FnMut(Option<&str>),
) -> Result<Output, Error> {
    watch_with(command, package, Stdio::null(), tick, on_event)
}

/// As [`watch`], with a standard input.
pub fn watch_with(
    command: &mut Command,
    package: &'static str,
    stdin: Stdio,
    tick: Duration,
    mut on_event: impl FnMut(Option<&str>),
) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.env("LC_ALL", "C").env_remove("LANGUAGE");
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Missing { program: program.clone(), package: package.to_owned() }
        }
        _ => Error::Start { program: program.clone(), source },
    })?;

    let (send, lines) = mpsc::channel();
    read_lines(child.stdout.take(), false, send.clone());
    read_lines(child.stderr.take(), true, send);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    loop {
        if crate::interrupt::pending() {
            end(&mut child, &lines);
            return Err(Error::Interrupted { program });
        }
        match lines.recv_timeout(tick) {
            Ok((is_error, line)) => {
                on_event(Some(&line));
                let stream = if is_error { &mut stderr } else { &mut stdout };
                stream.push_str(&line);
                stream.push('\n');
            }
            Err(RecvTimeoutError::Timeout) => on_event(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status =
        child.wait().map_err(|source| Error::Start { program: program.clone(), source })?;
    match status.signal() {
        Some(signal) => Err(Error::Signal { program, signal }),
        None => Ok(Output { status, stdout, stderr }),
    }
}

/// How long an interrupted program has for removing what it has half done, as make does.
const GRACE: Duration = Duration::from_secs(5);

/// Ends a program. On a terminal Ctrl-C reached it too; a `kill` of the bench did not.
fn end(child: &mut Child, lines: &Receiver<(bool, String)>) {
    if let Ok(Some(_)) = child.try_wait() {
        return;
    }
    let asked = kill_process(Pid::from_child(child), Signal::TERM);
    let until = Instant::now() + GRACE;
    // Its pipes close when it and all it started are gone.
    while asked.is_ok()
        && !matches!(
            lines.recv_timeout(until.saturating_duration_since(Instant::now())),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
        )
    {}
    // Already gone is what was wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends the lines of a pipe from a thread of its own, which ends with the pipe.
fn read_lines(
    pipe: Option<impl Read + Send + 'static>,
    is_error: bool,
    send: Sender<(bool, String)>,
) {
    let Some(pipe) = pipe else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            if send.send((is_error, String::from_utf8_lossy(&line).into_owned())).is_err() {
                break;
            }
        }
    });
}

fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// How packages can be installed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installer {
    /// This process is root.
    Root,
    /// `sudo` asks for no password.
    Sudo,
    /// apt is there, the rights are not.
    NoRights,
    /// No apt.
    NoApt,
}

impl Installer {
    /// Looks at this host.
    pub fn here() -> Installer {
        if find("apt-get").is_none() {
            return Installer::NoApt;
        }
        if rustix::process::geteuid().is_root() {
            return Installer::Root;
        }
        let asked = run(Command::new("sudo").args(["-n", "true"]), "sudo");
        match asked {
            Ok(output) if output.status.success() => Installer::Sudo,
            Ok(_) | Err(_) => Installer::NoRights,
        }
    }

    fn command(self, program: &str) -> Command {
        if self == Installer::Sudo {
            let mut command = Command::new("sudo");
            // sudo resets the environment: the variable is set on its far side.
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]);
            command
        } else {
            let mut command = Command::new(program);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        }
    }
}

/// Installs Debian packages on the host, saying so, or says which command would.
///
/// # Errors
/// [`Error::NeedsInstall`] and [`Error::NotDebian`] where this process may not or cannot install.
pub fn install<S: AsRef<str>>(
    packages: &[S],
    what: &str,
    installer: Installer,
    progress: &Progress,
) -> Result<(), Error> {
    let packages: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    let owned = || packages.iter().map(|&package| package.to_owned()).collect();
    match installer {
        Installer::Root | Installer::Sudo => {}
        Installer::NoRights => return Err(Error::NeedsInstall { packages: owned() }),
        Installer::NoApt => {
            return Err(Error::NotDebian { what: what.to_owned(), packages: owned() });
        }
    }
    progress.note(&format!(
        "{what} is missing: installing the Debian packages {} (apt-get install)",
        packages.join(" ")
    ));
    // A fresh container has no package index at all, and an old index leads to files that are gone.
    let attempt = |progress: &Progress| {
        let mut command = installer.command("apt-get");
        command.args(["install", "-y", "--no-install-recommends"]).args(&packages);
        stream(&mut command, &format!("installing {}", packages.join(" ")), progress)
    };
    if !is_index_empty() && attempt(progress).is_ok() {
        return Ok(());
    }
    let mut update = installer.command("apt-get");
    stream(update.arg("update"), "reading the package index", progress)?;
    attempt(progress)
}

fn is_index_empty() -> bool {
    let lists = Path::new("/var/lib/apt/lists");
    let Ok(entries) = std::fs::read_dir(lists) else { return true };
    !entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn stream(command: &mut Command, what: &str, progress: &Progress) -> Result<(), Error> {
    let mut task = progress.task(what, None);
    let output = watch(command, "apt", Duration::from_millis(500), |_| task.alive())?;
    if !output.status.success() {
        return Err(failed(command, &output));
    }
    task.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_names_its_package() {
        let error = run(&mut Command::new("no-such-program-here"), "some-package")
            .expect_err("it does not exist");
        let text = error.to_string();
        assert!(text.contains("no-such-program-here is not installed"), "{text}");
        assert!(text.contains("apt-get install --no-install-recommends some-package"), "{text}");
    }

    #[test]
    fn both_streams_and_the_status_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let output = run(&mut command, "dash").expect("it starts");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(output.status.code(), Some(3));
        let text = check(&mut command, "dash").expect_err("exit 3").to_string();
        assert!(text.contains("exit status: 3") && text.contains("err"), "{text}");
    }

    #[test]
    fn death_by_signal_is_an_error_of_its_own() {
        let error = run(Command::new("sh").args(["-c", "kill -INT $$"]), "dash");
        assert!(matches!(error, Err(Error::Signal { signal: 2, .. })), "{error:?}");
    }

    #[test]
    fn without_rights_the_exact_command_is_told() {
        let packages = ["qemu-system-x86", "qemu-system-data"];
        let error = install(&packages, "QEMU", Installer::NoRights, &Progress::quiet());
        let text = error.expect_err("no rights").to_string();
        assert!(
            text.contains(
                "apt-get install --no-install-recommends qemu-system-x86 qemu-system-data"
            ),
            "{text}"
        );
        let error = install(&packages, "QEMU", Installer::NoApt, &Progress::quiet());
        let text = error.expect_err("no apt").to_string();
        assert!(text.contains("no apt-get") && text.contains("qemu-system-x86"), "{text}");
    }

    #[test]
    fn only_executables_are_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("tool"), b"").expect("write");
        assert_eq!(find_on(dir.path().as_os_str(), "tool"), None);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path().join("tool"), mode).expect("chmod");
        assert_eq!(find_on(dir.path().as_os_str(), "tool"), Some(dir.path().join("tool")));
    }
}
