//! One function for each row of the command table.

mod absent;
mod block;
mod inquiry;
mod mode;
mod primary;
#[cfg(test)]
mod tests;

use scsi::{Command, cdb};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{NexusId, data::Mover, error::CommandError, medium::Medium, unit::LogicalUnit};

pub(crate) use absent::execute as execute_absent;

/// What a handler works with.
#[derive(Debug)]
pub(crate) struct Execution<'a, 'm, 'b> {
    /// Who sent the command.
    #[expect(dead_code, reason = "no handler keeps state by nexus yet")]
    pub(crate) nexus: NexusId,
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
}

impl<'a> Execution<'a, '_, '_> {
    /// The CDB as the command's struct.
    fn cdb<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> &'a T {
        parsed(self.cdb)
    }
}

/// A handler; success is GOOD status.
pub(crate) type Handler = fn(&mut Execution<'_, '_, '_>) -> Result<(), CommandError>;

/// The handler of each row.
pub(crate) fn handler(command: Command) -> Handler {
    match command {
        Command::TestUnitReady => primary::test_unit_ready,
        Command::RequestSense => primary::request_sense,
        Command::Read6 => block::read_6,
        Command::Write6 => block::write_6,
        Command::Inquiry => inquiry::inquiry,
        Command::ModeSense6 => mode::mode_sense_6,
        Command::ReadCapacity10 => block::read_capacity_10,
        Command::Read10 => block::read_10,
        Command::Write10 => block::write_10,
        Command::SynchronizeCache10 => block::synchronize_cache_10,
        Command::ModeSense10 => mode::mode_sense_10,
        Command::Read16 => block::read_16,
        Command::Write16 => block::write_16,
        Command::SynchronizeCache16 => block::synchronize_cache_16,
        Command::ReadCapacity16 => block::read_capacity_16,
        Command::ReportLuns => primary::report_luns,
        Command::ReportSupportedOperationCodes => primary::report_supported_operation_codes,
        Command::Read12 => block::read_12,
        Command::Write12 => block::write_12,
    }
}

/// The CDB as a struct. The row's length has been checked, and struct and row are equally long.
fn parsed<T: FromBytes + KnownLayout + Immutable + Unaligned>(cdb: &[u8]) -> &T {
    cdb::parse(cdb).expect("a checked CDB is as long as its command's struct")
}
