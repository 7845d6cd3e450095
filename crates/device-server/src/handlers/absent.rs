//! What a target answers for a logical unit it does not have (SPC, Support for incorrect logical
//! unit numbers).

use scsi::{
    Command, Sense, cdb,
    inquiry::{ABSENT_UNIT, StandardInquiry},
    vpd::VpdPage,
};
use zerocopy::IntoBytes;

use super::{inquiry::IDENTIFICATION, parsed, primary};
use crate::{data::Mover, error::CommandError};

/// Executes a command. INQUIRY, REQUEST SENSE and REPORT LUNS work; all others are refused.
pub(crate) fn execute(
    cdb: &[u8],
    data: &mut Mover<'_, '_>,
    luns: &[u16],
) -> Result<(), CommandError> {
    let Some(command) = Command::lookup(cdb) else {
        return Err(CommandError::UnitNotSupported);
    };
    match command {
        Command::Inquiry | Command::RequestSense | Command::ReportLuns => {
            command.spec().check(cdb).map_err(CommandError::InvalidField)?;
        }
        _ => return Err(CommandError::UnitNotSupported),
    }
    match command {
        Command::Inquiry => inquiry(cdb, data),
        Command::RequestSense => {
            primary::send_sense(cdb, data, Sense::LOGICAL_UNIT_NOT_SUPPORTED);
            Ok(())
        }
        _ => primary::send_luns(cdb, data, luns),
    }
}

/// Of the VPD pages only the list of pages exists.
fn inquiry(cdb: &[u8], data: &mut Mover<'_, '_>) -> Result<(), CommandError> {
    let cdb = parsed::<cdb::Inquiry>(cdb);
    let answer = match (cdb.flags & cdb::EVPD != 0, cdb.page_code) {
        (false, 0) => StandardInquiry::new(ABSENT_UNIT, IDENTIFICATION, &[]).as_bytes().to_vec(),
        (true, 0) => VpdPage::SupportedPages.with_body(ABSENT_UNIT, &[0]),
        _ => return Err(CommandError::field(2)),
    };
    data.send(&answer, cdb.allocation_length.get());
    Ok(())
}
