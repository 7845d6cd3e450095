//! Clients for SCSI passthrough: one [`Request`] and one [`Completion`] over three ways into the
//! kernel.
//!
//! | client | node | call |
//! |---|---|---|
//! | [`BsgIoctl`] | `/dev/bsg/H:C:T:L` | `ioctl(SG_IO)` with `struct sg_io_v4` |
//! | [`BsgUring`] | `/dev/bsg/H:C:T:L` | `IORING_OP_URING_CMD` with `struct bsg_uring_cmd` |
//! | [`SgIoctl`] | `/dev/sgN` | `ioctl(SG_IO)` with `struct sg_io_hdr` |
//!
//! A command that was executed is an `Ok`, whatever its status; an [`Error`] means that the kernel
//! refused it or that there is no answer. Below the three clients lie their frames ([`V4Frame`],
//! [`UringFrame`], [`V3Frame`]), in which every field the kernel reads can be set, and every field it
//! writes can be seen.
//!
//! This crate must not know what the bytes of a CDB or of sense data mean, nor anything of the test
//! bench.

#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "the calls into the kernel are promises about memory")]
mod ioctl;
pub mod request;
pub mod uapi;
pub mod uring;
pub mod uring_frame;
pub mod v3;
pub mod v4;

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

pub use request::{Completion, Data, Error, Raw, Request};
pub use rustix::io::Errno;
pub use uring::BsgUring;
pub use uring_cmd::{
    Buffer, Cancel, CancelError, CqeSize, Feature, Pointer, Region, SetupError, Shape, Slice,
    SqeSize, keeper, sqe,
};
pub use uring_frame::{Link, UringCompletion, UringFrame};
pub use v3::{SgIoctl, V3Frame};
pub use v4::{BsgIoctl, V4Frame};

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

fn open(path: &Path, access: Access) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        .open(path)
        .map_err(|source| Error::Open { path: path.to_owned(), source })
}
