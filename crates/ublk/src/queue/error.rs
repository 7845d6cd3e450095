//! Why a queue ends.

use rustix::io::Errno;
use uring_cmd::{PushErrorKind, WaitError};

use crate::uapi::io;

/// Why a queue ended before its device was stopped.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The ring could not be set up.
    #[error("cannot set up a ring: {0}")]
    Setup(#[source] uring_cmd::SetupError),
    /// The descriptors could not be mapped.
    #[error("cannot map the descriptors: {0}")]
    Map(#[source] std::io::Error),
    /// There is no memory for data buffers.
    #[error("no memory for data buffers: {0}")]
    Memory(#[source] std::io::Error),
    /// The ring could not get its tables of buffers and files.
    #[error("cannot make a table of buffers or files: {0}")]
    Register(#[source] std::io::Error),
    /// The ring takes no more commands.
    #[error("cannot push a command: {0}")]
    Push(#[from] PushErrorKind),
    /// `io_uring_enter` failed.
    #[error("cannot submit: {0}")]
    Submit(#[source] std::io::Error),
    /// The driver gave no command back although one is in flight.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The driver refused a command.
    #[error("tag {tag}: the driver refused {command}: {errno}")]
    Refused {
        /// The tag.
        tag: u16,
        /// The command.
        command: &'static str,
        /// What the driver said.
        errno: Errno,
    },
    /// The driver refused a command about many tags, or the kernel one that goes with them.
    #[error("the driver refused {command}: {errno}")]
    RefusedBatch {
        /// The command.
        command: &'static str,
        /// What the driver said.
        errno: Errno,
    },
    /// The driver delivered a request longer than a data buffer.
    #[error("tag {tag}: a request of {len} bytes does not fit the buffer")]
    TooLong {
        /// The tag.
        tag: u16,
        /// Length of the request in bytes.
        len: u64,
    },
    /// A completion that belongs to no command.
    #[error("unexpected completion: {0:?}")]
    Unexpected(uring_cmd::Cqe),
    /// A result that no version of the driver has.
    #[error("tag {tag}: the driver answered {res}, which means nothing")]
    Result {
        /// The tag.
        tag: u16,
        /// What it answered.
        res: i32,
    },
}

pub(super) fn refusal(tag: u16, cmd_op: u32, res: i32) -> QueueError {
    let command = match cmd_op {
        io::FETCH_REQ => "FETCH_REQ",
        io::COMMIT_AND_FETCH_REQ => "COMMIT_AND_FETCH_REQ",
        io::NEED_GET_DATA => "NEED_GET_DATA",
        io::REGISTER_IO_BUF => "REGISTER_IO_BUF",
        _ => "UNREGISTER_IO_BUF",
    };
    QueueError::Refused { tag, command, errno: Errno::from_raw_os_error(-res) }
}
