//! What can go wrong with a command, and the one map from it to status and sense data.

use scsi::{FieldPointer, Lba, Sense, Status, mode::ListError};

/// Why a command does not end with GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// The operation code is not supported.
    UnknownOpcode,
    /// This field of the CDB is not as it must be.
    InvalidField(FieldPointer),
    /// This field of the parameter list is not as it must be.
    InvalidParameter(FieldPointer),
    /// The parameter list is cut, or not as long as it must be.
    ParameterListLength,
    /// There is no logical unit at this address.
    UnitNotSupported,
    /// The command reaches beyond the last block.
    OutOfRange,
    /// The unit refuses writes.
    WriteProtected,
    /// Saved mode pages are asked for.
    SavingNotSupported,
    /// The task attribute is ACA, and there is no auto contingent allegiance.
    AcaWithoutCondition,
    /// The command wants another one before it.
    CommandSequence,
    /// Another nexus has written to the echo buffer since.
    EchoBufferOverwritten,
    /// A unit attention condition is reported instead of processing the command.
    UnitAttention(Sense),
    /// The unit is not ready.
    NotReady(Sense),
    /// Another nexus has reserved the unit, or the reservation key is not its own.
    ReservationConflict,
    /// All blocks of PRE-FETCH fit into the cache.
    ConditionMet,
    /// A persistent reservation is released with another scope or type than it has.
    InvalidRelease,
    /// The medium failed to give this block.
    ReadFailed(Lba),
    /// The medium failed to take this block.
    WriteFailed(Lba),
    /// The medium holds something else than was sent; in COMPARE AND WRITE, from this byte of the
    /// Data-Out Buffer on.
    Miscompare(Option<u64>),
    /// The medium failed to make durable what it had taken.
    FlushFailed,
}

impl CommandError {
    /// INVALID FIELD IN CDB for a field of whole bytes that begins at `byte`.
    pub(crate) const fn field(byte: u16) -> Self {
        CommandError::InvalidField(FieldPointer::cdb_byte(byte))
    }

    /// INVALID FIELD IN CDB for a field whose leftmost bit is `bit` of `byte`.
    pub(crate) const fn field_bit(byte: u16, bit: u8) -> Self {
        CommandError::InvalidField(FieldPointer::cdb_bit(byte, bit))
    }

    /// INVALID FIELD IN PARAMETER LIST for a field of whole bytes that begins at `byte`.
    pub(crate) const fn parameter(byte: u16) -> Self {
        CommandError::InvalidParameter(FieldPointer::parameter(byte, None))
    }

    /// The status, and the sense data if that is CHECK CONDITION.
    pub(crate) fn end(self) -> (Status, Option<Sense>) {
        let sense = match self {
            CommandError::ReservationConflict => return (Status::ReservationConflict, None),
            CommandError::ConditionMet => return (Status::ConditionMet, None),
            CommandError::InvalidRelease => Sense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION,
            CommandError::UnknownOpcode => Sense::INVALID_COMMAND_OPERATION_CODE,
            CommandError::InvalidField(at) => Sense::INVALID_FIELD_IN_CDB.with_field_pointer(at),
            CommandError::InvalidParameter(at) => {
                Sense::INVALID_FIELD_IN_PARAMETER_LIST.with_field_pointer(at)
            }
            CommandError::ParameterListLength => Sense::PARAMETER_LIST_LENGTH_ERROR,
            CommandError::UnitNotSupported => Sense::LOGICAL_UNIT_NOT_SUPPORTED,
            CommandError::OutOfRange => Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
            CommandError::WriteProtected => Sense::WRITE_PROTECTED,
            CommandError::SavingNotSupported => Sense::SAVING_PARAMETERS_NOT_SUPPORTED,
            CommandError::AcaWithoutCondition => Sense::INVALID_MESSAGE_ERROR,
            CommandError::CommandSequence => Sense::COMMAND_SEQUENCE_ERROR,
            CommandError::EchoBufferOverwritten => Sense::ECHO_BUFFER_OVERWRITTEN,
            CommandError::UnitAttention(sense) | CommandError::NotReady(sense) => sense,
            CommandError::ReadFailed(lba) => Sense::UNRECOVERED_READ_ERROR.with_information(lba.0),
            CommandError::WriteFailed(lba) => Sense::WRITE_ERROR.with_information(lba.0),
            CommandError::Miscompare(at) => {
                Sense { information: at, ..Sense::MISCOMPARE_DURING_VERIFY_OPERATION }
            }
            CommandError::FlushFailed => Sense::WRITE_ERROR,
        };
        (Status::CheckCondition, Some(sense))
    }
}

impl From<ListError> for CommandError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Length => CommandError::ParameterListLength,
            ListError::Field(byte, bit) => {
                CommandError::InvalidParameter(FieldPointer::parameter(byte, bit))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, ASC and ASCQ from SPC's and SBC's clauses on each error.
    #[test]
    fn every_error_has_its_sense() {
        for (error, triple) in [
            (CommandError::UnknownOpcode, (0x5, 0x20, 0x00)),
            (CommandError::field(2), (0x5, 0x24, 0x00)),
            (CommandError::parameter(2), (0x5, 0x26, 0x00)),
            (CommandError::ParameterListLength, (0x5, 0x1a, 0x00)),
            (CommandError::UnitNotSupported, (0x5, 0x25, 0x00)),
            (CommandError::OutOfRange, (0x5, 0x21, 0x00)),
            (CommandError::WriteProtected, (0x7, 0x27, 0x00)),
            (CommandError::SavingNotSupported, (0x5, 0x39, 0x00)),
            (CommandError::AcaWithoutCondition, (0x5, 0x49, 0x00)),
            (CommandError::CommandSequence, (0x5, 0x2c, 0x00)),
            (CommandError::EchoBufferOverwritten, (0xb, 0x3f, 0x0f)),
            (CommandError::UnitAttention(Sense::POWER_ON_OCCURRED), (0x6, 0x29, 0x01)),
            (CommandError::NotReady(Sense::MEDIUM_NOT_PRESENT), (0x2, 0x3a, 0x00)),
            (CommandError::InvalidRelease, (0x5, 0x26, 0x04)),
            (CommandError::ReadFailed(Lba(1)), (0x3, 0x11, 0x00)),
            (CommandError::WriteFailed(Lba(1)), (0x3, 0x0c, 0x00)),
            (CommandError::Miscompare(Some(1)), (0xe, 0x1d, 0x00)),
            (CommandError::FlushFailed, (0x3, 0x0c, 0x00)),
        ] {
            let (status, sense) = error.end();
            assert_eq!(status, Status::CheckCondition);
            assert_eq!(sense.map(|sense| sense.triple()), Some(triple), "{error:?}");
        }
        let conflict = CommandError::ReservationConflict.end();
        assert_eq!(conflict, (Status::ReservationConflict, None));
    }
}
