//! The ring and the operations in flight on it.

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use crate::{
    raw::{self, RawRing},
    sqe::{Cqe, Sqe},
};

/// Size of a submission entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqeSize {
    /// The default of io_uring: 16 bytes of payload.
    Bytes64,
    /// `IORING_SETUP_SQE128`: 80 bytes of payload.
    Bytes128,
}

/// Size of a completion entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CqeSize {
    /// The default of io_uring: one 32-bit result.
    Bytes16,
    /// `IORING_SETUP_CQE32`: two more 64-bit words.
    Bytes32,
}

/// How a ring is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Submission entries; the kernel rounds up to a power of two and doubles it for completions.
    pub entries: u32,
    /// Size of a submission entry.
    pub sqe: SqeSize,
    /// Size of a completion entry.
    pub cqe: CqeSize,
    /// `IORING_SETUP_SINGLE_ISSUER`: only one task submits.
    pub single_issuer: bool,
    /// `IORING_SETUP_DEFER_TASKRUN`: completions run only while the owner waits.
    pub defer_taskrun: bool,
    /// `IORING_SETUP_SQPOLL` with the idle time of its thread in milliseconds.
    pub sqpoll_idle_ms: Option<u32>,
    /// `IORING_SETUP_IOPOLL`.
    pub iopoll: bool,
}

impl Shape {
    /// 128-byte submissions and 32-byte completions, what a `URING_CMD` can need at most.
    pub fn big(entries: u32) -> Self {
        Shape {
            entries,
            sqe: SqeSize::Bytes128,
            cqe: CqeSize::Bytes32,
            single_issuer: false,
            defer_taskrun: false,
            sqpoll_idle_ms: None,
            iopoll: false,
        }
    }
}

/// What is submitted: an entry and the owner of everything the entry refers to.
///
/// # Safety
/// Whatever memory of this process the kernel or the driver may access for the entry must
/// - be owned by `self` and stay where it is when `self` is moved (a [`crate::Buffer`] does, an array
///   inside `self` does not), or not exist (see [`crate::Pointer`]);
/// - not be read or written through `self` until the ring gives `self` back;
/// - not be freed by [`Operation::abandon`].
///
/// The file descriptor in the entry must be kept open by `self`.
pub unsafe trait Operation: Send + 'static {
    /// The entry. `user_data` must differ from that of every operation in flight on the same ring.
    fn sqe(&mut self) -> Sqe;

    /// Called instead of dropping when the ring is gone and the kernel may still use the memory.
    /// Leaks everything; an implementation may let go of what is not memory, such as its file, as
    /// the kernel has references of its own.
    fn abandon(self)
    where
        Self: Sized,
    {
        mem::forget(self);
    }
}

/// Why an operation was not taken; it is given back.
pub struct PushError<O> {
    /// The operation.
    pub operation: O,
    /// What stood in the way.
    pub kind: PushErrorKind,
}

/// What stood in the way of [`Ring::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushErrorKind {
    /// No free submission entry: submit first.
    #[error("the submission queue is full")]
    Full,
    /// An operation in flight has the same `user_data`.
    #[error("user_data {0:#x} is in flight already")]
    UserDataInUse(u64),
}

impl<O> fmt::Debug for PushError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<O> fmt::Display for PushError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<O> std::error::Error for PushError<O> {}

/// Why [`Ring::wait`] has no completion to give.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed.
    #[error("no completion before the deadline, {in_flight} operations in flight")]
    Deadline {
        /// Operations the kernel still has.
        in_flight: usize,
    },
    /// There is nothing to wait for.
    #[error("no operation is in flight")]
    Idle,
    /// `io_uring_enter` failed.
    #[error("io_uring_enter failed: {0}")]
    Enter(#[source] io::Error),
}

/// A completion.
#[derive(Debug)]
pub struct Completed<O> {
    /// The entry.
    pub cqe: Cqe,
    /// The operation; `None` while it stays in flight after this completion (multishot), and for a
    /// completion no operation of this ring asked for.
    pub operation: Option<O>,
}

/// A ring and the operations in flight on it.
pub struct Ring<O: Operation> {
    /// `None` only while the ring is being dropped.
    raw: Option<Box<dyn RawRing>>,
    in_flight: BTreeMap<u64, O>,
}

impl<O: Operation> Ring<O> {
    /// Sets up a ring. The error is the kernel's: ENOSYS or EPERM where io_uring is absent or
    /// forbidden, EINVAL for a shape the kernel does not know.
    pub fn new(shape: &Shape) -> io::Result<Self> {
        Ok(Ring { raw: Some(raw::build(shape)?), in_flight: BTreeMap::new() })
    }

    fn raw(&mut self) -> &mut (dyn RawRing + 'static) {
        self.raw.as_deref_mut().expect("a ring is open until it is dropped")
    }

    /// Operations owned by the ring, submitted or not.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Puts an operation into the submission queue and returns its `user_data`. The kernel sees it
    /// at the next [`Ring::submit`] or [`Ring::wait`].
    pub fn push(&mut self, mut operation: O) -> Result<u64, PushError<O>> {
        let sqe = operation.sqe();
        if self.in_flight.contains_key(&sqe.user_data) {
            let kind = PushErrorKind::UserDataInUse(sqe.user_data);
            return Err(PushError { operation, kind });
        }
        // SAFETY: by the contract of `Operation` all memory belongs to the operation, which stays in
        // `in_flight`, untouched, until its last completion; `drop` leaks those that remain.
        if !unsafe { self.raw().push(&sqe) } {
            return Err(PushError { operation, kind: PushErrorKind::Full });
        }
        self.in_flight.insert(sqe.user_data, operation);
        Ok(sqe.user_data)
    }

    /// Hands all pushed operations to the kernel and returns their number.
    pub fn submit(&mut self) -> io::Result<usize> {
        loop {
            match self.raw().submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Takes a completion that is already there. Submits nothing.
    pub fn try_next(&mut self) -> Option<Completed<O>> {
        let cqe = self.raw().pop()?;
        let operation = if cqe.has_more() { None } else { self.in_flight.remove(&cqe.user_data) };
        Some(Completed { cqe, operation })
    }

    /// Submits what was pushed and returns the next completion, waiting for it until `deadline`.
    pub fn wait(&mut self, deadline: Instant) -> Result<Completed<O>, WaitError> {
        loop {
            if self.raw().unsubmitted() > 0 {
                self.submit().map_err(WaitError::Enter)?;
            }
            if let Some(completed) = self.try_next() {
                return Ok(completed);
            }
            if self.in_flight.is_empty() {
                return Err(WaitError::Idle);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(WaitError::Deadline { in_flight: self.in_flight.len() });
            }
            match self.raw().submit_and_wait(left) {
                Ok(_) => {}
                // The time is over, a signal came, or completions wait for room: look again.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::TIME | Errno::INTR | Errno::BUSY)
                    ) => {}
                Err(error) => return Err(WaitError::Enter(error)),
            }
        }
    }
}

impl<O: Operation> Drop for Ring<O> {
    /// Abandons the operations in flight: closing a ring does not wait for the drivers, which may
    /// still write to their memory.
    fn drop(&mut self) {
        drop(self.raw.take());
        for operation in mem::take(&mut self.in_flight).into_values() {
            operation.abandon();
        }
    }
}

impl<O: Operation> fmt::Debug for Ring<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}
