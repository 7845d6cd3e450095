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

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, ASC and ASCQ from SPC's and SBC's clauses on each error.
    #[test]
    fn every_error_has_its_sense() {
        for (error, triple) in [
            (CommandError::UnknownOpcode, (0x5, 0x20, 0x00)),
            (CommandError::field(2), (0x5, 0x24, 0x00)),
            (CommandError::UnitNotSupported, (0x5, 0x25, 0x00)),
            (CommandError::OutOfRange, (0x5, 0x21, 0x00)),
            (CommandError::WriteProtected, (0x7, 0x27, 0x00)),
            (CommandError::SavingNotSupported, (0x5, 0x39, 0x00)),
            (CommandError::AcaWithoutCondition, (0x5, 0x49, 0x00)),
            (CommandError::ReadFailed(Lba(1)), (0x3, 0x11, 0x00)),
            (CommandError::WriteFailed(Lba(1)), (0x3, 0x0c, 0x00)),
            (CommandError::FlushFailed, (0x3, 0x0c, 0x00)),
        ] {
            assert_eq!(error.sense().triple(), triple, "{error:?}");
        }
    }
}
