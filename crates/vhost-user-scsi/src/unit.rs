//! What the transport keeps for each logical unit: the requests in flight on it and its journal.
//!
//! The registry answers the questions only the transport can: is this tag in flight, and has
//! everything that came before ended?

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::journal::{Journal, Record};

/// A logical unit as the transport sees it.
#[derive(Debug, Default)]
pub struct Unit {
    in_flight: Mutex<InFlight>,
    /// Notified when a request ends while somebody waits.
    ended: Condvar,
    journal: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct InFlight {
    next_sequence: u64,
    requests: Vec<Request>,
    waiting: u32,
}

/// A command, or a task management function, which has no tag of its own.
#[derive(Clone, Copy, Debug)]
struct Request {
    sequence: u64,
    tag: Option<u64>,
}

/// Which requests a task management function or a reset concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Commands with this tag.
    Tag(u64),
    /// All commands.
    Commands,
    /// All commands and task management functions.
    All,
}

/// A wait was given up: so many requests were still in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} request(s) still in flight")]
pub struct StillInFlight(pub usize);

impl Which {
    fn covers(self, request: Request) -> bool {
        match self {
            Which::Tag(tag) => request.tag == Some(tag),
            Which::Commands => request.tag.is_some(),
            Which::All => true,
        }
    }
}

impl Unit {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().expect("no holder panics")
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("no holder panics")
    }

    /// Registers a command, or a task management function without tag, until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, tag: Option<u64>) -> Running {
        let mut in_flight = self.in_flight();
        let sequence = in_flight.next_sequence;
        in_flight.next_sequence += 1;
        in_flight.requests.push(Request { sequence, tag });
        Running { unit: Arc::clone(self), sequence }
    }

    /// Whether any such request is in flight.
    #[must_use]
    pub fn has(&self, which: Which) -> bool {
        self.in_flight().requests.iter().any(|request| which.covers(*request))
    }

    /// Waits until none of the requests is in flight that were registered before this call. Requests
    /// that come later are not waited for.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub fn wait_for(&self, which: Which, limit: Duration) -> Result<(), StillInFlight> {
        let deadline = Instant::now() + limit;
        let mut in_flight = self.in_flight();
        let before = in_flight.next_sequence;
        in_flight.waiting += 1;
        let result = loop {
            let concerned =
                |request: &&Request| request.sequence < before && which.covers(**request);
            let left = in_flight.requests.iter().filter(concerned).count();
            let now = Instant::now();
            if left == 0 {
                break Ok(());
            }
            if now >= deadline {
                break Err(StillInFlight(left));
            }
            (in_flight, _) =
                self.ended.wait_timeout(in_flight, deadline - now).expect("no holder panics");
        };
        in_flight.waiting -= 1;
        result
    }

    /// Writes an answered command into the journal.
    pub fn record(&self, record: Record) {
        self.journal().push(record);
    }

    /// The journal since the last reset: records and the number of those lost.
    #[must_use]
    pub fn journal_snapshot(&self) -> (Vec<Record>, u64) {
        self.journal().snapshot()
    }

    /// Forgets the journal.
    pub fn clear_journal(&self) {
        self.journal().clear();
    }
}

/// A request in flight on a logical unit. Dropping it says that the request has ended.
#[derive(Debug)]
pub struct Running {
    unit: Arc<Unit>,
    sequence: u64,
}

impl Running {
    /// The unit it runs on.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut in_flight = self.unit.in_flight();
        let position = in_flight.requests.iter().position(|other| other.sequence == self.sequence);
        in_flight.requests.swap_remove(position.expect("a running request is registered"));
        if in_flight.waiting > 0 {
            self.unit.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn tags_are_in_flight_from_begin_to_drop() {
        let unit = Arc::new(Unit::default());
        let command = unit.begin(Some(7));
        assert!(unit.has(Which::Tag(7)) && unit.has(Which::Commands) && unit.has(Which::All));
        assert!(!unit.has(Which::Tag(8)));
        drop(command);
        assert!(!unit.has(Which::All));
    }

    #[test]
    fn task_management_is_no_command() {
        let unit = Arc::new(Unit::default());
        let _management = unit.begin(None);
        assert!(!unit.has(Which::Commands));
        assert!(unit.has(Which::All));
        assert_eq!(unit.wait_for(Which::Commands, LONG), Ok(()));
        assert_eq!(unit.wait_for(Which::All, SHORT), Err(StillInFlight(1)));
    }

    #[test]
    fn waiting_ends_with_the_request_and_not_with_others() {
        let unit = Arc::new(Unit::default());
        let (mine, other) = (unit.begin(Some(1)), unit.begin(Some(2)));
        assert_eq!(unit.wait_for(Which::Tag(1), SHORT), Err(StillInFlight(1)));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| unit.wait_for(Which::Tag(1), LONG));
            drop(mine);
            assert_eq!(waiter.join().expect("the waiter does not panic"), Ok(()));
        });
        drop(other);
    }

    #[test]
    fn waiting_does_not_wait_for_later_requests() {
        let unit = Arc::new(Unit::default());
        let early = unit.begin(Some(1));
        let late = thread::scope(|scope| {
            let waiter = scope.spawn(|| unit.wait_for(Which::All, LONG));
            while unit.in_flight().waiting == 0 {
                thread::yield_now();
            }
            let late = unit.begin(Some(2));
            drop(early);
            assert_eq!(waiter.join().expect("the waiter does not panic"), Ok(()));
            late
        });
        drop(late);
    }
}
