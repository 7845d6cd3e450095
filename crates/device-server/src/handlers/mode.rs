//! MODE SENSE(6) and MODE SENSE(10) (SPC).

use scsi::{
    cdb,
    mode::{
        self, ALL_PAGES, ALL_SUBPAGES, CachingPage, ControlPage, DPOFUA, HeaderKind, PageControl,
        WP,
    },
};
use zerocopy::IntoBytes;

use super::Execution;
use crate::{error::CommandError, mode_values::ModeValues, unit::LogicalUnit};

pub(super) fn mode_sense_6(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::ModeSense6>();
    let data = mode_sense(execution.unit, HeaderKind::Six, cdb.flags, cdb.page, cdb.subpage_code)?;
    execution.data.send(&data, cdb.allocation_length);
    Ok(())
}

pub(super) fn mode_sense_10(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::ModeSense10>();
    let kind = match cdb.flags & cdb::LLBAA {
        0 => HeaderKind::Ten,
        _ => HeaderKind::TenLong,
    };
    let data = mode_sense(execution.unit, kind, cdb.flags, cdb.page, cdb.subpage_code)?;
    execution.data.send(&data, cdb.allocation_length.get());
    Ok(())
}

/// Parameter data for byte 1, byte 2 and SUBPAGE CODE of either command.
fn mode_sense(
    unit: &LogicalUnit,
    kind: HeaderKind,
    flags: u8,
    page: u8,
    subpage_code: u8,
) -> Result<Vec<u8>, CommandError> {
    let control = PageControl::from_byte(page);
    if control == PageControl::Saved {
        return Err(CommandError::SavingNotSupported);
    }
    let pages = pages(unit, control, page & ALL_PAGES, subpage_code)?;
    let write_protect = if unit.is_write_protected() { WP } else { 0 };
    let capacity = (flags & cdb::DBD == 0).then_some((unit.blocks(), unit.block_len));
    let data = mode::parameter_data(kind, write_protect | DPOFUA, capacity, &pages);
    Ok(data.expect("all pages together are shorter than 255 bytes"))
}

/// The pages asked for, in order of page code. There are no subpages but 00h.
fn pages(
    unit: &LogicalUnit,
    control: PageControl,
    page_code: u8,
    subpage_code: u8,
) -> Result<Vec<u8>, CommandError> {
    if !matches!(page_code, CachingPage::CODE | ControlPage::CODE | ALL_PAGES) {
        return Err(CommandError::field_bit(2, 5));
    }
    if !matches!(subpage_code, 0 | ALL_SUBPAGES) {
        return Err(CommandError::field(3));
    }
    let values = values(unit, control);
    let mut pages = Vec::new();
    if matches!(page_code, CachingPage::CODE | ALL_PAGES) {
        pages.extend_from_slice(CachingPage::new(values.caching).as_bytes());
    }
    if matches!(page_code, ControlPage::CODE | ALL_PAGES) {
        pages.extend_from_slice(ControlPage::new(values.control).as_bytes());
    }
    Ok(pages)
}

/// The values asked for. Changeable values keep page code and length.
fn values(unit: &LogicalUnit, control: PageControl) -> ModeValues {
    match control {
        PageControl::Changeable => ModeValues::CHANGEABLE,
        PageControl::Current => unit.mode.get(),
        PageControl::Default | PageControl::Saved => unit.default_mode(),
    }
}
