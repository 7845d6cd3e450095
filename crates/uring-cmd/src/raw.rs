//! The four combinations of entry sizes behind one interface.

use std::{io, time::Duration};

use io_uring::{
    IoUring, cqueue, squeue,
    types::{SubmitArgs, Timespec},
};

use crate::{
    ring::{CqeSize, Shape, SqeSize},
    sqe::{Cqe, Sqe},
};

/// A kernel ring without any notion of ownership.
pub(crate) trait RawRing: Send {
    /// Copies an entry into the submission queue; `false` if there is no room.
    ///
    /// # Safety
    /// The memory the entry refers to stays valid, and untouched by us, until its last completion.
    unsafe fn push(&mut self, sqe: &Sqe) -> bool;
    /// Entries pushed and not yet taken by the kernel.
    fn unsubmitted(&mut self) -> usize;
    /// Takes the next completion, if there is one.
    fn pop(&mut self) -> Option<Cqe>;
    /// Submits what was pushed.
    fn submit(&self) -> io::Result<usize>;
    /// Submits what was pushed and waits for one completion, at most `timeout`.
    fn submit_and_wait(&self, timeout: Duration) -> io::Result<usize>;
}

/// Sets up a ring; the kernel's errno if it refuses.
pub(crate) fn build(shape: &Shape) -> io::Result<Box<dyn RawRing>> {
    Ok(match (shape.sqe, shape.cqe) {
        (SqeSize::Bytes64, CqeSize::Bytes16) => {
            Box::new(build_sized::<squeue::Entry, cqueue::Entry>(shape)?)
        }
        (SqeSize::Bytes64, CqeSize::Bytes32) => {
            Box::new(build_sized::<squeue::Entry, cqueue::Entry32>(shape)?)
        }
        (SqeSize::Bytes128, CqeSize::Bytes16) => {
            Box::new(build_sized::<squeue::Entry128, cqueue::Entry>(shape)?)
        }
        (SqeSize::Bytes128, CqeSize::Bytes32) => {
            Box::new(build_sized::<squeue::Entry128, cqueue::Entry32>(shape)?)
        }
    })
}

fn build_sized<S: SqeEntry, C: CqeEntry>(shape: &Shape) -> io::Result<IoUring<S, C>> {
    let mut builder = IoUring::builder();
    if shape.single_issuer {
        builder.setup_single_issuer();
    }
    if shape.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    if let Some(idle_ms) = shape.sqpoll_idle_ms {
        builder.setup_sqpoll(idle_ms);
    }
    if shape.iopoll {
        builder.setup_iopoll();
    }
    builder.build(shape.entries)
}

pub(crate) trait SqeEntry: squeue::EntryMarker + Send {
    fn from_sqe(sqe: &Sqe) -> Self;
}

impl SqeEntry for squeue::Entry128 {
    fn from_sqe(sqe: &Sqe) -> Self {
        // SAFETY: `Entry128` is the kernel's 128-byte entry in `repr(C)`: integers, and unions of
        // integers, without padding. Any bytes are a value of it.
        unsafe { std::mem::transmute::<Sqe, squeue::Entry128>(*sqe) }
    }
}

impl SqeEntry for squeue::Entry {
    fn from_sqe(sqe: &Sqe) -> Self {
        const {
            assert!(size_of::<squeue::Entry>() == 64 && size_of::<Sqe>() == 128);
            assert!(align_of::<squeue::Entry>() <= align_of::<Sqe>());
        }
        // SAFETY: `Entry` is the kernel's 64-byte entry in `repr(C)`, of which any bytes are a value;
        // the size and the alignment are checked above.
        unsafe { std::ptr::from_ref(sqe).cast::<squeue::Entry>().read() }
    }
}

pub(crate) trait CqeEntry: cqueue::EntryMarker + Send {
    fn into_cqe(self) -> Cqe;
}

impl CqeEntry for cqueue::Entry {
    fn into_cqe(self) -> Cqe {
        Cqe { user_data: self.user_data(), res: self.result(), flags: self.flags(), big: None }
    }
}

impl CqeEntry for cqueue::Entry32 {
    fn into_cqe(self) -> Cqe {
        Cqe {
            user_data: self.user_data(),
            res: self.result(),
            flags: self.flags(),
            big: Some(*self.big_cqe()),
        }
    }
}

impl<S: SqeEntry, C: CqeEntry> RawRing for IoUring<S, C> {
    unsafe fn push(&mut self, sqe: &Sqe) -> bool {
        // SAFETY: the caller keeps the promise which the trait and `push` both ask for.
        unsafe { self.submission().push(&S::from_sqe(sqe)).is_ok() }
    }

    fn unsubmitted(&mut self) -> usize {
        self.submission().len()
    }

    fn pop(&mut self) -> Option<Cqe> {
        self.completion().next().map(CqeEntry::into_cqe)
    }

    fn submit(&self) -> io::Result<usize> {
        IoUring::submit(self)
    }

    fn submit_and_wait(&self, timeout: Duration) -> io::Result<usize> {
        let timeout = Timespec::from(timeout);
        self.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
    }
}
