//! The I/O descriptors of one queue: memory of the driver, mapped read only.

use std::{
    fs::File,
    io,
    ptr::{self, NonNull},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

use crate::uapi::{IoDesc, MAX_QUEUE_DEPTH};

/// A mapping of one queue's descriptors.
#[derive(Debug)]
pub(crate) struct Descriptors {
    first: NonNull<u8>,
    map_len: usize,
    depth: u16,
    /// Bytes from one descriptor to the next.
    stride: usize,
}

// SAFETY: the mapping belongs to the process and is only read.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// Maps the descriptors of `queue`, which has `depth` tags, from its char device. They are `stride` bytes long,
    /// the first 24 of which are a descriptor. The first mapping of a device binds it to this process
    /// (`ublk_drv.c:ublk_ch_mmap`).
    ///
    /// # Panics
    /// If a descriptor has no room in its stride.
    pub(crate) fn map(device: &File, queue: u16, depth: u16, stride: u16) -> io::Result<Self> {
        let stride = usize::from(stride);
        assert!(stride >= size_of::<IoDesc>() && stride.is_multiple_of(8), "{stride} bytes");
        let area = |tags: u16| (usize::from(tags) * stride).next_multiple_of(page_size());
        let map_len = area(depth);
        let offset = u64::from(queue) * area(MAX_QUEUE_DEPTH) as u64;
        // SAFETY: a new mapping at an address of the kernel's choice harms nobody.
        let map = unsafe {
            mmap(
                ptr::null_mut(),
                map_len,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                device,
                offset,
            )?
        };
        let first = NonNull::new(map.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Descriptors { first, map_len, depth, stride })
    }

    /// The descriptor of a tag. Meaningful while the server owns the request, that is between the
    /// completion of a fetch and the commit; the driver does not write to it then.
    ///
    /// # Panics
    /// If the queue has no such tag.
    pub(crate) fn read(&self, tag: u16) -> IoDesc {
        assert!(tag < self.depth, "tag {tag} of {}", self.depth);
        // SAFETY: the mapping is readable, holds `depth` strides of a multiple of 8 bytes with a descriptor in each, and
        // starts at a page boundary. Any bytes are a descriptor; the read is volatile, for the driver writes the memory.
        unsafe { self.first.add(usize::from(tag) * self.stride).cast::<IoDesc>().read_volatile() }
    }
}

/// Maps a part of a char device and unmaps it again.
pub(crate) fn probe(device: &File, offset: u64, len: usize, writable: bool) -> io::Result<()> {
    let write = if writable { ProtFlags::WRITE } else { ProtFlags::empty() };
    let access = ProtFlags::READ | write;
    // SAFETY: a new mapping at an address of the kernel's choice harms nobody, and nobody hears of it.
    unsafe {
        let map = mmap(ptr::null_mut(), len, access, MapFlags::SHARED, device, offset)?;
        munmap(map, len)?;
    }
    Ok(())
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and with `self` the last reference to it ends.
        let unmapped = unsafe { munmap(self.first.as_ptr().cast(), self.map_len) };
        unmapped.expect("a queue's own mapping can be unmapped");
    }
}
