//! A command, its completion and its errors, the same for all three ways into the kernel.

use std::{fmt, io, path::PathBuf};

use rustix::io::Errno;
use uring_cmd::{Buffer, Pointer, PushErrorKind, SetupError, Slice, WaitError};

use crate::uapi::{SgIoHdr, SgIoV4};

/// Data of a command; directions are the initiator's.
#[derive(Debug, Default)]
pub enum Data {
    /// The command moves no data.
    #[default]
    None,
    /// From the device to the buffer.
    In(Buffer),
    /// From the buffer to the device.
    Out(Buffer),
    /// From the device to a part of a region, which may be registered with a ring ([`Request::fixed`]).
    SliceIn(Slice),
    /// From a part of a region to the device.
    SliceOut(Slice),
}

/// The data of a command as its structures say it.
pub(crate) struct Placed {
    pub(crate) dout: Pointer,
    pub(crate) dout_len: u32,
    pub(crate) din: Pointer,
    pub(crate) din_len: u32,
}

impl From<Data> for Placed {
    fn from(data: Data) -> Self {
        let (is_out, len, pointer) = match data {
            Data::None => (false, 0, Pointer::Null),
            Data::In(buffer) => (false, buffer.len(), buffer.into()),
            Data::Out(buffer) => (true, buffer.len(), buffer.into()),
            Data::SliceIn(slice) => (false, slice.len(), Pointer::from(&slice)),
            Data::SliceOut(slice) => (true, slice.len(), Pointer::from(&slice)),
        };
        let (this, other) = ((pointer, len_u32(len)), (Pointer::Null, 0));
        let ((dout, dout_len), (din, din_len)) = if is_out { (this, other) } else { (other, this) };
        Placed { dout, dout_len, din, din_len }
    }
}

/// A SCSI command.
#[derive(Debug)]
pub struct Request {
    /// The command descriptor block.
    pub cdb: Vec<u8>,
    /// Its data.
    pub data: Data,
    /// Room for sense data in bytes; 0 wants none. sg v3 takes at most 255.
    pub sense_capacity: u32,
    /// Time the kernel gives the command, in milliseconds; 0 is the kernel's default.
    pub timeout_ms: u32,
    /// The data lies in the registered buffer at this position of the ring's table
    /// ([`crate::BsgUring::register_buffers`]). Only a ring has such a table: the other ways take the memory by
    /// its address.
    pub fixed: Option<u16>,
}

/// The maximum length of sense data in bytes (SPC-6, 4.4.1).
const SENSE_LEN_MAX: u32 = 252;

/// Long beside any emulated device's answer, short beside a test's deadline.
const TIMEOUT_MS: u32 = 20_000;

impl Request {
    /// A command without data, with room for all sense data and 20 s of time.
    pub fn new(cdb: &[u8]) -> Self {
        Request {
            cdb: cdb.to_vec(),
            data: Data::None,
            sense_capacity: SENSE_LEN_MAX,
            timeout_ms: TIMEOUT_MS,
            fixed: None,
        }
    }

    /// Takes up to `len` bytes from the device into a zeroed, page-aligned buffer.
    ///
    /// # Panics
    /// If there is no memory, as every `Vec` does.
    #[must_use]
    pub fn data_in(self, len: usize) -> Self {
        self.data(Data::In(Buffer::zeroed(len).expect("memory for data from the device")))
    }

    /// Gives the device a page-aligned copy of `bytes`.
    ///
    /// # Panics
    /// If there is no memory, as every `Vec` does.
    #[must_use]
    pub fn data_out(self, bytes: &[u8]) -> Self {
        self.data(Data::Out(Buffer::copy_of(bytes).expect("memory for data to the device")))
    }

    /// Moves data through a buffer of the caller's making.
    #[must_use]
    pub fn data(mut self, data: Data) -> Self {
        self.data = data;
        self
    }

    /// Says that the data lies in a registered buffer.
    #[must_use]
    pub fn fixed(mut self, index: u16) -> Self {
        self.fixed = Some(index);
        self
    }

    /// Sets the room for sense data in bytes.
    #[must_use]
    pub fn sense_capacity(mut self, bytes: u32) -> Self {
        self.sense_capacity = bytes;
        self
    }

    /// Sets the time the kernel gives the command, in milliseconds.
    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }
}

/// An executed command. Executed does not mean successful: see the statuses.
#[derive(Debug)]
pub struct Completion {
    /// SAM status, for example 02h for CHECK CONDITION.
    pub device_status: u32,
    /// [`crate::uapi::DRIVER_SENSE`] for a CHECK CONDITION, else 0. sg v3 says 0 too when there is
    /// no room for sense data.
    pub driver_status: u32,
    /// Host byte, `DID_*`; 0 if the command reached the device and came back.
    pub host_status: u32,
    /// Sense data as far as the kernel wrote it.
    pub sense: Vec<u8>,
    /// Bytes of the data buffer that were not transferred; negative only if the kernel says so.
    pub residual: i64,
    /// `SG_INFO_*` bits; `None` over io_uring, which has none.
    pub info: Option<u32>,
    /// The data buffer; empty without data, and where it is in a region, from which the caller reads.
    pub data: Vec<u8>,
    /// Everything the kernel returned.
    pub raw: Raw,
}

/// What the kernel returned, by way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    /// [`crate::BsgIoctl`]: the structure after the call.
    V4(SgIoV4),
    /// [`crate::BsgUring`]: result and both extra words of the completion entry.
    Uring {
        /// `cqe.res`.
        res: i32,
        /// `cqe.big_cqe[0]`.
        res2: u64,
        /// `cqe.big_cqe[1]`.
        extra2: u64,
    },
    /// [`crate::SgIoctl`]: the structure after the call.
    V3(SgIoHdr),
}

/// Why there is no completion.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was opened does not take the structures of this client, and its addresses would mean something else there.
    #[error("{} is not {expected}", path.display())]
    WrongNode {
        /// What was opened.
        path: PathBuf,
        /// What was needed.
        expected: &'static str,
    },
    /// The kernel refused the command, or lost it after execution (EFAULT on writing sense data).
    #[error("{call} failed: {errno}")]
    Refused {
        /// What was called.
        call: Call,
        /// What it said.
        errno: Errno,
    },
    /// The ring could not be set up; what the kernel lacks is named.
    #[error("cannot set up the ring: {0}")]
    Setup(#[source] SetupError),
    /// A table of the ring could not be changed.
    #[error("cannot register: {0}")]
    Register(#[source] io::Error),
    /// The ring takes no more commands now.
    #[error("cannot push the command: {0}")]
    Push(#[from] PushErrorKind),
    /// `io_uring_enter` failed on submission.
    #[error("cannot submit the command: {0}")]
    Submit(#[source] io::Error),
    /// No completion came. A command in flight stays so, and its memory with the ring.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The ring has 16-byte completions, which cannot hold a SCSI status.
    #[error("the ring has 16-byte completions: the SCSI status is lost")]
    SmallCompletion,
    /// A completion for no command, or the first of several for one.
    #[error("stray completion: {0:?}")]
    Stray(uring_cmd::Cqe),
    /// The kernel says it wrote more sense data than there was room for.
    #[error("{written} bytes of sense data in room for {capacity}")]
    SenseOverrun {
        /// What the kernel says.
        written: u32,
        /// The room.
        capacity: usize,
    },
}

/// What was called when the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `ioctl(SG_IO)` on a bsg node.
    SgIoV4,
    /// `URING_CMD` on a bsg node.
    UringCmd,
    /// `ioctl(SG_IO)` on an sg node.
    SgIoV3,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::SgIoV4 => "SG_IO (v4)",
            Call::UringCmd => "uring_cmd",
            Call::SgIoV3 => "SG_IO (v3)",
        })
    }
}

impl Error {
    /// The errno with which the kernel refused the command.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Setup(source) => Errno::from_io_error(source.io_error()),
            Error::Open { source, .. } | Error::Register(source) | Error::Submit(source) => {
                Errno::from_io_error(source)
            }
            Error::WrongNode { .. }
            | Error::Push(_)
            | Error::Wait(_)
            | Error::SmallCompletion
            | Error::Stray(_)
            | Error::SenseOverrun { .. } => None,
        }
    }
}

/// A length for a 32-bit field of the kernel's.
///
/// # Panics
/// If it does not fit: no command moves 4 GiB.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths of a command fit in 32 bits")
}

/// Memory for `bytes` of sense data; [`Pointer::Null`] for none.
pub(crate) fn sense_memory(bytes: u32) -> Pointer {
    match usize::try_from(bytes) {
        Ok(0) => Pointer::Null,
        len => Pointer::To(
            len.map_err(io::Error::other).and_then(Buffer::zeroed).expect("memory for sense data"),
        ),
    }
}

/// A CDB in memory of its own.
pub(crate) fn cdb_memory(cdb: &[u8]) -> Pointer {
    Pointer::To(Buffer::copy_of(cdb).expect("memory for a CDB"))
}

/// The part of the sense buffer that was written.
pub(crate) fn sense_written(response: &Pointer, written: u32) -> Result<Vec<u8>, Error> {
    let room: &[u8] = response.buffer().map_or(&[], |buffer| buffer);
    usize::try_from(written)
        .ok()
        .and_then(|len| room.get(..len))
        .map(<[u8]>::to_vec)
        .ok_or(Error::SenseOverrun { written, capacity: room.len() })
}

/// The bytes of a data buffer after the command.
pub(crate) fn data_bytes(data: &Pointer) -> Vec<u8> {
    data.buffer().map_or_else(Vec::new, |buffer| buffer.to_vec())
}
