//! What `SET_PARAMS` and `GET_PARAMS` carry.

use uring_cmd::assert_layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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

/// Capabilities in [`ParamIntegrity::flags`], `LBMD_PI_CAP_*` of `include/uapi/linux/fs.h`.
pub mod pi_cap {
    /// Metadata is checked by the device.
    pub const INTEGRITY: u32 = 1 << 0;
    /// The protection information has a reference tag.
    pub const REFTAG: u32 = 1 << 1;
}

/// Guards in [`ParamIntegrity::csum_type`], `LBMD_PI_CSUM_*` of `include/uapi/linux/fs.h`.
pub mod pi_csum {
    /// None.
    pub const NONE: u8 = 0;
    /// IP checksum.
    pub const IP: u8 = 1;
    /// CRC of T10.
    pub const CRC16_T10DIF: u8 = 2;
    /// CRC of NVMe.
    pub const CRC64_NVME: u8 = 4;
}

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
