//! Mode parameters (SPC, Mode parameters; SBC, Mode parameters for direct access block devices).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{U16, U32, U64},
};

use crate::BlockLen;

/// PAGE CODE of all pages.
pub const ALL_PAGES: u8 = 0x3f;
/// SUBPAGE CODE of all subpages.
pub const ALL_SUBPAGES: u8 = 0xff;

/// WP in the DEVICE-SPECIFIC PARAMETER of block devices.
pub const WP: u8 = 0x80;
/// DPOFUA in the DEVICE-SPECIFIC PARAMETER of block devices: DPO and FUA are supported.
pub const DPOFUA: u8 = 0x10;

/// PC: which values of the mode pages are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageControl {
    /// 00b, current values.
    Current,
    /// 01b, a mask of what MODE SELECT could change.
    Changeable,
    /// 10b, default values.
    Default,
    /// 11b, saved values.
    Saved,
}

impl PageControl {
    /// From bits 7 and 6 of byte 2 of MODE SENSE.
    #[must_use]
    pub const fn from_byte(byte: u8) -> PageControl {
        match byte >> 6 {
            0 => PageControl::Current,
            1 => PageControl::Changeable,
            2 => PageControl::Default,
            _ => PageControl::Saved,
        }
    }
}

/// Mode parameter header(6).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header6 {
    /// MODE DATA LENGTH: bytes after this field.
    pub data_length: u8,
    /// MEDIUM TYPE.
    pub medium_type: u8,
    /// DEVICE-SPECIFIC PARAMETER.
    pub device_specific: u8,
    /// BLOCK DESCRIPTOR LENGTH in bytes.
    pub block_descriptor_length: u8,
}
const _: () = assert!(size_of::<Header6>() == 4);

/// Mode parameter header(10).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header10 {
    /// MODE DATA LENGTH: bytes after this field.
    pub data_length: U16,
    /// MEDIUM TYPE.
    pub medium_type: u8,
    /// DEVICE-SPECIFIC PARAMETER.
    pub device_specific: u8,
    /// LONGLBA in bit 0: long block descriptors.
    pub flags: u8,
    reserved: u8,
    /// BLOCK DESCRIPTOR LENGTH in bytes.
    pub block_descriptor_length: U16,
}
const _: () = assert!(size_of::<Header10>() == 8);

/// Short LBA mode parameter block descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ShortBlockDescriptor {
    /// NUMBER OF LOGICAL BLOCKS; FFFFFFFFh if there are more.
    pub blocks: U32,
    reserved: u8,
    /// LOGICAL BLOCK LENGTH, 24 bits.
    pub block_len: [u8; 3],
}
const _: () = assert!(size_of::<ShortBlockDescriptor>() == 8);

/// Long LBA mode parameter block descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LongBlockDescriptor {
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: U64,
    reserved: [u8; 4],
    /// LOGICAL BLOCK LENGTH in bytes.
    pub block_len: U32,
}
const _: () = assert!(size_of::<LongBlockDescriptor>() == 16);

/// Which mode parameter header, and so which block descriptor, MODE SENSE returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKind {
    /// MODE SENSE(6).
    Six,
    /// MODE SENSE(10) with short block descriptors.
    Ten,
    /// MODE SENSE(10) with LLBAA: long block descriptors.
    TenLong,
}

/// Mode parameter data: header, block descriptor if `capacity` (blocks and their length) is given,
/// pages. `None` if the data is too long for its MODE DATA LENGTH.
#[must_use]
pub fn parameter_data(
    kind: HeaderKind,
    device_specific: u8,
    capacity: Option<(u64, BlockLen)>,
    pages: &[u8],
) -> Option<Vec<u8>> {
    let descriptor = capacity.map_or_else(Vec::new, |(blocks, block_len)| match kind {
        HeaderKind::Six | HeaderKind::Ten => short_descriptor(blocks, block_len),
        HeaderKind::TenLong => long_descriptor(blocks, block_len),
    });
    let rest = descriptor.len() + pages.len();
    let header = match kind {
        HeaderKind::Six => Header6 {
            data_length: u8::try_from(rest + size_of::<Header6>() - 1).ok()?,
            medium_type: 0,
            device_specific,
            block_descriptor_length: u8::try_from(descriptor.len()).ok()?,
        }
        .as_bytes()
        .to_vec(),
        HeaderKind::Ten | HeaderKind::TenLong => Header10 {
            data_length: u16::try_from(rest + size_of::<Header10>() - 2).ok()?.into(),
            medium_type: 0,
            device_specific,
            flags: u8::from(kind == HeaderKind::TenLong && !descriptor.is_empty()),
            reserved: 0,
            block_descriptor_length: u16::try_from(descriptor.len()).ok()?.into(),
        }
        .as_bytes()
        .to_vec(),
    };
    Some([&header, &descriptor[..], pages].concat())
}

fn short_descriptor(blocks: u64, block_len: BlockLen) -> Vec<u8> {
    let [_, high, middle, low] = block_len.bytes().to_be_bytes();
    ShortBlockDescriptor {
        blocks: u32::try_from(blocks).unwrap_or(u32::MAX).into(),
        reserved: 0,
        block_len: [high, middle, low],
    }
    .as_bytes()
    .to_vec()
}

fn long_descriptor(blocks: u64, block_len: BlockLen) -> Vec<u8> {
    LongBlockDescriptor {
        blocks: blocks.into(),
        reserved: [0; 4],
        block_len: block_len.bytes().into(),
    }
    .as_bytes()
    .to_vec()
}

/// Caching mode page, 08h (SBC). Fields not named here are zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CachingPage {
    /// PS, SPF and PAGE CODE.
    pub page_code: u8,
    /// PAGE LENGTH.
    pub page_length: u8,
    /// WCE in bit 2, RCD in bit 0.
    pub flags: u8,
    rest: [u8; 17],
}
const _: () = assert!(size_of::<CachingPage>() == 20);

/// WCE in the Caching mode page: a volatile write cache is in use.
pub const WCE: u8 = 0x04;

impl CachingPage {
    /// PAGE CODE.
    pub const CODE: u8 = 0x08;

    /// The page with these flags.
    #[must_use]
    pub const fn new(flags: u8) -> Self {
        CachingPage { page_code: Self::CODE, page_length: 0x12, flags, rest: [0; 17] }
    }
}

/// Control mode page, 0Ah (SPC). Fields not named here are zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ControlPage {
    /// PS, SPF and PAGE CODE.
    pub page_code: u8,
    /// PAGE LENGTH.
    pub page_length: u8,
    /// TST in bits 7 to 5, D_SENSE in bit 2, GLTSD in bit 1.
    pub flags_2: u8,
    /// QUEUE ALGORITHM MODIFIER in bits 7 to 4, QERR in bits 2 and 1.
    pub flags_3: u8,
    /// UA_INTLCK_CTRL in bits 5 and 4, SWP in bit 3.
    pub flags_4: u8,
    /// ATO, TAS, AUTOLOAD MODE.
    pub flags_5: u8,
    obsolete: [u8; 2],
    /// BUSY TIMEOUT PERIOD in 100 ms; FFFFh is unlimited.
    pub busy_timeout: U16,
    /// EXTENDED SELF-TEST COMPLETION TIME in seconds.
    pub self_test_time: U16,
}
const _: () = assert!(size_of::<ControlPage>() == 12);

/// D_SENSE in the Control mode page: descriptor format sense data.
pub const D_SENSE: u8 = 0x04;
/// QERR in the Control mode page, byte 3.
pub const QERR: u8 = 0x06;
/// QERR 01b in place: all tasks of the task set are aborted with one that ends in CHECK CONDITION.
pub const QERR_ABORT_ALL: u8 = 0x02;
/// QERR 10b in place: reserved.
pub const QERR_RESERVED: u8 = 0x04;
/// QERR 11b in place: so are those of the same nexus.
pub const QERR_ABORT_NEXUS: u8 = 0x06;
/// SWP in the Control mode page, byte 4: software write protect.
pub const SWP: u8 = 0x08;
/// GLTSD in the Control mode page: log parameters are not saved implicitly.
pub const GLTSD: u8 = 0x02;
/// QUEUE ALGORITHM MODIFIER 1h in the Control mode page: SIMPLE tasks may be reordered freely.
pub const UNRESTRICTED_REORDERING: u8 = 0x10;

impl ControlPage {
    /// PAGE CODE.
    pub const CODE: u8 = 0x0a;

    /// The page with these flags in its bytes 2 to 4, all else zero.
    #[must_use]
    pub const fn new([flags_2, flags_3, flags_4]: [u8; 3]) -> Self {
        ControlPage {
            page_code: Self::CODE,
            page_length: 0x0a,
            flags_2,
            flags_3,
            flags_4,
            flags_5: 0,
            obsolete: [0; 2],
            busy_timeout: U16::ZERO,
            self_test_time: U16::ZERO,
        }
    }
}

/// PS in the first byte of a mode page; reserved in MODE SELECT.
pub const PS: u8 = 0x80;
/// SPF in the first byte of a mode page: it is a subpage.
pub const SPF: u8 = 0x40;

/// What is wrong with the parameter list of a MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// Its end cuts a header, a block descriptor or a page: PARAMETER LIST LENGTH ERROR.
    Length,
    /// The field at this byte, and bit if it has less than a byte: INVALID FIELD IN PARAMETER LIST.
    Field(u16, Option<u8>),
}

impl ListError {
    /// The field that begins at this byte of the list.
    fn at(byte: usize) -> Self {
        ListError::Field(u16::try_from(byte).unwrap_or(u16::MAX), None)
    }
}

/// The parameter list of a MODE SELECT, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterList<'a> {
    /// NUMBER OF LOGICAL BLOCKS and LOGICAL BLOCK LENGTH, and where they are in the list.
    pub descriptor: Option<BlockDescriptor>,
    /// Pages with header, each as long as its PAGE LENGTH says, and where they are in the list.
    pub pages: Vec<(u16, &'a [u8])>,
}

/// A block descriptor of either form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: u64,
    /// Whether that is all ones, which asks for as many as there are.
    pub all_blocks: bool,
    /// LOGICAL BLOCK LENGTH.
    pub block_len: u32,
    /// The first byte of the descriptor.
    pub at: u16,
}

/// Takes the parameter list of MODE SELECT(6) (`six`) or MODE SELECT(10) apart (SPC, MODE SELECT). MODE
/// DATA LENGTH and MEDIUM TYPE must be zero; the DEVICE-SPECIFIC PARAMETER is not looked at.
///
/// # Errors
/// The first field that is not as it must be.
pub fn parse_parameter_list(list: &[u8], six: bool) -> Result<ParameterList<'_>, ListError> {
    let (header_len, medium_type, long, descriptor_len) = if six {
        let (header, _) = Header6::ref_from_prefix(list).map_err(|_| ListError::Length)?;
        refuse(header.data_length != 0, 0)?;
        (size_of::<Header6>(), header.medium_type, false, header.block_descriptor_length.into())
    } else {
        let (header, _) = Header10::ref_from_prefix(list).map_err(|_| ListError::Length)?;
        refuse(header.data_length.get() != 0, 0)?;
        let descriptor_len: usize = header.block_descriptor_length.get().into();
        (size_of::<Header10>(), header.medium_type, header.flags & 1 != 0, descriptor_len)
    };
    refuse(medium_type != 0, if six { 1 } else { 2 })?;
    let mut rest = list.get(header_len + descriptor_len..).ok_or(ListError::Length)?;
    let descriptor = block_descriptor(&list[header_len..][..descriptor_len], long, header_len)
        .ok_or(ListError::at(if six { 3 } else { 6 }))?;
    let mut pages = Vec::new();
    while let Some((first, _)) = rest.split_first() {
        let at = list.len() - rest.len();
        let at = u16::try_from(at).map_err(|_| ListError::Length)?;
        if first & PS != 0 {
            return Err(ListError::Field(at, Some(7)));
        }
        if first & SPF != 0 {
            return Err(ListError::Field(at, Some(6)));
        }
        let len = usize::from(*rest.get(1).ok_or(ListError::Length)?) + 2;
        let (page, behind) = rest.split_at_checked(len).ok_or(ListError::Length)?;
        pages.push((at, page));
        rest = behind;
    }
    Ok(ParameterList { descriptor, pages })
}

fn refuse(wrong: bool, byte: usize) -> Result<(), ListError> {
    if wrong { Err(ListError::at(byte)) } else { Ok(()) }
}

/// The block descriptor in these bytes, if there are any; `None` if they are no descriptor.
fn block_descriptor(bytes: &[u8], long: bool, at: usize) -> Option<Option<BlockDescriptor>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let at = u16::try_from(at).ok()?;
    let descriptor = if long {
        let parsed = LongBlockDescriptor::ref_from_bytes(bytes).ok()?;
        let blocks = parsed.blocks.get();
        let block_len = parsed.block_len.get();
        BlockDescriptor { blocks, all_blocks: blocks == u64::MAX, block_len, at }
    } else {
        let parsed = ShortBlockDescriptor::ref_from_bytes(bytes).ok()?;
        let blocks = parsed.blocks.get();
        let [high, middle, low] = parsed.block_len;
        let block_len = u32::from_be_bytes([0, high, middle, low]);
        BlockDescriptor { blocks: blocks.into(), all_blocks: blocks == u32::MAX, block_len, at }
    };
    Some(Some(descriptor))
}
