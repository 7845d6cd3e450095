//! What can go wrong with a command, and the one map from it to sense data.

use scsi::{FieldPointer, Lba, Sense};

/// Why a command ends with CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// The operation code is not supported.
    UnknownOpcode,
    /// This field of the CDB is not as it must be.
    InvalidField(FieldPointer),
    /// There is no logical unit at this address.
    UnitNotSupported,
    /// The command reaches beyond the last block.
    OutOfRange,
    /// The medium refuses writes.
    WriteProtected,
    /// Saved mode pages are asked for.
    SavingNotSupported,
    /// The task attribute is ACA, and there is no auto contingent allegiance.
    AcaWithoutCondition,
    /// The medium failed to give this block.
    ReadFailed(Lba),
    /// The medium failed to take this block.
    WriteFailed(Lba),
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

    /// The sense data for it.
    pub(crate) fn sense(self) -> Sense {
        match self {
            CommandError::UnknownOpcode => Sense::INVALID_COMMAND_OPERATION_CODE,
            CommandError::InvalidField(at) => Sense::INVALID_FIELD_IN_CDB.with_field_pointer(at),
            CommandError::UnitNotSupported => Sense::LOGICAL_UNIT_NOT_SUPPORTED,
            CommandError::OutOfRange => Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
            CommandError::WriteProtected => Sense::WRITE_PROTECTED,
            CommandError::SavingNotSupported => Sense::SAVING_PARAMETERS_NOT_SUPPORTED,
            CommandError::AcaWithoutCondition => Sense::INVALID_MESSAGE_ERROR,
            CommandError::ReadFailed(lba) => Sense::UNRECOVERED_READ_ERROR.with_information(lba.0),
            CommandError::WriteFailed(lba) => Sense::WRITE_ERROR.with_information(lba.0),
            CommandError::FlushFailed => Sense::WRITE_ERROR,
        }
    }
}
