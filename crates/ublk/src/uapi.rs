//! The kernel's structures and numbers, by hand: `include/uapi/linux/ublk_cmd.h`.
//!
//! Offsets are checked here at compile time and in the tests against the C header.

use uring_cmd::assert_layout;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Bytes of a sector in every count of this interface.
pub const SECTOR_LEN: u32 = 512;
/// `UBLK_MAX_QUEUE_DEPTH`, which also spaces the descriptor areas of the queues.
pub const MAX_QUEUE_DEPTH: u16 = 4096;
/// [`CtrlCmd::queue_id`] of a command that is for no queue.
pub const NO_QUEUE: u16 = 0xffff;
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

/// Commands for `/dev/ublkcN`, with [`IoCmd`] as payload.
pub mod io {
    use super::{IoCmd, READ_WRITE, encode};

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
}

/// Feature flags of a device, `UBLK_F_*`.
pub mod feature {
    /// `UBLK_F_URING_CMD_COMP_IN_TASK`.
    pub const URING_CMD_COMP_IN_TASK: u64 = 1 << 1;
    /// `UBLK_F_NEED_GET_DATA`.
    pub const NEED_GET_DATA: u64 = 1 << 2;
    /// `UBLK_F_USER_RECOVERY`.
    pub const USER_RECOVERY: u64 = 1 << 3;
    /// `UBLK_F_USER_RECOVERY_REISSUE`.
    pub const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    /// `UBLK_F_UNPRIVILEGED_DEV`.
    pub const UNPRIVILEGED_DEV: u64 = 1 << 5;
    /// `UBLK_F_CMD_IOCTL_ENCODE`.
    pub const CMD_IOCTL_ENCODE: u64 = 1 << 6;
    /// `UBLK_F_USER_COPY`.
    pub const USER_COPY: u64 = 1 << 7;
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
    /// Write zeroes.
    pub const WRITE_ZEROES: u8 = 5;
}

/// Flags in [`IoDesc::op_flags`], bits 8 to 31, `UBLK_IO_F_*`.
pub mod io_flag {
    /// Force unit access.
    pub const FUA: u32 = 1 << 13;
    /// Write zeroes without deallocating.
    pub const NOUNMAP: u32 = 1 << 15;
}

/// Which parts of [`Params`] are given, `UBLK_PARAM_TYPE_*`.
pub mod param_type {
    /// [`super::Params::basic`], always needed.
    pub const BASIC: u32 = 1 << 0;
    /// [`super::Params::discard`].
    pub const DISCARD: u32 = 1 << 1;
    /// [`super::Params::devt`], read only.
    pub const DEVT: u32 = 1 << 2;
    /// [`super::Params::zoned`].
    pub const ZONED: u32 = 1 << 3;
    /// [`super::Params::dma`].
    pub const DMA_ALIGN: u32 = 1 << 4;
    /// [`super::Params::seg`].
    pub const SEGMENT: u32 = 1 << 5;
    /// [`super::Params::integrity`].
    pub const INTEGRITY: u32 = 1 << 6;
}

/// Attributes in [`ParamBasic::attrs`], `UBLK_ATTR_*`.
pub mod attr {
    /// The device refuses writes.
    pub const READ_ONLY: u32 = 1 << 0;
    /// The device is rotational.
    pub const ROTATIONAL: u32 = 1 << 1;
    /// The device has a volatile cache, so flushes reach the server.
    pub const VOLATILE_CACHE: u32 = 1 << 2;
    /// The server honours FUA; needs [`VOLATILE_CACHE`].
    pub const FUA: u32 = 1 << 3;
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
    /// See [`feature`].
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

/// `struct ublk_param_basic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamBasic {
    /// See [`attr`].
    pub attrs: u32,
    /// Logarithm of the logical block length in bytes, 9 to 12.
    pub logical_bs_shift: u8,
    /// Logarithm of the physical block length in bytes.
    pub physical_bs_shift: u8,
    /// Logarithm of the optimal length of a request in bytes.
    pub io_opt_shift: u8,
    /// Logarithm of the smallest efficient length of a request in bytes.
    pub io_min_shift: u8,
    /// Longest request in sectors.
    pub max_sectors: u32,
    /// Boundary no request crosses, in sectors; 0 for none.
    pub chunk_sectors: u32,
    /// Capacity in sectors.
    pub dev_sectors: u64,
    /// Boundary no segment crosses, as a mask.
    pub virt_boundary_mask: u64,
}

assert_layout!(ParamBasic, 32 {
    attrs: 0, logical_bs_shift: 4, physical_bs_shift: 5, io_opt_shift: 6, io_min_shift: 7,
    max_sectors: 8, chunk_sectors: 12, dev_sectors: 16, virt_boundary_mask: 24,
});

/// `struct ublk_param_discard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamDiscard {
    /// Offset of the first discardable unit in bytes.
    pub discard_alignment: u32,
    /// Unit of discarding in bytes.
    pub discard_granularity: u32,
    /// Longest discard in sectors; 0 for no support.
    pub max_discard_sectors: u32,
    /// Longest write-zeroes in sectors; 0 for no support.
    pub max_write_zeroes_sectors: u32,
    /// Ranges in one discard; 1.
    pub max_discard_segments: u16,
    /// Unused.
    pub reserved0: u16,
}

assert_layout!(ParamDiscard, 20 {
    discard_alignment: 0, discard_granularity: 4, max_discard_sectors: 8,
    max_write_zeroes_sectors: 12, max_discard_segments: 16, reserved0: 18,
});

/// `struct ublk_param_devt`, read only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamDevt {
    /// Of `/dev/ublkcN`.
    pub char_major: u32,
    /// Of `/dev/ublkcN`.
    pub char_minor: u32,
    /// Of `/dev/ublkbN`.
    pub disk_major: u32,
    /// Of `/dev/ublkbN`.
    pub disk_minor: u32,
}

assert_layout!(ParamDevt, 16 { char_major: 0, char_minor: 4, disk_major: 8, disk_minor: 12 });

/// `struct ublk_param_zoned`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamZoned {
    /// Limit of open zones; 0 for none.
    pub max_open_zones: u32,
    /// Limit of active zones; 0 for none.
    pub max_active_zones: u32,
    /// Longest zone append in sectors.
    pub max_zone_append_sectors: u32,
    /// Unused.
    pub reserved: [u8; 20],
}

assert_layout!(ParamZoned, 32 {
    max_open_zones: 0, max_active_zones: 4, max_zone_append_sectors: 8, reserved: 12,
});

/// `struct ublk_param_dma_align`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamDmaAlign {
    /// Alignment of data in memory less one, in bytes.
    pub alignment: u32,
    /// Unused.
    pub pad: [u8; 4],
}

assert_layout!(ParamDmaAlign, 8 { alignment: 0, pad: 4 });

/// `struct ublk_param_segment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamSegment {
    /// Boundary no segment crosses, as a mask.
    pub seg_boundary_mask: u64,
    /// Longest segment in bytes.
    pub max_segment_size: u32,
    /// Segments in one request.
    pub max_segments: u16,
    /// Unused.
    pub pad: [u8; 2],
}

assert_layout!(ParamSegment, 16 {
    seg_boundary_mask: 0, max_segment_size: 8, max_segments: 12, pad: 14,
});

/// `struct ublk_param_integrity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ParamIntegrity {
    /// `LBMD_PI_CAP_*`.
    pub flags: u32,
    /// Segments of metadata in one request; 0 for no limit.
    pub max_integrity_segments: u16,
    /// Logarithm of the protection interval in bytes.
    pub interval_exp: u8,
    /// Metadata of one interval in bytes.
    pub metadata_size: u8,
    /// Where the protection information starts in the metadata.
    pub pi_offset: u8,
    /// `LBMD_PI_CSUM_*`.
    pub csum_type: u8,
    /// Bytes of the application tag.
    pub tag_size: u8,
    /// Unused.
    pub pad: [u8; 5],
}

assert_layout!(ParamIntegrity, 16 {
    flags: 0, max_integrity_segments: 4, interval_exp: 6, metadata_size: 7, pi_offset: 8,
    csum_type: 9, tag_size: 10, pad: 11,
});

/// `struct ublk_params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Params {
    /// Bytes of this structure the caller knows.
    pub len: u32,
    /// See [`param_type`].
    pub types: u32,
    /// Capacity and limits.
    pub basic: ParamBasic,
    /// Discard and write-zeroes.
    pub discard: ParamDiscard,
    /// Device numbers.
    pub devt: ParamDevt,
    /// Zones.
    pub zoned: ParamZoned,
    /// Alignment of data.
    pub dma: ParamDmaAlign,
    /// Padding of the C compiler.
    pub pad0: u32,
    /// Segments of data.
    pub seg: ParamSegment,
    /// Protection information.
    pub integrity: ParamIntegrity,
}

assert_layout!(Params, 152 {
    len: 0, types: 4, basic: 8, discard: 40, devt: 60, zoned: 76, dma: 108, seg: 120, integrity: 136,
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

impl CtrlCmd {
    /// A command for a device as a whole, without buffer and argument.
    pub fn for_device(dev_id: u32) -> Self {
        CtrlCmd { dev_id, queue_id: NO_QUEUE, ..CtrlCmd::new_zeroed() }
    }
}
