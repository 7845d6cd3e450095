//! The ring and the operations in flight on it.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use crate::{
    feature::SetupError,
    fixed::Fixed,
    in_flight::InFlight,
    keeper::{self, Keep},
    mapped::{KernelRing, LooseWord},
    shape::Shape,
    sqe::{Cqe, Sqe},
};

/// `user_data` from here on is the ring's own.
pub(crate) const OWN_USER_DATA: u64 = 1 << 63;

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

    /// Offsets of the 32-bit words of the entry that another thread may write to at any time ([`Ring::loose_word`]):
    /// whatever they hold, what is promised above still holds. Lengths are such where there are guards behind the
    /// memory; addresses and flags are not.
    fn loose_words() -> &'static [u32]
    where
        Self: Sized,
    {
        &[]
    }

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
    /// The ring keeps `user_data` from 2^63 on for itself.
    #[error("user_data {0:#x} is one of the ring's own")]
    UserDataReserved(u64),
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
    raw: Option<KernelRing>,
    in_flight: InFlight<O>,
    /// Operations pushed since the last submission.
    pushed: usize,
    /// Completions that came while another one was waited for.
    early: VecDeque<Completed<O>>,
    /// Numbers the ring's own entries.
    own_entries: u64,
    pub(crate) fixed: Fixed,
}

impl<O: Operation> Ring<O> {
    /// Sets up a ring.
    pub fn new(shape: &Shape) -> Result<Self, SetupError> {
        let raw = KernelRing::new(shape).map_err(|error| SetupError::of(shape, error))?;
        Ok(Ring {
            raw: Some(raw),
            in_flight: InFlight::new(),
            pushed: 0,
            early: VecDeque::new(),
            own_entries: 0,
            fixed: Fixed::default(),
        })
    }

    #[inline]
    pub(crate) fn raw(&mut self) -> &mut KernelRing {
        self.raw.as_mut().expect("a ring is open until it is dropped")
    }

    /// Operations owned by the ring, submitted or not.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Puts an operation into the submission queue and returns its `user_data`. The kernel sees it
    /// at the next [`Ring::submit`] or [`Ring::wait`], together with all others pushed before.
    pub fn push(&mut self, mut operation: O) -> Result<u64, PushError<O>> {
        let sqe = operation.sqe();
        let user_data = sqe.user_data;
        if user_data >= OWN_USER_DATA {
            return Err(PushError { operation, kind: PushErrorKind::UserDataReserved(user_data) });
        }
        if let Err(operation) = self.in_flight.insert(user_data, operation) {
            return Err(PushError { operation, kind: PushErrorKind::UserDataInUse(user_data) });
        }
        // SAFETY: by the contract of `Operation` all memory belongs to the operation, which stays in
        // `in_flight`, untouched, until its last completion; `drop` leaks those that remain.
        if !unsafe { self.raw().push(&sqe) } {
            let operation = self.in_flight.remove(user_data).expect("it was just put there");
            return Err(PushError { operation, kind: PushErrorKind::Full });
        }
        self.pushed += 1;
        Ok(user_data)
    }

    /// Pushes an entry of the ring's own, which refers to no memory, and returns its `user_data`.
    pub(crate) fn push_own(&mut self, entry: Sqe) -> Option<u64> {
        // The kernel ring keeps the last number for itself.
        let user_data = OWN_USER_DATA | (self.own_entries & 0xffff_ffff);
        self.own_entries += 1;
        // SAFETY: it refers to no memory.
        unsafe { self.raw().push(&Sqe { user_data, ..entry }) }.then_some(user_data)
    }

    /// A word of the entry that was pushed last, to be changed under the kernel's eyes, as nobody should. It is a place
    /// in the queue: an entry that comes to lie there later has it too.
    ///
    /// # Panics
    /// If it is none of [`Operation::loose_words`], or the ring's entries do not all have 128 bytes.
    pub fn loose_word(&mut self, offset: u32) -> LooseWord {
        assert!(O::loose_words().contains(&offset), "the word at {offset} must not change");
        self.raw().loose_word(offset)
    }

    /// Hands all pushed operations to the kernel, by one system call unless it stops at one it refuses
    /// ([`Shape::submit_all`]), and returns their number. With a polling thread there is a call only to wake
    /// it.
    pub fn submit(&mut self) -> io::Result<usize> {
        loop {
            let raw = self.raw();
            let left = raw.publish();
            if left == 0 || (raw.is_polled() && !raw.needs_wakeup()) {
                break;
            }
            match raw.enter(left, 0, None) {
                Ok(0) => break,
                Ok(_) if self.raw().is_polled() => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(mem::take(&mut self.pushed))
    }

    /// Takes a completion that is already there. Submits nothing.
    pub fn try_next(&mut self) -> Option<Completed<O>> {
        match self.early.pop_front() {
            Some(early) => Some(early),
            None => self.pop(),
        }
    }

    /// The same, but an operation that `again` accepts, having changed it as it likes, is pushed again where it is, and the
    /// next completion is looked at. Its `user_data` must stay what it is.
    ///
    /// # Panics
    /// If an operation that goes again has another `user_data`.
    pub fn try_next_unless(
        &mut self,
        mut again: impl FnMut(&Cqe, &mut O) -> bool,
    ) -> Option<Completed<O>> {
        if !self.early.is_empty() {
            return self.early.pop_front();
        }
        loop {
            let raw = self.raw.as_mut().expect("a ring is open until it is dropped");
            let cqe = raw.pop()?;
            let operation = self.in_flight.get_mut(cqe.user_data);
            let Some(operation) = operation.filter(|_| !cqe.has_more() && raw.has_room()) else {
                return Some(self.completed(cqe));
            };
            if !again(&cqe, operation) {
                return Some(self.completed(cqe));
            }
            let sqe = operation.sqe();
            assert_eq!(sqe.user_data, cqe.user_data, "an operation that goes again");
            // SAFETY: as for `push`; the kernel has given it back, and has it again from now on.
            let pushed = unsafe { raw.push(&sqe) };
            assert!(pushed, "there was room");
            self.pushed += 1;
        }
    }

    fn pop(&mut self) -> Option<Completed<O>> {
        let cqe = self.raw().pop()?;
        Some(self.completed(cqe))
    }

    fn completed(&mut self, cqe: Cqe) -> Completed<O> {
        let operation = if cqe.has_more() { None } else { self.in_flight.remove(cqe.user_data) };
        Completed { cqe, operation }
    }

    /// Submits what was pushed and returns the next completion, waiting for it until `deadline`.
    pub fn wait(&mut self, deadline: Instant) -> Result<Completed<O>, WaitError> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        self.wait_in_kernel(deadline, false)
    }

    /// Submits what was pushed and waits, in the same system call, until [`Ring::try_next`] has a completion, at most so
    /// long if there is a `timeout`. An error of [`Ring::wait`]'s says why it has none.
    #[inline]
    pub fn submit_and_wait(&mut self, timeout: Option<Duration>) -> Result<(), WaitError> {
        let left = self.raw().publish();
        if !self.early.is_empty() || self.in_flight.is_empty() || self.raw().is_polled() {
            self.submit().map_err(WaitError::Enter)?;
            if !self.early.is_empty() {
                return Ok(());
            }
            if self.in_flight.is_empty() {
                return Err(WaitError::Idle);
            }
            self.enter_and_wait(0, timeout)?;
        } else if self.enter_and_wait(left, timeout)? < left {
            // It has met an entry that it refuses, whose completion is there, and has not waited.
            self.submit().map_err(WaitError::Enter)?;
        }
        self.pushed = 0;
        match self.raw().has_completion() {
            true => Ok(()),
            false => Err(WaitError::Deadline { in_flight: self.in_flight.len() }),
        }
    }

    /// Says that what this ring waits for is work to do, no I/O of its own: the time in which nobody sends any is not
    /// counted as one of waiting for disks (`iowait` in /proc/stat). Before Linux 6.15 it is.
    pub fn wait_for_work(&mut self) {
        self.raw().wait_for_work();
    }

    /// Hands over published entries and waits for a completion; returns how many were taken.
    #[inline]
    fn enter_and_wait(&mut self, left: u32, timeout: Option<Duration>) -> Result<u32, WaitError> {
        match self.raw().enter(left, 1, timeout) {
            Ok(taken) => Ok(taken),
            // The time is over, a signal came, or completions wait for room: a look says what is there.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::TIME | Errno::INTR | Errno::BUSY)
                ) =>
            {
                Ok(0)
            }
            Err(error) => Err(WaitError::Enter(error)),
        }
    }

    /// Waits for the completion of an entry of the ring's own; others are kept.
    pub(crate) fn wait_own(&mut self, user_data: u64, deadline: Instant) -> Result<Cqe, WaitError> {
        loop {
            let completed = self.wait_in_kernel(deadline, true)?;
            if completed.cqe.user_data == user_data {
                return Ok(completed.cqe);
            }
            if completed.cqe.user_data < OWN_USER_DATA {
                self.early.push_back(completed);
            }
        }
    }

    fn wait_in_kernel(&mut self, deadline: Instant, own: bool) -> Result<Completed<O>, WaitError> {
        loop {
            if self.raw().unsubmitted() > 0 {
                self.submit().map_err(WaitError::Enter)?;
            }
            match self.pop() {
                // One nobody waits for any more.
                Some(late) if late.cqe.user_data >= OWN_USER_DATA && !own => continue,
                Some(completed) => return Ok(completed),
                None => {}
            }
            if self.in_flight.is_empty() && !own {
                return Err(WaitError::Idle);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(WaitError::Deadline { in_flight: self.in_flight.len() });
            }
            match self.raw().enter(0, 1, Some(left)) {
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

    /// Gives the ring up, in place of dropping it: if anything is in flight the [`keeper`] has it from now on, and
    /// frees each operation when its completion has come.
    pub fn keep(mut self)
    where
        O: 'static,
    {
        // A thread that lives on would keep it open for good.
        let _closed = self.raw().close_entrance();
        if self.in_flight() > 0 {
            keeper::keep(Box::new(self));
        }
    }
}

impl<O: Operation> Keep for Ring<O> {
    fn reap(&mut self) -> usize {
        // Completions of a ring that runs them only for its owner need a look into the kernel. An error, such as
        // that of a thread which is not the owner, leaves everything as it is until the next look.
        if self.raw().unsubmitted() > 0 {
            let _later = self.submit();
        }
        let _later = self.raw().enter(0, 0, Some(Duration::ZERO));
        while self.try_next().is_some() {}
        self.in_flight()
    }
}

impl<O: Operation> Drop for Ring<O> {
    /// Abandons the operations in flight: closing a ring does not wait for the drivers, which may
    /// still write to their memory.
    fn drop(&mut self) {
        if self.fixed.has_files {
            // Another thread than the owner's may not, and then they are closed a little later.
            let _later = self.raw().unregister_files();
        }
        drop(self.raw.take());
        for operation in self.in_flight.take() {
            operation.abandon();
        }
    }
}

impl<O: Operation> fmt::Debug for Ring<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

/// One of two kinds of operations, for a ring that takes both.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The one.
    First(A),
    /// The other.
    Second(B),
}

// SAFETY: both keep the promise, and which of them it is does not change.
unsafe impl<A: Operation, B: Operation> Operation for Either<A, B> {
    fn sqe(&mut self) -> Sqe {
        match self {
            Either::First(operation) => operation.sqe(),
            Either::Second(operation) => operation.sqe(),
        }
    }

    fn abandon(self) {
        match self {
            Either::First(operation) => operation.abandon(),
            Either::Second(operation) => operation.abandon(),
        }
    }
}
