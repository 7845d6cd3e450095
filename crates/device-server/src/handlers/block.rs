//! READ, WRITE, PRE-FETCH, SYNCHRONIZE CACHE and READ CAPACITY in all their lengths (SBC).

use std::io;

use scsi::{
    BlockRange, Lba,
    capacity::{Capacity10, Capacity16},
    cdb::{self, Transfer},
};
use zerocopy::IntoBytes;

use super::Execution;
use crate::{
    PhysicalBlocks,
    error::CommandError,
    medium::{Medium, MediumError},
    unit::LogicalUnit,
};

macro_rules! transfers {
    ($($read:ident $write:ident $cdb:ident;)+) => {$(
        pub(super) fn $read(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
            let transfer = execution.cdb::<cdb::$cdb>().transfer();
            read(execution, transfer)
        }

        pub(super) fn $write(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
            let transfer = execution.cdb::<cdb::$cdb>().transfer();
            write(execution, transfer)
        }
    )+};
}
transfers! {
    read_6 write_6 ReadWrite6;
    read_10 write_10 ReadWrite10;
    read_12 write_12 ReadWrite12;
    read_16 write_16 ReadWrite16;
}

fn read(execution: &mut Execution<'_, '_, '_>, transfer: Transfer) -> Result<(), CommandError> {
    let unit = execution.unit;
    let (offset, len) = byte_range(unit, transfer.range)?;
    if transfer.force_unit_access {
        // FUA reads the medium itself: whatever the cache holds has to be there first.
        flush(execution.medium)?;
    }
    execution.wait = execution
        .data
        .read(execution.medium, offset, len, execution.may_wait)
        .map_err(|error| read_failed(unit, offset, &error))?;
    Ok(())
}

/// What a failed read from `offset` is.
pub(crate) fn read_failed(unit: &LogicalUnit, offset: u64, error: &MediumError) -> CommandError {
    CommandError::ReadFailed(failed_block(unit, offset, error))
}

fn write(execution: &mut Execution<'_, '_, '_>, transfer: Transfer) -> Result<(), CommandError> {
    let unit = execution.unit;
    let (offset, len) = byte_range(unit, transfer.range)?;
    let _writing = unit.locks.write(transfer.range);
    execution
        .data
        .write(execution.medium, offset, len)
        .map_err(|error| CommandError::WriteFailed(failed_block(unit, offset, &error)))?;
    after_write(execution, transfer.force_unit_access)
}

/// Makes durable what a command has written, if it may not end before.
pub(super) fn after_write(
    execution: &Execution<'_, '_, '_>,
    force_unit_access: bool,
) -> Result<(), CommandError> {
    let write_through = !execution.unit.mode.get().write_cache_enabled();
    if force_unit_access || write_through { flush(execution.medium) } else { Ok(()) }
}

pub(super) fn synchronize_cache_10(
    execution: &mut Execution<'_, '_, '_>,
) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::SynchronizeCache10>();
    synchronize_cache(execution, cdb.lba.get().into(), cdb.blocks.get().into())
}

pub(super) fn synchronize_cache_16(
    execution: &mut Execution<'_, '_, '_>,
) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::SynchronizeCache16>();
    synchronize_cache(execution, cdb.lba.get(), cdb.blocks.get().into())
}

/// IMMED is accepted and makes no difference: the answer may come later than it has to.
fn synchronize_cache(
    execution: &mut Execution<'_, '_, '_>,
    lba: u64,
    blocks: u64,
) -> Result<(), CommandError> {
    byte_range(execution.unit, BlockRange { start: Lba(lba), blocks })?;
    if !execution.may_wait || !execution.medium.has_volatile_cache() {
        return flush(execution.medium);
    }
    execution.wait = execution.medium.begin_flush().map_err(|error| flush_failed(&error))?;
    Ok(())
}

pub(super) fn pre_fetch_10(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::SynchronizeCache10>();
    pre_fetch(execution, cdb.lba.get().into(), cdb.blocks.get().into())
}

pub(super) fn pre_fetch_16(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::SynchronizeCache16>();
    pre_fetch(execution, cdb.lba.get(), cdb.blocks.get().into())
}

/// There is room for all blocks in the host's memory. IMMED makes no difference: nothing is waited for.
fn pre_fetch(execution: &Execution<'_, '_, '_>, lba: u64, blocks: u64) -> Result<(), CommandError> {
    // No length means all blocks from there on.
    let rest = execution.unit.blocks().saturating_sub(lba);
    let blocks = if blocks == 0 { rest } else { blocks };
    let (offset, len) = byte_range(execution.unit, BlockRange { start: Lba(lba), blocks })?;
    execution.medium.fetch_ahead(offset, len);
    Err(CommandError::ConditionMet)
}

pub(super) fn read_capacity_10(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let unit = execution.unit;
    let data = Capacity10::new(unit.blocks(), unit.block_len);
    // READ CAPACITY(10) has no ALLOCATION LENGTH.
    execution.data.send(data.as_bytes(), u64::MAX);
    Ok(())
}

pub(super) fn read_capacity_16(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let unit = execution.unit;
    let PhysicalBlocks { exponent, lowest_aligned } = unit.config.physical_blocks;
    let data = Capacity16::new(unit.blocks(), unit.block_len)
        .with_physical_blocks(exponent, lowest_aligned);
    let data = if unit.is_thin() { data.thin() } else { data };
    let allocation_length = execution.cdb::<cdb::ReadCapacity16>().allocation_length;
    execution.data.send(data.as_bytes(), allocation_length.get());
    Ok(())
}

/// Offset and length in bytes of blocks that must lie within the unit.
pub(super) fn byte_range(
    unit: &LogicalUnit,
    range: BlockRange,
) -> Result<(u64, u64), CommandError> {
    if !range.is_within(unit.blocks()) {
        return Err(CommandError::OutOfRange);
    }
    let offset = unit.block_len.bytes_of(range.start.0).ok_or(CommandError::OutOfRange)?;
    let len = unit.block_len.bytes_of(range.blocks).ok_or(CommandError::OutOfRange)?;
    Ok((offset, len))
}

/// The block a transfer from `offset` failed at. Sense data cannot tell the cause, the log does.
pub(super) fn failed_block(unit: &LogicalUnit, offset: u64, error: &MediumError) -> Lba {
    let lba = Lba((offset + error.done) / u64::from(unit.block_len.bytes()));
    tracing::warn!(%lba, error = %error.source, "medium failed");
    lba
}

pub(super) fn flush(medium: &dyn Medium) -> Result<(), CommandError> {
    if !medium.has_volatile_cache() {
        return Ok(());
    }
    medium.flush().map_err(|error| flush_failed(&error))
}

/// What a failed flush is.
pub(crate) fn flush_failed(error: &io::Error) -> CommandError {
    tracing::warn!(%error, "medium failed to flush");
    CommandError::FlushFailed
}
