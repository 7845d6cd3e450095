//! The ring's tables: registered buffers, files and credentials.
//!
//! The kernel pins the pages of a registered buffer, so that a command with [`crate::sqe::CMD_FIXED`] reaches those
//! pages and no address. A driver can put buffers of its own into the same table (ublk does); they have no address
//! here, only offsets.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::Arc,
};

use rustix::io_uring::{IoringRegisterOp, io_uring_ptr, io_uring_rsrc_update2, iovec};

use crate::{
    region::Region,
    ring::{Operation, Ring},
};

/// The regions in the table, so that their addresses mean nothing else meanwhile.
#[derive(Default)]
pub(crate) struct Fixed {
    regions: Vec<Option<Arc<Region>>>,
    pub(crate) has_files: bool,
}

/// `struct io_uring_clone_buffers` (include/uapi/linux/io_uring.h): without `nr`, all buffers.
#[derive(Default)]
#[repr(C)]
struct CloneBuffers {
    /// The other ring.
    src_fd: u32,
    flags: u32,
    src_off: u32,
    dst_off: u32,
    nr: u32,
    pad: [u32; 3],
}

const _: () = {
    assert!(size_of::<CloneBuffers>() == 32);
    assert!(std::mem::offset_of!(CloneBuffers, nr) == 16);
};

/// What the kernel is told of a region; an empty slot is nothing at address 0.
fn entry(region: Option<&Arc<Region>>) -> iovec {
    let (iov_base, iov_len) = region.map_or((ptr::null_mut(), 0), |region| {
        let address = usize::try_from(region.address()).expect("an address fits");
        (ptr::with_exposed_provenance_mut(address), region.len())
    });
    iovec { iov_base, iov_len }
}

impl<O: Operation> Ring<O> {
    /// Makes a table of buffers, by position; `None` is an empty slot, for [`Ring::update_buffer`] or a driver to
    /// fill. EBUSY if there is one already, EFAULT for a region with a page that cannot be written.
    pub fn register_buffers(&mut self, regions: &[Option<Arc<Region>>]) -> io::Result<()> {
        let entries: Vec<_> = regions.iter().map(|region| entry(region.as_ref())).collect();
        let count = u32::try_from(entries.len()).map_err(io::Error::other)?;
        let op = IoringRegisterOp::RegisterBuffers;
        // SAFETY: an array of so many `struct iovec`. The memory they name is the regions', to which nobody has a
        // reference; its pages are pinned, so that they outlive even the regions.
        unsafe { self.raw().register(op, entries.as_ptr(), count)? };
        self.fixed.regions = regions.to_vec();
        Ok(())
    }

    /// Changes one slot of the table. Commands in flight keep the buffer they began with. EINVAL if there is no such
    /// slot, ENXIO if there is no table.
    pub fn update_buffer(&mut self, index: u16, region: Option<Arc<Region>>) -> io::Result<()> {
        let entry = entry(region.as_ref());
        let mut update = io_uring_rsrc_update2::default();
        update.offset = index.into();
        update.data = io_uring_ptr::new(ptr::from_ref(&entry).cast_mut().cast());
        update.nr = 1;
        let len = u32::try_from(size_of_val(&update)).expect("a structure is short");
        let op = IoringRegisterOp::RegisterBuffersUpdate;
        // SAFETY: the operation takes the structure and its length; the one `struct iovec` it points to lives until
        // the call returns, and for the memory it names as above.
        unsafe { self.raw().register(op, &raw const update, len)? };
        let slot = self.fixed.regions.get_mut(usize::from(index));
        *slot.expect("the kernel has such a slot") = region;
        Ok(())
    }

    /// Ends the table. Commands in flight keep their buffers. ENXIO if there is none.
    pub fn unregister_buffers(&mut self) -> io::Result<()> {
        let op = IoringRegisterOp::UnregisterBuffers;
        // SAFETY: the operation takes nothing.
        unsafe { self.raw().register(op, ptr::null::<u8>(), 0)? };
        self.fixed.regions.clear();
        Ok(())
    }

    /// Makes the table one of the other ring's buffers, those of the kernel included: each lives until both rings have
    /// given it up. EBUSY if there is a table already, ENXIO if the other has none.
    pub fn clone_buffers<P: Operation>(&mut self, other: &mut Ring<P>) -> io::Result<()> {
        let source = CloneBuffers {
            src_fd: other.raw().fd().as_raw_fd().cast_unsigned(),
            ..CloneBuffers::default()
        };
        let op = IoringRegisterOp::RegisterCloneBuffers;
        // SAFETY: the operation takes one such structure. The memory of the buffers is the regions', as above, or the
        // kernel's own.
        unsafe { self.raw().register(op, &raw const source, 1)? };
        self.fixed.regions.clone_from(&other.fixed.regions);
        Ok(())
    }

    /// Makes a table of files, by position, for entries with [`crate::sqe::SQE_FIXED_FILE`], which need not look for
    /// their file. The ring keeps them open as long as it is there; operations in flight keep theirs beyond that. EBUSY
    /// if there is a table already.
    pub fn register_files(&mut self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let descriptors: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let count = u32::try_from(descriptors.len()).map_err(io::Error::other)?;
        let op = IoringRegisterOp::RegisterFiles;
        // SAFETY: an array of so many descriptors.
        unsafe { self.raw().register(op, descriptors.as_ptr(), count)? };
        self.fixed.has_files = true;
        Ok(())
    }

    /// Has this thread name the ring to the kernel by a place in a table of the thread's own, which saves every call a
    /// look for its file. Other threads, and this one after another call, are none the worse. EBUSY for the 17th ring of
    /// a thread. Linux 5.18.
    pub fn register_with_thread(&mut self) -> io::Result<()> {
        self.raw().enter_by_place()
    }

    /// Registers the credentials this thread has now, and returns their number for
    /// [`crate::Sqe::personality`].
    pub fn register_personality(&mut self) -> io::Result<u16> {
        let op = IoringRegisterOp::RegisterPersonality;
        // SAFETY: the operation takes nothing.
        let number = unsafe { self.raw().register(op, ptr::null::<u8>(), 0)? };
        u16::try_from(number).map_err(io::Error::other)
    }
}
