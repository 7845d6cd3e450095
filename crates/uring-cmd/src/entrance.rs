//! How a thread names its ring to `io_uring_enter`: by the descriptor, or by a place in a table of the thread's own
//! (`IORING_REGISTER_RING_FDS`, io_uring/tctx.c), where the kernel need not look for the file and hold it each time.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    ffi::c_void,
    io_uring::{
        IoringEnterFlags, IoringRegisterOp, io_uring_ptr, io_uring_register, io_uring_rsrc_update,
    },
};

/// Any free place of the table.
const ANY_PLACE: u32 = u32::MAX;

static NEXT_THREAD: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// 0 for one that has registered nothing.
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// The ring in the table of the thread that registered it; another thread has another table, and maybe another ring in
/// that place.
#[derive(Debug)]
pub(crate) struct Entrance {
    place: i32,
    /// A number that no other thread has, has had or will have.
    thread: u64,
}

/// `io_uring_register` with the one entry of an update.
fn update(
    ring: BorrowedFd<'_>,
    op: IoringRegisterOp,
    entry: &mut io_uring_rsrc_update,
) -> io::Result<u32> {
    let entry = std::ptr::from_mut(entry).cast::<c_void>();
    // SAFETY: the operation reads one entry and writes its place back.
    Ok(unsafe { io_uring_register(ring, op, entry, 1)? })
}

impl Entrance {
    /// Registers a ring with this thread.
    pub(crate) fn new(ring: &OwnedFd) -> io::Result<Self> {
        let data = usize::try_from(ring.as_raw_fd()).expect("a descriptor is not negative");
        let mut entry = io_uring_rsrc_update::default();
        entry.offset = ANY_PLACE;
        entry.data = io_uring_ptr::new(std::ptr::without_provenance_mut(data));
        update(ring.as_fd(), IoringRegisterOp::RegisterRingFds, &mut entry)?;
        let place = i32::try_from(entry.offset).map_err(io::Error::other)?;
        if THREAD.get() == 0 {
            THREAD.set(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
        }
        Ok(Entrance { place, thread: THREAD.get() })
    }

    /// What to call the ring by, and the flag that says so; `None` on another thread.
    #[inline]
    pub(crate) fn name(&self) -> Option<(BorrowedFd<'_>, IoringEnterFlags)> {
        if THREAD.get() != self.thread {
            return None;
        }
        // SAFETY: it is no descriptor, and with the flag beside it the kernel takes it for none. It is not -1.
        let place = unsafe { BorrowedFd::borrow_raw(self.place) };
        Some((place, IoringEnterFlags::REGISTERED_RING))
    }

    /// Empties the place, which keeps the ring open until its thread ends. On another thread it cannot be reached.
    pub(crate) fn close(self, ring: &OwnedFd) -> io::Result<()> {
        if THREAD.get() != self.thread {
            return Ok(());
        }
        let mut entry = io_uring_rsrc_update::default();
        entry.offset = self.place.cast_unsigned();
        update(ring.as_fd(), IoringRegisterOp::UnregisterRingFds, &mut entry).map(drop)
    }
}
