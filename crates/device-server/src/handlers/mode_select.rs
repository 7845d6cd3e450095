//! MODE SELECT(6) and MODE SELECT(10) (SPC). Nothing is saved: SP is not supported.

use scsi::{
    Sense, cdb,
    mode::{self, CachingPage, ControlPage, ListError, QERR, QERR_RESERVED},
};
use zerocopy::IntoBytes;

use super::Execution;
use crate::{error::CommandError, mode_values::ModeValues, unit::LogicalUnit};

pub(super) fn mode_select_6(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::ModeSelect6>();
    mode_select(execution, cdb.flags, cdb.parameter_list_length.into(), true)
}

pub(super) fn mode_select_10(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::ModeSelect10>();
    mode_select(execution, cdb.flags, cdb.parameter_list_length.get(), false)
}

/// The values change all together or not at all, for every nexus.
fn mode_select(
    execution: &mut Execution<'_, '_, '_>,
    flags: u8,
    len: u16,
    six: bool,
) -> Result<(), CommandError> {
    if flags & cdb::PF == 0 {
        // Pages in a vendor's own format: there is none.
        return Err(CommandError::field_bit(1, 4));
    }
    let Some(list) = execution.data.take(len.into()) else { return Ok(()) };
    if list.is_empty() {
        return Ok(());
    }
    let unit = execution.unit;
    let list = mode::parse_parameter_list(&list, six)?;
    if let Some(descriptor) = list.descriptor {
        check_descriptor(unit, descriptor)?;
    }
    let mut values = unit.mode.get();
    for (at, page) in list.pages {
        select_page(&mut values, at, page)?;
    }
    if unit.mode.set(values) {
        execution.tell_others(Sense::MODE_PARAMETERS_CHANGED);
    }
    Ok(())
}

/// The capacity cannot be changed; zero blocks, all blocks, and as many as there are leave it.
fn check_descriptor(
    unit: &LogicalUnit,
    descriptor: mode::BlockDescriptor,
) -> Result<(), CommandError> {
    let same_blocks =
        descriptor.blocks == 0 || descriptor.all_blocks || descriptor.blocks == unit.blocks();
    if same_blocks && descriptor.block_len == unit.block_len.bytes() {
        Ok(())
    } else {
        Err(CommandError::parameter(descriptor.at))
    }
}

/// Takes over a page that stands at byte `at` of the list.
fn select_page(values: &mut ModeValues, at: u16, page: &[u8]) -> Result<(), CommandError> {
    let refused = |byte: usize, bit| {
        let byte = at.saturating_add(u16::try_from(byte).unwrap_or(u16::MAX));
        CommandError::from(ListError::Field(byte, bit))
    };
    let mask = ModeValues::CHANGEABLE;
    let (current, changeable) = match page.first() {
        Some(&CachingPage::CODE) => (
            CachingPage::new(values.caching).as_bytes().to_vec(),
            CachingPage::new(mask.caching).as_bytes().to_vec(),
        ),
        Some(&ControlPage::CODE) => (
            ControlPage::new(values.control).as_bytes().to_vec(),
            ControlPage::new(mask.control).as_bytes().to_vec(),
        ),
        _ => return Err(refused(0, Some(5))),
    };
    if page.len() != current.len() {
        return Err(refused(1, None));
    }
    for (index, (new, current)) in page.iter().zip(&current).enumerate().skip(2) {
        let fixed = (new ^ current) & !changeable[index];
        if fixed != 0 {
            let bit = 7 - u8::try_from(fixed.leading_zeros()).expect("below 8");
            return Err(refused(index, Some(bit)));
        }
    }
    if page[0] == CachingPage::CODE {
        values.caching = page[2];
    } else {
        if page[3] & QERR == QERR_RESERVED {
            return Err(refused(3, Some(2)));
        }
        values.control = [page[2], page[3], page[4]];
    }
    Ok(())
}
