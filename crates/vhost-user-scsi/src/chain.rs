//! One descriptor chain of a virtqueue, taken apart once and checked: whatever the driver wrote, what
//! comes out of here can be read, written and completed without another look at the ring.

use std::sync::{Arc, Weak};

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::backend::{Keeper, Ticket};

/// What is wrong with a descriptor chain (virtio 1.2, 2.7.4 and 2.7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// No descriptor could be read at all.
    #[error("no readable descriptor at its head")]
    Empty,
    /// A device-readable descriptor follows a device-writable one.
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// A descriptor points outside the guest's memory.
    #[error("a descriptor points outside the guest's memory")]
    WildAddress,
    /// The chain does not end where it must: a loop, a bad index, a bad indirect table, or more than
    /// 2^32 - 1 bytes.
    #[error("the chain loops, breaks off or is too long")]
    Unterminated,
}

/// A piece of guest memory, known to be mapped.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: GuestAddress,
    len: u32,
}

/// The descriptors of one direction, seen as one range of bytes.
#[derive(Debug, Default)]
struct Buffers {
    segments: Vec<Segment>,
    len: u32,
}

impl Buffers {
    fn push(&mut self, segment: Segment) {
        // DescriptorChain ends a chain before its total exceeds 32 bits.
        self.len += segment.len;
        self.segments.push(segment);
    }

    /// The segments from byte `skip` on.
    fn after(&self, skip: u32) -> impl Iterator<Item = Segment> {
        let mut skip = skip;
        self.segments.iter().filter_map(move |segment| {
            let skipped = skip.min(segment.len);
            skip -= skipped;
            let address = GuestAddress(segment.address.0 + u64::from(skipped));
            (skipped < segment.len).then_some(Segment { address, len: segment.len - skipped })
        })
    }
}

/// A descriptor chain the driver made available. Completing it gives it back; dropping it instead
/// abandons it, and the driver never hears of it again.
#[derive(Debug)]
pub struct Chain {
    memory: Arc<GuestMemoryMmap>,
    readable: Buffers,
    writable: Buffers,
    fault: Option<ChainFault>,
    ticket: Ticket,
}

impl Chain {
    /// Walks the descriptors. With a fault, the descriptors before it are kept: they may hold the
    /// place for an answer.
    pub(crate) fn new(
        memory: Arc<GuestMemoryMmap>,
        descriptors: DescriptorChain<&GuestMemoryMmap>,
        ticket: Ticket,
    ) -> Self {
        let mut readable = Buffers::default();
        let mut writable = Buffers::default();
        // Overwritten by the first descriptor; afterwards `Unterminated` until one without NEXT.
        let mut fault = Some(ChainFault::Empty);
        for descriptor in descriptors {
            fault = descriptor.has_next().then_some(ChainFault::Unterminated);
            let (address, len) = (descriptor.addr(), descriptor.len());
            let write = descriptor.is_write_only();
            if !write && !writable.segments.is_empty() {
                fault = Some(ChainFault::Order);
                break;
            }
            let access = if write { Permissions::Write } else { Permissions::Read };
            if !GuestMemory::check_range(&*memory, address, len as usize, access) {
                fault = Some(ChainFault::WildAddress);
                break;
            }
            let buffers = if write { &mut writable } else { &mut readable };
            buffers.push(Segment { address, len });
        }
        Chain { memory, readable, writable, fault, ticket }
    }

    /// What is wrong with it, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<ChainFault> {
        self.fault
    }

    /// Bytes the device may read.
    #[must_use]
    pub fn readable_len(&self) -> u32 {
        self.readable.len
    }

    /// Bytes the device may write.
    #[must_use]
    pub fn writable_len(&self) -> u32 {
        self.writable.len
    }

    /// Reads the structure the device-readable part begins with, however it is cut into descriptors;
    /// `None` if the part is shorter.
    #[must_use]
    pub fn read_header<T: FromBytes + IntoBytes>(&self) -> Option<T> {
        let mut header = T::new_zeroed();
        let mut rest = header.as_mut_bytes();
        for segment in &self.readable.segments {
            let len = rest.len().min(segment.len as usize);
            let (now, later) = rest.split_at_mut(len);
            self.memory.read_slice(now, segment.address).ok()?;
            rest = later;
        }
        rest.is_empty().then_some(header)
    }

    /// Writes the structure the device-writable part begins with; false, with nothing promised about
    /// the part, if it is shorter.
    #[must_use]
    pub fn write_header<T: IntoBytes + Immutable>(&self, header: &T) -> bool {
        let mut rest = header.as_bytes();
        if (self.writable.len as usize) < rest.len() {
            return false;
        }
        for segment in &self.writable.segments {
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            if self.memory.write_slice(now, segment.address).is_err() {
                return false;
            }
            rest = later;
        }
        true
    }

    /// The device-readable memory from byte `skip` on.
    #[must_use]
    pub fn readable_slices(&self, skip: u32) -> Vec<VolatileSlice<'_>> {
        self.slices(&self.readable, skip, Permissions::Read)
    }

    /// The device-writable memory from byte `skip` on.
    #[must_use]
    pub fn writable_slices(&self, skip: u32) -> Vec<VolatileSlice<'_>> {
        self.slices(&self.writable, skip, Permissions::Write)
    }

    fn slices(&self, buffers: &Buffers, skip: u32, access: Permissions) -> Vec<VolatileSlice<'_>> {
        let mut slices = Vec::new();
        for segment in buffers.after(skip) {
            let pieces = GuestMemory::get_slices(
                &*self.memory,
                segment.address,
                segment.len as usize,
                access,
            )
            .expect("a mapping of plain memory refuses no range");
            slices.extend(pieces.map(|piece| piece.expect("checked when the chain was walked")));
        }
        slices
    }

    /// Has `keeper` told when the ring stops; false if it has stopped already, and the chain is worth
    /// nothing any more.
    #[must_use]
    pub fn keep(&self, keeper: &Weak<dyn Keeper>) -> bool {
        self.ticket.keep(keeper)
    }

    /// Whether its ring has been stopped since it was popped.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.ticket.is_stale()
    }

    /// Gives the chain back to the driver with `used_len` bytes written from the beginning of the
    /// device-writable part. Nothing happens if the ring has been stopped since.
    pub fn complete(self, used_len: u32) {
        self.ticket.complete(used_len);
    }
}
