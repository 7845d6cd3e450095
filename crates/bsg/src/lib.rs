//! Clients for SCSI passthrough: one [`Request`] and one [`Completion`] over three ways into the
//! kernel.
//!
//! | client | node | call |
//! |---|---|---|
//! | [`BsgIoctl`] | `/dev/bsg/H:C:T:L` | `ioctl(SG_IO)` with `struct sg_io_v4` |
//! | [`BsgUring`] | `/dev/bsg/H:C:T:L` | `IORING_OP_URING_CMD` with `struct bsg_uring_cmd` |
//! | [`SgIoctl`] | `/dev/sgN` | `ioctl(SG_IO)` with `struct sg_io_hdr` |
//!
//! ```no_run
//! use bsg::{Access, BsgUring, Passthrough, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut unit = BsgUring::open("/dev/bsg/0:0:0:0", Access::ReadOnly)?;
//! let inquiry = Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36);
//! let done = unit.execute(inquiry)?;
//! println!("status {:#04x}, residual {}: {:02x?}", done.device_status, done.residual, done.data);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/inquiry.rs` does that, `examples/in_flight.rs` keeps 64 commands in flight.
//!
//! **Outcomes.** A command that was executed is an `Ok`, whatever its status; an [`Error`] means that the kernel
//! refused it or that there is no answer. [`Completion`] is the same for all ways: device, driver and host status,
//! sense data, residual, data, and in [`Completion::raw`] what the kernel wrote.
//!
//! **Rings.** [`BsgUring::push`] any number of commands, hand them over with one [`BsgUring::flush`], and take
//! completions as they come with [`BsgUring::wait`], always with a deadline. The [`Shape`] chooses the kind of ring:
//! `SQPOLL`, `IOPOLL` (which the kernel takes, and polls nothing for bsg), `SINGLE_ISSUER` and `DEFER_TASKRUN`, large
//! or mixed entries. bsg needs Linux 7.1, and entries of both large sizes. What the kernel lacks is named by the
//! error, or beforehand by [`Feature::is_supported`].
//!
//! - *Registered buffers*: [`BsgUring::register_buffers`] with [`Region`]s, and [`Request::fixed`]. A buffer that a
//!   driver has put into the table, as ublk does, has no address: [`Pointer::Fixed`] is an offset in it.
//! - *Links*: [`UringFrame::link`]. A SCSI failure does not cut them.
//! - *Cancelling*: [`BsgUring::cancel`] says why it hardly ever can.
//!
//! **Memory.** Commands own theirs. What is in flight when a [`BsgUring`] is dropped, or a command
//! [discarded](BsgUring::discard), stays with the ring or the process-wide [`keeper`] until the completion has
//! come: nothing is freed under the kernel.
//!
//! **Raw.** Below the three clients lie their frames ([`V4Frame`], [`UringFrame`], [`V3Frame`]), in which every field
//! the kernel reads can be set, and every field it writes can be seen: lengths that lie, reserved bytes, odd flags,
//! wrong rings. Only addresses are not numbers but [`Pointer`]s: memory of the command's own (in front of guards, with
//! holes, read-only, as a test likes), or an address where this process can have none. That is why none of it needs
//! `unsafe`.
//!
//! This crate must not know what the bytes of a CDB or of sense data mean, nor anything of the test
//! bench.

#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "the calls into the kernel are promises about memory")]
mod ioctl;
pub mod node;
pub mod request;
pub mod uapi;
pub mod uring;
pub mod uring_frame;
pub mod v3;
pub mod v4;

pub use node::Node;
pub use request::{Completion, Data, Error, Raw, Request};
pub use rustix::io::Errno;
pub use uring::BsgUring;
pub use uring_cmd::{
    Buffer, Cancel, CancelError, Completed, CqeSize, Either, Feature, LooseWord, Pointer, Region,
    Ring, SetupError, Shape, Slice, SqeSize, WaitError, keeper, sqe,
};
pub use uring_frame::{Link, UringCompletion, UringFrame};
pub use v3::{SgIoctl, V3Frame};
pub use v4::{BsgIoctl, NodeIoctl, StructurePlace, V4Frame};

/// One of the three ways, for code that works over all of them.
pub trait Passthrough {
    /// Executes one command and waits for it.
    fn execute(&mut self, request: Request) -> Result<Completion, Error>;
}

/// How a node is opened. Without `CAP_SYS_RAWIO` the kernel's opcode filter allows more commands on a
/// writable descriptor (`scsi_ioctl.c:scsi_cmd_allowed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `O_RDONLY`.
    ReadOnly,
    /// `O_RDWR`.
    ReadWrite,
}
