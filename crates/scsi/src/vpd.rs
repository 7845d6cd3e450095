//! Vital product data pages (SPC and SBC, Vital product data parameters).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{U16, U32, U64},
};

/// PAGE CODE of the pages known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum VpdPage {
    /// Supported VPD Pages (SPC).
    SupportedPages = 0x00,
    /// Unit Serial Number (SPC).
    UnitSerialNumber = 0x80,
    /// Device Identification (SPC).
    DeviceIdentification = 0x83,
    /// Extended INQUIRY Data (SPC).
    ExtendedInquiry = 0x86,
    /// Block Limits (SBC).
    BlockLimits = 0xb0,
    /// Block Device Characteristics (SBC).
    BlockDeviceCharacteristics = 0xb1,
    /// Logical Block Provisioning (SBC).
    LogicalBlockProvisioning = 0xb2,
}

impl VpdPage {
    /// Every page, in order of page code.
    pub const ALL: [VpdPage; 7] = [
        VpdPage::SupportedPages,
        VpdPage::UnitSerialNumber,
        VpdPage::DeviceIdentification,
        VpdPage::ExtendedInquiry,
        VpdPage::BlockLimits,
        VpdPage::BlockDeviceCharacteristics,
        VpdPage::LogicalBlockProvisioning,
    ];

    /// The page with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<VpdPage> {
        Self::ALL.into_iter().find(|page| page.code() == code)
    }

    /// PAGE CODE.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// A whole page: PERIPHERAL QUALIFIER and DEVICE TYPE, PAGE CODE, PAGE LENGTH, `body`.
    #[must_use]
    pub fn with_body(self, peripheral: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).expect("a page of this crate is short");
        let [high, low] = len.to_be_bytes();
        let mut page = vec![peripheral, self.code(), high, low];
        page.extend_from_slice(body);
        page
    }
}

/// PAGE LENGTH and body of a page; `None` if the header is cut. The body is what is there of it.
#[must_use]
pub fn split(page: &[u8]) -> Option<(usize, &[u8])> {
    let (&[_, _, high, low], rest) = page.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    Some((len, &rest[..rest.len().min(len)]))
}

/// An NAA designator of the locally assigned kind: NAA 3h and 60 bits of our own (SPC, NAA Locally
/// Assigned designator format).
#[must_use]
pub const fn naa_locally_assigned(value: u64) -> u64 {
    0x3 << 60 | value & ((1 << 60) - 1)
}

/// A designation descriptor of the addressed logical unit (SPC, Device Identification VPD page).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Designator {
    /// T10 vendor ID based, DESIGNATOR TYPE 1h: vendor identification and what the vendor appends.
    T10VendorId([u8; 8], String),
    /// NAA, DESIGNATOR TYPE 3h, of eight bytes.
    Naa(u64),
}

const CODE_SET_BINARY: u8 = 0x1;
const CODE_SET_ASCII: u8 = 0x2;

impl Designator {
    /// The descriptor: CODE SET, type with ASSOCIATION 00b, a reserved byte, length, designator.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (code_set, kind, designator) = match self {
            Designator::T10VendorId(vendor, specific) => {
                (CODE_SET_ASCII, 0x1, [vendor, specific.as_bytes()].concat())
            }
            Designator::Naa(value) => (CODE_SET_BINARY, 0x3, value.to_be_bytes().to_vec()),
        };
        let len = u8::try_from(designator.len()).expect("a designator is short");
        [&[code_set, kind, 0, len][..], &designator].concat()
    }
}

/// Body of the Block Limits page, behind the four bytes of the header. Zeros mean: no limit
/// reported, or the command is not supported.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockLimits {
    /// WSNZ in bit 0.
    pub flags: u8,
    /// MAXIMUM COMPARE AND WRITE LENGTH in blocks.
    pub compare_and_write_max: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY in blocks.
    pub transfer_granularity: U16,
    /// MAXIMUM TRANSFER LENGTH in blocks.
    pub transfer_max: U32,
    /// OPTIMAL TRANSFER LENGTH in blocks.
    pub transfer_optimal: U32,
    /// MAXIMUM PREFETCH LENGTH in blocks.
    pub prefetch_max: U32,
    /// MAXIMUM UNMAP LBA COUNT.
    pub unmap_lba_max: U32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub unmap_descriptor_max: U32,
    /// OPTIMAL UNMAP GRANULARITY in blocks.
    pub unmap_granularity: U32,
    /// UGAVALID in bit 31, UNMAP GRANULARITY ALIGNMENT below.
    pub unmap_alignment: U32,
    /// MAXIMUM WRITE SAME LENGTH in blocks.
    pub write_same_max: U64,
    /// Fields on atomic writes, and reserved ones.
    pub atomic: [u8; 20],
}
const _: () = assert!(size_of::<BlockLimits>() == 0x3c);

/// Body of the Extended INQUIRY Data page. Fields not named here are zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ExtendedInquiry {
    microcode_and_protection: u8,
    /// HEADSUP, ORDSUP and SIMPSUP in bits 2 to 0: task attributes that are acted on.
    pub task_attributes: u8,
    /// V_SUP in bit 0: there is a volatile cache.
    pub caches: u8,
    /// LUICLR in bit 0.
    pub clearing: u8,
    rest: [u8; 56],
}
const _: () = assert!(size_of::<ExtendedInquiry>() == 0x3c);

/// HEADSUP, ORDSUP and SIMPSUP in the Extended INQUIRY Data page.
pub const HEADSUP_ORDSUP_SIMPSUP: u8 = 0x07;
/// V_SUP in the Extended INQUIRY Data page.
pub const V_SUP: u8 = 0x01;
/// LUICLR in the Extended INQUIRY Data page: once REPORTED LUNS DATA HAS CHANGED is reported by one unit of a
/// target, the others of it do not report it.
pub const LUICLR: u8 = 0x01;

impl ExtendedInquiry {
    /// Of a unit with a task set as SAM describes it, with a volatile cache or without.
    #[must_use]
    pub const fn new(has_volatile_cache: bool) -> Self {
        ExtendedInquiry {
            microcode_and_protection: 0,
            task_attributes: HEADSUP_ORDSUP_SIMPSUP,
            caches: if has_volatile_cache { V_SUP } else { 0 },
            clearing: LUICLR,
            rest: [0; 56],
        }
    }
}

/// Body of the Block Device Characteristics page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockDeviceCharacteristics {
    /// MEDIUM ROTATION RATE: 0001h does not rotate.
    pub rotation_rate: U16,
    /// PRODUCT TYPE.
    pub product_type: u8,
    /// WABEREQ, WACEREQ, NOMINAL FORM FACTOR.
    pub form_factor: u8,
    /// FUAB, VBULS.
    pub flags: u8,
    reserved: [u8; 55],
}
const _: () = assert!(size_of::<BlockDeviceCharacteristics>() == 0x3c);

impl BlockDeviceCharacteristics {
    /// Of a medium that does not rotate, all else not reported.
    pub const NON_ROTATING: Self = BlockDeviceCharacteristics {
        rotation_rate: U16::new(1),
        product_type: 0,
        form_factor: 0,
        flags: 0,
        reserved: [0; 55],
    };
}

/// WSNZ in the Block Limits page: WRITE SAME of zero blocks is refused.
pub const WSNZ: u8 = 0x01;
/// UGAVALID in the Block Limits page.
pub const UGAVALID: u32 = 1 << 31;

/// LBPU in the Logical Block Provisioning page: UNMAP unmaps.
pub const LBPU: u8 = 0x80;
/// LBPWS: so does WRITE SAME(16) with UNMAP.
pub const LBPWS: u8 = 0x40;
/// LBPWS10: so does WRITE SAME(10) with UNMAP.
pub const LBPWS10: u8 = 0x20;
/// LBPRZ: unmapped blocks read as zeros.
pub const LBPRZ: u8 = 0x04;
/// PROVISIONING TYPE of a thinly provisioned unit.
pub const PROVISIONING_THIN: u8 = 0x02;

/// Body of the Logical Block Provisioning page without a provisioning group descriptor. All zeros:
/// fully provisioned, no command to unmap.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LogicalBlockProvisioning {
    /// THRESHOLD EXPONENT.
    pub threshold_exponent: u8,
    /// LBPU, LBPWS, LBPWS10, LBPRZ, ANC_SUP, DP.
    pub flags: u8,
    /// PROVISIONING TYPE in bits 2 to 0.
    pub provisioning_type: u8,
    /// THRESHOLD PERCENTAGE.
    pub threshold_percentage: u8,
}
const _: () = assert!(size_of::<LogicalBlockProvisioning>() == 4);
