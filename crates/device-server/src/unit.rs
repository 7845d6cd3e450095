//! A logical unit: what it is made of and who it says it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use scsi::{BlockLen, LunAddress, vpd};

use crate::{
    ConfigError, LuConfig, MediumConfig, PhysicalBlocks, Provisioning, Readiness,
    attention::UnitAttentions,
    block_locks::BlockLocks,
    config::{RAM_LEN_MAX, THIN_RAM_LEN_MAX},
    echo_buffer::EchoBuffer,
    health::CurrentHealth,
    medium::{FileMedium, Medium, RamMedium, StaleWrites},
    mode_values::{CurrentValues, ModeValues},
    readiness::CurrentReadiness,
    reservations::Reservations,
};

/// A logical unit. What it is made of never changes: a reset of the bench puts a new one in its place,
/// so that commands already running finish on the old one.
#[derive(Debug)]
pub(crate) struct LogicalUnit {
    /// What it was made of. How many blocks it has now is [`Self::blocks`].
    pub(crate) config: LuConfig,
    blocks: AtomicU64,
    pub(crate) block_len: BlockLen,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) stale: StaleWrites,
    pub(crate) designation: Designation,
    pub(crate) mode: CurrentValues,
    pub(crate) readiness: CurrentReadiness,
    pub(crate) attentions: UnitAttentions,
    pub(crate) health: CurrentHealth,
    pub(crate) reservations: Reservations,
    pub(crate) locks: BlockLocks,
    pub(crate) echo: EchoBuffer,
}

/// What tells a logical unit from all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Designation {
    identifier: u32,
    address: LunAddress,
}

impl Designation {
    /// Unique among the devices with different identifiers: 32 bits of device, 8 of target, 16 of
    /// LUN.
    fn value(self) -> u64 {
        u64::from(self.identifier) << 24
            | u64::from(self.address.target) << 16
            | u64::from(self.address.lun)
    }

    /// NAA, locally assigned.
    pub(crate) fn naa(self) -> u64 {
        vpd::naa_locally_assigned(self.value())
    }

    /// PRODUCT SERIAL NUMBER: 14 hexadecimal digits.
    pub(crate) fn serial(self) -> String {
        format!("{:014x}", self.value())
    }
}

impl LogicalUnit {
    /// Makes a unit and its medium.
    pub(crate) fn new(
        identifier: u32,
        address: LunAddress,
        config: LuConfig,
    ) -> Result<LogicalUnit, ConfigError> {
        let block_len =
            BlockLen::new(config.block_len).ok_or(ConfigError::BlockLen(config.block_len))?;
        let len = medium_len(config.blocks, block_len)?;
        let PhysicalBlocks { exponent, lowest_aligned } = config.physical_blocks;
        if exponent > 15 || u32::from(lowest_aligned) >= (1 << exponent).min(1 << 14) {
            return Err(ConfigError::PhysicalBlocks(config.physical_blocks));
        }
        let medium = open_medium(&config, len)?;
        let designation = Designation { identifier, address };
        Ok(Self::over(medium, config, block_len, designation))
    }

    /// A unit over this medium, in the state it has after power on.
    fn over(
        medium: Arc<dyn Medium>,
        config: LuConfig,
        block_len: BlockLen,
        designation: Designation,
    ) -> LogicalUnit {
        let mode = CurrentValues::new(ModeValues::default_for(medium.has_volatile_cache()));
        LogicalUnit {
            blocks: AtomicU64::new(config.blocks),
            config,
            block_len,
            medium,
            stale: StaleWrites::default(),
            designation,
            mode,
            readiness: CurrentReadiness::default(),
            attentions: UnitAttentions::default(),
            health: CurrentHealth::default(),
            reservations: Reservations::default(),
            locks: BlockLocks::default(),
            echo: EchoBuffer::default(),
        }
    }

    /// The same over another medium.
    #[cfg(test)]
    pub(crate) fn with_medium(self, medium: Arc<dyn Medium>) -> LogicalUnit {
        Self::over(medium, self.config, self.block_len, self.designation)
    }

    /// PERIPHERAL QUALIFIER 000b and PERIPHERAL DEVICE TYPE.
    pub(crate) fn peripheral(&self) -> u8 {
        self.config.device_type as u8
    }

    /// How many logical blocks it has.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// What it is made of, as it is now.
    pub(crate) fn current_config(&self) -> LuConfig {
        LuConfig { blocks: self.blocks(), ..self.config.clone() }
    }

    /// Gives it another number of blocks, and returns whether that was a change.
    pub(crate) fn resize(&self, blocks: u64) -> Result<bool, ConfigError> {
        let len = medium_len(blocks, self.block_len)?;
        self.medium.make_room(len).map_err(|source| ConfigError::NoRoom { len, source })?;
        Ok(self.blocks.swap(blocks, Ordering::Relaxed) != blocks)
    }

    /// Whether blocks can be unmapped.
    pub(crate) fn is_thin(&self) -> bool {
        self.config.provisioning == Provisioning::Thin
    }

    /// The mode parameters it has when nothing has been selected.
    pub(crate) fn default_mode(&self) -> ModeValues {
        ModeValues::default_for(self.medium.has_volatile_cache())
    }

    /// Whether commands that write are refused.
    pub(crate) fn is_write_protected(&self) -> bool {
        self.config.write_protect || self.mode.get().software_write_protect()
    }

    /// What LOGICAL UNIT RESET does to its state (SAM, Logical unit reset).
    pub(crate) fn reset(&self) {
        self.mode.set(self.default_mode());
        self.readiness.set(Readiness::Ready);
        self.reservations.reset();
        self.echo.clear();
    }
}

/// Length of a medium of so many blocks.
fn medium_len(blocks: u64, block_len: BlockLen) -> Result<u64, ConfigError> {
    block_len
        .bytes_of(blocks)
        .filter(|len| *len > 0 && i64::try_from(*len).is_ok())
        .ok_or(ConfigError::Blocks { blocks, block_len: block_len.bytes() })
}

fn open_medium(config: &LuConfig, len: u64) -> Result<Arc<dyn Medium>, ConfigError> {
    let thin = config.provisioning == Provisioning::Thin;
    match &config.medium {
        MediumConfig::Ram => {
            let len_max = if thin { THIN_RAM_LEN_MAX } else { RAM_LEN_MAX };
            if len > len_max {
                return Err(ConfigError::RamTooLarge { len, len_max });
            }
            let unavailable = |reason| ConfigError::RamUnavailable { len, reason };
            let len = usize::try_from(len).map_err(|error| unavailable(error.to_string()))?;
            let medium =
                RamMedium::new(len, thin).map_err(|error| unavailable(error.to_string()))?;
            Ok(Arc::new(medium))
        }
        MediumConfig::File { path } => {
            let medium = FileMedium::open(path, len, config.write_protect, thin)
                .map_err(|source| ConfigError::File { path: path.clone(), source })?;
            Ok(Arc::new(medium))
        }
    }
}
