//! A virtqueue as this crate wants it: chains are popped under one lock, completed from any thread in
//! any order, and never into a ring that was stopped in between.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::{debug, warn};
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use super::Keeper;
use crate::chain::Chain;

/// Guest memory as the front end may replace it under way.
pub(super) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// How long stopping a ring waits for the chains in flight before it gives them up.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A ring whose contents make no sense. The driver broke it; nothing more is fetched until it kicks
/// again.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The available ring cannot be read, or its index ran more than a ring's length ahead.
    #[error("available ring: {0}")]
    Available(QueueError),
    /// An entry of the available ring cannot be read.
    #[error("an entry of the available ring is outside the guest's memory")]
    Entry,
}

/// One virtqueue of a session. Clones are the same ring.
#[derive(Clone)]
pub struct Ring {
    vring: VringMutex<Memory>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// What a ring knows beside the vring. The counters change under the vring's lock only; they are
/// atomics so that the lock's holder can reach them.
#[derive(Debug)]
struct Shared {
    memory: Memory,
    /// Grows when the ring stops. A chain of an older generation completes into nothing.
    generation: AtomicU64,
    /// Chains of this generation popped and not yet completed.
    in_flight: AtomicU32,
    /// Whether [`Ring::stop`] waits for `in_flight` to become 0.
    stopping: AtomicBool,
    idle_lock: Mutex<()>,
    idle: Condvar,
    /// Who has kept chains since the ring was started. Changes under the vring's lock.
    keepers: Mutex<Vec<Weak<dyn Keeper>>>,
}

impl Shared {
    fn keepers(&self) -> MutexGuard<'_, Vec<Weak<dyn Keeper>>> {
        self.keepers.lock().expect("no holder panics")
    }
}

impl Ring {
    fn state(&self) -> MutexGuard<'_, VringState<Memory>> {
        self.vring.get_mut()
    }

    /// Takes the next chain the driver made available, if there is one and the ring runs.
    ///
    /// # Errors
    /// If the available ring makes no sense.
    pub fn pop(&self) -> Result<Option<Chain>, RingError> {
        let mut state = self.state();
        if !state.get_queue().ready() || !state.is_enabled() {
            return Ok(None);
        }
        let memory = self.shared.memory.memory().into_inner();
        let queue = state.get_queue_mut();
        let available =
            queue.avail_idx(&*memory, Ordering::Acquire).map_err(RingError::Available)?;
        if available.0 == queue.next_avail() {
            return Ok(None);
        }
        let mut chains = queue.iter(&*memory).map_err(RingError::Available)?;
        let descriptors = chains.next().ok_or(RingError::Entry)?;
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket {
            ring: self.clone(),
            head: descriptors.head_index(),
            generation: self.shared.generation.load(Ordering::Relaxed),
            open: true,
        };
        drop(state);
        let memory_of_chain = Arc::clone(&memory);
        Ok(Some(Chain::new(memory_of_chain, descriptors, ticket)))
    }

    /// Calls `step` until it says that there is nothing left, with kicks suppressed meanwhile.
    pub fn drain(&self, mut step: impl FnMut(&Ring) -> Result<bool, RingError>) {
        if !self.suppress_kicks() {
            return;
        }
        loop {
            match step(self) {
                Ok(true) => {}
                Ok(false) => {
                    if !self.allow_kicks() {
                        return;
                    }
                    // More came before the driver could know that it has to kick again.
                    self.suppress_kicks();
                }
                Err(error) => {
                    warn!(%error, "ring is broken, waiting for the next kick");
                    self.allow_kicks();
                    return;
                }
            }
        }
    }

    /// Asks the driver not to kick; false if the ring does not run.
    fn suppress_kicks(&self) -> bool {
        let mut state = self.state();
        if !state.get_queue().ready() {
            return false;
        }
        if let Err(error) = state.disable_notification() {
            debug!(%error, "cannot suppress kicks");
        }
        true
    }

    /// Asks the driver to kick again; true if it made more available in the meantime.
    fn allow_kicks(&self) -> bool {
        let mut state = self.state();
        if !state.get_queue().ready() {
            return false;
        }
        state.enable_notification().unwrap_or_else(|error| {
            debug!(%error, "cannot allow kicks");
            false
        })
    }

    /// Stops the ring: no chain is popped any more, those that are kept are dropped, those in flight
    /// are waited for, and what is still in flight after `limit` is abandoned. Nothing touches the
    /// ring afterwards.
    fn stop(&self, limit: Duration) {
        let shared = &*self.shared;
        shared.stopping.store(true, Ordering::SeqCst);
        let keepers = {
            let mut state = self.state();
            state.get_queue_mut().set_ready(false);
            std::mem::take(&mut *shared.keepers())
        };
        for keeper in keepers.iter().filter_map(Weak::upgrade) {
            keeper.ring_stops();
        }
        let guard = shared.idle_lock.lock().expect("no holder panics");
        let (guard, _) = shared
            .idle
            .wait_timeout_while(guard, limit, |()| shared.in_flight.load(Ordering::SeqCst) > 0)
            .expect("no holder panics");
        drop(guard);
        shared.stopping.store(false, Ordering::SeqCst);

        let _state = self.state();
        shared.generation.fetch_add(1, Ordering::Relaxed);
        let abandoned = shared.in_flight.swap(0, Ordering::SeqCst);
        if abandoned > 0 {
            warn!(abandoned, "ring stopped with commands still in flight, which are given up");
        }
    }

    /// Ends the life of a chain: completed with a length, or abandoned.
    fn finish(&self, head: u16, generation: u64, used_len: Option<u32>) {
        let mut state = self.state();
        if generation != self.shared.generation.load(Ordering::Relaxed) {
            debug!(head, "completion for a ring that was stopped, dropped");
            return;
        }
        if let Some(len) = used_len {
            match state.add_used(head, len) {
                Ok(()) => signal(&mut state),
                Err(error) => warn!(head, %error, "cannot complete a chain"),
            }
        }
        let left = self.shared.in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
        drop(state);
        if left == 0 && self.shared.stopping.load(Ordering::SeqCst) {
            drop(self.shared.idle_lock.lock().expect("no holder panics"));
            self.shared.idle.notify_all();
        }
    }
}

/// Tells the driver of a completion, if it wants to know. Not put off until there are more: the next
/// command may take long.
fn signal(state: &mut VringState<Memory>) {
    // If the driver's wish cannot be read, one interrupt too many does no harm.
    if state.needs_notification().unwrap_or(true)
        && let Err(error) = state.signal_used_queue()
    {
        debug!(%error, "cannot signal the driver");
    }
}

/// The right to complete one chain, once.
#[derive(Debug)]
pub struct Ticket {
    ring: Ring,
    head: u16,
    generation: u64,
    open: bool,
}

impl Ticket {
    /// Whether its ring still runs, so that it can be kept: `keeper` is told when the ring stops.
    pub(crate) fn keep(&self, keeper: &Weak<dyn Keeper>) -> bool {
        let state = self.ring.state();
        let runs = self.is_current(&state);
        let mut keepers = self.ring.shared.keepers();
        let known = keepers.iter().any(|known| std::ptr::addr_eq(known.as_ptr(), keeper.as_ptr()));
        if runs && !known {
            keepers.push(Weak::clone(keeper));
        }
        runs
    }

    /// Whether its ring has been stopped since.
    pub(crate) fn is_stale(&self) -> bool {
        !self.is_current(&self.ring.state())
    }

    fn is_current(&self, state: &VringState<Memory>) -> bool {
        let generation = self.ring.shared.generation.load(Ordering::Relaxed);
        state.get_queue().ready() && generation == self.generation
    }

    pub(crate) fn complete(mut self, used_len: u32) {
        self.open = false;
        self.ring.finish(self.head, self.generation, Some(used_len));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.ring.finish(self.head, self.generation, None);
        }
    }
}

impl<'a> VringStateGuard<'a, Memory> for Ring {
    type G = <VringMutex<Memory> as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Ring {
    type G = <VringMutex<Memory> as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Ring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, QueueError> {
        let vring = VringMutex::new(memory.clone(), max_queue_size)?;
        let shared = Shared {
            memory,
            generation: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            idle_lock: Mutex::new(()),
            idle: Condvar::new(),
            keepers: Mutex::new(Vec::new()),
        };
        Ok(Ring { vring, shared: Arc::new(shared) })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.vring.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.vring.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.vring.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.vring.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.vring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.vring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.vring.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.vring.set_enabled(enabled);
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.vring.set_queue_info(desc, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.vring.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.vring.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.vring.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.vring.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.vring.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.vring.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        if ready {
            self.vring.set_queue_ready(true);
        } else {
            self.stop(STOP_LIMIT);
        }
    }

    fn set_kick(&self, file: Option<File>) {
        self.vring.set_kick(file);
    }

    /// A kick may have been read already, when the front end replaced the eventfd in between. An
    /// error here would end the worker.
    fn read_kick(&self) -> io::Result<bool> {
        match self.vring.read_kick() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(self.vring.get_ref().is_enabled())
            }
            other => other,
        }
    }

    /// Signals the new eventfd at once: a front end may replace it on a running ring (QEMU 10 does
    /// when it reconnects), and does not look at the old one again, where completions may have been
    /// signalled. A driver takes an interrupt too many for nothing.
    fn set_call(&self, file: Option<File>) {
        self.vring.set_call(file);
        if let Err(error) = self.vring.signal_used_queue() {
            debug!(%error, "cannot signal a new call eventfd");
        }
    }

    fn set_err(&self, file: Option<File>) {
        self.vring.set_err(file);
    }
}

/// A running ring of 8 entries in memory of its own with one TEST UNIT READY to LUN 0 available.
#[cfg(test)]
pub(crate) fn ring_with_a_command() -> Ring {
    use vm_memory::{Bytes, GuestAddress};

    let mapping = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).expect("memory");
    let write = |address, bytes: &[u8]| {
        mapping.write_slice(bytes, GuestAddress(address)).expect("inside the memory");
    };
    // Descriptors: address, length, flags (1 next, 2 write), next.
    write(0x1000, &[0, 0x40, 0, 0, 0, 0, 0, 0, 51, 0, 0, 0, 1, 0, 1, 0]);
    write(0x1010, &[0, 0x50, 0, 0, 0, 0, 0, 0, 108, 0, 0, 0, 2, 0, 0, 0]);
    // Available ring: flags, index, head 0.
    write(0x2000, &[0, 0, 1, 0, 0, 0]);
    write(0x4000, &[1, 0, 0x40]);
    let ring = Ring::new(Memory::new(mapping), 8).expect("a power of two");
    ring.set_queue_info(0x1000, 0x2000, 0x3000).expect("aligned");
    ring.set_enabled(true);
    ring.set_queue_ready(true);
    ring
}

#[cfg(test)]
impl Ring {
    /// How many chains were popped and how many completed.
    pub(crate) fn fetched_and_used(&self) -> (u16, u16) {
        (self.queue_next_avail(), self.queue_used_idx().expect("inside the memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(ring: &Ring) -> u16 {
        ring.fetched_and_used().1
    }

    #[test]
    fn chain_completes_into_the_ring_it_came_from() {
        let ring = ring_with_a_command();
        let chain = ring.pop().expect("a sound ring").expect("one chain");
        assert_eq!((chain.readable_len(), chain.writable_len()), (51, 108));
        assert!(ring.pop().expect("a sound ring").is_none());
        chain.complete(108);
        assert_eq!(used(&ring), 1);
    }

    #[test]
    fn chain_still_in_flight_when_its_ring_stops_completes_into_nothing() {
        let ring = ring_with_a_command();
        let stuck = ring.pop().expect("a sound ring").expect("one chain");
        ring.stop(Duration::ZERO);
        // Started anew, as by a driver that resets the device: the same chain is available again.
        ring.set_queue_next_avail(0);
        ring.set_queue_ready(true);
        let again = ring.pop().expect("a sound ring").expect("one chain");
        stuck.complete(108);
        assert_eq!(used(&ring), 0);
        again.complete(108);
        assert_eq!(used(&ring), 1);
        // Both are accounted for: stopping finds nothing to wait for.
        ring.stop(Duration::from_secs(1000));
    }

    #[test]
    fn abandoned_chain_is_not_waited_for() {
        let ring = ring_with_a_command();
        drop(ring.pop().expect("a sound ring").expect("one chain"));
        ring.stop(Duration::from_secs(1000));
        assert_eq!(used(&ring), 0);
    }

    /// Keeps chains, and drops them when it is told to.
    #[derive(Default)]
    struct Shelf(Mutex<Vec<Chain>>);

    impl Keeper for Shelf {
        fn ring_stops(&self) {
            self.0.lock().expect("no holder panics").retain(|chain| !chain.is_stale());
        }
    }

    #[test]
    fn keeper_is_told_when_the_ring_stops_and_not_later() {
        let ring = ring_with_a_command();
        let shelf = Arc::new(Shelf::default());
        let weak = Arc::downgrade(&shelf);
        let keeper: Weak<dyn Keeper> = weak;
        let chain = ring.pop().expect("a sound ring").expect("one chain");
        assert!(!chain.is_stale() && chain.keep(&keeper));
        shelf.0.lock().expect("no panic").push(chain);
        // It would wait so long for a chain that nobody drops.
        ring.stop(Duration::from_secs(1000));
        assert!(shelf.0.lock().expect("no panic").is_empty());
        assert_eq!(used(&ring), 0);

        ring.set_queue_next_avail(0);
        ring.set_queue_ready(true);
        let chain = ring.pop().expect("a sound ring").expect("one chain");
        ring.stop(Duration::ZERO);
        assert!(chain.is_stale() && !chain.keep(&keeper), "nobody would be told");
        ring.set_queue_ready(true);
        assert!(chain.is_stale() && !chain.keep(&keeper), "the ring is another");
    }

    #[test]
    fn stopped_ring_gives_nothing() {
        let ring = ring_with_a_command();
        ring.stop(Duration::ZERO);
        assert!(ring.pop().expect("a sound ring").is_none());
        ring.set_queue_ready(true);
        ring.set_enabled(false);
        assert!(ring.pop().expect("a sound ring").is_none());
    }
}
