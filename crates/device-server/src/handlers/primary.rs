//! TEST UNIT READY, REQUEST SENSE, REPORT LUNS, REPORT SUPPORTED OPERATION CODES (SPC).

use scsi::{
    Command, Sense, SenseFormat, cdb, lun,
    opcodes::{self, ReportingOptions},
    task::{self, TaskManagementFunction},
};

use super::{Execution, parsed};
use crate::{admission::is_luns_changed, data::Mover, error::CommandError};

pub(super) fn test_unit_ready(_: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    Ok(())
}

/// Pending sense data is the unit attention condition to be reported next, which this reports, or why
/// the unit is not ready.
pub(super) fn request_sense(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let unit = execution.unit;
    let attention = unit.attentions.take(execution.nexus);
    execution.reported_luns = attention.as_ref().is_some_and(is_luns_changed);
    let sense = attention
        .or_else(|| unit.readiness.get().sense())
        .unwrap_or(Sense::NO_ADDITIONAL_SENSE_INFORMATION);
    send_sense(execution.cdb, execution.data, sense);
    Ok(())
}

/// Answers REQUEST SENSE with this sense data as parameter data, in the format DESC asks for.
pub(super) fn send_sense(cdb: &[u8], data: &mut Mover<'_, '_>, sense: Sense) {
    let cdb = parsed::<cdb::RequestSense>(cdb);
    let format = match cdb.flags & cdb::DESC {
        0 => SenseFormat::Fixed,
        _ => SenseFormat::Descriptor,
    };
    data.send(&sense.encode(format), cdb.allocation_length);
}

pub(super) fn report_luns(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    send_luns(execution.cdb, execution.data, execution.luns)
}

/// SELECT REPORT: logical units with addresses of these kinds; well known ones only; all.
const SELECT_ADDRESSED: u8 = 0x00;
const SELECT_WELL_KNOWN: u8 = 0x01;
const SELECT_ALL: u8 = 0x02;

/// Answers REPORT LUNS. There are no well known logical units, nor any that has others below it.
pub(super) fn send_luns(
    cdb: &[u8],
    data: &mut Mover<'_, '_>,
    luns: &[u16],
) -> Result<(), CommandError> {
    let cdb = parsed::<cdb::ReportLuns>(cdb);
    let luns = match cdb.select_report {
        SELECT_ADDRESSED | SELECT_ALL => luns,
        SELECT_WELL_KNOWN => &[],
        _ => return Err(CommandError::field(2)),
    };
    data.send(&lun::report_luns_data(luns.iter().copied()), cdb.allocation_length.get());
    Ok(())
}

pub(super) fn report_supported_operation_codes(
    execution: &mut Execution<'_, '_, '_>,
) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::ReportSupportedOperationCodes>();
    let timeouts = cdb.options & cdb::RCTD != 0;
    let options = ReportingOptions::from_bits(cdb.options).ok_or(CommandError::field_bit(2, 2))?;
    let rows = Command::rows(cdb.requested_opcode);
    let has_service_actions = rows.first().is_some_and(|row| row.service_action.is_some());
    let service_action = cdb.requested_service_action.get();
    let with_service_action = rows.iter().find(|row| row.service_action == Some(service_action));
    let data = match options {
        ReportingOptions::All => {
            opcodes::all_commands(Command::ALL.iter().map(|command| command.spec()), timeouts)
        }
        // Two options must match the kind of operation code. The field in error is the option where
        // it asks for too little, REQUESTED SERVICE ACTION where that has no meaning.
        ReportingOptions::Opcode if has_service_actions => {
            return Err(CommandError::field_bit(2, 2));
        }
        ReportingOptions::Opcode => opcodes::one_command(rows.first(), timeouts),
        ReportingOptions::ServiceAction if !rows.is_empty() && !has_service_actions => {
            return Err(CommandError::field(4));
        }
        ReportingOptions::ServiceAction => opcodes::one_command(with_service_action, timeouts),
        ReportingOptions::OpcodeAndServiceAction if has_service_actions => {
            opcodes::one_command(with_service_action, timeouts)
        }
        ReportingOptions::OpcodeAndServiceAction => {
            opcodes::one_command(rows.first().filter(|_| service_action == 0), timeouts)
        }
    };
    execution.data.send(&data, cdb.allocation_length.get());
    Ok(())
}

/// The shortest data there is; a smaller ALLOCATION LENGTH is refused.
const FUNCTIONS_LEN_MIN: u32 = 4;

pub(super) fn report_supported_task_management_functions(
    execution: &mut Execution<'_, '_, '_>,
) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::ReportSupportedTaskManagementFunctions>();
    if cdb.allocation_length.get() < FUNCTIONS_LEN_MIN {
        return Err(CommandError::field(6));
    }
    let functions = TaskManagementFunction::ALL.into_iter().filter(|each| is_supported(*each));
    let data = task::supported_functions_data(functions, cdb.flags & cdb::REPD != 0);
    execution.data.send(&data, cdb.allocation_length.get());
    Ok(())
}

/// Whether a task management function is not rejected. NORMACA is zero, so that there is no ACA to clear.
pub(crate) fn is_supported(function: TaskManagementFunction) -> bool {
    function != TaskManagementFunction::ClearAca
}
