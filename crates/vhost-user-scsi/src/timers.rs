//! What waits for a time: one thread that lets requests go on when theirs has come.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    thread::Builder,
    time::Instant,
};

use crate::{target::Target, unit::Turn};

/// The times requests wait for. Dropping the last handle ends the thread.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    next: u64,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: HashMap<u64, Turn>,
}

impl Timers {
    /// Starts the thread; what is due is carried out on this target while it lasts.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(&self, target: Weak<Target>) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        Builder::new().name("timers".into()).spawn(move || shared.run(&target)).map(drop)
    }

    /// What has this turn takes it at `due`.
    pub(crate) fn add(&self, due: Instant, turn: Turn) {
        let mut state = self.shared.state();
        let number = state.next;
        state.next += 1;
        state.due.push(Reverse((due, number)));
        state.waiting.insert(number, turn);
        self.shared.changed.notify_one();
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn run(&self, target: &Weak<Target>) {
        while let Some(turn) = self.next_due() {
            if let Some(target) = target.upgrade() {
                turn.take(&target);
            }
        }
    }

    /// Waits for the next that is due; `None` at the end.
    fn next_due(&self) -> Option<Turn> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            state = match state.due.peek() {
                None => self.changed.wait(state).expect("no holder panics"),
                Some(Reverse((due, number))) if *due <= now => {
                    let number = *number;
                    state.due.pop();
                    return Some(state.waiting.remove(&number).expect("added with its time"));
                }
                Some(Reverse((due, _))) => {
                    let left = *due - now;
                    self.changed.wait_timeout(state, left).expect("no holder panics").0
                }
            };
        }
    }
}
