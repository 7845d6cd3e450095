//! One function for each row of the command table.

mod absent;
#[cfg(test)]
mod atomic_tests;
mod block;
mod compare;
mod echo;
mod inquiry;
mod log;
mod mode;
mod mode_select;
mod primary;
mod provisioning;
mod reservation;
mod start_stop;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use scsi::{Command, Sense, cdb};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{
    NexusId,
    data::Mover,
    error::CommandError,
    medium::{FileWait, Medium},
    outcome::Aborts,
    unit::LogicalUnit,
};

pub(crate) use absent::execute as execute_absent;
pub(crate) use block::{flush_failed, read_failed};
pub(crate) use primary::is_supported;

/// What a handler works with.
#[derive(Debug)]
pub(crate) struct Execution<'a, 'm, 'b> {
    /// Who sent the command.
    pub(crate) nexus: NexusId,
    /// Every nexus there is.
    pub(crate) nexuses: &'a BTreeSet<NexusId>,
    /// The addressed logical unit.
    pub(crate) unit: &'a LogicalUnit,
    /// Its medium as this one command sees it.
    pub(crate) medium: &'a dyn Medium,
    /// The LUNs of its target, in order.
    pub(crate) luns: &'a [u16],
    /// The CDB, checked against the command's row and at least as long as it says.
    pub(crate) cdb: &'a [u8],
    /// The buffers.
    pub(crate) data: &'a mut Mover<'m, 'b>,
    /// Commands to be aborted with this one.
    pub(crate) aborts: Aborts,
    /// Whether the initiator now knows the list of logical units.
    pub(crate) reported_luns: bool,
    /// Whether what takes its time may be left to the caller.
    pub(crate) may_wait: bool,
    /// What is to be waited for before the command has ended as its handler says.
    pub(crate) wait: Option<FileWait>,
}

impl<'a, 'm, 'b> Execution<'a, 'm, 'b> {
    pub(crate) fn new(
        nexus: NexusId,
        nexuses: &'a BTreeSet<NexusId>,
        unit: &'a LogicalUnit,
        medium: &'a dyn Medium,
        luns: &'a [u16],
        cdb: &'a [u8],
        data: &'a mut Mover<'m, 'b>,
    ) -> Self {
        Execution {
            nexus,
            nexuses,
            unit,
            medium,
            luns,
            cdb,
            data,
            aborts: Aborts::Nothing,
            reported_luns: false,
            may_wait: false,
            wait: None,
        }
    }

    /// The CDB as the command's struct.
    fn cdb<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> &'a T {
        parsed(self.cdb)
    }

    /// Establishes a unit attention condition for every nexus but the sender's.
    fn tell_others(&self, sense: Sense) {
        for nexus in self.nexuses.iter().filter(|nexus| **nexus != self.nexus) {
            self.unit.attentions.establish(*nexus, sense);
        }
    }
}

/// A handler; success is GOOD status.
pub(crate) type Handler = fn(&mut Execution<'_, '_, '_>) -> Result<(), CommandError>;

/// The handler of each row, in their order.
static HANDLERS: &[(Command, Handler)] = &[
    (Command::TestUnitReady, primary::test_unit_ready),
    (Command::RequestSense, primary::request_sense),
    (Command::Read6, block::read_6),
    (Command::Write6, block::write_6),
    (Command::Inquiry, inquiry::inquiry),
    (Command::ModeSelect6, mode_select::mode_select_6),
    (Command::Reserve6, reservation::reserve),
    (Command::Release6, reservation::release),
    (Command::ModeSense6, mode::mode_sense_6),
    (Command::StartStopUnit, start_stop::start_stop_unit),
    (Command::ReadCapacity10, block::read_capacity_10),
    (Command::Read10, block::read_10),
    (Command::Write10, block::write_10),
    (Command::Verify10, compare::verify_10),
    (Command::PreFetch10, block::pre_fetch_10),
    (Command::SynchronizeCache10, block::synchronize_cache_10),
    (Command::WriteBuffer, echo::write_buffer),
    (Command::ReadBuffer, echo::read_buffer),
    (Command::WriteSame10, provisioning::write_same_10),
    (Command::Unmap, provisioning::unmap),
    (Command::LogSense, log::log_sense),
    (Command::ModeSelect10, mode_select::mode_select_10),
    (Command::Reserve10, reservation::reserve),
    (Command::Release10, reservation::release),
    (Command::ModeSense10, mode::mode_sense_10),
    (Command::PersistentReserveInReadKeys, reservation::read_keys),
    (Command::PersistentReserveInReadReservation, reservation::read_reservation),
    (Command::PersistentReserveInReportCapabilities, reservation::report_capabilities),
    (Command::PersistentReserveInReadFullStatus, reservation::read_full_status),
    (Command::PersistentReserveOutRegister, reservation::persistent_register),
    (Command::PersistentReserveOutReserve, reservation::persistent_reserve),
    (Command::PersistentReserveOutRelease, reservation::persistent_release),
    (Command::PersistentReserveOutClear, reservation::persistent_clear),
    (Command::PersistentReserveOutPreempt, reservation::persistent_preempt),
    (Command::PersistentReserveOutPreemptAndAbort, reservation::persistent_preempt_and_abort),
    (
        Command::PersistentReserveOutRegisterAndIgnoreExistingKey,
        reservation::persistent_register_and_ignore,
    ),
    (Command::Read16, block::read_16),
    (Command::CompareAndWrite, compare::compare_and_write),
    (Command::Write16, block::write_16),
    (Command::Verify16, compare::verify_16),
    (Command::PreFetch16, block::pre_fetch_16),
    (Command::SynchronizeCache16, block::synchronize_cache_16),
    (Command::WriteSame16, provisioning::write_same_16),
    (Command::ReadCapacity16, block::read_capacity_16),
    (Command::GetLbaStatus, provisioning::get_lba_status),
    (Command::ReportLuns, primary::report_luns),
    (Command::ReportSupportedOperationCodes, primary::report_supported_operation_codes),
    (
        Command::ReportSupportedTaskManagementFunctions,
        primary::report_supported_task_management_functions,
    ),
    (Command::Read12, block::read_12),
    (Command::Write12, block::write_12),
];

const _: () = {
    assert!(HANDLERS.len() == Command::ALL.len());
    let mut row = 0;
    while row < HANDLERS.len() {
        assert!(HANDLERS[row].0 as usize == row, "handlers out of order");
        row += 1;
    }
};

/// The handler of a row.
pub(crate) fn handler(command: Command) -> Handler {
    HANDLERS[command as usize].1
}

/// The CDB as a struct. The row's length has been checked, and struct and row are equally long.
fn parsed<T: FromBytes + KnownLayout + Immutable + Unaligned>(cdb: &[u8]) -> &T {
    cdb::parse(cdb).expect("a checked CDB is as long as its command's struct")
}
