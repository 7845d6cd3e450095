//! RESERVE and RELEASE (SPC-2), PERSISTENT RESERVE IN and PERSISTENT RESERVE OUT (SPC).

use scsi::{
    FieldPointer, cdb,
    reservation::{
        self, RESERVE_OUT_FLAG_BITS, RESERVE_OUT_LIST_LEN, ReservationType, ReserveOutList,
    },
};
use zerocopy::FromBytes;

use super::Execution;
use crate::{
    Aborts, NexusId,
    error::CommandError,
    reservations::{Parameters, ReserveOut},
};

pub(super) fn reserve(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    execution.unit.reservations.reserve(execution.nexus)
}

pub(super) fn release(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    execution.unit.reservations.release(execution.nexus)
}

pub(super) fn read_keys(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let (generation, keys) = execution.unit.reservations.keys();
    send(execution, &reservation::keys_data(generation, keys))
}

pub(super) fn read_reservation(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let (generation, held) = execution.unit.reservations.held();
    send(execution, &reservation::reservation_data(generation, held))
}

pub(super) fn report_capabilities(
    execution: &mut Execution<'_, '_, '_>,
) -> Result<(), CommandError> {
    send(execution, &reservation::capabilities_data())
}

pub(super) fn read_full_status(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let (generation, registrants) = execution.unit.reservations.registrants();
    send(execution, &reservation::full_status_data(generation, registrants))
}

/// Persistent reservations and RESERVE do not go together: where there is the one, the commands of the
/// other conflict, even its holder's (SPC-2, Reservations).
fn check_unreserved(execution: &Execution<'_, '_, '_>) -> Result<(), CommandError> {
    match execution.unit.reservations.is_reserved() {
        true => Err(CommandError::ReservationConflict),
        false => Ok(()),
    }
}

fn send(execution: &mut Execution<'_, '_, '_>, data: &[u8]) -> Result<(), CommandError> {
    check_unreserved(execution)?;
    let cdb = execution.cdb::<cdb::PersistentReserveIn>();
    execution.data.send(data, cdb.allocation_length.get());
    Ok(())
}

macro_rules! reserve_outs {
    ($($handler:ident $action:ident;)+) => {$(
        pub(super) fn $handler(
            execution: &mut Execution<'_, '_, '_>,
        ) -> Result<(), CommandError> {
            reserve_out(execution, ReserveOut::$action).map(|_| ())
        }
    )+};
}
reserve_outs! {
    persistent_register Register;
    persistent_register_and_ignore RegisterAndIgnoreExistingKey;
    persistent_reserve Reserve;
    persistent_release Release;
    persistent_clear Clear;
    persistent_preempt Preempt;
}

pub(super) fn persistent_preempt_and_abort(
    execution: &mut Execution<'_, '_, '_>,
) -> Result<(), CommandError> {
    let preempted = reserve_out(execution, ReserveOut::Preempt)?;
    if !preempted.is_empty() {
        execution.aborts = Aborts::Nexuses(preempted);
    }
    Ok(())
}

/// Returns the nexuses whose registrations were removed by another one.
fn reserve_out(
    execution: &mut Execution<'_, '_, '_>,
    action: ReserveOut,
) -> Result<Vec<NexusId>, CommandError> {
    check_unreserved(execution)?;
    let cdb = execution.cdb::<cdb::PersistentReserveOut>();
    if cdb.parameter_list_length.get() != RESERVE_OUT_LIST_LEN {
        return Err(CommandError::ParameterListLength);
    }
    let Some(list) = execution.data.take(RESERVE_OUT_LIST_LEN) else { return Ok(Vec::new()) };
    let list = ReserveOutList::ref_from_bytes(&list).expect("as long as asked for");
    // SPEC_I_PT, ALL_TG_PT and APTPL are capabilities this unit does not have.
    if let Some(bit) = RESERVE_OUT_FLAG_BITS.into_iter().find(|bit| list.flags & 1 << bit != 0) {
        let pointer = FieldPointer::parameter(20, Some(bit));
        return Err(CommandError::InvalidParameter(pointer));
    }
    // The scope of a logical unit is 0h.
    let kind = ReservationType::from_code(cdb.scope_type);
    let parameters =
        Parameters { key: list.key.get(), service_action_key: list.service_action_key.get(), kind };
    let unit = execution.unit;
    let effects = unit.reservations.persistent(execution.nexus, action, parameters)?;
    for (nexus, sense) in effects.attentions {
        unit.attentions.establish(nexus, sense);
    }
    Ok(effects.preempted)
}
