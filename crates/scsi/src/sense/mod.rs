//! Sense data (SPC, Sense data): what it says, and its two formats.

mod codec;
pub mod table;
#[cfg(test)]
mod tests;

pub use codec::{SENSE_LEN_MAX, SenseError};

use std::fmt;

/// SENSE KEY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SenseKey {
    /// NO SENSE.
    NoSense = 0x0,
    /// RECOVERED ERROR.
    RecoveredError = 0x1,
    /// NOT READY.
    NotReady = 0x2,
    /// MEDIUM ERROR.
    MediumError = 0x3,
    /// HARDWARE ERROR.
    HardwareError = 0x4,
    /// ILLEGAL REQUEST.
    IllegalRequest = 0x5,
    /// UNIT ATTENTION.
    UnitAttention = 0x6,
    /// DATA PROTECT.
    DataProtect = 0x7,
    /// BLANK CHECK.
    BlankCheck = 0x8,
    /// Vendor specific.
    VendorSpecific = 0x9,
    /// COPY ABORTED.
    CopyAborted = 0xa,
    /// ABORTED COMMAND.
    AbortedCommand = 0xb,
    /// Reserved; EQUAL in older standards.
    Reserved = 0xc,
    /// VOLUME OVERFLOW.
    VolumeOverflow = 0xd,
    /// MISCOMPARE.
    Miscompare = 0xe,
    /// COMPLETED.
    Completed = 0xf,
}

impl SenseKey {
    /// The key in the lower four bits.
    #[must_use]
    pub const fn from_bits(byte: u8) -> SenseKey {
        match byte & 0x0f {
            0x0 => SenseKey::NoSense,
            0x1 => SenseKey::RecoveredError,
            0x2 => SenseKey::NotReady,
            0x3 => SenseKey::MediumError,
            0x4 => SenseKey::HardwareError,
            0x5 => SenseKey::IllegalRequest,
            0x6 => SenseKey::UnitAttention,
            0x7 => SenseKey::DataProtect,
            0x8 => SenseKey::BlankCheck,
            0x9 => SenseKey::VendorSpecific,
            0xa => SenseKey::CopyAborted,
            0xb => SenseKey::AbortedCommand,
            0xc => SenseKey::Reserved,
            0xd => SenseKey::VolumeOverflow,
            0xe => SenseKey::Miscompare,
            _ => SenseKey::Completed,
        }
    }

    /// The name exactly as the standard writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SenseKey::NoSense => "NO SENSE",
            SenseKey::RecoveredError => "RECOVERED ERROR",
            SenseKey::NotReady => "NOT READY",
            SenseKey::MediumError => "MEDIUM ERROR",
            SenseKey::HardwareError => "HARDWARE ERROR",
            SenseKey::IllegalRequest => "ILLEGAL REQUEST",
            SenseKey::UnitAttention => "UNIT ATTENTION",
            SenseKey::DataProtect => "DATA PROTECT",
            SenseKey::BlankCheck => "BLANK CHECK",
            SenseKey::VendorSpecific => "VENDOR SPECIFIC",
            SenseKey::CopyAborted => "COPY ABORTED",
            SenseKey::AbortedCommand => "ABORTED COMMAND",
            SenseKey::Reserved => "RESERVED",
            SenseKey::VolumeOverflow => "VOLUME OVERFLOW",
            SenseKey::Miscompare => "MISCOMPARE",
            SenseKey::Completed => "COMPLETED",
        }
    }

    /// The four bits.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Which of the two formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SenseFormat {
    /// Fixed format, response codes 70h and 71h (D_SENSE zero).
    #[default]
    Fixed,
    /// Descriptor format, response codes 72h and 73h (D_SENSE one).
    Descriptor,
}

/// Which field is in error (SPC, Field pointer sense key specific data).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// C/D: in the CDB, else in the data-out parameters.
    pub in_cdb: bool,
    /// FIELD POINTER: the first byte of the field.
    pub byte: u16,
    /// BIT POINTER: the leftmost bit of the field, 7 to 0; `None` is BPV zero.
    pub bit: Option<u8>,
}

impl FieldPointer {
    /// A field of whole bytes in the CDB.
    #[must_use]
    pub const fn cdb_byte(byte: u16) -> Self {
        FieldPointer { in_cdb: true, byte, bit: None }
    }

    /// A field in the data-out parameters, of whole bytes or with `bit` as its leftmost bit.
    #[must_use]
    pub const fn parameter(byte: u16, bit: Option<u8>) -> Self {
        FieldPointer { in_cdb: false, byte, bit }
    }

    /// A field whose leftmost bit is `bit` of this byte in the CDB.
    #[must_use]
    pub const fn cdb_bit(byte: u16, bit: u8) -> Self {
        FieldPointer { in_cdb: true, byte, bit: Some(bit & 7) }
    }
}

/// SENSE KEY SPECIFIC; which form it has follows from the sense key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenseKeySpecific {
    /// With ILLEGAL REQUEST.
    FieldPointer(FieldPointer),
    /// PROGRESS INDICATION in 65536ths, with NO SENSE and NOT READY.
    Progress(u16),
    /// ACTUAL RETRY COUNT, with RECOVERED ERROR, MEDIUM ERROR and HARDWARE ERROR.
    RetryCount(u16),
    /// Whatever another key makes of it: the 23 bits after SKSV.
    Other([u8; 3]),
}

/// What sense data says, apart from its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE.
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub ascq: u8,
    /// Whether it is about an earlier command (response codes 71h and 73h).
    pub deferred: bool,
    /// INFORMATION, if VALID; for block commands an LBA. Fixed format drops what needs more than 32
    /// bits, as SPC asks.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION. Fixed format has no valid bit for it: 0 there is `None`.
    pub command_specific: Option<u64>,
    /// SENSE KEY SPECIFIC, if SKSV.
    pub specific: Option<SenseKeySpecific>,
}

impl Sense {
    /// Current sense data without further fields.
    #[must_use]
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Sense {
        Sense {
            key,
            asc,
            ascq,
            deferred: false,
            information: None,
            command_specific: None,
            specific: None,
        }
    }

    /// With INFORMATION.
    #[must_use]
    pub const fn with_information(mut self, information: u64) -> Sense {
        self.information = Some(information);
        self
    }

    /// With a pointer to the field in error.
    #[must_use]
    pub const fn with_field_pointer(mut self, pointer: FieldPointer) -> Sense {
        self.specific = Some(SenseKeySpecific::FieldPointer(pointer));
        self
    }

    /// With PROGRESS INDICATION in 65536ths.
    #[must_use]
    pub const fn with_progress(mut self, progress: u16) -> Sense {
        self.specific = Some(SenseKeySpecific::Progress(progress));
        self
    }

    /// Key, ASC and ASCQ.
    #[must_use]
    pub const fn triple(&self) -> (u8, u8, u8) {
        (self.key.code(), self.asc, self.ascq)
    }

    /// The standard's text for ASC and ASCQ, if the table has it.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        table::name(self.asc, self.ascq)
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, asc, ascq) = self.triple();
        write!(f, "{key:X}/{asc:02X}/{ascq:02X}")?;
        if let Some(name) = self.name() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}
