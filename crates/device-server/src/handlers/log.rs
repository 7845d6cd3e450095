//! LOG SENSE (SPC).

use scsi::{
    cdb,
    log::{self, LogPage},
};

use super::Execution;
use crate::{error::CommandError, health::REFERENCE_TEMPERATURE};

/// Parameters are lists, of which there is one value: PC makes no difference.
pub(super) fn log_sense(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::LogSense>();
    let page = LogPage::from_code(cdb.page & log::PAGE_CODE);
    let page = page.ok_or(CommandError::field_bit(2, 5))?;
    if cdb.subpage_code != 0 {
        return Err(CommandError::field(3));
    }
    let health = execution.unit.health.get();
    let (asc, ascq) = health.exception;
    let pointer = cdb.parameter_pointer.get();
    let data = match page {
        LogPage::SupportedPages => (pointer == 0).then(log::supported_pages_data),
        LogPage::Temperature => {
            let (current, reference) = ([0, health.temperature], [0, REFERENCE_TEMPERATURE]);
            log::page_data(page, &[(0x0000, &current), (0x0001, &reference)], pointer)
        }
        LogPage::InformationalExceptions => {
            log::page_data(page, &[(0x0000, &[asc, ascq, health.temperature, 0])], pointer)
        }
    };
    // A PARAMETER POINTER behind the last parameter.
    let data = data.ok_or(CommandError::field(5))?;
    execution.data.send(&data, cdb.allocation_length.get());
    Ok(())
}
