//! READ CAPACITY parameter data (SBC).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{U32, U64},
};

use crate::BlockLen;

/// READ CAPACITY(10) parameter data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Capacity10 {
    /// RETURNED LOGICAL BLOCK ADDRESS: the last block, or FFFFFFFFh if that needs more bits.
    pub last_lba: U32,
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_len: U32,
}
const _: () = assert!(size_of::<Capacity10>() == 8);

/// READ CAPACITY(16) parameter data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Capacity16 {
    /// RETURNED LOGICAL BLOCK ADDRESS: the last block.
    pub last_lba: U64,
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_len: U32,
    /// P_TYPE in bits 3 to 1, PROT_EN in bit 0.
    pub protection: u8,
    /// P_I_EXPONENT in bits 7 to 4, LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT below.
    pub exponents: u8,
    /// LBPME in bit 15, LBPRZ in bit 14, LOWEST ALIGNED LOGICAL BLOCK ADDRESS below.
    pub provisioning: [u8; 2],
    reserved: [u8; 16],
}
const _: () = assert!(size_of::<Capacity16>() == 32);

impl Capacity10 {
    /// Of a unit with `blocks` blocks, at least one.
    #[must_use]
    pub fn new(blocks: u64, block_len: BlockLen) -> Self {
        let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
        Capacity10 { last_lba: last.into(), block_len: block_len.bytes().into() }
    }
}

/// LBPME and LBPRZ: blocks can be unmapped and then read as zeros.
const LBPME_LBPRZ: u8 = 0xc0;

impl Capacity16 {
    /// Of a unit without protection information, with `blocks` blocks, at least one, each a physical
    /// block.
    #[must_use]
    pub fn new(blocks: u64, block_len: BlockLen) -> Self {
        Capacity16 {
            last_lba: blocks.saturating_sub(1).into(),
            block_len: block_len.bytes().into(),
            protection: 0,
            exponents: 0,
            provisioning: [0; 2],
            reserved: [0; 16],
        }
    }

    /// With 2 to the power of `exponent` blocks in a physical block, the first of which begins at
    /// `lowest_aligned`, of 14 bits.
    #[must_use]
    pub fn with_physical_blocks(mut self, exponent: u8, lowest_aligned: u16) -> Self {
        self.exponents = exponent & 0x0f;
        let [high, low] = lowest_aligned.to_be_bytes();
        self.provisioning = [self.provisioning[0] & LBPME_LBPRZ | high & !LBPME_LBPRZ, low];
        self
    }

    /// With blocks that can be unmapped and then read as zeros.
    #[must_use]
    pub fn thin(mut self) -> Self {
        self.provisioning[0] |= LBPME_LBPRZ;
        self
    }
}
