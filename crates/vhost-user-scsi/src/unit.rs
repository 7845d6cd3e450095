//! What the transport keeps for each logical unit: the requests in flight on it, those it holds, and its
//! journal.
//!
//! The registry answers the questions only the transport can: is this tag in flight, and has
//! everything that came before ended?

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    time::{Duration, Instant},
};

use control::{Faults, JournalPage, TaskManagementFault};
use device_server::NexusId;

use crate::{
    backend::Keeper,
    held::Held,
    journal::{Journal, Record},
    request_queue::Command,
};

/// A logical unit as the transport sees it.
#[derive(Debug, Default)]
pub struct Unit {
    tasks: Mutex<Tasks>,
    /// Notified when a request ends while somebody waits.
    ended: Condvar,
    journal: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct Tasks {
    next_sequence: u64,
    running: Vec<Request>,
    waiting: u32,
    /// In order of arrival, with their sequence numbers.
    held: VecDeque<(u64, Held)>,
    /// How many of the next commands are held.
    hold: u32,
    /// What becomes of the next task management functions.
    task_management: VecDeque<TaskManagementFault>,
}

/// A command, or a task management function, which has no tag of its own.
#[derive(Clone, Copy, Debug)]
struct Request {
    sequence: u64,
    nexus: NexusId,
    tag: Option<u64>,
}

/// Which requests a task management function or a reset concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Commands of this nexus with this tag.
    Tag(NexusId, u64),
    /// All commands of this nexus.
    CommandsOf(NexusId),
    /// All commands.
    Commands,
    /// All commands and task management functions of this nexus.
    AllOf(NexusId),
    /// All commands and task management functions.
    All,
}

/// A wait was given up: so many requests were still in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} request(s) still in flight")]
pub struct StillInFlight(pub usize);

impl Which {
    /// Whether a request is concerned; a command has a tag.
    fn covers(self, nexus: NexusId, tag: Option<u64>) -> bool {
        match self {
            Which::Tag(of, wanted) => of == nexus && tag == Some(wanted),
            Which::CommandsOf(of) => of == nexus && tag.is_some(),
            Which::Commands => tag.is_some(),
            Which::AllOf(of) => of == nexus,
            Which::All => true,
        }
    }
}

impl Tasks {
    fn next_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    fn run(&mut self, unit: &Arc<Unit>, nexus: NexusId, tag: Option<u64>) -> Running {
        let sequence = self.next_sequence();
        self.running.push(Request { sequence, nexus, tag });
        Running { unit: Arc::clone(unit), sequence }
    }
}

impl Unit {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().expect("no holder panics")
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("no holder panics")
    }

    /// Registers a command, or a task management function without tag, until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, nexus: NexusId, tag: Option<u64>) -> Running {
        self.tasks().run(self, nexus, tag)
    }

    /// Registers a command that was just fetched and gives it back, to be executed; or holds it.
    pub(crate) fn admit(self: &Arc<Self>, mut command: Command) -> Option<Command> {
        let mut tasks = self.tasks();
        if let Some(left) = tasks.hold.checked_sub(1) {
            tasks.hold = left;
            self.keep(&mut tasks, Held::Command(command));
            return None;
        }
        command.runs(tasks.run(self, command.nexus(), Some(command.tag())));
        Some(command)
    }

    /// Holds a task management function.
    pub(crate) fn hold(self: &Arc<Self>, held: Held) {
        self.keep(&mut self.tasks(), held);
    }

    fn keep(self: &Arc<Self>, tasks: &mut Tasks, held: Held) {
        let unit = Arc::downgrade(self);
        let keeper: Weak<dyn Keeper> = unit;
        // With its ring stopped, nobody waits for it any more.
        if held.chain().keep(&keeper) {
            let sequence = tasks.next_sequence();
            tasks.held.push_back((sequence, held));
        }
    }

    /// Takes what is held, in order of arrival; from now on it runs.
    pub(crate) fn take_held(self: &Arc<Self>, which: Which) -> Vec<Held> {
        let mut tasks = self.tasks();
        let (taken, kept): (VecDeque<_>, VecDeque<_>) =
            tasks.held.drain(..).partition(|(_, held)| which.covers(held.nexus(), held.tag()));
        tasks.held = kept;
        taken.into_iter().map(|(_, held)| self.resume(&mut tasks, held)).collect()
    }

    /// Takes what is held now, one after the other: what is done with one may end others.
    pub(crate) fn release(self: &Arc<Self>) -> impl Iterator<Item = Held> {
        let before = self.tasks().next_sequence;
        std::iter::from_fn(move || {
            let mut tasks = self.tasks();
            let (_, held) = tasks.held.pop_front_if(|(sequence, _)| *sequence < before)?;
            Some(self.resume(&mut tasks, held))
        })
    }

    fn resume(self: &Arc<Self>, tasks: &mut Tasks, mut held: Held) -> Held {
        held.runs(tasks.run(self, held.nexus(), held.tag()));
        held
    }

    /// Drops everything of this nexus that is held, unanswered.
    pub(crate) fn forget_held(&self, nexus: NexusId) {
        self.tasks().held.retain(|(_, held)| held.nexus() != nexus);
    }

    /// Says what goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let mut tasks = self.tasks();
        tasks.hold = faults.hold;
        tasks.task_management = faults.task_management.into();
    }

    /// What becomes of a task management function that was just fetched.
    pub(crate) fn next_fault(&self) -> Option<TaskManagementFault> {
        self.tasks().task_management.pop_front()
    }

    /// Whether any such request runs.
    #[must_use]
    pub fn runs(&self, which: Which) -> bool {
        self.tasks().running.iter().any(|request| which.covers(request.nexus, request.tag))
    }

    /// Whether any such request is in flight: runs or is held.
    #[must_use]
    pub fn has(&self, which: Which) -> bool {
        let tasks = self.tasks();
        tasks.running.iter().any(|request| which.covers(request.nexus, request.tag))
            || tasks.held.iter().any(|(_, held)| which.covers(held.nexus(), held.tag()))
    }

    /// Waits until none of the requests runs that were registered before this call. Requests that come
    /// later, and those that are held, are not waited for.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub fn wait_for(&self, which: Which, limit: Duration) -> Result<(), StillInFlight> {
        let deadline = Instant::now() + limit;
        let mut tasks = self.tasks();
        let before = tasks.next_sequence;
        tasks.waiting += 1;
        let result = loop {
            let concerned = |request: &&Request| {
                request.sequence < before && which.covers(request.nexus, request.tag)
            };
            let left = tasks.running.iter().filter(concerned).count();
            let now = Instant::now();
            if left == 0 {
                break Ok(());
            }
            if now >= deadline {
                break Err(StillInFlight(left));
            }
            (tasks, _) = self.ended.wait_timeout(tasks, deadline - now).expect("no holder panics");
        };
        tasks.waiting -= 1;
        result
    }

    /// Writes an answered request into the journal.
    pub fn record(&self, record: impl Into<Record>) {
        self.journal().push(record.into());
    }

    /// The journal since the last reset, and what is held.
    #[must_use]
    pub fn journal_page(&self) -> JournalPage {
        let held = self.tasks().held.iter().map(|(_, held)| held.entry()).collect();
        JournalPage { held, ..self.journal().page() }
    }

    /// Forgets the journal.
    pub fn clear_journal(&self) {
        self.journal().clear();
    }
}

impl Keeper for Unit {
    fn ring_stops(&self) {
        self.tasks().held.retain(|(_, held)| !held.chain().is_stale());
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
    pub fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut tasks = self.unit.tasks();
        let position = tasks.running.iter().position(|other| other.sequence == self.sequence);
        tasks.running.swap_remove(position.expect("a running request is registered"));
        if tasks.waiting > 0 {
            self.unit.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const NEXUS: NexusId = NexusId(0);
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn tags_are_in_flight_from_begin_to_drop() {
        let unit = Arc::new(Unit::default());
        let command = unit.begin(NEXUS, Some(7));
        assert!(
            unit.has(Which::Tag(NEXUS, 7)) && unit.has(Which::Commands) && unit.has(Which::All)
        );
        assert!(!unit.has(Which::Tag(NEXUS, 8)));
        drop(command);
        assert!(!unit.has(Which::All));
    }

    #[test]
    fn task_management_is_no_command() {
        let unit = Arc::new(Unit::default());
        let _management = unit.begin(NEXUS, None);
        assert!(!unit.has(Which::Commands));
        assert!(unit.has(Which::All));
        assert_eq!(unit.wait_for(Which::Commands, LONG), Ok(()));
        assert_eq!(unit.wait_for(Which::All, SHORT), Err(StillInFlight(1)));
    }

    #[test]
    fn waiting_ends_with_the_request_and_not_with_others() {
        let unit = Arc::new(Unit::default());
        let (mine, other) = (unit.begin(NEXUS, Some(1)), unit.begin(NEXUS, Some(2)));
        assert_eq!(unit.wait_for(Which::Tag(NEXUS, 1), SHORT), Err(StillInFlight(1)));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| unit.wait_for(Which::Tag(NEXUS, 1), LONG));
            drop(mine);
            assert_eq!(waiter.join().expect("the waiter does not panic"), Ok(()));
        });
        drop(other);
    }

    #[test]
    fn waiting_does_not_wait_for_later_requests() {
        let unit = Arc::new(Unit::default());
        let early = unit.begin(NEXUS, Some(1));
        let late = thread::scope(|scope| {
            let waiter = scope.spawn(|| unit.wait_for(Which::All, LONG));
            while unit.tasks().waiting == 0 {
                thread::yield_now();
            }
            let late = unit.begin(NEXUS, Some(2));
            drop(early);
            assert_eq!(waiter.join().expect("the waiter does not panic"), Ok(()));
            late
        });
        drop(late);
    }
}
