//! What a device in memory has beside its sectors: zones, or metadata.

use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use ublk::{
    Config, RamTarget, Target, ZonedTarget,
    uapi::{ParamIntegrity, Params, SECTOR_LEN, param_type, pi_cap, pi_csum},
};

/// Options of `add`, with the names of the driver's parameters (`struct ublk_params`).
#[derive(Debug, Default, Args)]
pub(crate) struct Layout {
    /// With --ram: zones of this size, a power of two, each of which is written in sequence. Linux 6.6.
    #[arg(long, value_name = "SIZE", value_parser = crate::args::size, conflicts_with = "metadata_size")]
    pub(crate) zone_size: Option<u64>,
    /// With --ram: so many bytes of metadata for each sector. Linux 7.0.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) metadata_size: Option<u8>,
    /// The guard in the metadata, if there is protection information in it.
    #[arg(long, value_enum, default_value_t = Csum::None, requires = "metadata_size")]
    pub(crate) csum_type: Csum,
    /// Where in the metadata of a sector the protection information starts.
    #[arg(long, value_name = "BYTES", default_value_t = 0, requires = "metadata_size")]
    pub(crate) pi_offset: u8,
    /// Bytes of the application tag that the application may use.
    #[arg(long, value_name = "BYTES", default_value_t = 0, requires = "metadata_size")]
    pub(crate) tag_size: u8,
}

/// `LBMD_PI_CSUM_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Csum {
    /// No protection information.
    #[default]
    None,
    /// The Internet checksum, in 8 bytes of protection information.
    Ip,
    /// The CRC of T10, in 8 bytes.
    Crc16T10dif,
    /// The 64-bit CRC of NVMe, in 16 bytes.
    Crc64Nvme,
}

impl Csum {
    fn number(self) -> u8 {
        match self {
            Csum::None => pi_csum::NONE,
            Csum::Ip => pi_csum::IP,
            Csum::Crc16T10dif => pi_csum::CRC16_T10DIF,
            Csum::Crc64Nvme => pi_csum::CRC64_NVME,
        }
    }

    /// What the option and the list call the guard of this number.
    fn name(number: u8) -> String {
        let guard = Csum::value_variants().iter().find(|guard| guard.number() == number);
        let value = guard.and_then(ValueEnum::to_possible_value);
        value.map_or("unknown".to_owned(), |value| value.get_name().to_owned())
    }

    /// Bytes of its protection information.
    fn tuple(self) -> u8 {
        match self {
            Csum::None => 0,
            Csum::Ip | Csum::Crc16T10dif => 8,
            Csum::Crc64Nvme => 16,
        }
    }
}

impl Layout {
    /// Whether there is anything but sectors.
    pub(crate) fn is_special(&self) -> bool {
        self.zone_size.is_some() || self.metadata_size.is_some()
    }

    /// The device of a memory of so many bytes.
    pub(crate) fn config(&self, bytes: u64) -> Result<Config> {
        let sector = u64::from(SECTOR_LEN);
        if let Some(zone) = self.zone_size {
            let fits = zone.is_power_of_two() && bytes.is_multiple_of(zone);
            anyhow::ensure!(
                fits,
                "{bytes} bytes are no zones of {zone}: give a power of two, and a medium of whole zones"
            );
            return Ok(Config::zoned(bytes / zone, u32::try_from(zone / sector)?));
        }
        let config = Config::disk(bytes / sector);
        let Some(metadata_size) = self.metadata_size else { return Ok(config) };
        let tuple = self.csum_type.tuple();
        anyhow::ensure!(
            u16::from(self.pi_offset) + u16::from(tuple) <= u16::from(metadata_size),
            "{tuple} bytes of protection information from byte {} on do not fit into {metadata_size}: \
             give a larger --metadata-size",
            self.pi_offset
        );
        let flags = match self.csum_type {
            Csum::None => 0,
            _ => pi_cap::INTEGRITY | pi_cap::REFTAG,
        };
        Ok(config.integrity(ParamIntegrity {
            flags,
            max_integrity_segments: 0,
            interval_exp: 9,
            metadata_size,
            pi_offset: self.pi_offset,
            csum_type: self.csum_type.number(),
            tag_size: self.tag_size,
            pad: [0; 5],
        }))
    }
}

/// Memory for a device of these parameters.
pub(crate) fn memory(params: &Params) -> Arc<dyn Target> {
    let sectors = params.basic.dev_sectors;
    if params.types & param_type::ZONED != 0 {
        let zone = params.basic.chunk_sectors;
        return Arc::new(ZonedTarget::new(sectors / u64::from(zone), zone));
    }
    match params.types & param_type::INTEGRITY {
        0 => Arc::new(RamTarget::new(sectors)),
        _ => Arc::new(RamTarget::with_metadata(sectors, &params.integrity)),
    }
}

/// Its zones, `null` if it has none.
pub(crate) fn zones(params: &Params) -> Value {
    let zone = params.basic.chunk_sectors;
    match params.types & param_type::ZONED {
        0 => Value::Null,
        _ => json!({
            "number": params.basic.dev_sectors / u64::from(zone.max(1)),
            "bytes": u64::from(zone) * u64::from(SECTOR_LEN),
        }),
    }
}

/// Its metadata, `null` if it has none.
pub(crate) fn integrity(params: &Params) -> Value {
    let shape = &params.integrity;
    match params.types & param_type::INTEGRITY {
        0 => Value::Null,
        _ => json!({
            "metadata_size": shape.metadata_size,
            "csum_type": Csum::name(shape.csum_type),
            "pi_offset": shape.pi_offset,
            "tag_size": shape.tag_size,
        }),
    }
}
