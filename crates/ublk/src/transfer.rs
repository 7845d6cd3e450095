//! What a queue's ring has beside commands for the driver: reads and writes of a file, from and to a buffer of the
//! server's or one of the ring's table, operations of a target's, and a wait for a word to the queue.

use std::{fs::File, io, mem, os::fd::AsRawFd, sync::Arc};

use uring_cmd::{Buffer, Operation, Sqe};

use crate::target::{Memory, Work};

/// `IORING_OP_READ_FIXED`.
const OP_READ_FIXED: u8 = 4;
/// `IORING_OP_WRITE_FIXED`.
const OP_WRITE_FIXED: u8 = 5;
/// `IORING_OP_POLL_ADD`.
const OP_POLL_ADD: u8 = 6;
/// `POLLIN` (include/uapi/asm-generic/poll.h).
const POLLIN: u32 = 1 << 0;
/// `IORING_OP_READ`.
const OP_READ: u8 = 22;
/// `IORING_OP_WRITE`.
const OP_WRITE: u8 = 23;
/// `IORING_OP_READV_FIXED`.
const OP_READV_FIXED: u8 = 60;
/// `IORING_OP_WRITEV_FIXED`.
const OP_WRITEV_FIXED: u8 = 61;

/// A move of data between memory and a file.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) file: Arc<File>,
    /// In bytes.
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) to_file: bool,
    pub(crate) memory: Memory,
    pub(crate) user_data: u64,
}

impl Transfer {
    /// A whole buffer, to this byte of the file or from it.
    ///
    /// # Panics
    /// If the buffer has 4 GiB or more.
    pub fn of(file: Arc<File>, offset: u64, to_file: bool, buffer: Buffer, user_data: u64) -> Self {
        let len = u32::try_from(buffer.len()).expect("a length has 32 bits");
        Transfer { file, offset, len, to_file, memory: Memory::Buffer(buffer), user_data }
    }
}

// SAFETY: a buffer stays where it is when the operation moves and is out of reach while the ring has it; a length beyond
// it would run into its guard, and is refused here besides. The address 0 of a registered buffer is an offset in it.
// `file` keeps the descriptor open.
unsafe impl Operation for Transfer {
    fn sqe(&mut self) -> Sqe {
        let (opcode, addr, buf_index) = match (&mut self.memory, self.to_file) {
            (Memory::Buffer(buffer), to_file) => {
                assert!(buffer.len() >= self.len as usize, "{} of {}", self.len, buffer.len());
                (if to_file { OP_WRITE } else { OP_READ }, buffer.address(), 0)
            }
            (Memory::Registered(index), true) => (OP_WRITE_FIXED, 0, *index),
            (Memory::Registered(index), false) => (OP_READ_FIXED, 0, *index),
            (Memory::None, _) => unreachable!("a transfer has data"),
        };
        // `off` of the kernel's union is where a command of a driver has its number and padding.
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.offset.to_le_bytes();
        Sqe {
            opcode,
            fd: self.file.as_raw_fd(),
            cmd_op: u32::from_le_bytes([o0, o1, o2, o3]),
            pad1: u32::from_le_bytes([o4, o5, o6, o7]),
            addr,
            len: self.len,
            buf_index,
            user_data: self.user_data,
            ..Sqe::zeroed()
        }
    }

    /// Leaks the memory, which the kernel may still use, and lets go of the file.
    fn abandon(self) {
        let Transfer { memory, .. } = self;
        mem::forget(memory);
    }
}

/// Waits until a file can be read.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) file: Arc<File>,
    pub(crate) user_data: u64,
}

// SAFETY: there is no address in the entry. `file` keeps the descriptor open.
unsafe impl Operation for Watch {
    fn sqe(&mut self) -> Sqe {
        // `poll32_events` of the kernel's union is where a command has its flags.
        Sqe {
            opcode: OP_POLL_ADD,
            fd: self.file.as_raw_fd(),
            uring_cmd_flags: POLLIN,
            user_data: self.user_data,
            ..Sqe::zeroed()
        }
    }

    /// Lets go of everything: there is no memory.
    fn abandon(self) {}
}

/// An operation of a target's.
#[derive(Debug)]
pub(crate) struct Working {
    pub(crate) work: Box<dyn Work>,
    pub(crate) user_data: u64,
}

// SAFETY: the work keeps the promise; a number of the entry that refers to no memory is another.
unsafe impl Operation for Working {
    fn sqe(&mut self) -> Sqe {
        Sqe { user_data: self.user_data, ..self.work.sqe() }
    }
}

/// A move of bytes between a file, or a pipe, and the data of a request that the driver has registered with a ring whose
/// table has no memory of the process: [`crate::RawQueue::make_table`]. Every number goes to the kernel as it is.
#[derive(Debug)]
pub struct FixedTransfer {
    /// Where bytes come from or go to.
    pub file: Arc<File>,
    /// Place in the file, in bytes; a pipe has none.
    pub file_offset: u64,
    /// `IORING_OP_WRITE_FIXED`; otherwise `IORING_OP_READ_FIXED`.
    pub to_file: bool,
    /// Slot of the ring's table.
    pub index: u16,
    /// First byte in the data of the request.
    pub offset: u64,
    /// Bytes; with pieces, how many of them.
    pub len: u32,
    /// Pieces, coded as an array of `struct iovec`, which stands for `offset`.
    pub(crate) pieces: Option<Buffer>,
    pub(crate) user_data: u64,
}

impl FixedTransfer {
    /// `len` bytes from the beginning of buffer `index`, to the beginning of the file.
    pub fn to(file: &Arc<File>, index: u16, len: u32) -> Self {
        let file = Arc::clone(file);
        let (file_offset, offset, pieces, user_data) = (0, 0, None, 0);
        FixedTransfer { file, file_offset, to_file: true, index, offset, len, pieces, user_data }
    }

    /// The other way.
    pub fn from(file: &Arc<File>, index: u16, len: u32) -> Self {
        FixedTransfer { to_file: false, ..Self::to(file, index, len) }
    }

    /// The same, at this byte of the request.
    #[must_use]
    pub fn at(self, offset: u64) -> Self {
        FixedTransfer { offset, ..self }
    }

    /// The same by `IORING_OP_READV_FIXED` or `IORING_OP_WRITEV_FIXED`, with these pieces of the request one after the
    /// other: the first byte of each, and its length.
    pub fn pieces(self, pieces: &[(u64, u64)]) -> io::Result<Self> {
        let words = pieces.iter().flat_map(|(base, len)| [*base, *len]);
        let coded = Buffer::copy_of(&words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())?;
        let len = u32::try_from(pieces.len()).map_err(io::Error::other)?;
        Ok(FixedTransfer { len, pieces: Some(coded), ..self })
    }
}

// SAFETY: the address in the entry is an offset in data of a driver: the tables of the rings this is pushed to hold no
// memory of the process, so that the kernel takes it for nothing else. Or it is that of `pieces`, which hold such offsets,
// stay where they are when the operation moves, and are as many as is said. `file` keeps the descriptor open.
unsafe impl Operation for FixedTransfer {
    fn sqe(&mut self) -> Sqe {
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.file_offset.to_le_bytes();
        let (opcode, addr) = match (&mut self.pieces, self.to_file) {
            (None, true) => (OP_WRITE_FIXED, self.offset),
            (None, false) => (OP_READ_FIXED, self.offset),
            (Some(pieces), true) => (OP_WRITEV_FIXED, pieces.address()),
            (Some(pieces), false) => (OP_READV_FIXED, pieces.address()),
        };
        Sqe {
            opcode,
            fd: self.file.as_raw_fd(),
            cmd_op: u32::from_le_bytes([o0, o1, o2, o3]),
            pad1: u32::from_le_bytes([o4, o5, o6, o7]),
            addr,
            len: self.len,
            buf_index: self.index,
            user_data: self.user_data,
            ..Sqe::zeroed()
        }
    }

    /// Leaks the pieces, which the kernel may still read, and lets go of the file.
    fn abandon(self) {
        mem::forget(self.pieces);
    }
}
