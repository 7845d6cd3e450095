//! Submission and completion entries as `URING_CMD` uses them (`include/uapi/linux/io_uring.h`:
//! `struct io_uring_sqe`, `struct io_uring_cqe`).

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `IORING_OP_NOP`.
pub const OP_NOP: u8 = 0;
/// `IORING_OP_ASYNC_CANCEL`.
pub const OP_ASYNC_CANCEL: u8 = 14;
/// `IORING_OP_READ`.
pub const OP_READ: u8 = 22;
/// `IORING_OP_URING_CMD`.
pub const OP_URING_CMD: u8 = 46;

/// `IORING_OP_NOP128`, an operation of 128 bytes on a mixed ring.
pub const OP_NOP128: u8 = 63;
/// `IORING_OP_URING_CMD128`, `URING_CMD` with 128 bytes on a mixed ring.
pub const OP_URING_CMD128: u8 = 64;

/// `IOSQE_FIXED_FILE`: `fd` is a place in the ring's table of files.
pub const SQE_FIXED_FILE: u8 = 1 << 0;
/// `IOSQE_IO_DRAIN`: begins when all before it are complete.
pub const SQE_IO_DRAIN: u8 = 1 << 1;
/// `IOSQE_IO_LINK`: the next entry begins when this one is complete, and is cancelled if it fails.
pub const SQE_IO_LINK: u8 = 1 << 2;
/// `IOSQE_IO_HARDLINK`: the next entry begins when this one is complete, whatever its result.
pub const SQE_IO_HARDLINK: u8 = 1 << 3;
/// `IOSQE_ASYNC`: issued by a worker at once.
pub const SQE_ASYNC: u8 = 1 << 4;
/// `IOSQE_BUFFER_SELECT`.
pub const SQE_BUFFER_SELECT: u8 = 1 << 5;
/// `IOSQE_CQE_SKIP_SUCCESS`: no completion if it succeeds. A [`crate::Ring`] waits for one for ever, and keeps
/// the memory.
pub const SQE_CQE_SKIP_SUCCESS: u8 = 1 << 6;

/// `IORING_URING_CMD_FIXED` in [`Sqe::uring_cmd_flags`]: data lies in the registered buffer [`Sqe::buf_index`].
pub const CMD_FIXED: u32 = 1 << 0;
/// `IORING_URING_CMD_MULTISHOT` in [`Sqe::uring_cmd_flags`].
pub const CMD_MULTISHOT: u32 = 1 << 1;

/// `IORING_CQE_F_SKIP`: fills the end of a mixed completion queue.
pub(crate) const CQE_F_SKIP: u32 = 1 << 5;
/// `IORING_CQE_F_32`: this entry of a mixed completion queue has 32 bytes.
pub const CQE_F_32: u32 = 1 << 15;
/// `IORING_CQE_F_BUFFER`: a provided buffer was used, whose number is in the upper 16 bits of the flags.
pub const CQE_F_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`: the same submission will post further completions.
pub const CQE_F_MORE: u32 = 1 << 1;

/// Bytes of driver payload in a 128-byte entry. A 64-byte entry holds the first 16 of them.
pub const CMD_LEN: usize = 80;

/// A submission entry with 128 bytes. On a ring of 64-byte entries only the first 64 are written.
///
/// Fields carry the names of the members that `URING_CMD` reads out of the kernel's unions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sqe {
    /// Operation, for example [`OP_URING_CMD`].
    pub opcode: u8,
    /// `IOSQE_*` bits.
    pub flags: u8,
    /// Must be 0 for `URING_CMD`.
    pub ioprio: u16,
    /// File the operation works on.
    pub fd: i32,
    /// The driver's command number.
    pub cmd_op: u32,
    /// `__pad1`; must be 0 for `URING_CMD`.
    pub pad1: u32,
    /// Used by few drivers.
    pub addr: u64,
    /// Not used by `URING_CMD`; the length of the buffer for [`OP_READ`].
    pub len: u32,
    /// `IORING_URING_CMD_*` bits.
    pub uring_cmd_flags: u32,
    /// Returned in the completion; unique among the operations in flight on one [`crate::Ring`], and less than
    /// 2^63: the ring has entries of its own above.
    pub user_data: u64,
    /// Registered buffer, with `IORING_URING_CMD_FIXED`.
    pub buf_index: u16,
    /// Registered credentials, or 0.
    pub personality: u16,
    /// `file_index`; not used by `URING_CMD`.
    pub file_index: u32,
    /// Payload of the driver.
    pub cmd: [u8; CMD_LEN],
}

crate::assert_layout!(Sqe, 128 {
    opcode: 0, flags: 1, ioprio: 2, fd: 4, cmd_op: 8, pad1: 12, addr: 16, len: 24,
    uring_cmd_flags: 28, user_data: 32, buf_index: 40, personality: 42, file_index: 44, cmd: 48,
});

impl Sqe {
    /// A `URING_CMD` for `fd`. `payload` fills the beginning of [`Sqe::cmd`].
    ///
    /// # Panics
    /// If the payload is longer than [`CMD_LEN`].
    #[inline]
    pub fn uring_cmd(fd: i32, cmd_op: u32, payload: &[u8], user_data: u64) -> Self {
        let mut cmd = [0; CMD_LEN];
        cmd[..payload.len()].copy_from_slice(payload);
        Sqe { opcode: OP_URING_CMD, fd, cmd_op, user_data, cmd, ..Sqe::zeroed() }
    }

    /// Whether it has 128 bytes on a mixed ring.
    #[inline]
    pub fn is_wide(&self) -> bool {
        matches!(self.opcode, OP_NOP128 | OP_URING_CMD128)
    }

    /// An entry of zeros: a NOP for file descriptor 0.
    #[inline]
    pub fn zeroed() -> Self {
        Sqe::new_zeroed()
    }
}

/// A completion entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    /// From the submission.
    pub user_data: u64,
    /// Result: 0 or positive on success, a negated errno otherwise.
    pub res: i32,
    /// `IORING_CQE_F_*` bits.
    pub flags: u32,
    /// The second half of a 32-byte entry; `None` if this entry has 16.
    pub big: Option<[u64; 2]>,
}

impl Cqe {
    /// Whether the submission stays in flight after this completion.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.flags & CQE_F_MORE != 0
    }

    /// The number of the provided buffer that was used (`IORING_CQE_BUFFER_SHIFT`).
    pub fn buffer(&self) -> Option<u16> {
        let [.., low, high] = self.flags.to_le_bytes();
        (self.flags & CQE_F_BUFFER != 0).then(|| u16::from_le_bytes([low, high]))
    }
}
