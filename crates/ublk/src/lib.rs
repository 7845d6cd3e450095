//! The userspace block driver ublk: its control and queue protocol, a server, and targets.
//!
//! [`Server::start`] makes a block device whose requests a [`Target`] answers. Their data moves in any of the ways the
//! driver has ([`DataMode`]); every target works with each. A [`Worker`] is a target that works by operations of its own
//! on the ring of the queue. [`Faults`] make things go wrong. [`Control`] speaks to the driver
//! alone, for devices of other processes and for commands that a test bends ([`Control::begin`]).
//!
//! This crate must not know SCSI, nor anything of the test bench.

#![deny(unsafe_code)]

mod abandon;
#[expect(unsafe_code, reason = "the promise a ring asks for about memory")]
mod command;
pub mod control;
#[expect(unsafe_code, reason = "the driver's memory is mapped")]
mod descriptors;
mod error;
mod faults;
mod features;
mod mode;
mod queue;
mod raw;
mod raw_batch;
pub mod server;
pub mod target;
#[expect(unsafe_code, reason = "the promise a ring asks for about memory")]
mod transfer;
pub mod uapi;

pub use command::QueueCommand;
pub use control::{Control, Reply};
pub use error::Error;
pub use faults::Faults;
pub use features::Features;
pub use mode::{DataMode, Fallback};
pub use queue::QueueError;
pub use raw::{RawCommand, RawQueue, RawReply};
pub use raw_batch::{BatchQueue, BatchReply, Element};
pub use rustix::io::Errno;
pub use server::{Config, GiveUp, Server};
pub use target::{
    FileTarget, Hold, Memory, NotHeld, NullTarget, Op, Place, Progress, RamTarget, Request, Target,
    Work, Worker, ZoneOp, ZonedTarget,
};
pub use transfer::{FixedTransfer, Transfer};
pub use uring_cmd::{
    Buffer, Cancel, CancelError, Completed, Cqe, CqeSize, Operation, Pointer, Region, Ring, Shape,
    SqeSize, sqe::SQE_ASYNC,
};
