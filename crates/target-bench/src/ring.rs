//! The driver's side of a split virtqueue (virtio 1.2, 2.7), with indirect descriptors and EVENT_IDX.
//!
//! A command has one descriptor in the ring, whose number is that of its slot, and a table with the
//! rest, as Linux makes it for whatever needs more than one descriptor.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use vm_memory::VolatileArrayRef;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    Error,
    memory::{Memory, RingPlace},
};

/// Entries of a ring, QEMU's default for this device.
pub(crate) const RING_LEN: u16 = 128;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;

/// A piece of memory in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) address: usize,
    pub(crate) len: u32,
    /// Whether the device writes it.
    pub(crate) writable: bool,
}

/// A running ring.
#[derive(Debug)]
pub(crate) struct Ring<'m> {
    memory: &'m Memory,
    place: RingPlace,
    /// Written to tell the device of commands.
    pub(crate) kick: EventFd,
    /// Written by the device to tell of answers.
    pub(crate) call: EventFd,
    /// Index of the next available entry, which the device has not seen until it is published.
    available: u16,
    /// What the device has been shown.
    published: u16,
    /// Index of the next used entry.
    used: u16,
    /// The device's index, as far as it has been looked up.
    used_known: u16,
    available_ring: VolatileArrayRef<'m, u16>,
    used_ring: VolatileArrayRef<'m, u64>,
    available_index: &'m AtomicU16,
    used_index: &'m AtomicU16,
    available_event: &'m AtomicU16,
    used_event: &'m AtomicU16,
}

impl<'m> Ring<'m> {
    /// The `index`th ring of this memory, empty.
    pub(crate) fn new(memory: &'m Memory, index: usize) -> Result<Self, Error> {
        let place = RingPlace::of(index);
        let len = usize::from(RING_LEN);
        let event = || EventFd::new(EFD_NONBLOCK).map_err(Error::system("make an eventfd"));
        Ok(Ring {
            memory,
            place,
            kick: event()?,
            call: event()?,
            available: 0,
            published: 0,
            used: 0,
            used_known: 0,
            available_ring: memory.array(place.available + 4, len),
            used_ring: memory.array(place.used + 4, len),
            available_index: memory.index(place.available + 2),
            used_index: memory.index(place.used + 2),
            available_event: memory.index(place.used + 4 + 8 * len),
            used_event: memory.index(place.available + 4 + 2 * len),
        })
    }

    pub(crate) fn place(&self) -> RingPlace {
        self.place
    }

    /// Writes the chain that `slot` stands for from now on, its table at `table`.
    pub(crate) fn describe(&self, slot: u16, table: usize, chain: &[Piece]) {
        for (index, piece) in (0_u16..).zip(chain) {
            let last = usize::from(index) + 1 == chain.len();
            let next = if last { 0 } else { DESC_NEXT };
            let flags = next | if piece.writable { DESC_WRITE } else { 0 };
            self.put(table, index, piece.address, piece.len, flags);
        }
        let len = u32::try_from(16 * chain.len()).expect("at most 128 descriptors");
        self.put(self.place.descriptors, slot, table, len, DESC_INDIRECT);
    }

    fn put(&self, table: usize, index: u16, address: usize, len: u32, flags: u16) {
        let next = if flags & DESC_NEXT == 0 { 0 } else { index + 1 };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(address as u64).to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write(table + 16 * usize::from(index), &bytes);
    }

    /// Puts a slot into the available ring. The device sees it when it is published.
    #[inline]
    pub(crate) fn add(&mut self, slot: u16) {
        self.available_ring.store(usize::from(self.available % RING_LEN), slot.to_le());
        self.available = self.available.wrapping_add(1);
    }

    /// Shows the device what was added, and kicks it if it asked for that.
    #[inline]
    pub(crate) fn publish(&mut self) -> Result<(), Error> {
        let old = self.published;
        self.available_index.store(self.available.to_le(), Ordering::Release);
        self.published = self.available;
        // The index must be out before we look whether the device sleeps.
        fence(Ordering::SeqCst);
        let event = u16::from_le(self.available_event.load(Ordering::Relaxed));
        if is_crossed(event, old, self.available) {
            self.kick.write(1).map_err(Error::system("kick"))?;
        }
        Ok(())
    }

    /// Whether there is one to reap.
    #[inline]
    pub(crate) fn has_answer(&self) -> bool {
        self.used != u16::from_le(self.used_index.load(Ordering::Acquire))
    }

    /// The next slot that has been answered.
    #[inline]
    pub(crate) fn reap(&mut self) -> Option<u16> {
        if self.used == self.used_known {
            self.used_known = u16::from_le(self.used_index.load(Ordering::Acquire));
            if self.used == self.used_known {
                return None;
            }
        }
        let entry = u64::from_le(self.used_ring.load(usize::from(self.used % RING_LEN)));
        self.used = self.used.wrapping_add(1);
        // The lower half is the identifier, of which 16 bits count; the upper the bytes written.
        Some(u16::try_from(entry & 0xffff).expect("16 bits"))
    }

    /// Asks the device for an interrupt at the next answer. False if one has come meanwhile.
    pub(crate) fn ask_for_interrupt(&mut self) -> bool {
        self.used_event.store(self.used.to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        u16::from_le(self.used_index.load(Ordering::Acquire)) == self.used
    }

    /// Asks for no interrupt for as many answers as an index can count.
    pub(crate) fn decline_interrupts(&self) {
        self.used_event.store(self.used.wrapping_sub(1).to_le(), Ordering::Relaxed);
    }
}

/// Whether an index went past `event` on its way from `old` to `new` (virtio 1.2, 2.7.7.2).
fn is_crossed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::at_the_first(5, 5, 6, true)]
    #[case::at_the_last_of_a_batch(7, 5, 8, true)]
    #[case::beyond(8, 5, 8, false)]
    #[case::long_ago(4, 5, 8, false)]
    #[case::over_the_wrap(0xffff, 0xfffe, 1, true)]
    #[case::beyond_over_the_wrap(1, 0xfffe, 1, false)]
    #[case::nothing_new(5, 5, 5, false)]
    fn event_is_crossed(
        #[case] event: u16,
        #[case] old: u16,
        #[case] new: u16,
        #[case] crossed: bool,
    ) {
        assert_eq!(is_crossed(event, old, new), crossed);
    }

    /// What a device would do, by hand.
    fn answer(memory: &Memory, index: u16, slot: u32) {
        let used = RingPlace::of(2).used;
        memory.write(used + 4 + 8 * usize::from(index % 128), &slot.to_le_bytes());
        memory.write(used + 2, &index.wrapping_add(1).to_le_bytes());
    }

    #[test]
    fn a_kick_is_written_only_when_the_device_asked() {
        let memory = Memory::new().expect("memory");
        let mut ring = Ring::new(&memory, 2).expect("ring");
        ring.add(7);
        ring.add(9);
        assert_eq!(memory.at::<u16>(RingPlace::of(2).available + 2).load(), 0, "not yet published");
        ring.publish().expect("published");
        assert_eq!(ring.kick.read().expect("kicked"), 1);
        let mut entries = [0; 6];
        memory.read(RingPlace::of(2).available + 2, &mut entries);
        assert_eq!(entries, [2, 0, 7, 0, 9, 0]);
        // avail_event is 0 still, and was passed.
        ring.add(7);
        ring.publish().expect("published");
        assert!(ring.kick.read().is_err(), "the device has not asked for another kick");
    }

    #[test]
    fn answers_are_reaped_in_order_and_over_the_wrap() {
        let memory = Memory::new().expect("memory");
        let mut ring = Ring::new(&memory, 2).expect("ring");
        assert_eq!(ring.reap(), None);
        for index in 0..=u16::MAX {
            answer(&memory, index, u32::from(index % 100));
            assert_eq!(ring.reap(), Some(index % 100));
        }
        answer(&memory, 0, 5);
        answer(&memory, 1, 6);
        assert_eq!([ring.reap(), ring.reap(), ring.reap()], [Some(5), Some(6), None]);
    }

    #[test]
    fn interrupts_are_asked_for_at_the_next_answer_or_at_none() {
        let memory = Memory::new().expect("memory");
        let mut ring = Ring::new(&memory, 2).expect("ring");
        // used_event stands behind the 128 entries of the available ring.
        let event = || memory.at::<u16>(RingPlace::of(2).available + 4 + 256).load();
        answer(&memory, 0, 3);
        assert!(!ring.ask_for_interrupt(), "an answer is there");
        assert_eq!(ring.reap(), Some(3));
        assert!(ring.ask_for_interrupt());
        assert_eq!(event(), 1);
        ring.decline_interrupts();
        assert_eq!(event(), 0);
    }

    #[test]
    fn chain_is_one_descriptor_and_a_table() {
        let memory = Memory::new().expect("memory");
        let ring = Ring::new(&memory, 2).expect("ring");
        let out = Piece { address: 0x1234, len: 51, writable: false };
        let room = Piece { address: 0x5678, len: 108, writable: true };
        ring.describe(3, 0x2_0000, &[out, room]);
        let mut table = [0; 32];
        memory.read(0x2_0000, &mut table);
        assert_eq!(table[..16], [0x34, 0x12, 0, 0, 0, 0, 0, 0, 51, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(table[16..], [0x78, 0x56, 0, 0, 0, 0, 0, 0, 108, 0, 0, 0, 2, 0, 0, 0]);
        let mut descriptor = [0; 16];
        memory.read(RingPlace::of(2).descriptors + 3 * 16, &mut descriptor);
        assert_eq!(descriptor, [0, 0, 2, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0]);
    }
}
