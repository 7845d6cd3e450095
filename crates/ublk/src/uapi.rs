//! The kernel's structures and numbers, by hand: `include/uapi/linux/ublk_cmd.h`.
//!
//! Offsets are checked here at compile time and in the tests against the C header.

mod params;

pub use params::{
    ParamBasic, ParamDevt, ParamDiscard, ParamDmaAlign, ParamIntegrity, ParamSegment, ParamZoned,
    Params, attr, param_type, pi_cap, pi_csum,
};
use uring_cmd::assert_layout;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Bytes of a sector in every count of this interface.
pub const SECTOR_LEN: u32 = 512;
/// `UBLK_MAX_QUEUE_DEPTH`, which also spaces the descriptor areas of the queues.
pub const MAX_QUEUE_DEPTH: u16 = 4096;
/// `UBLK_MAX_NR_QUEUES`.
pub const MAX_NR_QUEUES: u16 = 4096;
/// [`CtrlCmd::queue_id`] of a command that is for no queue.
pub const NO_QUEUE: u16 = 0xffff;
/// Bytes of a descriptor, [`IoDesc`], unless the device has chosen more.
pub const IO_DESC_LEN: u16 = 24;
/// [`DevInfo::dev_id`] that lets the driver choose.
pub const ANY_DEVICE: u32 = u32::MAX;

/// `_IOC_READ` of the ioctl encoding.
const READ: u32 = 2;
/// `_IOC_READ | _IOC_WRITE` of the ioctl encoding.
const READ_WRITE: u32 = 3;

/// The ioctl encoding of a command: direction, size of its payload, type 'u', number.
#[expect(clippy::cast_possible_truncation, reason = "payloads are at most 32 bytes")]
const fn encode<Payload>(direction: u32, number: u8) -> u32 {
    direction << 30 | (size_of::<Payload>() as u32) << 16 | (b'u' as u32) << 8 | number as u32
}

/// Commands for `/dev/ublk-control`, with [`CtrlCmd`] as payload.
pub mod ctrl {
    use super::{CtrlCmd, READ, READ_WRITE, encode};

    /// `UBLK_U_CMD_GET_QUEUE_AFFINITY`.
    pub const GET_QUEUE_AFFINITY: u32 = encode::<CtrlCmd>(READ, 0x01);
    /// `UBLK_U_CMD_GET_DEV_INFO`.
    pub const GET_DEV_INFO: u32 = encode::<CtrlCmd>(READ, 0x02);
    /// `UBLK_U_CMD_ADD_DEV`.
    pub const ADD_DEV: u32 = encode::<CtrlCmd>(READ_WRITE, 0x04);
    /// `UBLK_U_CMD_DEL_DEV`.
    pub const DEL_DEV: u32 = encode::<CtrlCmd>(READ_WRITE, 0x05);
    /// `UBLK_U_CMD_START_DEV`.
    pub const START_DEV: u32 = encode::<CtrlCmd>(READ_WRITE, 0x06);
    /// `UBLK_U_CMD_STOP_DEV`.
    pub const STOP_DEV: u32 = encode::<CtrlCmd>(READ_WRITE, 0x07);
    /// `UBLK_U_CMD_SET_PARAMS`.
    pub const SET_PARAMS: u32 = encode::<CtrlCmd>(READ_WRITE, 0x08);
    /// `UBLK_U_CMD_GET_PARAMS`.
    pub const GET_PARAMS: u32 = encode::<CtrlCmd>(READ, 0x09);
    /// `UBLK_U_CMD_START_USER_RECOVERY`.
    pub const START_USER_RECOVERY: u32 = encode::<CtrlCmd>(READ_WRITE, 0x10);
    /// `UBLK_U_CMD_END_USER_RECOVERY`.
    pub const END_USER_RECOVERY: u32 = encode::<CtrlCmd>(READ_WRITE, 0x11);
    /// `UBLK_U_CMD_GET_DEV_INFO2`: the payload starts with the path of the char device.
    pub const GET_DEV_INFO2: u32 = encode::<CtrlCmd>(READ, 0x12);
    /// `UBLK_U_CMD_GET_FEATURES`.
    pub const GET_FEATURES: u32 = encode::<CtrlCmd>(READ, 0x13);
    /// `UBLK_U_CMD_DEL_DEV_ASYNC`.
    pub const DEL_DEV_ASYNC: u32 = encode::<CtrlCmd>(READ, 0x14);
    /// `UBLK_U_CMD_UPDATE_SIZE`.
    pub const UPDATE_SIZE: u32 = encode::<CtrlCmd>(READ_WRITE, 0x15);
    /// `UBLK_U_CMD_QUIESCE_DEV`.
    pub const QUIESCE_DEV: u32 = encode::<CtrlCmd>(READ_WRITE, 0x16);
    /// `UBLK_U_CMD_TRY_STOP_DEV`.
    pub const TRY_STOP_DEV: u32 = encode::<CtrlCmd>(READ_WRITE, 0x17);
    /// `UBLK_U_CMD_REG_BUF`.
    pub const REG_BUF: u32 = encode::<CtrlCmd>(READ_WRITE, 0x18);
    /// `UBLK_U_CMD_UNREG_BUF`.
    pub const UNREG_BUF: u32 = encode::<CtrlCmd>(READ_WRITE, 0x19);
}

/// The number of a control or queue command in the encoding of Linux 6.0 to 6.3, `UBLK_CMD_*` and `UBLK_IO_*`: the
/// low byte of the one that is encoded as an ioctl. A driver takes it if it was built with `BLKDEV_UBLK_LEGACY_OPCODES`.
pub const fn legacy(op: u32) -> u32 {
    op & 0xff
}

/// Commands for `/dev/ublkcN`, with [`IoCmd`] as payload.
pub mod io {
    use super::{BatchIo, IoCmd, READ_WRITE, encode};

    /// `UBLK_U_IO_FETCH_REQ`.
    pub const FETCH_REQ: u32 = encode::<IoCmd>(READ_WRITE, 0x20);
    /// `UBLK_U_IO_COMMIT_AND_FETCH_REQ`.
    pub const COMMIT_AND_FETCH_REQ: u32 = encode::<IoCmd>(READ_WRITE, 0x21);
    /// `UBLK_U_IO_NEED_GET_DATA`.
    pub const NEED_GET_DATA: u32 = encode::<IoCmd>(READ_WRITE, 0x22);
    /// `UBLK_U_IO_REGISTER_IO_BUF`.
    pub const REGISTER_IO_BUF: u32 = encode::<IoCmd>(READ_WRITE, 0x23);
    /// `UBLK_U_IO_UNREGISTER_IO_BUF`.
    pub const UNREGISTER_IO_BUF: u32 = encode::<IoCmd>(READ_WRITE, 0x24);
    /// `UBLK_U_IO_PREP_IO_CMDS`, with [`BatchIo`] as payload.
    pub const PREP_IO_CMDS: u32 = encode::<BatchIo>(READ_WRITE, 0x25);
    /// `UBLK_U_IO_COMMIT_IO_CMDS`, with [`BatchIo`] as payload.
    pub const COMMIT_IO_CMDS: u32 = encode::<BatchIo>(READ_WRITE, 0x26);
    /// `UBLK_U_IO_FETCH_IO_CMDS`, with [`BatchIo`] as payload.
    pub const FETCH_IO_CMDS: u32 = encode::<BatchIo>(READ_WRITE, 0x27);
}

/// Results of a fetch, `UBLK_IO_RES_*`. Any other is the errno of a command that was refused.
pub mod fetch_result {
    /// A request is there.
    pub const OK: i32 = 0;
    /// A WRITE is there, its data is not: [`super::io::NEED_GET_DATA`] brings it.
    pub const NEED_GET_DATA: i32 = 1;
    /// The tag is not fetched again (ENODEV).
    pub const ABORT: i32 = -19;
}

/// Positions in `/dev/ublkcN` at which the data of a request is read and written in user copy mode.
pub mod position {
    /// `UBLKSRV_IO_BUF_OFFSET`: below are the descriptors.
    pub const IO_BUF_OFFSET: u64 = 0x8000_0000;
    /// `UBLK_IO_BUF_BITS`: bits of an offset in a request.
    pub const IO_BUF_BITS: u32 = 25;
    /// `UBLK_TAG_BITS`.
    pub const TAG_BITS: u32 = 16;
    /// `UBLK_QID_OFF`.
    pub const QID_OFF: u32 = IO_BUF_BITS + TAG_BITS;
    /// `UBLKSRV_IO_INTEGRITY_FLAG`: the metadata of the request rather than its data.
    pub const INTEGRITY_FLAG: u64 = 1 << 62;

    /// Where byte `offset` of a request lies.
    pub fn of(queue: u16, tag: u16, offset: u32) -> u64 {
        IO_BUF_OFFSET
            + (u64::from(queue) << QID_OFF)
            + (u64::from(tag) << IO_BUF_BITS)
            + u64::from(offset)
    }
}

/// States of a device in [`DevInfo::state`], `UBLK_S_DEV_*`.
pub mod state {
    /// Added, stopped, or without its server.
    pub const DEAD: u16 = 0;
    /// Started.
    pub const LIVE: u16 = 1;
    /// Without its server, waiting for another.
    pub const QUIESCED: u16 = 2;
    /// Without its server, failing requests until another comes.
    pub const FAIL_IO: u16 = 3;
}

/// Operations in [`IoDesc::op_flags`], bits 0 to 7, `UBLK_IO_OP_*`.
pub mod op {
    /// Read.
    pub const READ: u8 = 0;
    /// Write.
    pub const WRITE: u8 = 1;
    /// Flush the volatile cache.
    pub const FLUSH: u8 = 2;
    /// Discard.
    pub const DISCARD: u8 = 3;
    /// Has a number, and is never sent.
    pub const WRITE_SAME: u8 = 4;
    /// Write zeroes.
    pub const WRITE_ZEROES: u8 = 5;
    /// Open a zone.
    pub const ZONE_OPEN: u8 = 10;
    /// Close a zone.
    pub const ZONE_CLOSE: u8 = 11;
    /// Make a zone full.
    pub const ZONE_FINISH: u8 = 12;
    /// Write at the write pointer of a zone.
    pub const ZONE_APPEND: u8 = 13;
    /// Make all zones empty.
    pub const ZONE_RESET_ALL: u8 = 14;
    /// Make a zone empty.
    pub const ZONE_RESET: u8 = 15;
    /// The data is an array of `struct blk_zone`.
    pub const REPORT_ZONES: u8 = 18;
}

/// Flags in [`IoDesc::op_flags`], bits 8 to 31, `UBLK_IO_F_*`.
pub mod io_flag {
    /// `UBLK_IO_F_FAILFAST_DEV`.
    pub const FAILFAST_DEV: u32 = 1 << 8;
    /// `UBLK_IO_F_FAILFAST_TRANSPORT`.
    pub const FAILFAST_TRANSPORT: u32 = 1 << 9;
    /// `UBLK_IO_F_FAILFAST_DRIVER`.
    pub const FAILFAST_DRIVER: u32 = 1 << 10;
    /// Metadata of a file system.
    pub const META: u32 = 1 << 11;
    /// Force unit access.
    pub const FUA: u32 = 1 << 13;
    /// Write zeroes without deallocating.
    pub const NOUNMAP: u32 = 1 << 15;
    /// A page is swapped.
    pub const SWAP: u32 = 1 << 16;
    /// Automatic registration has failed; the server has to register the data
    /// ([`super::auto_buf::FALLBACK`]).
    pub const NEED_REG_BUF: u32 = 1 << 17;
    /// There is metadata.
    pub const INTEGRITY: u32 = 1 << 18;
    /// [`super::IoDesc::addr`] is a place in a shared buffer, see [`super::shmem`].
    pub const SHMEM_ZC: u32 = 1 << 19;
}

/// Flags of automatic registration, which `sqe.addr` of a fetch carries in bits 16 to 23 above the index of the
/// buffer in bits 0 to 15 (`struct ublk_auto_buf_reg`); the other bits are 0.
pub mod auto_buf {
    /// `UBLK_AUTO_BUF_REG_FALLBACK`.
    pub const FALLBACK: u8 = 1 << 0;

    /// `sqe.addr` for a buffer.
    pub fn sqe_addr(index: u16, flags: u8) -> u64 {
        u64::from(index) | u64::from(flags) << 16
    }
}

/// Flags in [`BatchIo::flags`], `UBLK_BATCH_F_*`.
pub mod batch {
    /// Each element has the LBA of a zone append.
    pub const HAS_ZONE_LBA: u16 = 1 << 0;
    /// Each element has the address of a buffer.
    pub const HAS_BUF_ADDR: u16 = 1 << 1;
    /// As [`super::auto_buf::FALLBACK`], for all elements.
    pub const AUTO_BUF_REG_FALLBACK: u16 = 1 << 2;

    /// Bytes of an element with these flags.
    pub fn elem_bytes(flags: u16) -> u8 {
        let optional = |flag| if flags & flag != 0 { 8 } else { 0 };
        8 + optional(HAS_BUF_ADDR) + optional(HAS_ZONE_LBA)
    }

    /// Appends an element with these flags: the address of the buffer comes before the LBA.
    pub fn encode(
        bytes: &mut Vec<u8>,
        flags: u16,
        header: super::ElemHeader,
        address: u64,
        zone_lba: u64,
    ) {
        bytes.extend(zerocopy::IntoBytes::as_bytes(&header));
        if flags & HAS_BUF_ADDR != 0 {
            bytes.extend(address.to_le_bytes());
        }
        if flags & HAS_ZONE_LBA != 0 {
            bytes.extend(zone_lba.to_le_bytes());
        }
    }

    /// The tags in a buffer of a fetch, two bytes each.
    pub fn tags(bytes: &[u8]) -> Vec<u16> {
        bytes.chunks_exact(2).map(|tag| u16::from_le_bytes([tag[0], tag[1]])).collect()
    }
}

/// Shared memory for zero copy, [`ctrl::REG_BUF`].
pub mod shmem {
    /// `UBLK_SHMEM_BUF_READ_ONLY` in [`super::ShmemBufReg::flags`]: only requests that write can lie in it.
    pub const READ_ONLY: u32 = 1 << 0;

    /// The index of the buffer and the offset in it, from [`super::IoDesc::addr`].
    pub fn place(addr: u64) -> (u16, u32) {
        let [o0, o1, o2, o3, i0, i1, ..] = addr.to_le_bytes();
        (u16::from_le_bytes([i0, i1]), u32::from_le_bytes([o0, o1, o2, o3]))
    }
}

/// `struct ublksrv_ctrl_cmd`, the payload of a control command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtrlCmd {
    /// The device; [`ANY_DEVICE`] for [`ctrl::ADD_DEV`] to choose.
    pub dev_id: u32,
    /// The queue, or [`NO_QUEUE`].
    pub queue_id: u16,
    /// Length of the buffer in bytes.
    pub len: u16,
    /// Address of the buffer.
    pub addr: u64,
    /// Inline argument.
    pub data: u64,
    /// Length of the char device's path at the start of the buffer, in bytes with its NUL.
    pub dev_path_len: u16,
    /// Unused.
    pub pad: u16,
    /// Unused.
    pub reserved: u32,
}

assert_layout!(CtrlCmd, 32 {
    dev_id: 0, queue_id: 4, len: 6, addr: 8, data: 16, dev_path_len: 24, pad: 26, reserved: 28,
});

/// `struct ublksrv_io_cmd`, the payload of a queue command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoCmd {
    /// The queue.
    pub q_id: u16,
    /// The tag.
    pub tag: u16,
    /// Result of the request, for a commit: bytes, or a negated errno.
    pub result: i32,
    /// Address of the tag's data buffer, in copy mode.
    pub addr: u64,
}

assert_layout!(IoCmd, 16 { q_id: 0, tag: 2, result: 4, addr: 8 });

/// `struct ublk_batch_io`, the payload of a batch command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BatchIo {
    /// The queue.
    pub q_id: u16,
    /// See [`batch`].
    pub flags: u16,
    /// Elements in the buffer.
    pub nr_elem: u16,
    /// Bytes of each: an [`ElemHeader`] and 8 for each optional field.
    pub elem_bytes: u8,
    /// Must be 0.
    pub reserved: u8,
    /// Must be 0.
    pub reserved2: u64,
}

assert_layout!(BatchIo, 16 {
    q_id: 0, flags: 2, nr_elem: 4, elem_bytes: 6, reserved: 7, reserved2: 8,
});

/// `struct ublk_elem_header`, one element of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ElemHeader {
    /// The tag.
    pub tag: u16,
    /// Buffer of automatic registration.
    pub buf_index: u16,
    /// Result, for a commit.
    pub result: i32,
}

assert_layout!(ElemHeader, 8 { tag: 0, buf_index: 2, result: 4 });

/// `struct ublk_shmem_buf_reg`, what [`ctrl::REG_BUF`] is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ShmemBufReg {
    /// Address of the memory, at a page's boundary.
    pub addr: u64,
    /// Its length in bytes, whole pages, at most 4 GiB.
    pub len: u64,
    /// See [`shmem`].
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
}

assert_layout!(ShmemBufReg, 24 { addr: 0, len: 8, flags: 16, reserved: 20 });

/// `struct ublksrv_ctrl_dev_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DevInfo {
    /// Queues; the driver lowers it to the number of CPUs.
    pub nr_hw_queues: u16,
    /// Tags of each queue.
    pub queue_depth: u16,
    /// See [`state`].
    pub state: u16,
    /// Bytes of an I/O descriptor, Linux 7.3 and newer; padding before.
    pub io_desc_size: u16,
    /// Longest request in bytes.
    pub max_io_buf_bytes: u32,
    /// The device, or [`ANY_DEVICE`].
    pub dev_id: u32,
    /// Process id of the server.
    pub ublksrv_pid: i32,
    /// Unused.
    pub pad1: u32,
    /// See [`crate::Features`].
    pub flags: u64,
    /// The server's own.
    pub ublksrv_flags: u64,
    /// Owner, filled in by the driver.
    pub owner_uid: u32,
    /// Owner, filled in by the driver.
    pub owner_gid: u32,
    /// Unused.
    pub reserved1: u64,
    /// Unused.
    pub reserved2: u64,
}

assert_layout!(DevInfo, 64 {
    nr_hw_queues: 0, queue_depth: 2, state: 4, io_desc_size: 6, max_io_buf_bytes: 8, dev_id: 12,
    ublksrv_pid: 16, pad1: 20, flags: 24, ublksrv_flags: 32, owner_uid: 40, owner_gid: 44,
    reserved1: 48, reserved2: 56,
});

/// `struct ublksrv_io_desc`, one per tag in the memory shared with the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoDesc {
    /// Bits 0 to 7: [`op`]; bits 8 to 31: [`io_flag`].
    pub op_flags: u32,
    /// Length in sectors, or number of zones.
    pub nr_sectors: u32,
    /// First sector.
    pub start_sector: u64,
    /// Address of the tag's data buffer.
    pub addr: u64,
}

assert_layout!(IoDesc, 24 { op_flags: 0, nr_sectors: 4, start_sector: 8, addr: 16 });

/// States of a zone in [`BlkZone::cond`], `BLK_ZONE_COND_*` (include/uapi/linux/blkzoned.h).
pub mod zone_cond {
    /// Nothing was written since it was reset.
    pub const EMPTY: u8 = 1;
    /// Opened by a write.
    pub const IMP_OPEN: u8 = 2;
    /// Opened by [`super::op::ZONE_OPEN`].
    pub const EXP_OPEN: u8 = 3;
    /// Closed, with something in it.
    pub const CLOSED: u8 = 4;
    /// Nothing more can be written.
    pub const FULL: u8 = 14;
}

/// Bytes of a [`BlkZone`].
pub const BLK_ZONE_LEN: u32 = 64;

/// `struct blk_zone` (include/uapi/linux/blkzoned.h), an entry of a report. All in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlkZone {
    /// First sector.
    pub start: u64,
    /// Sectors; 0 ends a report.
    pub len: u64,
    /// Where the next write has to go.
    pub wp: u64,
    /// `BLK_ZONE_TYPE_*`: 2 is a zone that is written in sequence.
    pub zone_type: u8,
    /// See [`zone_cond`].
    pub cond: u8,
    /// Not used.
    pub non_seq: u8,
    /// It should be reset.
    pub reset: u8,
    /// Unused.
    pub resv: [u8; 4],
    /// Sectors that can be written.
    pub capacity: u64,
    /// Unused.
    pub reserved: [u8; 24],
}

assert_layout!(BlkZone, 64 {
    start: 0, len: 8, wp: 16, zone_type: 24, cond: 25, non_seq: 26, reset: 27, resv: 28, capacity: 32,
    reserved: 40,
});

impl CtrlCmd {
    /// A command for a device as a whole, without buffer and argument.
    pub fn for_device(dev_id: u32) -> Self {
        CtrlCmd { dev_id, queue_id: NO_QUEUE, ..CtrlCmd::new_zeroed() }
    }
}
