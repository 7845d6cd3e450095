//! Targets that work on the ring of the queue.

use std::{fmt, time::Duration};

use rustix::io::Errno;
use uring_cmd::{Buffer, Cqe, Operation};

use super::Request;

/// Where the data of a request is while an operation moves it.
#[derive(Debug)]
pub enum Memory {
    /// The request has no data.
    None,
    /// In memory of the server's, from its beginning; what is to be written is there already.
    Buffer(Buffer),
    /// In this buffer of the ring's table, which is the driver's: the server has no address of it, only offsets from 0.
    Registered(u16),
}

/// A request that an operation is about, until it is answered.
///
/// What a queue has of it at a time is one operation. Its `user_data` is the queue's.
pub trait Work: Operation + fmt::Debug {
    /// The operation has completed.
    fn completed(self: Box<Self>, cqe: Cqe) -> Progress;
}

/// What comes next for a request.
#[derive(Debug)]
pub enum Progress {
    /// An operation, now.
    Push(Box<dyn Work>),
    /// An operation, after this time.
    PushLater(Duration, Box<dyn Work>),
    /// The answer, as [`super::Target::handle`] gives it, and the memory.
    Done(Result<u32, Errno>, Memory),
}

/// Does requests by operations on the ring of their queue, which may have many of them in flight, one for each request.
/// The ring has large entries of both kinds.
pub trait Worker: Send + Sync {
    /// Begins a request. `request.data` is empty: the data of a read or write is in `memory`, as long as the request.
    fn begin(&self, request: &Request<'_>, memory: Memory) -> Progress;
}
