//! What the transport keeps for each logical unit: the requests in flight on it, those it holds, and its
//! journal.
//!
//! The registry answers the questions only the transport can: is this tag in flight, and has
//! everything that came before ended?

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use control::JournalPage;
use device_server::{LuConfig, MediumConfig, NexusId};
use scsi::task::TaskAttribute;

use crate::{
    backend::Keeper,
    faults::{Engine, Event, Fired, Wait, is_permutation},
    held::Held,
    journal::{FiredRule, Journal, Record},
    request_queue::Command,
    target::Target,
    timers::{Timer, Timers},
};

mod task_set;

use task_set::has_order;

/// A logical unit as the transport sees it.
#[derive(Debug)]
pub struct Unit {
    tasks: Mutex<Tasks>,
    /// Notified when a request ends while somebody waits.
    ended: Condvar,
    journal: Mutex<Journal>,
    /// Commands that were not written into the journal, because nobody wants it.
    unrecorded: Option<AtomicU64>,
    /// Whether its commands may wait for storage of the host.
    may_block: AtomicBool,
}

#[derive(Debug, Default)]
struct Tasks {
    /// Counts what comes to the unit.
    next_sequence: u64,
    running: Vec<Request>,
    waiting: u32,
    /// In order of arrival.
    held: VecDeque<Waiting>,
    /// What goes wrong.
    engine: Engine,
    /// Commands of the task set, running or not, that are ORDERED or HEAD OF QUEUE. Only with one of them
    /// does a command wait for others.
    with_order: usize,
    /// Whether somebody starts commands that waited for others, one after the other.
    starting: bool,
    /// Most commands of the task set, if there is a limit.
    commands_max: Option<usize>,
}

/// Something that was fetched and has not begun.
#[derive(Debug)]
struct Waiting {
    sequence: u64,
    held: Held,
    until: Until,
}

/// What it waits for. A task management function and a reset end every wait.
#[derive(Debug)]
enum Until {
    /// A control client.
    Released,
    /// A time, at which it has its turn.
    Due { _timer: Timer },
    /// Its [`Turn`], which somebody else keeps.
    ItsTurn,
    /// Nothing.
    Never,
    /// Others that the same rule is about.
    Others(Arc<FiredRule>),
    /// Commands of its task set that come before it.
    Preceding,
}

/// What becomes of a command that was just fetched.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It is to be executed.
    Runs(Command),
    /// It waits.
    Waits,
    /// It and others have waited for each other: they are to take their turns in this order.
    Together(Vec<Turn>),
}

/// The turn of something that waits. It may be that something else has ended its wait before.
#[derive(Debug)]
pub(crate) struct Turn {
    unit: Weak<Unit>,
    sequence: u64,
}

impl Turn {
    /// Carries out what has waited. One after the other, because what is done with one may end others.
    pub(crate) fn take(self, target: &Target) {
        let Some(unit) = self.unit.upgrade() else { return };
        let held = {
            let mut tasks = unit.tasks();
            match tasks.may_not_start_yet(self.sequence) {
                Some(waiting) => {
                    waiting.until = Until::Preceding;
                    None
                }
                None => unit.take(&mut tasks, |waiting| waiting.sequence == self.sequence).pop(),
            }
        };
        if let Some(held) = held {
            held.carry_out(target);
        }
    }
}

/// An order of release that does not name each that is held once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order has to name each position from 0 to {} once", .0.saturating_sub(1))]
pub struct BadOrder(pub usize);

/// A command, or a task management function, which has no tag of its own.
#[derive(Clone, Copy, Debug)]
struct Request {
    sequence: u64,
    nexus: NexusId,
    tag: Option<u64>,
    /// Of a command that is in the task set.
    attribute: Option<TaskAttribute>,
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

    fn run(&mut self, unit: &Arc<Unit>, request: Request) -> Running {
        self.running.push(request);
        Running { unit: Arc::clone(unit), sequence: request.sequence, has_left: false }
    }
}

impl Unit {
    /// A unit with nothing in flight, and a journal of so many entries.
    pub(crate) fn new(config: &LuConfig, journal_len: usize) -> Self {
        let unit = Unit {
            tasks: Mutex::default(),
            ended: Condvar::new(),
            journal: Mutex::new(Journal::new(journal_len)),
            unrecorded: (journal_len == 0).then(AtomicU64::default),
            may_block: AtomicBool::default(),
        };
        unit.configure(config);
        unit
    }

    /// It is this from now on.
    pub(crate) fn configure(&self, config: &LuConfig) {
        let may_block = matches!(config.medium, MediumConfig::File { .. });
        self.may_block.store(may_block, Ordering::Relaxed);
        self.tasks().commands_max = config.task_set_max.map(|max| max.get() as usize);
    }

    /// Whether its commands may wait for storage of the host.
    pub(crate) fn may_block(&self) -> bool {
        self.may_block.load(Ordering::Relaxed)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().expect("no holder panics")
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("no holder panics")
    }

    /// Registers a command, or a task management function without tag, until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, nexus: NexusId, tag: Option<u64>) -> Running {
        let mut tasks = self.tasks();
        let (sequence, attribute) = (tasks.next_sequence(), tag.map(|_| TaskAttribute::Simple));
        tasks.run(self, Request { sequence, nexus, tag, attribute })
    }

    /// Registers a command that was just fetched and gives it back, to be executed, or lets it wait. This
    /// is where it is decided what goes wrong with it: in the order in which commands come to the unit.
    pub(crate) fn admit(self: &Arc<Self>, timers: &Timers, mut command: Command) -> Admitted {
        let mut tasks = self.tasks();
        let (nexus, tag) = (command.nexus(), Some(command.tag()));
        if let Some(status) = tasks.has_no_room(nexus) {
            let sequence = tasks.next_sequence();
            command.refuse(status);
            command.runs(tasks.run(self, Request { sequence, nexus, tag, attribute: None }));
            return Admitted::Runs(command);
        }
        if !tasks.engine.is_empty() {
            let fired = tasks.engine.decide(&command.event());
            command.set_fault(fired);
        }
        if command.fault().is_some_and(|fired| fired.rule.effect.wait.is_some()) {
            let together = self.keep(&mut tasks, timers, Held::Command(command));
            return if together.is_empty() {
                Admitted::Waits
            } else {
                Admitted::Together(together)
            };
        }
        let (sequence, attribute) = (tasks.next_sequence(), command.attribute());
        if (tasks.with_order > 0 || attribute == TaskAttribute::Ordered)
            && !tasks.precedence().lets_start(sequence, attribute)
        {
            self.add(&mut tasks, sequence, Held::Command(command), Until::Preceding);
            return Admitted::Waits;
        }
        tasks.with_order += usize::from(has_order(attribute));
        command.runs(tasks.run(self, Request { sequence, nexus, tag, attribute: Some(attribute) }));
        Admitted::Runs(command)
    }

    /// What goes wrong with a task management function that was just fetched.
    pub(crate) fn decide(&self, event: &Event<'_>) -> Option<Fired> {
        self.tasks().engine.decide(event)
    }

    /// Lets something wait as its fault wants. If it is what others have waited for, their turns come back.
    pub(crate) fn wait(self: &Arc<Self>, timers: &Timers, held: Held) -> Vec<Turn> {
        self.keep(&mut self.tasks(), timers, held)
    }

    fn keep(self: &Arc<Self>, tasks: &mut Tasks, timers: &Timers, held: Held) -> Vec<Turn> {
        let unit = Arc::downgrade(self);
        let sequence = tasks.next_sequence();
        let fired = held.fault().expect("only a fault lets something wait").clone();
        let wait = fired.rule.effect.wait.as_ref().expect("the caller has looked");
        let until = match wait {
            Wait::UntilReleased => Until::Released,
            Wait::ForEver => Until::Never,
            Wait::Order(_) => Until::Others(Arc::clone(&fired.rule)),
            Wait::Delay { from, to } => {
                let delay = Duration::from_micros(Wait::delay_us(*from, *to, fired.draw));
                Until::Due { _timer: timers.add(Instant::now() + delay, Turn { unit, sequence }) }
            }
        };
        self.add(tasks, sequence, held, until);
        match wait {
            Wait::Order(order) => {
                let of_rule = |until: &Until| matches!(until, Until::Others(other) if Arc::ptr_eq(other, &fired.rule));
                self.turns(tasks, of_rule, Some(order)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    fn add(self: &Arc<Self>, tasks: &mut Tasks, sequence: u64, held: Held, until: Until) {
        let unit = Arc::downgrade(self);
        let keeper: Weak<dyn Keeper> = unit;
        // With its ring stopped, nobody waits for it any more.
        if held.chain().keep(&keeper) {
            tasks.with_order += usize::from(held.attribute().is_some_and(has_order));
            tasks.held.push_back(Waiting { sequence, held, until });
        }
    }

    /// The turns of everything that waits so, in order of arrival or in another. From now on it waits for
    /// its turn only.
    fn turns(
        self: &Arc<Self>,
        tasks: &mut Tasks,
        so: impl Fn(&Until) -> bool,
        order: Option<&[u32]>,
    ) -> Result<Vec<Turn>, BadOrder> {
        let mut meant: Vec<&mut Waiting> =
            tasks.held.iter_mut().filter(|waiting| so(&waiting.until)).collect();
        let count = meant.len();
        let positions: Vec<usize> = match order {
            None => (0..count).collect(),
            Some(order) if order.len() == count && (count == 0 || is_permutation(order)) => {
                order.iter().map(|at| usize::try_from(*at).expect("a position")).collect()
            }
            Some(_) => return Err(BadOrder(count)),
        };
        let turn = |at: usize| {
            let waiting = &mut *meant[at];
            waiting.until = Until::ItsTurn;
            Turn { unit: Arc::downgrade(self), sequence: waiting.sequence }
        };
        Ok(positions.into_iter().map(turn).collect())
    }

    /// Takes what waits, in order of arrival; from now on it runs.
    pub(crate) fn take_held(self: &Arc<Self>, which: Which) -> Vec<Held> {
        let mut tasks = self.tasks();
        self.take(&mut tasks, |waiting| which.covers(waiting.held.nexus(), waiting.held.tag()))
    }

    fn take(self: &Arc<Self>, tasks: &mut Tasks, meant: impl Fn(&Waiting) -> bool) -> Vec<Held> {
        let (taken, kept): (VecDeque<_>, VecDeque<_>) = tasks.held.drain(..).partition(meant);
        tasks.held = kept;
        taken.into_iter().map(|waiting| self.resume(tasks, waiting)).collect()
    }

    /// The turns of what waits to be released, in order of arrival or in another.
    ///
    /// # Errors
    /// The order does not name each once. Nothing has happened then.
    pub(crate) fn release(self: &Arc<Self>, order: Option<&[u32]>) -> Result<Vec<Turn>, BadOrder> {
        self.turns(&mut self.tasks(), |until| matches!(until, Until::Released), order)
    }

    /// It keeps its place among the commands of the task set.
    fn resume(self: &Arc<Self>, tasks: &mut Tasks, waiting: Waiting) -> Held {
        let Waiting { sequence, mut held, .. } = waiting;
        let (nexus, tag, attribute) = (held.nexus(), held.tag(), held.attribute());
        held.runs(tasks.run(self, Request { sequence, nexus, tag, attribute }));
        held
    }

    /// Drops everything of this nexus that is held, unanswered.
    pub(crate) fn forget_held(&self, nexus: NexusId) {
        self.tasks().keep_only(|waiting| waiting.held.nexus() != nexus);
    }

    /// Says what goes wrong from now on.
    pub(crate) fn set_faults(&self, engine: Engine) {
        self.tasks().engine = engine;
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
            || tasks
                .held
                .iter()
                .any(|waiting| which.covers(waiting.held.nexus(), waiting.held.tag()))
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

    /// Writes an answered request into the journal, if there is one.
    pub fn record<R: Into<Record>>(&self, record: impl FnOnce() -> R) {
        match &self.unrecorded {
            Some(count) => drop(count.fetch_add(1, Ordering::Relaxed)),
            None => self.journal().push(record().into()),
        }
    }

    /// The journal since the last reset, and what is held.
    #[must_use]
    pub fn journal_page(&self) -> JournalPage {
        let (held, rules) = {
            let tasks = self.tasks();
            let held = tasks.held.iter().map(|waiting| waiting.held.entry()).collect();
            (held, tasks.engine.counts())
        };
        let page = self.journal().page();
        let unrecorded = self.unrecorded.as_ref().map_or(0, |count| count.load(Ordering::Relaxed));
        JournalPage { held, rules, dropped: page.dropped + unrecorded, ..page }
    }

    /// Forgets the journal.
    pub fn clear_journal(&self) {
        self.journal().clear();
        if let Some(count) = &self.unrecorded {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Keeper for Unit {
    fn ring_stops(&self) {
        self.tasks().keep_only(|waiting| !waiting.held.chain().is_stale());
    }
}

/// A request in flight on a logical unit. Dropping it says that the request has ended.
#[derive(Debug)]
pub struct Running {
    unit: Arc<Unit>,
    sequence: u64,
    has_left: bool,
}

impl Running {
    /// The unit it runs on.
    #[must_use]
    pub fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    /// Which of what came to the unit it is.
    pub(crate) fn arrival(&self) -> u64 {
        self.sequence
    }

    /// The request has ended: what has waited for it starts.
    pub(crate) fn end(mut self, target: &Target) {
        if self.leave() {
            self.unit.start_waiting(target);
        }
    }

    /// Takes it off the unit, and returns whether others may have waited for it.
    fn leave(&mut self) -> bool {
        self.has_left = true;
        let mut tasks = self.unit.tasks();
        let position = tasks.running.iter().position(|other| other.sequence == self.sequence);
        let request = tasks.running.swap_remove(position.expect("a running request is registered"));
        if tasks.waiting > 0 {
            self.unit.ended.notify_all();
        }
        let others_wait = tasks.with_order > 0;
        tasks.with_order -= usize::from(request.attribute.is_some_and(has_order));
        let is_empty = tasks.running.is_empty() && tasks.held.is_empty();
        debug_assert!(!is_empty || tasks.with_order == 0, "commands that are gone have no order");
        others_wait
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_left {
            self.leave();
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

    fn unit() -> Unit {
        Unit::new(&LuConfig::default(), 16)
    }

    #[test]
    fn tags_are_in_flight_from_begin_to_drop() {
        let unit = Arc::new(unit());
        let command = unit.begin(NEXUS, Some(7));
        assert!(
            unit.has(Which::Tag(NEXUS, 7)) && unit.has(Which::Commands) && unit.has(Which::All)
        );
        assert!(!unit.has(Which::Tag(NEXUS, 8)));
        drop(command);
        assert!(!unit.has(Which::All));
    }

    #[test]
    fn unit_without_a_journal_counts_what_it_does_not_write() {
        let unit = Unit::new(&LuConfig::default(), 0);
        for _ in 0..3 {
            unit.record(|| -> Record { panic!("nobody wants it") });
        }
        let page = unit.journal_page();
        assert_eq!((page.dropped, page.entries.len()), (3, 0));
        unit.clear_journal();
        assert_eq!(unit.journal_page().dropped, 0);
    }

    #[test]
    fn task_management_is_no_command() {
        let unit = Arc::new(unit());
        let _management = unit.begin(NEXUS, None);
        assert!(!unit.has(Which::Commands));
        assert!(unit.has(Which::All));
        assert_eq!(unit.wait_for(Which::Commands, LONG), Ok(()));
        assert_eq!(unit.wait_for(Which::All, SHORT), Err(StillInFlight(1)));
    }

    #[test]
    fn waiting_ends_with_the_request_and_not_with_others() {
        let unit = Arc::new(unit());
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
        let unit = Arc::new(unit());
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
