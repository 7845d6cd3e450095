//! A second process for tests in which one has to die.
//!
//! The test binary is started once more, with the same arguments, so the same test runs in the child
//! too. Its first lines ask [`role`] which of the two it is:
//!
//! ```ignore
//! if child::role().as_deref() == Some("server") {
//!     return serve(child::Parent::connect());
//! }
//! let mut server = Child::start("server");
//! ```
//!
//! The two talk in lines over a socket, which is the child's standard input. Either side sees the
//! other's end as the end of the conversation.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{self, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::wait;

/// Environment variable with the child's role.
const ROLE_ENV: &str = "SENSECHECK_ROLE";

/// How long the other process may take to say something, or to end.
const DEADLINE: Duration = Duration::from_secs(30);

/// The role this process was started for; `None` in the test itself.
pub fn role() -> Option<String> {
    env::var(ROLE_ENV).ok()
}

/// The running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    conversation: BufReader<UnixStream>,
}

impl Child {
    /// Starts this test once more, for a role of its own.
    #[track_caller]
    pub fn start(role: &str) -> Self {
        Self::run(this(), role)
    }

    /// As [`Child::start`], in a user namespace of its own, where it is root and has every capability
    /// (`user_namespaces`(7)). Outside it has none.
    #[track_caller]
    pub fn start_in_a_user_namespace(role: &str) -> Self {
        let mut command = this();
        let enter = || {
            // SAFETY: a new user namespace takes no file from anybody.
            unsafe { unshare_unsafe(UnshareFlags::NEWUSER)? };
            // With an identity it is root to `execve`, and so keeps its capabilities.
            let map = open(c"/proc/self/uid_map", OFlags::WRONLY, Mode::empty())?;
            rustix::io::write(&map, b"0 0 1")?;
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Self::run(command, role)
    }

    /// As [`Child::start`], as the first process of a PID namespace of its own (`pid_namespaces`(7)).
    #[track_caller]
    pub fn start_in_a_pid_namespace(role: &str) -> Self {
        let started = thread::scope(|scope| {
            // Only children of the thread that asks for it are in it.
            let start = || {
                // SAFETY: a new PID namespace takes no file from anybody.
                unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.expect("root may");
                Self::run(this(), role)
            };
            scope.spawn(start).join()
        });
        started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    #[track_caller]
    fn run(mut command: Command, role: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let process = command
            .args(env::args_os().skip(1))
            .env(ROLE_ENV, role)
            .stdin(OwnedFd::from(theirs))
            // libtest's own words; a panic's go to standard error.
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary starts");
        Child { process, conversation: conversation(ours) }
    }

    /// The next line from the child.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        hear(&mut self.conversation).expect("the child says something in time")
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends SIGSTOP and waits until every thread has stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = wait::until(DEADLINE, "the child to stop", || {
            self.states().iter().all(|state| *state == 'T').then_some(())
        });
        stopped.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Sends SIGCONT.
    #[track_caller]
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the child takes signals until it is waited for");
    }

    /// States of its threads (Documentation/filesystems/proc.rst, stat).
    #[track_caller]
    fn states(&self) -> Vec<char> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it is there");
        let stats = tasks.filter_map(|task| {
            // A thread may have ended since.
            fs::read_to_string(task.ok()?.path().join("stat")).ok()
        });
        let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        stats.filter_map(state).collect()
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        let process = &mut self.process;
        let ended =
            wait::until(DEADLINE, "the end of the child", || process.try_wait().transpose());
        ended.unwrap_or_else(|error| panic!("{error}")).expect("it is a child of ours")
    }

    /// Sends SIGKILL and waits for the end.
    #[track_caller]
    pub fn kill(mut self) -> ExitStatus {
        self.end().expect("the child can be killed")
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        self.process.kill()?;
        // Not `wait`: a child stuck in the kernel must not take the test with it.
        let process = &mut self.process;
        wait::until(DEADLINE, "the end of the child", || process.try_wait().transpose())
            .map_err(io::Error::other)?
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let ended = self.end();
        // A test that is failing already says why itself.
        if !thread::panicking() {
            ended.expect("the child can be killed");
        }
    }
}

/// The other end, in the child.
#[derive(Debug)]
pub struct Parent {
    conversation: BufReader<UnixStream>,
}

impl Parent {
    /// Takes up the conversation.
    #[track_caller]
    pub fn connect() -> Self {
        let socket = io::stdin().as_fd().try_clone_to_owned().expect("standard input is open");
        Parent { conversation: conversation(UnixStream::from(socket)) }
    }

    /// Says one line.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let told = writeln!(self.conversation.get_mut(), "{line}");
        told.expect("the parent listens");
    }

    /// Waits to be killed. Should the parent be gone without doing so, the process ends as if it had
    /// been: no destructor runs. One that waits for the kernel, and the kernel for this process,
    /// would never end.
    pub fn until_killed(mut self) -> ! {
        let mut rest = String::new();
        self.conversation.get_mut().set_read_timeout(None).expect("a socket has timeouts");
        // The parent says nothing, so any outcome but a line is its end.
        while matches!(self.conversation.read_line(&mut rest), Ok(1..)) {}
        process::exit(1);
    }
}

fn this() -> Command {
    Command::new(env::current_exe().expect("the test binary has a path"))
}

fn conversation(socket: UnixStream) -> BufReader<UnixStream> {
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    BufReader::new(socket)
}

fn hear(conversation: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    match conversation.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
