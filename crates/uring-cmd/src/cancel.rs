//! Asking for an operation to be cancelled.

use std::{io, time::Instant};

use rustix::io::Errno;

use crate::{
    ring::{Operation, Ring, WaitError},
    sqe::{OP_ASYNC_CANCEL, Sqe},
};

/// What became of a request to cancel (`io_uring/cancel.c:io_async_cancel`). In every case the operation itself
/// completes in its own time, and the ring has its memory until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun, or could be stopped: it completes with `ECANCELED`, now.
    Cancelled,
    /// A worker has begun with it (`EALREADY`). It runs on if its driver does not look, as bsg does not.
    Running,
    /// It is not there (`ENOENT`): it has completed, or is with a driver that cannot cancel, as bsg. Its completion
    /// comes as if nothing had been asked.
    NotFound,
}

/// Why nothing is known of a request to cancel.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No free submission entry: submit first.
    #[error("the submission queue is full")]
    Full,
    /// The kernel refused to look, for example on a ring with `IOPOLL`.
    #[error("the kernel refuses to cancel: {0}")]
    Refused(#[source] io::Error),
    /// Its answer did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

impl<O: Operation> Ring<O> {
    /// Asks the kernel to cancel the operation with this `user_data`, and waits for its answer, not for the
    /// operation. Submits what was pushed. Completions that come meanwhile are kept for [`Ring::wait`].
    pub fn cancel(&mut self, user_data: u64, deadline: Instant) -> Result<Cancel, CancelError> {
        let entry = Sqe { opcode: OP_ASYNC_CANCEL, fd: -1, addr: user_data, ..Sqe::zeroed() };
        let own = self.push_own(entry).ok_or(CancelError::Full)?;
        let answer = self.wait_own(own, deadline)?.res;
        if answer == 0 {
            return Ok(Cancel::Cancelled);
        }
        match Errno::from_raw_os_error(-answer) {
            Errno::NOENT => Ok(Cancel::NotFound),
            Errno::ALREADY => Ok(Cancel::Running),
            errno => Err(CancelError::Refused(errno.into())),
        }
    }
}
