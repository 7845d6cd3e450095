//! What can go wrong with a device and its server.

use std::{io, path::PathBuf};

use rustix::io::Errno;
use uring_cmd::{PushErrorKind, WaitError};

use crate::queue::QueueError;

/// Why a device or its server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A node could not be opened, or is not what it should be.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gives no event to wake queues by.
    #[error("cannot make an event: {0}")]
    Event(#[source] io::Error),
    /// A ring could not be set up.
    #[error("cannot set up a ring: {0}")]
    Setup(#[source] uring_cmd::SetupError),
    /// The driver refused a control command.
    #[error("{command} failed: {errno}")]
    Refused {
        /// Its name.
        command: &'static str,
        /// What the driver said.
        errno: Errno,
    },
    /// The control ring takes no more commands now.
    #[error("cannot push a control command: {0}")]
    Push(#[from] PushErrorKind),
    /// `io_uring_enter` failed on submission.
    #[error("cannot submit a control command: {0}")]
    Submit(#[source] io::Error),
    /// No answer came before the deadline. The command stays in flight, its memory with the ring.
    #[error("{command}: {source}")]
    Wait {
        /// Its name.
        command: &'static str,
        /// Why there is no answer.
        source: WaitError,
    },
    /// The driver answered without a command, or more than once.
    #[error("stray completion: {0:?}")]
    Stray(uring_cmd::Cqe),
    /// A thread of the server could not be started.
    #[error("cannot start the thread of queue {queue}: {source}")]
    Thread {
        /// The queue.
        queue: u16,
        /// Why.
        source: io::Error,
    },
    /// The queues of the server did not fetch all their tags in time.
    #[error("not every queue fetched its tags before the deadline")]
    NotFetching,
    /// A queue of the server ended in an error.
    #[error("queue {queue}: {source}")]
    Queue {
        /// The queue.
        queue: u16,
        /// What went wrong.
        source: QueueError,
    },
    /// A queue of the server did not end in time: its target still has a request.
    #[error("queue {queue} did not end before the deadline")]
    QueueStuck {
        /// The queue.
        queue: u16,
    },
    /// The thread of a queue panicked: its target did.
    #[error("the thread of queue {queue} panicked")]
    QueuePanicked {
        /// The queue.
        queue: u16,
    },
}

impl Error {
    /// The errno with which the driver refused a control command.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Setup(source) => Errno::from_io_error(source.io_error()),
            Error::Open { source, .. }
            | Error::Event(source)
            | Error::Submit(source)
            | Error::Thread { source, .. } => Errno::from_io_error(source),
            Error::Push(_)
            | Error::Wait { .. }
            | Error::Stray(_)
            | Error::NotFetching
            | Error::Queue { .. }
            | Error::QueueStuck { .. }
            | Error::QueuePanicked { .. } => None,
        }
    }
}
