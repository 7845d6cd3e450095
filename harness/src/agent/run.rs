//! Runs: one test in one process, from begin mark to end mark.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use guest_protocol::{
    frame,
    message::{Answer, CALL_SOCKET_ENV, Call, Exit, FromGuest, RunId},
};
use rustix::{
    net::{Shutdown, shutdown},
    process::{Pid, Signal, kill_process_group},
};

use crate::{
    boot::monotonic_us,
    kmsg::Kmsg,
    link::{Link, write_value},
    module_code::Reporter,
    reaper::Reaper,
    settle,
};

/// The test binary of the image.
const TESTS: &str = "/bin/guest-tests";

/// The supervisor counts runs from 1.
const BOOT: RunId = 0;

type CallResult = Result<Answer, String>;

/// The runs under way.
#[derive(Clone)]
pub(crate) struct Runs {
    shared: Arc<Shared>,
}

struct Shared {
    link: Arc<Link>,
    kmsg: Kmsg,
    reaper: Reaper,
    module_code: Reporter,
    next_call: AtomicU64,
    groups: Mutex<BTreeMap<RunId, Pid>>,
    calls: Mutex<BTreeMap<(RunId, u64), mpsc::Sender<CallResult>>>,
}

impl Runs {
    pub(crate) fn new(link: Arc<Link>, kmsg: Kmsg, reaper: Reaper, module_code: Reporter) -> Self {
        let shared = Shared {
            link,
            kmsg,
            reaper,
            module_code,
            next_call: AtomicU64::new(1),
            groups: Mutex::default(),
            calls: Mutex::default(),
        };
        Runs { shared: Arc::new(shared) }
    }

    /// Starts a run on a thread of its own; everything it does is reported over the link.
    pub(crate) fn start(&self, run: RunId, test: String, env: Vec<(String, String)>) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            shared.kmsg.begin(run, &test);
            clear_warn_once();
            let started_us = monotonic_us();
            let exit = execute(&shared, run, &test, &env).unwrap_or_else(|error| {
                let text = format!("agent: cannot run {TESTS}: {error}\n");
                shared.link.send(&FromGuest::Output { run, text });
                Exit::Code(-1)
            });
            let duration_us = monotonic_us() - started_us;
            settle::rcu();
            shared.kmsg.end(run);
            shared.module_code.tell(&shared.link);
            shared.link.send(&FromGuest::Finished { run, exit, duration_us });
        });
    }

    /// Closes the log of the boot as that of a run is closed: everything in it was sent.
    pub(crate) fn end_boot(&self) {
        self.shared.kmsg.end(BOOT);
    }

    /// Kills every process of a run.
    pub(crate) fn kill(&self, run: RunId) {
        if let Some(group) = self.group_of(run) {
            kill_group(group);
        }
    }

    /// The process group of a run.
    pub(crate) fn group_of(&self, run: RunId) -> Option<Pid> {
        lock(&self.shared.groups).get(&run).copied()
    }

    /// Delivers the bench's answer to the test that waits for it.
    pub(crate) fn answer(&self, run: RunId, call: u64, result: CallResult) {
        if let Some(waiting) = lock(&self.shared.calls).remove(&(run, call)) {
            // A test that was killed meanwhile does not listen any more.
            let _ = waiting.send(result);
        }
    }
}

/// Lets WARN_ONCE and its kin speak again, so that a splat shows up in every test that causes it.
fn clear_warn_once() {
    // debugfs is optional; without it only the first test to cause a splat shows it.
    drop(write_value("/sys/kernel/debug/clear_warn_once", "1"));
}

fn execute(
    shared: &Arc<Shared>,
    run: RunId,
    test: &str,
    env: &[(String, String)],
) -> io::Result<Exit> {
    let calls = CallServer::start(shared, run)?;

    let (mut output, writer) = io::pipe()?;
    let mut command = Command::new(TESTS);
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env_clear()
        .env("PATH", "/bin")
        .env("RUST_BACKTRACE", "0")
        .env(CALL_SOCKET_ENV, &calls.path)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let (group, ended) = shared.reaper.spawn(|| {
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        Ok::<_, io::Error>((pid, pid))
    })?;
    // The command holds the pipe's writing end: without this the reader never sees the end.
    drop(command);
    lock(&shared.groups).insert(run, group);

    let link = Arc::clone(&shared.link);
    let reader = thread::spawn(move || forward(&mut output, &link, run));
    let exit = ended.recv().map_err(io::Error::other)?;
    kill_group(group);
    if reader.join().is_err() {
        return Err(io::Error::other("the output reader panicked"));
    }
    lock(&shared.groups).remove(&run);
    Ok(exit)
}

/// Sends a run's output on as it comes, until every process of the run has closed it.
fn forward(output: &mut io::PipeReader, link: &Link, run: RunId) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = output.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        link.send(&FromGuest::Output { run, text });
    }
}

/// The socket of a run's calls, and the thread that accepts its connections. Dropping it ends both:
/// a machine may run thousands of tests.
struct CallServer {
    path: PathBuf,
    listener: UnixListener,
}

impl CallServer {
    /// Accepts the test's connections; each is a sequence of calls with their answers.
    fn start(shared: &Arc<Shared>, run: RunId) -> io::Result<Self> {
        let path = PathBuf::from(format!("/run/calls-{run}"));
        let listener = UnixListener::bind(&path)?;
        let server = CallServer { listener: listener.try_clone()?, path };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || relay(&shared, run, &stream));
            }
        });
        Ok(server)
    }
}

impl Drop for CallServer {
    fn drop(&mut self) {
        // The thread's accept fails from now on (net/unix/af_unix.c:unix_accept).
        let ended = shutdown(&self.listener, Shutdown::Both).map_err(io::Error::from);
        if let Err(error) = ended.and_then(|()| fs::remove_file(&self.path)) {
            eprintln!("agent: cannot close {}: {error}", self.path.display());
        }
    }
}

fn relay(shared: &Shared, run: RunId, stream: &UnixStream) {
    while let Ok(Some(request)) = frame::read::<Call>(stream) {
        let call = shared.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        lock(&shared.calls).insert((run, call), sender);
        shared.link.send(&FromGuest::Call { run, call, request });
        let Ok(result) = receiver.recv() else { return };
        if frame::write(stream, &result).is_err() {
            return;
        }
    }
}

fn kill_group(group: Pid) {
    match kill_process_group(group, Signal::KILL) {
        // Nothing left of the group is the usual case.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => eprintln!("agent: cannot kill group {group:?}: {error}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with a lock")
}
