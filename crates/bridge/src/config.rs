//! The block device that a disk becomes.

use ublk::{
    Config, DataMode,
    uapi::{ParamBasic, ParamDiscard, ParamDmaAlign, ParamSegment, SECTOR_LEN, attr, param_type},
};

use crate::{Disk, Route, Unmapping};

/// Longest request in bytes, whatever the disk allows: in the modes that copy each tag has a buffer of this length.
const LEN_MAX: u32 = 1 << 20;
/// `SD_MAX_WS10_BLOCKS` of drivers/scsi/sd.h: the most blocks of one WRITE SAME to a unit that does not say.
const WRITE_SAME_BLOCKS: u32 = 0xffff;
/// `SD_MAX_WS16_BLOCKS`: the most blocks of one UNMAP or WRITE SAME(16) whatever the unit says.
const BLOCKS_MAX: u32 = 0x7f_ffff;
/// Smallest segment and boundary the driver takes (`ublk_drv.c:UBLK_MIN_SEGMENT_SIZE`).
const SEGMENT_LEN_MIN: u32 = 4096;
/// Smallest page there is.
const PAGE_LEN: u32 = 4096;
/// Segments do not cross 4 GiB, the boundary of SCSI hosts that say nothing else (`drivers/scsi/hosts.c`).
const SEGMENT_BOUNDARY: u64 = 0xffff_ffff;

/// The smaller of two limits, of which 0 is none.
fn least(limit: u32, most: u32) -> u32 {
    if limit == 0 { most } else { limit.min(most) }
}

fn shift(len: u32) -> u8 {
    u8::try_from(len.max(1).ilog2()).expect("below 32")
}

impl Disk {
    /// Sectors of a number of blocks, as many as 32 bits hold.
    fn sectors(&self, blocks: u32) -> u32 {
        blocks.saturating_mul(self.block_len / SECTOR_LEN)
    }

    fn basic(&self, route: &Route, mode: DataMode) -> ParamBasic {
        let bytes = self.transfer_max.saturating_mul(self.block_len);
        let len_max = least(bytes, route.len_max).min(LEN_MAX);
        // A buffer of the server's has its pages anywhere, and the kernel refuses what has too many segments.
        let pages = u32::from(route.segments_max).saturating_mul(PAGE_LEN);
        let len_max = match mode {
            DataMode::Copy | DataMode::GetData | DataMode::UserCopy => len_max.min(pages),
            DataMode::ZeroCopy | DataMode::AutoBuf => len_max,
        };
        let physical_shift = shift(self.block_len) + self.physical_exponent;
        let given = [
            (self.write_protected, attr::READ_ONLY),
            (self.write_cache, attr::VOLATILE_CACHE),
            // Without a cache every write is through.
            (self.write_cache && self.force_unit_access, attr::FUA),
        ];
        let attrs = given.iter().filter(|(is, _)| *is).fold(0, |attrs, (_, bit)| attrs | bit);
        ParamBasic {
            attrs,
            logical_bs_shift: shift(self.block_len),
            physical_bs_shift: physical_shift,
            io_opt_shift: physical_shift,
            io_min_shift: physical_shift,
            max_sectors: len_max / self.block_len * (self.block_len / SECTOR_LEN),
            chunk_sectors: 0,
            dev_sectors: self.blocks * u64::from(self.block_len / SECTOR_LEN),
            virt_boundary_mask: route.virt_boundary,
        }
    }

    fn discard(&self) -> ParamDiscard {
        let limit = match self.unmapping {
            None => 0,
            Some(Unmapping::Unmap) => least(self.unmap_max, BLOCKS_MAX),
            Some(Unmapping::WriteSame) => self.write_same_blocks(),
        };
        let physical = self.block_len << self.physical_exponent;
        ParamDiscard {
            discard_alignment: self.unmap_alignment.saturating_mul(self.block_len),
            discard_granularity: physical
                .max(self.unmap_granularity.saturating_mul(self.block_len)),
            max_discard_sectors: self.sectors(limit),
            max_write_zeroes_sectors: self.sectors(self.write_same_blocks()),
            max_discard_segments: 1,
            reserved0: 0,
        }
    }

    /// As `sd.c:sd_config_write_same` has it.
    fn write_same_blocks(&self) -> u32 {
        let most = u32::try_from(self.write_same_max).unwrap_or(u32::MAX);
        let blocks = match self.write_same {
            _ if most > WRITE_SAME_BLOCKS => most.min(BLOCKS_MAX),
            true => least(most, WRITE_SAME_BLOCKS),
            false => 0,
        };
        // Whole physical blocks, so that the pieces of a long request begin with one.
        blocks >> self.physical_exponent << self.physical_exponent
    }

    /// The device: as large as the disk, with its blocks and cache, taking what it takes, and no request that would
    /// have to be copied on its way there. One queue with as many tags as the disk takes commands, at most `depth`.
    #[must_use]
    pub fn config(&self, route: &Route, mode: DataMode, depth: u16) -> Config {
        let basic = self.basic(route, mode);
        let mut config = Config::disk(basic.dev_sectors).mode(mode);
        config = config.queues(1, depth.min(route.depth).max(1));
        config.info.max_io_buf_bytes = basic.max_sectors * SECTOR_LEN;
        let params = &mut config.params;
        params.types =
            param_type::BASIC | param_type::DISCARD | param_type::DMA_ALIGN | param_type::SEGMENT;
        (params.basic, params.discard) = (basic, self.discard());
        params.dma = ParamDmaAlign { alignment: route.alignment, pad: [0; 4] };
        params.seg = ParamSegment {
            seg_boundary_mask: SEGMENT_BOUNDARY,
            max_segment_size: route.segment_len_max.max(SEGMENT_LEN_MIN),
            max_segments: route.segments_max.max(1),
            pad: [0; 2],
        };
        config
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
