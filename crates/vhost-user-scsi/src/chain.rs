//! One descriptor chain of a virtqueue, taken apart once and checked: whatever the driver wrote, what
//! comes out of here can be read, written and completed without another look at the ring.

use std::sync::{Arc, Weak};

use vm_memory::{Bytes, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::backend::{Descriptors, Keeper, Memory, Segment, Ticket};

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

/// What a chain is made of. Its ring uses it again for the next chain, so that in the long run none is
/// allocated for a command.
#[derive(Debug)]
pub(crate) struct Parts {
    memory: Arc<Memory>,
    /// The device-readable ones, then the device-writable ones.
    segments: Vec<Segment>,
    readable: usize,
    readable_len: u32,
    writable_len: u32,
    fault: Option<ChainFault>,
}

impl Parts {
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Parts {
            memory: Arc::clone(memory),
            segments: Vec::new(),
            readable: 0,
            readable_len: 0,
            writable_len: 0,
            fault: None,
        }
    }

    /// Whether they are good for chains in this memory.
    pub(crate) fn is_in(&self, memory: &Arc<Memory>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// For how many segments there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.segments.capacity()
    }

    fn readable(&self) -> &[Segment] {
        &self.segments[..self.readable]
    }

    fn writable(&self) -> &[Segment] {
        &self.segments[self.readable..]
    }

    /// Bytes of both directions.
    pub(crate) fn len(&self) -> u32 {
        // A walk ends before the sum exceeds 32 bits.
        self.readable_len + self.writable_len
    }

    /// Walks the descriptors of another chain, in the memory these parts were made with. With a fault,
    /// the descriptors before it are kept: they may hold the place for an answer.
    pub(crate) fn walk(&mut self, descriptors: Descriptors<'_>) {
        self.segments.clear();
        (self.readable, self.readable_len, self.writable_len) = (0, 0, 0);
        // Overwritten by the first descriptor; afterwards `Unterminated` until one without NEXT.
        self.fault = Some(ChainFault::Empty);
        let mut writes = false;
        for descriptor in descriptors {
            let (len, write) = (descriptor.len(), descriptor.is_write_only());
            if writes && !write {
                self.fault = Some(ChainFault::Order);
                break;
            }
            if self.len().checked_add(len).is_none() {
                self.fault = Some(ChainFault::Unterminated);
                break;
            }
            let before = self.segments.len();
            let segments = &mut self.segments;
            if !self.memory.cut(descriptor.addr().0, len, |segment| segments.push(segment)) {
                segments.truncate(before);
                self.fault = Some(ChainFault::WildAddress);
                break;
            }
            writes = write;
            if write {
                self.writable_len += len;
            } else {
                self.readable_len += len;
                self.readable = self.segments.len();
            }
            self.fault = descriptor.has_next().then_some(ChainFault::Unterminated);
        }
    }
}

/// A descriptor chain the driver made available. Completing it gives it back; dropping it instead
/// abandons it, and the driver never hears of it again.
#[derive(Debug)]
pub struct Chain {
    ticket: Ticket,
}

impl Chain {
    pub(crate) fn new(ticket: Ticket) -> Self {
        Chain { ticket }
    }

    fn parts(&self) -> &Parts {
        self.ticket.parts()
    }

    /// What is wrong with it, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<ChainFault> {
        self.parts().fault
    }

    /// Bytes the device may read.
    #[must_use]
    pub fn readable_len(&self) -> u32 {
        self.parts().readable_len
    }

    /// Bytes the device may write.
    #[must_use]
    pub fn writable_len(&self) -> u32 {
        self.parts().writable_len
    }

    /// Reads the structure the device-readable part begins with, however it is cut into descriptors;
    /// `None` if the part is shorter.
    #[must_use]
    pub fn read_header<T: FromBytes + IntoBytes>(&self) -> Option<T> {
        let mut header = T::new_zeroed();
        let mut rest = header.as_mut_bytes();
        for segment in self.parts().readable() {
            let len = rest.len().min(segment.len as usize);
            let (now, later) = rest.split_at_mut(len);
            self.parts().memory.slice(*segment).read_slice(now, 0).ok()?;
            rest = later;
        }
        rest.is_empty().then_some(header)
    }

    /// Writes the structure the device-writable part begins with; false, with nothing promised about
    /// the part, if it is shorter.
    #[must_use]
    pub fn write_header<T: IntoBytes + Immutable>(&self, header: &T) -> bool {
        let mut rest = header.as_bytes();
        if (self.parts().writable_len as usize) < rest.len() {
            return false;
        }
        for segment in self.parts().writable() {
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            if self.parts().memory.slice(*segment).write_slice(now, 0).is_err() {
                return false;
            }
            rest = later;
        }
        true
    }

    /// The device-readable memory from byte `skip` on.
    #[must_use]
    pub fn readable_slices(&self, skip: u32) -> Vec<VolatileSlice<'_>> {
        self.slices(self.parts().readable(), skip)
    }

    /// The device-writable memory from byte `skip` on.
    #[must_use]
    pub fn writable_slices(&self, skip: u32) -> Vec<VolatileSlice<'_>> {
        self.slices(self.parts().writable(), skip)
    }

    fn slices(&self, segments: &[Segment], mut skip: u32) -> Vec<VolatileSlice<'_>> {
        let mut slices = Vec::new();
        for segment in segments {
            let skipped = skip.min(segment.len);
            skip -= skipped;
            if skipped < segment.len {
                slices.push(self.parts().memory.slice(segment.after(skipped)));
            }
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

    pub(crate) fn into_ticket(self) -> Ticket {
        self.ticket
    }

    /// Gives back something: so many entries of this id, its own if there is none, and length.
    pub fn complete_falsely(self, id: Option<u32>, len: u32, times: u16) {
        self.ticket.complete_falsely(id, len, times);
    }

    /// Gives the chain back to the driver, and tells it, with `used_len` bytes written from the beginning of
    /// the device-writable part. Nothing happens if the ring has been stopped since.
    pub fn complete(self, used_len: u32) {
        self.ticket.complete(used_len);
    }
}
