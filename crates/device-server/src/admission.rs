//! What stands between a command and its handler.

use scsi::{
    Command, Sense,
    command::{Access, Conflict, UnknownCommand},
    task::TaskAttribute,
};

use crate::{
    TaskContext,
    error::CommandError,
    handlers::{self, Execution},
    unit::LogicalUnit,
};

/// Runs a command: whatever is to be reported instead of processing it comes first, in the order of
/// SAM, Status precedence.
pub(crate) fn execute(
    execution: &mut Execution<'_, '_, '_>,
    task: &TaskContext<'_>,
) -> Result<(), CommandError> {
    if task.attribute == TaskAttribute::Aca {
        return Err(CommandError::AcaWithoutCondition);
    }
    let identified = Command::identify(task.cdb);
    report_condition(execution, identified.ok())?;
    let command = identified.map_err(|unknown| match unknown {
        UnknownCommand::Opcode => CommandError::UnknownOpcode,
        // SERVICE ACTION: bits 4 to 0 of byte 1.
        UnknownCommand::ServiceAction => CommandError::field_bit(1, 4),
    })?;
    command.spec().check(task.cdb).map_err(CommandError::InvalidField)?;
    grant(execution.unit, command.spec().access)?;
    handlers::handler(command)(execution)?;
    if command == Command::ReportLuns {
        execution.reported_luns = true;
    }
    Ok(())
}

/// Reports a unit attention condition or a reservation conflict. INQUIRY, REPORT LUNS and REQUEST SENSE
/// are processed although there is one.
fn report_condition(
    execution: &mut Execution<'_, '_, '_>,
    command: Option<Command>,
) -> Result<(), CommandError> {
    let (unit, nexus) = (execution.unit, execution.nexus);
    let exempt =
        matches!(command, Some(Command::Inquiry | Command::ReportLuns | Command::RequestSense));
    if exempt {
        return Ok(());
    }
    let mut condition = unit.attentions.take_before_conflict(nexus);
    if condition.is_none() {
        let conflict = command.map_or(Conflict::Never, |command| command.conflict(execution.cdb));
        if unit.reservations.conflict(nexus, conflict) {
            return Err(CommandError::ReservationConflict);
        }
        condition = unit.attentions.take(nexus);
    }
    if let Some(sense) = condition {
        execution.reported_luns = is_luns_changed(&sense);
        return Err(CommandError::UnitAttention(sense));
    }
    Ok(())
}

/// Once an initiator knows that the list of units has changed, no other unit has to tell it.
pub(crate) fn is_luns_changed(sense: &Sense) -> bool {
    (sense.asc, sense.ascq)
        == (Sense::REPORTED_LUNS_DATA_HAS_CHANGED.asc, Sense::REPORTED_LUNS_DATA_HAS_CHANGED.ascq)
}

fn grant(unit: &LogicalUnit, access: Access) -> Result<(), CommandError> {
    let not_ready = match access {
        Access::Any => None,
        Access::Ready | Access::Write => unit.readiness.get().sense(),
    };
    match not_ready {
        Some(sense) => Err(CommandError::NotReady(sense)),
        None if access == Access::Write && unit.is_write_protected() => {
            Err(CommandError::WriteProtected)
        }
        None => Ok(()),
    }
}
