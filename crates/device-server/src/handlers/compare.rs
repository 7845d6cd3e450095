//! VERIFY(10), VERIFY(16) and COMPARE AND WRITE (SBC).

use scsi::{BlockRange, Lba, cdb};

use super::{
    Execution,
    block::{after_write, byte_range, failed_block},
};
use crate::{
    data::{compare_with, first_difference},
    error::CommandError,
};

/// Most blocks VERIFY compares with the one block it is sent: it shall not keep a queue busy for long
/// with next to nothing.
const VERIFY_SAME_MAX: u64 = 0xffff;

pub(super) fn verify_10(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::Verify10>();
    let range = BlockRange { start: Lba(cdb.lba.get().into()), blocks: cdb.blocks.get().into() };
    verify(execution, range, cdb.flags, 7)
}

pub(super) fn verify_16(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::Verify16>();
    let range = BlockRange { start: Lba(cdb.lba.get()), blocks: cdb.blocks.get().into() };
    verify(execution, range, cdb.flags, 10)
}

/// VERIFICATION LENGTH begins at byte `length_at` of the CDB.
fn verify(
    execution: &mut Execution<'_, '_, '_>,
    range: BlockRange,
    flags: u8,
    length_at: u16,
) -> Result<(), CommandError> {
    let unit = execution.unit;
    let (offset, len) = byte_range(unit, range)?;
    let mismatch = match (flags & cdb::BYTCHK) >> 1 {
        0b00 => execution.medium.verify(offset, len).map(|()| None),
        0b01 => {
            if !execution.data.offers(len) {
                return Ok(());
            }
            execution.data.compare(execution.medium, offset, len)
        }
        0b11 => {
            if range.blocks > VERIFY_SAME_MAX {
                return Err(CommandError::field(length_at));
            }
            let Some(block) = execution.data.take(unit.block_len.bytes()) else { return Ok(()) };
            compare_with(execution.medium, offset, len, |_, stored| {
                let pieces = stored.chunks(block.len()).enumerate();
                let difference = |(index, piece)| {
                    Some(index * block.len() + first_difference(piece, &block[..])?)
                };
                pieces.filter_map(difference).next()
            })
        }
        _ => return Err(CommandError::field_bit(1, 2)),
    };
    match mismatch {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(CommandError::Miscompare(None)),
        Err(error) => Err(CommandError::ReadFailed(failed_block(unit, offset, &error))),
    }
}

/// Between comparing and writing nobody else writes these blocks.
pub(super) fn compare_and_write(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::CompareAndWrite>();
    let unit = execution.unit;
    let range = BlockRange { start: Lba(cdb.lba.get()), blocks: cdb.blocks.into() };
    let (offset, len) = byte_range(unit, range)?;
    if !execution.data.offers(2 * len) {
        return Ok(());
    }
    let _exclusive = unit.locks.exclusive(range);
    let mismatch = execution
        .data
        .compare(execution.medium, offset, len)
        .map_err(|error| CommandError::ReadFailed(failed_block(unit, offset, &error)))?;
    if let Some(at) = mismatch {
        return Err(CommandError::Miscompare(Some(at)));
    }
    execution
        .data
        .write_behind(len, execution.medium, offset, len)
        .map_err(|error| CommandError::WriteFailed(failed_block(unit, offset, &error)))?;
    after_write(execution, cdb.flags & cdb::FUA != 0)
}
