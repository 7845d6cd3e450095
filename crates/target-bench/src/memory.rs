//! The guest's memory: a memfd that both ends map, and where things are in it.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Arc, atomic::AtomicU16},
};

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{FileOffset, MmapRegion, VolatileArrayRef, VolatileMemory, VolatileRef};

use crate::Error;

/// Bytes of guest memory.
const LEN: usize = 16 << 20;
/// Each ring has its structures in so many bytes, from address 0 on.
const RING_AREA: usize = 0x4000;
/// Descriptor table, available ring and used ring in a ring's area.
const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
/// What belongs to a command but its data: a page for each.
const SLOTS: usize = 0x1_0000;
const SLOT_LEN: usize = 0x1000;
/// Data, to the end.
const DATA: usize = 0x10_0000;

/// Most bytes of data of all commands in flight.
pub(crate) const DATA_MAX: usize = LEN - DATA;

/// Guest memory. Addresses are offsets from its start, which is guest address 0.
#[derive(Debug)]
pub(crate) struct Memory {
    region: MmapRegion,
    file: Arc<File>,
}

/// Where the structures of a ring are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingPlace {
    pub(crate) descriptors: usize,
    pub(crate) available: usize,
    pub(crate) used: usize,
}

/// Where the parts of a command are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotPlace {
    /// `virtio_scsi_cmd_req`.
    pub(crate) request: usize,
    /// `virtio_scsi_cmd_resp`.
    pub(crate) response: usize,
    /// Indirect descriptors.
    pub(crate) table: usize,
}

impl RingPlace {
    /// Of the `index`th ring.
    pub(crate) fn of(index: usize) -> Self {
        let base = index * RING_AREA;
        RingPlace { descriptors: base, available: base + AVAILABLE, used: base + USED }
    }
}

impl SlotPlace {
    /// Of the `index`th command in flight. Request and response have cache lines of their own.
    pub(crate) fn of(index: u16) -> Self {
        let base = SLOTS + usize::from(index) * SLOT_LEN;
        SlotPlace { request: base, response: base + 0x40, table: base + 0x100 }
    }
}

/// Where the data of the `index`th command in flight is, if each has `len` bytes.
pub(crate) fn data_place(index: u16, len: usize) -> usize {
    DATA + usize::from(index) * len
}

impl Memory {
    /// New memory, all zeros.
    pub(crate) fn new() -> Result<Self, Error> {
        let map = || -> io::Result<Memory> {
            let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
            file.set_len(LEN as u64)?;
            let file = Arc::new(file);
            let offset = FileOffset::from_arc(Arc::clone(&file), 0);
            let region = MmapRegion::from_file(offset, LEN).map_err(io::Error::other)?;
            Ok(Memory { region, file })
        };
        map().map_err(Error::system("make a guest's memory"))
    }

    /// How the front end tells the daemon of it.
    pub(crate) fn description(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: LEN as u64,
            userspace_addr: self.host_address(0),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// The address in this process, by which the protocol names rings.
    pub(crate) fn host_address(&self, address: usize) -> u64 {
        (self.region.as_ptr().addr() + address) as u64
    }

    /// A place that holds a value, aligned or not.
    pub(crate) fn at<T: vm_memory::ByteValued>(&self, address: usize) -> VolatileRef<'_, T> {
        self.region.get_ref(address).expect(INSIDE)
    }

    /// A place that holds several.
    pub(crate) fn array<T: vm_memory::ByteValued>(
        &self,
        address: usize,
        count: usize,
    ) -> VolatileArrayRef<'_, T> {
        self.region.get_array_ref(address, count).expect(INSIDE)
    }

    /// An index that both ends look at.
    pub(crate) fn index(&self, address: usize) -> &AtomicU16 {
        self.region.get_atomic_ref(address).expect(INSIDE)
    }

    pub(crate) fn write(&self, address: usize, bytes: &[u8]) {
        self.array(address, bytes.len()).copy_from(bytes);
    }

    pub(crate) fn read(&self, address: usize, bytes: &mut [u8]) {
        self.array(address, bytes.len()).copy_to(bytes);
    }

    /// Zeroes the rings, for another daemon.
    pub(crate) fn clear_rings(&self) {
        self.write(0, &[0; SLOTS]);
    }
}

/// Why no access fails: addresses are made of the constants above.
const INSIDE: &str = "the place is inside the guest's memory, and aligned";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_over_anything_else() {
        // 128 entries: 16 bytes, 2 and 8 each (virtio 1.2, 2.7), with flags, index and event index.
        let rings: Vec<_> = (0..3).map(RingPlace::of).collect();
        for ring in &rings {
            assert!(ring.descriptors + 128 * 16 <= ring.available);
            assert!(ring.available + 4 + 128 * 2 + 2 <= ring.used);
        }
        assert!(rings[0].used + 4 + 128 * 8 + 2 <= rings[1].descriptors);
        assert!(rings[2].used + 4 + 128 * 8 + 2 <= SlotPlace::of(0).request);
        let slot = SlotPlace::of(127);
        // Structures of 51 and 108 bytes, and a table of 2 + 126 descriptors.
        assert!(slot.request + 51 <= slot.response && slot.response + 108 <= slot.table);
        assert!(slot.table + 128 * 16 <= data_place(0, 4096));
        assert_eq!(data_place(1, 4096) - data_place(0, 4096), 4096);
    }

    #[test]
    fn what_is_written_is_read() {
        let memory = Memory::new().expect("memory");
        memory.write(DATA + 1, b"odd");
        let mut bytes = [0; 3];
        memory.read(DATA + 1, &mut bytes);
        assert_eq!(&bytes, b"odd");
        assert_eq!(memory.at::<u16>(DATA + 2).load(), u16::from_le_bytes(*b"dd"));
    }
}
