//! A split virtqueue in guest memory (virtio 1.2, 2.7): three areas, and where device and driver are in
//! them.
//!
//! Not virtio-queue's: that one looks up every address anew at every access, and can begin a chain only
//! at the next available entry, not at a head that was in flight when the device died.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::desc::split::Descriptor;
use vm_memory::Bytes;

use super::memory::{Memory, Place};

/// Most entries of a virtqueue, QEMU's own limit.
pub(super) const SIZE_MAX: u16 = 1024;

/// Bytes of a descriptor.
const DESCRIPTOR_LEN: u32 = 16;
/// `idx` in both rings, behind `flags`.
const INDEX: usize = 2;
/// `ring` in both rings, behind `flags` and `idx`.
const ENTRIES: usize = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY
const NO_NOTIFY: u16 = 1;

/// A ring whose contents make no sense. The driver broke it; nothing more is fetched until it kicks
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The index of the available ring ran more than a ring's length ahead.
    #[error("the available ring is {ahead} entries ahead of a ring of {size}")]
    Available {
        /// Entries between the device's place and the driver's.
        ahead: u16,
        /// Entries of the ring.
        size: u16,
    },
}

/// Where the front end says that the areas are, in its own addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// Where the areas are in a [`Memory`].
#[derive(Clone, Copy, Debug)]
struct Layout {
    descriptors: Place,
    available: Place,
    used: Place,
}

impl Layout {
    fn find(memory: &Memory, addresses: &Addresses, size: u16) -> Option<Layout> {
        let entries = u64::from(size);
        let aligned = |address, len, alignment| {
            memory.at_user(address, len).filter(|place| place.is_aligned(alignment))
        };
        // Lengths and alignments: virtio 1.2, 2.7.
        Some(Layout {
            descriptors: aligned(addresses.descriptors, 16 * entries, 16)?,
            available: aligned(addresses.available, 6 + 2 * entries, 2)?,
            used: aligned(addresses.used, 6 + 8 * entries, 4)?,
        })
    }
}

/// Whether a ring of this size is mapped where the front end says.
pub(super) fn is_mapped(memory: &Memory, addresses: &Addresses, size: u16) -> bool {
    Layout::find(memory, addresses, size).is_some()
}

/// A virtqueue that runs. Whoever calls it serializes the calls, and passes the memory it was made with.
#[derive(Debug)]
pub(super) struct SplitRing {
    layout: Layout,
    size: u16,
    event_idx: bool,
    next_available: u16,
    /// The driver's index when it was last looked at.
    available_seen: u16,
    next_used: u16,
    /// Completions since the driver's wish for an interrupt was last looked at.
    untold: u16,
}

impl SplitRing {
    /// The ring at these addresses, fetching from available index `base` on; `None` if they are not all
    /// mapped and aligned. `size` is a power of two.
    pub(super) fn new(
        memory: &Memory,
        addresses: &Addresses,
        size: u16,
        base: u16,
        event_idx: bool,
    ) -> Option<Self> {
        let layout = Layout::find(memory, addresses, size)?;
        let next_used = u16::from_le(memory.word16(layout.used, INDEX).load(Ordering::Acquire));
        Some(SplitRing {
            layout,
            size,
            event_idx,
            next_available: base,
            available_seen: base,
            next_used,
            untold: 0,
        })
    }

    /// The same ring in another memory.
    pub(super) fn move_to(&mut self, memory: &Memory, addresses: &Addresses) {
        self.layout = Layout::find(memory, addresses, self.size).expect("looked up before");
    }

    pub(super) fn next_available(&self) -> u16 {
        self.next_available
    }

    pub(super) fn set_next_available(&mut self, index: u16) {
        self.next_available = index;
        self.available_seen = index;
    }

    pub(super) fn next_used(&self) -> u16 {
        self.next_used
    }

    /// How many completions the driver has not been told of.
    pub(super) fn untold(&self) -> u16 {
        self.untold
    }

    /// How many chains the driver has made available and not got back.
    pub(super) fn outstanding(&self, memory: &Memory) -> u16 {
        self.available_index(memory, Ordering::Acquire).wrapping_sub(self.next_used)
    }

    fn available_index(&self, memory: &Memory, ordering: Ordering) -> u16 {
        u16::from_le(memory.word16(self.layout.available, INDEX).load(ordering))
    }

    /// The head of the next chain.
    pub(super) fn fetch(&mut self, memory: &Memory) -> Result<Option<u16>, RingError> {
        if self.next_available == self.available_seen {
            let index = self.available_index(memory, Ordering::Acquire);
            let ahead = index.wrapping_sub(self.next_available);
            if ahead == 0 {
                return Ok(None);
            }
            if ahead > self.size {
                return Err(RingError::Available { ahead, size: self.size });
            }
            self.available_seen = index;
        }
        let entry = ENTRIES + 2 * usize::from(self.next_available % self.size);
        let head = memory.word16(self.layout.available, entry).load(Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(u16::from_le(head)))
    }

    /// Whether the driver has made a chain available that was not fetched.
    pub(super) fn has_more(&self, memory: &Memory) -> bool {
        self.available_index(memory, Ordering::Relaxed) != self.next_available
    }

    /// Whether a head can be completed: one beyond the table cannot.
    pub(super) fn has(&self, head: u16) -> bool {
        head < self.size
    }

    /// The descriptors of the chain that begins at `head`.
    pub(super) fn descriptors<'a>(&self, memory: &'a Memory, head: u16) -> Descriptors<'a> {
        Descriptors {
            memory,
            table: Table::Ring(self.layout.descriptors),
            size: self.size,
            next: Some(head),
            left: self.size,
        }
    }

    /// Puts an entry into the used ring, whether or not it is true. The driver does not look at it before
    /// [`SplitRing::publish`].
    pub(super) fn put_used(&mut self, memory: &Memory, id: u32, len: u32) {
        let used = self.layout.used;
        let entry = ENTRIES + 8 * usize::from(self.next_used % self.size);
        memory.word32(used, entry).store(id.to_le(), Ordering::Relaxed);
        memory.word32(used, entry + 4).store(len.to_le(), Ordering::Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
        self.untold += 1;
    }

    /// Shows the driver all that was put. Its index lies where the driver may be looking all the time, so
    /// that each store costs both of them the cache line.
    pub(super) fn publish(&self, memory: &Memory) {
        memory.word16(self.layout.used, INDEX).store(self.next_used.to_le(), Ordering::Release);
    }

    /// Whether the driver wants to be told of what was completed since this was last asked.
    pub(super) fn wants_interrupt(&mut self, memory: &Memory) -> bool {
        let untold = std::mem::take(&mut self.untold);
        if untold == 0 {
            return false;
        }
        // The completions become visible before the driver's wish is looked at, or a driver that has
        // just looked for completions and then wished would be missed.
        fence(Ordering::SeqCst);
        let available = self.layout.available;
        if self.event_idx {
            // used_event, behind the entries: an interrupt is wanted when this entry is passed.
            let at = ENTRIES + 2 * usize::from(self.size);
            let event = u16::from_le(memory.word16(available, at).load(Ordering::Relaxed));
            self.next_used.wrapping_sub(event).wrapping_sub(1) < untold
        } else {
            let flags = u16::from_le(memory.word16(available, 0).load(Ordering::Relaxed));
            flags & NO_INTERRUPT == 0
        }
    }

    /// Asks the driver not to kick. With EVENT_IDX it does not anyway, once it has kicked.
    pub(super) fn suppress_kicks(&self, memory: &Memory) {
        if !self.event_idx {
            memory.word16(self.layout.used, 0).store(NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the driver to kick for the next chain; true if there is one already.
    pub(super) fn allow_kicks(&self, memory: &Memory) -> bool {
        let used = self.layout.used;
        if self.event_idx {
            // avail_event, behind the entries.
            let at = ENTRIES + 8 * usize::from(self.size);
            memory.word16(used, at).store(self.next_available.to_le(), Ordering::Relaxed);
        } else {
            memory.word16(used, 0).store(0, Ordering::Relaxed);
        }
        // The wish becomes visible before the driver's index is looked at.
        fence(Ordering::SeqCst);
        self.has_more(memory)
    }
}

/// The descriptors of one chain, with an indirect table in place of the descriptor that names it. It
/// ends early where a descriptor cannot be read; the last one it gives then has [`Descriptor::has_next`].
#[derive(Debug)]
pub(crate) struct Descriptors<'a> {
    memory: &'a Memory,
    table: Table,
    /// Entries of the table.
    size: u16,
    next: Option<u16>,
    /// Descriptors the chain can still have; it loops if it has more.
    left: u16,
}

#[derive(Clone, Copy, Debug)]
enum Table {
    /// That of the ring.
    Ring(Place),
    /// An indirect one, at this guest address.
    Indirect(u64),
}

impl Descriptors<'_> {
    fn read(&self, index: u16) -> Option<Descriptor> {
        let offset = u64::from(index) * u64::from(DESCRIPTOR_LEN);
        let slice = match self.table {
            Table::Ring(place) => {
                self.memory.bytes(place, usize::try_from(offset).ok()?, DESCRIPTOR_LEN as usize)
            }
            Table::Indirect(address) => {
                let address = address.checked_add(offset)?;
                let place = self.memory.at_guest(address, DESCRIPTOR_LEN.into())?;
                self.memory.bytes(place, 0, DESCRIPTOR_LEN as usize)
            }
        };
        slice.read_obj(0).ok()
    }

    /// Goes on in an indirect table (virtio 1.2, 2.7.5.3): whole descriptors, and none that is indirect
    /// again.
    fn enter(&mut self, descriptor: Descriptor) -> Option<()> {
        let (len, nested) = (descriptor.len(), matches!(self.table, Table::Indirect(_)));
        if nested || !len.is_multiple_of(DESCRIPTOR_LEN) {
            return None;
        }
        self.size = u16::try_from(len / DESCRIPTOR_LEN).ok()?;
        self.left = self.size;
        self.next = Some(0);
        self.table = Table::Indirect(descriptor.addr().0);
        Some(())
    }
}

impl Iterator for Descriptors<'_> {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        loop {
            let index = self.next.take().filter(|index| *index < self.size)?;
            self.left = self.left.checked_sub(1)?;
            let descriptor = self.read(index)?;
            if descriptor.refers_to_indirect_table() {
                self.enter(descriptor)?;
                continue;
            }
            self.next = descriptor.has_next().then(|| descriptor.next());
            return Some(descriptor);
        }
    }
}
