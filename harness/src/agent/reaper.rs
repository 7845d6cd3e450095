//! PID 1 adopts orphans and has to reap them; the children it started itself are told apart here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
};

use guest_protocol::message::Exit;
use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, wait},
};

/// Waits for every child of PID 1.
#[derive(Clone)]
pub(crate) struct Reaper {
    children: Arc<Children>,
}

#[derive(Default)]
struct Children {
    state: Mutex<State>,
    started: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts starts, so that a start between a failed wait and the next is not missed.
    starts: u64,
    awaited: BTreeMap<i32, mpsc::Sender<Exit>>,
}

/// Starts the reaping thread.
pub(crate) fn start() -> Reaper {
    let children = Arc::new(Children::default());
    let reaper = Reaper { children: Arc::clone(&children) };
    thread::spawn(move || reap(&children));
    reaper
}

impl Reaper {
    /// Starts a process and returns it with the channel that gets its end. The lock is held across the
    /// start, so that a process which ends at once is not taken for an orphan.
    pub(crate) fn spawn<T, E>(
        &self,
        start: impl FnOnce() -> Result<(Pid, T), E>,
    ) -> Result<(T, mpsc::Receiver<Exit>), E> {
        let mut state = self.children.state.lock().expect("no thread panics with it");
        let (pid, value) = start()?;
        let (sender, receiver) = mpsc::channel();
        state.awaited.insert(pid.as_raw_nonzero().get(), sender);
        state.starts += 1;
        self.children.started.notify_all();
        Ok((value, receiver))
    }
}

fn reap(children: &Children) {
    let mut starts_seen = 0;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                let mut state = children.state.lock().expect("no thread panics with it");
                if let Some(awaited) = state.awaited.remove(&pid.as_raw_nonzero().get()) {
                    // A run that has given up on it does not listen, and that is fine.
                    let _ = awaited.send(exit_of(status));
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            // No children now: wait for the next start.
            Err(_) => {
                let state = children.state.lock().expect("no thread panics with it");
                let waited =
                    children.started.wait_while(state, |state| state.starts == starts_seen);
                starts_seen = waited.expect("no thread panics with it").starts;
            }
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}
