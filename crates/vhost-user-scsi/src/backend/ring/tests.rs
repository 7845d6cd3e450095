use std::time::Duration;

use vm_memory::Bytes;

use super::*;
use crate::backend::memory::Extent;

const ADDRESSES: Addresses =
    Addresses { descriptors: 0x1_1000, available: 0x1_2000, used: 0x1_3000 };

fn memory() -> Arc<Memory> {
    let file = tempfile::tempfile().expect("temporary file");
    file.set_len(0x8000).expect("room");
    let extent = Extent { guest: 0, user: 0x1_0000, len: 0x8000, file_offset: 0 };
    let memory = Memory::default().with(extent, file).expect("a fine region");
    let write = |address, bytes: &[u8]| {
        let place = memory.at_guest(address, 0x100).expect("inside the memory");
        memory.bytes(place, 0, 0x100).write_slice(bytes, 0).expect("inside the memory");
    };
    // Descriptors: address, length, flags (1 next, 2 write), next.
    write(0x1000, &[0, 0x40, 0, 0, 0, 0, 0, 0, 51, 0, 0, 0, 1, 0, 1, 0]);
    write(0x1010, &[0, 0x50, 0, 0, 0, 0, 0, 0, 108, 0, 0, 0, 2, 0, 0, 0]);
    // Available ring: flags, index, head 0.
    write(0x2000, &[0, 0, 1, 0, 0, 0]);
    write(0x4000, &[1, 0, 0x40]);
    Arc::new(memory)
}

/// A running ring of 8 entries in memory of its own with one TEST UNIT READY to LUN 0 available.
pub(crate) fn ring_with_a_command() -> Ring {
    ring(&memory())
}

fn ring(memory: &Arc<Memory>) -> Ring {
    let ring = Ring::new();
    ring.set_size(8).expect("a power of two");
    ring.set_addresses(ADDRESSES).expect("it does not run");
    ring.set_enabled(true);
    ring.start(memory).expect("it is mapped");
    ring
}

impl Ring {
    /// How many chains were popped and how many completed.
    pub(crate) fn fetched_and_used(&self) -> (u16, u16) {
        let state = self.state();
        let run = state.run.as_ref().expect("it runs");
        (run.split.next_available(), ring_index(&run.memory))
    }

    fn stop(&self, limit: Duration) -> u16 {
        self.begin_stop();
        self.finish_stop(Instant::now() + limit)
    }
}

fn used(ring: &Ring) -> u16 {
    ring.fetched_and_used().1
}

fn popped(ring: &Ring) -> Chain {
    ring.pop().expect("a sound ring").expect("one chain")
}

#[test]
fn chain_completes_into_the_ring_it_came_from() {
    let ring = ring_with_a_command();
    let chain = popped(&ring);
    assert_eq!((chain.readable_len(), chain.writable_len()), (51, 108));
    assert!(ring.pop().expect("a sound ring").is_none());
    chain.complete(108);
    assert_eq!(used(&ring), 1);
}

/// Virtio 1.2, 2.7.8.2: the index says how far the driver may look.
#[test]
fn chains_given_back_together_are_seen_together() {
    let memory = memory();
    make_available(&memory, 3);
    let ring = ring(&memory);
    let mut seen = Vec::new();
    let chains: Vec<_> = (0..3).map(|_| popped(&ring)).collect();
    ring.complete_all(chains.into_iter().zip(1..).inspect(|_| seen.push(ring_index(&memory))));
    assert_eq!((seen, used(&ring)), (vec![0; 3], 3));
    let entries = memory.at_guest(0x3004, 24).expect("inside the memory");
    let len = |entry: usize| {
        let mut bytes = [0; 4];
        memory.bytes(entries, 8 * entry + 4, 4).read_slice(&mut bytes, 0).expect("inside");
        u32::from_le_bytes(bytes)
    };
    assert_eq!([len(0), len(1), len(2)], [1, 2, 3]);
    // None is in flight: stopping finds nothing to wait for.
    ring.stop(Duration::from_secs(1000));
}

/// Makes the chain at head 0 available so often.
fn make_available(memory: &Memory, times: u8) {
    let place = memory.at_guest(0x2000, 8).expect("inside the memory");
    let available = [0, 0, times, 0, 0, 0, 0, 0];
    memory.bytes(place, 0, 8).write_slice(&available, 0).expect("inside the memory");
}

/// A ring that was stopped with a chain in flight and started anew, as by a driver that resets the device: the same
/// chain is available again.
fn started_anew() -> (Ring, Chain, Chain) {
    let memory = memory();
    let ring = ring(&memory);
    let stuck = popped(&ring);
    ring.stop(Duration::ZERO);
    ring.set_base(0).expect("stopped");
    ring.start(&memory).expect("it is mapped");
    let again = popped(&ring);
    (ring, stuck, again)
}

/// The index of the used ring.
fn ring_index(memory: &Memory) -> u16 {
    let place = memory.at_guest(0x3002, 2).expect("inside the memory");
    memory.word16(place, 0).load(std::sync::atomic::Ordering::SeqCst)
}

/// A ring that is disabled with chains in it is left alone until it is enabled, and kicked.
#[test]
fn ring_that_is_disabled_while_it_is_drained_is_left() {
    let memory = memory();
    make_available(&memory, 2);
    let ring = ring(&memory);
    let mut looks = 0;
    ring.drain(|ring| {
        looks += 1;
        assert!(looks < 10, "it looks again and again");
        let Some(chain) = ring.pop()? else { return Ok(false) };
        chain.complete(108);
        ring.set_enabled(false);
        Ok(true)
    });
    assert_eq!(ring.fetched_and_used(), (1, 1));
}

#[test]
fn chains_of_a_ring_that_was_stopped_are_not_given_back_with_others() {
    let (ring, stuck, again) = started_anew();
    ring.complete_all([(stuck, 108), (again, 108)].into_iter());
    assert_eq!(used(&ring), 1);
    ring.stop(Duration::from_secs(1000));
}

#[test]
fn chain_still_in_flight_when_its_ring_stops_completes_into_nothing() {
    let (ring, stuck, again) = started_anew();
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
    drop(popped(&ring));
    assert_eq!(used(&ring), 0);
    assert_eq!(ring.stop(Duration::from_secs(1000)), 1);
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
    let memory = memory();
    let ring = ring(&memory);
    let shelf = Arc::new(Shelf::default());
    let weak = Arc::downgrade(&shelf);
    let keeper: Weak<dyn Keeper> = weak;
    let chain = popped(&ring);
    assert!(!chain.is_stale() && chain.keep(&keeper));
    shelf.0.lock().expect("no panic").push(chain);
    // It would wait so long for a chain that nobody drops.
    ring.stop(Duration::from_secs(1000));
    assert!(shelf.0.lock().expect("no panic").is_empty());

    ring.set_base(0).expect("stopped");
    ring.start(&memory).expect("it is mapped");
    assert_eq!(used(&ring), 0);
    let chain = popped(&ring);
    ring.stop(Duration::ZERO);
    assert!(chain.is_stale() && !chain.keep(&keeper), "nobody would be told");
    ring.start(&memory).expect("it is mapped");
    assert!(chain.is_stale() && !chain.keep(&keeper), "the ring is another");
}

#[test]
fn stopped_ring_gives_nothing() {
    let memory = memory();
    let ring = ring(&memory);
    ring.stop(Duration::ZERO);
    assert!(ring.pop().expect("a sound ring").is_none());
    ring.start(&memory).expect("it is mapped");
    ring.set_enabled(false);
    assert!(ring.pop().expect("a sound ring").is_none());
}

#[test]
fn running_ring_keeps_its_settings() {
    let ring = ring_with_a_command();
    for refused in [ring.set_size(16), ring.set_base(3), ring.set_addresses(ADDRESSES)] {
        assert!(matches!(refused, Err(SettingError::Runs)), "{refused:?}");
    }
    ring.stop(Duration::ZERO);
    for size in [0, 3, 2048, 65_536] {
        assert!(matches!(ring.set_size(size), Err(SettingError::Size(_))), "{size}");
    }
}
