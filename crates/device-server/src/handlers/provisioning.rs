//! WRITE SAME(10), WRITE SAME(16), UNMAP and GET LBA STATUS (SBC).

use scsi::{
    BlockRange, Lba, cdb,
    provisioning::{self, LbaStatusDescriptor, ProvisioningStatus},
};

use super::{
    Execution,
    block::{after_write, byte_range, failed_block},
};
use crate::{
    data,
    error::CommandError,
    medium::{GRANULE, MediumError},
};

/// MAXIMUM WRITE SAME LENGTH in blocks: what WRITE SAME(10) can ask for. With WSNZ, so that no command
/// writes the whole unit.
pub(super) const WRITE_SAME_MAX: u64 = 0xffff;

/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
pub(super) const UNMAP_DESCRIPTORS_MAX: u16 = 256;

/// Most descriptors GET LBA STATUS returns. It may return fewer than there are.
const STATUS_DESCRIPTORS_MAX: usize = 1024;

pub(super) fn write_same_10(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::WriteSame10>();
    let range = BlockRange { start: Lba(cdb.lba.get().into()), blocks: cdb.blocks.get().into() };
    write_same(execution, range, cdb.flags, 7)
}

pub(super) fn write_same_16(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::WriteSame16>();
    let range = BlockRange { start: Lba(cdb.lba.get()), blocks: cdb.blocks.get().into() };
    write_same(execution, range, cdb.flags, 10)
}

/// NUMBER OF LOGICAL BLOCKS begins at byte `length_at` of the CDB.
fn write_same(
    execution: &mut Execution<'_, '_, '_>,
    range: BlockRange,
    flags: u8,
    length_at: u16,
) -> Result<(), CommandError> {
    let unit = execution.unit;
    if !(1..=WRITE_SAME_MAX).contains(&range.blocks) {
        return Err(CommandError::field(length_at));
    }
    let (offset, len) = byte_range(unit, range)?;
    let unmap = flags & cdb::UNMAP != 0;
    if unmap && !unit.is_thin() {
        return Err(CommandError::field_bit(1, 3));
    }
    let block_len = unit.block_len.bytes();
    let block = if flags & cdb::NDOB != 0 {
        vec![0; usize::try_from(block_len).expect("a block is short")]
    } else {
        let Some(block) = execution.data.take(block_len) else { return Ok(()) };
        block
    };
    let failed = |error: MediumError| CommandError::WriteFailed(failed_block(unit, offset, &error));
    let write = |from: u64, to: u64| {
        data::fill(execution.medium, from, to - from, &block)
            .map_err(|error| MediumError { done: from - offset + error.done, ..error })
    };
    let _exclusive = unit.locks.exclusive(range);
    let end = offset + len;
    // Unmapped blocks read as zeros, so they can stand for zeros and for nothing else.
    let granules = match whole_granules(unit.blocks() * u64::from(block_len), offset, end) {
        Some(granules) if unmap && block.iter().all(|byte| *byte == 0) => granules,
        _ => (end, end),
    };
    write(offset, granules.0).map_err(failed)?;
    unmap_or_zero(execution, granules, write).map_err(failed)?;
    write(granules.1, end).map_err(failed)?;
    after_write(execution, false)
}

/// Unmaps granules, or writes zeros where the system cannot.
fn unmap_or_zero(
    execution: &Execution<'_, '_, '_>,
    (start, end): (u64, u64),
    write: impl Fn(u64, u64) -> Result<(), MediumError>,
) -> Result<(), MediumError> {
    if start == end {
        return Ok(());
    }
    execution.medium.unmap(start, end - start).or_else(|error| {
        tracing::debug!(%error, "zeros are written, because the medium does not unmap");
        write(start, end)
    })
}

/// The granules that lie within these bytes of a medium; its last one may be short.
fn whole_granules(medium_len: u64, start: u64, end: u64) -> Option<(u64, u64)> {
    let first = start.next_multiple_of(GRANULE);
    let last = if end == medium_len { end } else { end / GRANULE * GRANULE };
    (first < last).then_some((first, last))
}

/// Unmaps whole granules and leaves the rest as it is: UNMAP is a hint. On a fully provisioned unit it
/// does nothing else than look at its list.
pub(super) fn unmap(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let len = execution.cdb::<cdb::Unmap>().parameter_list_length.get();
    let unit = execution.unit;
    let Some(list) = execution.data.take(len.into()) else { return Ok(()) };
    if list.is_empty() {
        return Ok(());
    }
    let ranges = provisioning::parse_unmap(&list, UNMAP_DESCRIPTORS_MAX.into())?;
    for range in &ranges {
        byte_range(unit, *range)?;
    }
    if !unit.is_thin() {
        return Ok(());
    }
    let medium_len = unit.blocks() * u64::from(unit.block_len.bytes());
    for range in ranges {
        let (offset, len) = byte_range(unit, range)?;
        if let Some((start, end)) = whole_granules(medium_len, offset, offset + len) {
            let _exclusive = unit.locks.exclusive(range);
            if let Err(error) = execution.medium.unmap(start, end - start) {
                tracing::debug!(%error, "the medium does not unmap");
            }
        }
    }
    after_write(execution, false)
}

pub(super) fn get_lba_status(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::GetLbaStatus>();
    let unit = execution.unit;
    let start = cdb.lba.get();
    let capacity = unit.blocks();
    if start >= capacity {
        return Err(CommandError::OutOfRange);
    }
    let allocation_length = cdb.allocation_length.get();
    // What there is room for, and one in any case.
    let count = usize::try_from(allocation_length.saturating_sub(8).div_ceil(16))
        .map_or(STATUS_DESCRIPTORS_MAX, |count| count.clamp(1, STATUS_DESCRIPTORS_MAX));
    let block_len = u64::from(unit.block_len.bytes());
    let mut descriptors = Vec::new();
    let mut lba = start;
    while lba < capacity && descriptors.len() < count {
        let most = (capacity - lba).min(u32::MAX.into());
        let (mapped, blocks) = if unit.is_thin() {
            let offset = lba * block_len;
            let extent = execution.medium.extent(offset, most * block_len).map_err(|source| {
                CommandError::ReadFailed(failed_block(
                    unit,
                    offset,
                    &MediumError { done: 0, source },
                ))
            })?;
            (extent.mapped, (extent.len / block_len).max(1))
        } else {
            (true, most)
        };
        let status =
            if mapped { ProvisioningStatus::Mapped } else { ProvisioningStatus::Deallocated };
        let blocks_field = u32::try_from(blocks).expect("not more than was asked for");
        descriptors.push(LbaStatusDescriptor::new(lba, blocks_field, status));
        lba += blocks;
    }
    execution.data.send(&provisioning::lba_status_data(&descriptors), allocation_length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::whole_granules;

    #[test]
    fn granules_lie_within() {
        for (start, end, expected) in [
            (0, 4096, Some((0, 4096))),
            (512, 8192, Some((4096, 8192))),
            (512, 8191, None),
            (4095, 4097, None),
            (4096, 10_240, Some((4096, 10_240))),
            (8192, 9728, None),
            (0, 0, None),
            (10_240, 10_240, None),
        ] {
            assert_eq!(whole_granules(10_240, start, end), expected, "{start}..{end}");
        }
    }
}
