//! What a device is made of.

use std::{io, num::NonZeroU32, path::PathBuf};

use scsi::LunAddress;

/// Largest medium in RAM, in bytes. Pages are taken from the system when first written.
pub const RAM_LEN_MAX: u64 = 16 << 30;

/// The same of a thinly provisioned unit, which takes none for what is not mapped, whatever is read.
pub const THIN_RAM_LEN_MAX: u64 = 16 << 40;

/// The targets and logical units of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Tells this device from others an initiator may see at once; part of every unit's designators.
    pub identifier: u32,
    /// Every logical unit with its address. A target is present if it has at least one.
    pub units: Vec<(LunAddress, LuConfig)>,
}

/// What a logical unit is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuConfig {
    /// PERIPHERAL DEVICE TYPE it reports. The block commands work on each.
    pub device_type: DeviceType,
    /// LOGICAL BLOCK LENGTH IN BYTES: 512 or 4096.
    pub block_len: u32,
    /// Number of logical blocks, at least 1.
    pub blocks: u64,
    /// Where the blocks are kept.
    pub medium: MediumConfig,
    /// Whether writes are refused with DATA PROTECT.
    pub write_protect: bool,
    /// Whether blocks can be unmapped.
    pub provisioning: Provisioning,
    /// How blocks lie in physical blocks.
    pub physical_blocks: PhysicalBlocks,
    /// Most commands of its task set, if there is a limit. The task set is the transport's, which keeps it.
    pub task_set_max: Option<NonZeroU32>,
}

/// LOGICAL BLOCK PROVISIONING of a unit (SBC, Logical block provisioning).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provisioning {
    /// Fully provisioned: every block is mapped, always. UNMAP changes nothing.
    #[default]
    Full,
    /// Thinly provisioned, in granules of 4096 bytes. What is not mapped reads as zeros.
    Thin,
}

/// Physical blocks as READ CAPACITY(16) reports them. They have no other effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PhysicalBlocks {
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, 0 to 15: 3 with blocks of 512 bytes is 512e.
    pub exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS, less than the blocks of a physical block.
    pub lowest_aligned: u16,
}

impl Default for LuConfig {
    /// 16 MiB of RAM in 512-byte blocks behind a device type that Linux's `sd` ignores.
    fn default() -> Self {
        LuConfig {
            device_type: DeviceType::Processor,
            block_len: 512,
            blocks: 32_768,
            medium: MediumConfig::Ram,
            write_protect: false,
            provisioning: Provisioning::Full,
            physical_blocks: PhysicalBlocks::default(),
            task_set_max: None,
        }
    }
}

/// PERIPHERAL DEVICE TYPE (SPC, Standard INQUIRY data).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeviceType {
    /// Direct access block device.
    Disk = 0x00,
    /// Processor device. That block commands work on it is a convenience of ours: the guest makes a
    /// bsg node for it and attaches no disk driver, so nothing but a test's commands reaches it.
    Processor = 0x03,
}

/// Where the blocks of a logical unit are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediumConfig {
    /// Anonymous zeroed memory, at most [`RAM_LEN_MAX`] bytes, or [`THIN_RAM_LEN_MAX`].
    Ram,
    /// A file, created if absent and extended sparsely to the needed size, kept afterwards.
    File {
        /// Path of the file.
        path: PathBuf,
    },
}

/// Why a configuration is refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Two logical units at one address.
    #[error("target {} has two logical units {}", .0.target, .0.lun)]
    DuplicateAddress(LunAddress),
    /// The LUN does not fit flat space addressing.
    #[error("logical unit number {} is above {}", .0.lun, scsi::lun::LUN_MAX)]
    LunTooHigh(LunAddress),
    /// No logical unit at this address.
    #[error("target {} has no logical unit {}", .0.target, .0.lun)]
    NoSuchUnit(LunAddress),
    /// Neither 512 nor 4096.
    #[error("block length {0} is neither 512 nor 4096")]
    BlockLen(u32),
    /// No blocks, or more bytes than a 63-bit offset can name.
    #[error("{blocks} blocks of {block_len} bytes make no medium")]
    Blocks {
        /// Number of blocks asked for.
        blocks: u64,
        /// Length of each in bytes.
        block_len: u32,
    },
    /// Physical blocks that READ CAPACITY(16) cannot report.
    #[error("{} is no alignment of physical blocks of 2^{} blocks", .0.lowest_aligned, .0.exponent)]
    PhysicalBlocks(PhysicalBlocks),
    /// A medium in RAM beyond [`RAM_LEN_MAX`] or [`THIN_RAM_LEN_MAX`].
    #[error("a medium of {len} bytes in memory is beyond the limit of {len_max} bytes")]
    RamTooLarge {
        /// Bytes asked for.
        len: u64,
        /// Bytes it may have.
        len_max: u64,
    },
    /// The medium cannot become so large.
    #[error("the medium cannot have {len} bytes: {source}")]
    NoRoom {
        /// Bytes asked for.
        len: u64,
        /// What the system said, or the medium.
        source: io::Error,
    },
    /// The system has no address space for the medium.
    #[error("no memory for a medium of {len} bytes: {reason}")]
    RamUnavailable {
        /// Bytes asked for.
        len: u64,
        /// The system's words.
        reason: String,
    },
    /// The file cannot be opened, created or extended, or is no file.
    #[error("medium {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
