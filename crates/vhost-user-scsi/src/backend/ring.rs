//! A virtqueue as this crate wants it: chains are popped in batches or one by one, completed from any
//! thread in any order, and never into a ring that was stopped in between.

use std::{
    fs::File,
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    time::Instant,
};

use tracing::{debug, warn};

use super::{
    Keeper,
    inflight::Tracker,
    memory::Memory,
    notifier::Notifier,
    split::{self, Addresses, RingError, SIZE_MAX, SplitRing},
};
use crate::chain::{Chain, Parts};

/// So many completions wait for one interrupt at most.
const UNTOLD_MAX: u16 = 32;
/// A ring that was just served is looked at so often before it rests: about two microseconds.
const LOOKS_MAX: u32 = 32;
/// So many parts of completed chains are kept for the next ones at most,
const SPARE_MAX: usize = 32;
/// and of these none that has room for more segments.
const SPARE_CAPACITY_MAX: usize = 256;

/// Why a ring is not started or changed. The front end broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingError {
    #[error("a ring of {0} entries: it takes a power of two up to {SIZE_MAX}")]
    Size(u32),
    #[error("the ring runs; GET_VRING_BASE stops it")]
    Runs,
    #[error("the ring has no addresses yet")]
    NoAddresses,
    #[error("the ring is not within one memory region each, or not aligned: {0:x?}")]
    Unmapped(Addresses),
    #[error("inflight memory for {entries} entries and a ring of {size}")]
    Inflight { entries: u16, size: u16 },
}

/// One virtqueue of a session. Clones are the same ring.
#[derive(Clone, Debug)]
pub struct Ring {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a ring that stops has nothing in flight any more.
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    run: Option<Run>,
    enabled: bool,
    /// Whether [`Ring::finish_stop`] is to come: nothing is popped any more.
    stopping: bool,
    /// Grows when the ring stops. A chain of an older generation completes into nothing.
    generation: u64,
    /// Chains of this generation popped and not yet completed.
    in_flight: u32,
    /// Who has kept chains since the ring was started.
    keepers: Vec<Weak<dyn Keeper>>,
    call: Option<Notifier>,
    error: Option<Notifier>,
    tracker: Option<Tracker>,
    /// Heads that the tracker knows to be put into the used ring, which the driver does not see yet.
    completing: Vec<u16>,
    /// Parts of completed chains, in the memory of the run.
    #[expect(clippy::vec_box, reason = "they come from their chains in their boxes")]
    spare: Vec<Box<Parts>>,
}

/// What the front end sets while the ring is stopped.
#[derive(Clone, Copy, Debug)]
struct Settings {
    size: u16,
    addresses: Option<Addresses>,
    base: u16,
    event_idx: bool,
    /// Where the ring was when it was stopped last in this session. If it goes on elsewhere, it is
    /// another.
    stopped_at: Option<u16>,
}

/// The ring while it runs.
#[derive(Debug)]
struct Run {
    memory: Arc<Memory>,
    split: SplitRing,
    /// Heads that were in flight when a process before this one died, last first.
    again: Vec<u16>,
}

impl State {
    /// Whether chains may be taken, if it runs. Whoever looks for more has to ask this too.
    fn pops(&self) -> bool {
        self.enabled && !self.stopping
    }

    /// Whether a chain can still be given back.
    fn is_current(&self, head: u16, generation: u64) -> bool {
        let current = generation == self.generation;
        if !current {
            debug!(head, "completion for a ring that was stopped, dropped");
        }
        current
    }

    /// Enters a chain into the used ring. The driver does not see it before [`State::publish`].
    fn put(&mut self, head: u16, len: u32) {
        let Some(run) = &mut self.run else { return };
        if !run.split.has(head) {
            warn!(head, "the driver made available what is no descriptor of its ring");
            return;
        }
        if let Some(tracker) = &self.tracker {
            tracker.completing(head);
            self.completing.push(head);
        }
        run.split.put_used(&run.memory, head.into(), len);
    }

    /// Shows the driver what was put.
    fn publish(&mut self) {
        let Some(run) = &mut self.run else { return };
        run.split.publish(&run.memory);
        if let Some(tracker) = &self.tracker {
            tracker.completed(&self.completing, run.split.next_used());
            self.completing.clear();
        }
    }

    /// A chain is in flight no more. What it was made of is kept for the next one, or comes back.
    fn forget(&mut self, parts: Box<Parts>) -> Option<Box<Parts>> {
        self.in_flight -= 1;
        let here = self.run.as_ref().is_some_and(|run| parts.is_in(&run.memory));
        if here && self.spare.len() < SPARE_MAX && parts.capacity() <= SPARE_CAPACITY_MAX {
            self.spare.push(parts);
            return None;
        }
        Some(parts)
    }

    /// Tells the driver of completions, if it wants to know.
    fn tell(&mut self) {
        if let Some(run) = &mut self.run
            && run.split.wants_interrupt(&run.memory)
        {
            notify("driver", self.call.as_ref());
        }
    }
}

fn notify(whom: &str, notifier: Option<&Notifier>) {
    if let Some(notifier) = notifier {
        notifier.notify(whom);
    }
}

impl Ring {
    pub(super) fn new() -> Self {
        let settings = Settings {
            size: SIZE_MAX,
            addresses: None,
            base: 0,
            event_idx: false,
            stopped_at: None,
        };
        let state = State {
            settings,
            run: None,
            enabled: false,
            stopping: false,
            generation: 0,
            in_flight: 0,
            keepers: Vec::new(),
            call: None,
            error: None,
            tracker: None,
            completing: Vec::new(),
            spare: Vec::new(),
        };
        Ring { shared: Arc::new(Shared { state: Mutex::new(state), idle: Condvar::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no holder panics")
    }

    /// Takes the next chain the driver made available, if there is one and the ring runs.
    ///
    /// # Errors
    /// If the available ring makes no sense.
    pub fn pop(&self) -> Result<Option<Chain>, RingError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let pops = state.pops();
        let Some(run) = state.run.as_mut().filter(|_| pops) else {
            return Ok(None);
        };
        let head = match run.again.pop() {
            Some(head) => head,
            None => match run.split.fetch(&run.memory)? {
                None => return Ok(None),
                Some(head) => {
                    if let Some(tracker) = state.tracker.as_mut().filter(|_| run.split.has(head)) {
                        tracker.fetched(head);
                    }
                    head
                }
            },
        };
        state.in_flight += 1;
        let mut parts = state.spare.pop().unwrap_or_else(|| Box::new(Parts::new(&run.memory)));
        parts.walk(run.split.descriptors(&run.memory, head));
        let generation = state.generation;
        Ok(Some(Chain::new(Ticket { ring: self.clone(), head, generation, parts: Some(parts) })))
    }

    /// Calls `step` until it says that there is nothing left, with kicks suppressed meanwhile, and tells
    /// the driver of what is completed.
    pub fn drain(&self, mut step: impl FnMut(&Ring) -> Result<bool, RingError>) {
        self.suppress_kicks();
        let mut served = false;
        loop {
            match step(self) {
                Ok(true) => served = true,
                Ok(false) => {
                    // Falling asleep and being woken takes longer than a driver that is quick.
                    if std::mem::take(&mut served) && self.more_comes_soon() {
                        continue;
                    }
                    if !self.rest() {
                        return;
                    }
                    // More came before the driver could know that it has to kick again.
                    self.suppress_kicks();
                }
                Err(error) => {
                    warn!(%error, "ring is broken, waiting for the next kick");
                    self.rest();
                    notify("front end", self.state().error.as_ref());
                    return;
                }
            }
        }
    }

    /// Tells the driver what it does not know yet, and looks for a moment whether that brings more.
    fn more_comes_soon(&self) -> bool {
        self.tell();
        (0..LOOKS_MAX).any(|_| {
            std::hint::spin_loop();
            let state = self.state();
            state.pops() && state.run.as_ref().is_some_and(|run| run.split.has_more(&run.memory))
        })
    }

    fn suppress_kicks(&self) {
        if let Some(run) = &self.state().run {
            run.split.suppress_kicks(&run.memory);
        }
    }

    /// Tells the driver what it does not know yet and asks it to kick again; true if it made more
    /// available in the meantime.
    fn rest(&self) -> bool {
        let mut state = self.state();
        state.tell();
        let pops = state.pops();
        state.run.as_ref().is_some_and(|run| run.split.allow_kicks(&run.memory) && pops)
    }

    /// Asks the driver to kick for the chain behind the last that was popped; true if it is there already.
    /// For whoever pops chains outside [`Ring::drain`].
    pub(crate) fn ask_for_a_kick(&self) -> bool {
        let state = self.state();
        let pops = state.pops();
        state.run.as_ref().is_some_and(|run| run.split.allow_kicks(&run.memory) && pops)
    }

    /// Tells the driver of everything that is completed.
    pub(crate) fn tell(&self) {
        self.state().tell();
    }

    /// Puts entries into the used ring, as id and length, whether or not they are true.
    fn lie(&self, generation: u64, entries: impl Iterator<Item = (u32, u32)>) {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(run) = state.run.as_mut().filter(|_| generation == state.generation) {
            entries.for_each(|(id, len)| run.split.put_used(&run.memory, id, len));
            run.split.publish(&run.memory);
            state.tell();
        }
    }

    /// Gives chains of this ring back, each with the length written: the driver sees them together. It is
    /// told of them by whoever drains the ring, or when there are many.
    pub(crate) fn complete_all(&self, chains: impl Iterator<Item = (Chain, u32)>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut unused = Vec::new();
        for (chain, len) in chains {
            let mut ticket = chain.into_ticket();
            debug_assert!(Arc::ptr_eq(&self.shared, &ticket.ring.shared), "of another ring");
            let parts = ticket.parts.take().expect("whoever completes it consumes it");
            if state.is_current(ticket.head, ticket.generation) {
                state.put(ticket.head, len);
                unused.extend(state.forget(parts));
            } else {
                unused.push(parts);
            }
        }
        state.publish();
        if state.run.as_ref().is_some_and(|run| run.split.untold() >= UNTOLD_MAX) {
            state.tell();
        }
        self.wake_stopper(state);
        // Perhaps with their memory.
        drop(guard);
        drop(unused);
    }

    /// Ends the life of a chain: completed with a length and told of, or abandoned.
    fn finish(&self, head: u16, generation: u64, used_len: Option<u32>, parts: Box<Parts>) {
        let mut guard = self.state();
        let state = &mut *guard;
        if !state.is_current(head, generation) {
            return;
        }
        if let Some(len) = used_len {
            state.put(head, len);
            state.publish();
            state.tell();
        }
        let unused = state.forget(parts);
        self.wake_stopper(state);
        drop(guard);
        drop(unused);
    }

    fn wake_stopper(&self, state: &State) {
        if state.in_flight == 0 && state.stopping {
            self.shared.idle.notify_all();
        }
    }
}

/// What the session does with a ring.
impl Ring {
    /// Changes what can be changed only while the ring is stopped.
    fn set(&self, change: impl FnOnce(&mut Settings)) -> Result<(), SettingError> {
        let mut state = self.state();
        if state.run.is_some() {
            return Err(SettingError::Runs);
        }
        change(&mut state.settings);
        Ok(())
    }

    pub(super) fn set_size(&self, size: u32) -> Result<(), SettingError> {
        let valid = u16::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= SIZE_MAX)
            .ok_or(SettingError::Size(size))?;
        self.set(|settings| settings.size = valid)
    }

    pub(super) fn set_addresses(&self, addresses: Addresses) -> Result<(), SettingError> {
        self.set(|settings| settings.addresses = Some(addresses))
    }

    pub(super) fn set_base(&self, base: u16) -> Result<(), SettingError> {
        self.set(|settings| settings.base = base)
    }

    pub(super) fn set_event_idx(&self, event_idx: bool) -> Result<(), SettingError> {
        self.set(|settings| settings.event_idx = event_idx)
    }

    pub(super) fn set_tracker(&self, tracker: Option<Tracker>) {
        self.state().tracker = tracker;
    }

    pub(super) fn runs(&self) -> bool {
        self.state().run.is_some()
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        self.state().enabled = enabled;
    }

    /// Tells on the new eventfd at once: a front end may replace it on a running ring (QEMU 10 does
    /// when it reconnects), and does not look at the old one again, where completions may have been
    /// told. A driver takes an interrupt too many for nothing.
    pub(super) fn set_call(&self, call: Option<File>) {
        let mut state = self.state();
        state.call = call.map(Notifier::new);
        notify("driver", state.call.as_ref());
    }

    pub(super) fn set_error(&self, error: Option<File>) {
        self.state().error = error.map(Notifier::new);
    }

    /// Starts it: from now on chains are popped, first those that were in flight when the process
    /// before this one died.
    pub(super) fn start(&self, memory: &Arc<Memory>) -> Result<(), SettingError> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.run.is_some() {
            return Ok(());
        }
        let Settings { size, addresses, base, event_idx, stopped_at } = state.settings;
        let addresses = addresses.ok_or(SettingError::NoAddresses)?;
        let mut split = SplitRing::new(memory, &addresses, size, base, event_idx)
            .ok_or(SettingError::Unmapped(addresses))?;
        let mut again = Vec::new();
        if let Some(tracker) = &mut state.tracker {
            if tracker.entries() < size {
                return Err(SettingError::Inflight { entries: tracker.entries(), size });
            }
            let (used, outstanding) = (split.next_used(), split.outstanding(memory));
            if stopped_at.is_some_and(|stopped_at| stopped_at != base) {
                // The driver has set up another ring since.
                tracker.clear(used);
            } else if let Some(heads) = tracker.recover(used, outstanding) {
                let count = u16::try_from(heads.len()).expect("no more than entries");
                // What was fetched is what was given back and what is in flight. The front end may
                // not know, if the process before died: QEMU then starts at the used index.
                split.set_next_available(used.wrapping_add(count));
                again = heads;
                again.reverse();
                if !again.is_empty() {
                    debug!(count, "chains were in flight, they are served again");
                }
            }
        }
        state.run = Some(Run { memory: Arc::clone(memory), split, again });
        Ok(())
    }

    /// Whether a ring that runs is mapped in this memory too.
    pub(super) fn can_move_to(&self, memory: &Memory) -> Result<(), SettingError> {
        let state = self.state();
        match (&state.run, state.settings.addresses) {
            (Some(_), Some(addresses))
                if !split::is_mapped(memory, &addresses, state.settings.size) =>
            {
                Err(SettingError::Unmapped(addresses))
            }
            _ => Ok(()),
        }
    }

    /// Chains fetched from now on are in this memory. Those in flight keep theirs.
    pub(super) fn move_to(&self, memory: &Arc<Memory>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let addresses = state.settings.addresses;
        if let (Some(run), Some(addresses)) = (&mut state.run, addresses) {
            run.split.move_to(memory, &addresses);
            run.memory = Arc::clone(memory);
            state.spare.clear();
        }
    }

    /// Begins to stop it: no chain is popped any more, and those that are kept are dropped.
    pub(super) fn begin_stop(&self) {
        let keepers = {
            let mut state = self.state();
            state.stopping = true;
            std::mem::take(&mut state.keepers)
        };
        for keeper in keepers.iter().filter_map(Weak::upgrade) {
            keeper.ring_stops();
        }
    }

    /// Stops it: chains in flight are waited for, and what is still in flight at the deadline is
    /// abandoned. Nothing touches the ring afterwards. Returns the next available index to fetch.
    pub(super) fn finish_stop(&self, deadline: Instant) -> u16 {
        let left = deadline.saturating_duration_since(Instant::now());
        let (mut guard, _) = self
            .shared
            .idle
            .wait_timeout_while(self.state(), left, |state| state.in_flight > 0)
            .expect("no holder panics");
        let state = &mut *guard;
        state.tell();
        state.stopping = false;
        state.generation += 1;
        let abandoned = std::mem::take(&mut state.in_flight);
        if abandoned > 0 {
            warn!(abandoned, "ring stopped with commands still in flight, which are given up");
        }
        state.call = None;
        state.spare = Vec::new();
        if let Some(run) = state.run.take() {
            let next = run.split.next_available();
            state.settings.base = next;
            state.settings.stopped_at = Some(next);
        }
        state.settings.base
    }
}

/// The right to complete one chain, once.
#[derive(Debug)]
pub struct Ticket {
    ring: Ring,
    head: u16,
    generation: u64,
    /// Absent once it is completed.
    parts: Option<Box<Parts>>,
}

impl Ticket {
    pub(crate) fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("whoever completes it consumes it")
    }

    fn finish(&mut self, used_len: Option<u32>) {
        if let Some(parts) = self.parts.take() {
            self.ring.finish(self.head, self.generation, used_len, parts);
        }
    }

    /// Whether its ring still runs, so that it can be kept: `keeper` is told when the ring stops.
    pub(crate) fn keep(&self, keeper: &Weak<dyn Keeper>) -> bool {
        let mut state = self.ring.state();
        let runs = self.is_current(&state);
        let known =
            state.keepers.iter().any(|known| std::ptr::addr_eq(known.as_ptr(), keeper.as_ptr()));
        if runs && !known {
            state.keepers.push(Weak::clone(keeper));
        }
        runs
    }

    /// Whether its ring has been stopped since.
    pub(crate) fn is_stale(&self) -> bool {
        !self.is_current(&self.ring.state())
    }

    fn is_current(&self, state: &State) -> bool {
        state.run.is_some() && !state.stopping && state.generation == self.generation
    }

    pub(crate) fn complete(mut self, used_len: u32) {
        self.finish(Some(used_len));
    }

    /// Completes it with so many entries of this id, its own if there is none, and length.
    pub(crate) fn complete_falsely(self, id: Option<u32>, len: u32, times: u16) {
        let entry = (id.unwrap_or(self.head.into()), len);
        self.ring.lie(self.generation, std::iter::repeat_n(entry, times.into()));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.finish(None);
    }
}

#[cfg(test)]
pub(crate) mod tests;
