//! Standard INQUIRY data (SPC, Standard INQUIRY data).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::big_endian::U16,
};

/// Byte 0 of a logical unit that is not there: PERIPHERAL QUALIFIER 011b and PERIPHERAL DEVICE TYPE
/// 1Fh.
pub const ABSENT_UNIT: u8 = 0x7f;

/// VERSION of SPC-4.
pub const VERSION_SPC_4: u8 = 0x06;

/// VERSION DESCRIPTOR codes (SPC, Version descriptor values), without a claimed revision.
pub mod version_descriptor {
    /// SAM-5.
    pub const SAM_5: u16 = 0x00a0;
    /// SPC-4.
    pub const SPC_4: u16 = 0x0460;
    /// SBC-3.
    pub const SBC_3: u16 = 0x04c0;
}

/// Standard INQUIRY data of 96 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StandardInquiry {
    /// PERIPHERAL QUALIFIER in bits 7 to 5, PERIPHERAL DEVICE TYPE below.
    pub peripheral: u8,
    /// RMB in bit 7.
    pub removable: u8,
    /// VERSION.
    pub version: u8,
    /// NORMACA in bit 5, HISUP in bit 4, RESPONSE DATA FORMAT in bits 3 to 0.
    pub format: u8,
    /// ADDITIONAL LENGTH: bytes after this one.
    pub additional_length: u8,
    /// SCCS, ACC, TPGS, 3PC, PROTECT.
    pub flags_5: u8,
    /// ENCSERV, MULTIP.
    pub flags_6: u8,
    /// CMDQUE in bit 1.
    pub flags_7: u8,
    /// T10 VENDOR IDENTIFICATION, ASCII padded with spaces.
    pub vendor: [u8; 8],
    /// PRODUCT IDENTIFICATION, ASCII padded with spaces.
    pub product: [u8; 16],
    /// PRODUCT REVISION LEVEL, ASCII padded with spaces.
    pub revision: [u8; 4],
    vendor_specific: [u8; 20],
    reserved_56: [u8; 2],
    /// VERSION DESCRIPTOR 1 to 8; 0 is unused.
    pub version_descriptors: [U16; 8],
    reserved_74: [u8; 22],
}
const _: () = {
    assert!(size_of::<StandardInquiry>() == 96);
    assert!(std::mem::offset_of!(StandardInquiry, vendor) == 8);
    assert!(std::mem::offset_of!(StandardInquiry, version_descriptors) == 58);
};

/// RESPONSE DATA FORMAT of every standard since SCSI-2.
const RESPONSE_DATA_FORMAT: u8 = 0x02;
/// HISUP: LUNs are assigned as in SAM's hierarchical addressing.
const HISUP: u8 = 0x10;
/// CMDQUE: tasks are managed as SAM says.
const CMDQUE: u8 = 0x02;

/// Who a device says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification {
    /// T10 VENDOR IDENTIFICATION, at most 8 ASCII characters.
    pub vendor: &'static str,
    /// PRODUCT IDENTIFICATION, at most 16.
    pub product: &'static str,
    /// PRODUCT REVISION LEVEL, at most 4.
    pub revision: &'static str,
}

impl StandardInquiry {
    /// Of a unit that complies with SPC-4, not removable, without NORMACA.
    #[must_use]
    pub fn new(peripheral: u8, identification: Identification, descriptors: &[u16]) -> Self {
        let mut version_descriptors = [U16::ZERO; 8];
        for (field, code) in version_descriptors.iter_mut().zip(descriptors) {
            *field = U16::new(*code);
        }
        StandardInquiry {
            peripheral,
            removable: 0,
            version: VERSION_SPC_4,
            format: HISUP | RESPONSE_DATA_FORMAT,
            additional_length: 91,
            flags_5: 0,
            flags_6: 0,
            flags_7: CMDQUE,
            vendor: padded(identification.vendor),
            product: padded(identification.product),
            revision: padded(identification.revision),
            vendor_specific: [0; 20],
            reserved_56: [0; 2],
            version_descriptors,
            reserved_74: [0; 22],
        }
    }
}

/// ASCII left-aligned and padded with spaces (SPC, ASCII data field requirements). What is too long
/// is cut.
#[must_use]
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}
