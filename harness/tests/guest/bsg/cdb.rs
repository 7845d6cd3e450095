//! READ and WRITE CDBs of every length, and data that says where it belongs.

/// Length of a logical block unless a test says otherwise.
pub(crate) const BLOCK: usize = 512;

/// Length of a CDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Six,
    Ten,
    Twelve,
    Sixteen,
}

impl Size {
    pub(crate) const ALL: [Size; 4] = [Size::Six, Size::Ten, Size::Twelve, Size::Sixteen];
}

/// READ(6), (10), (12) or (16) (SBC-3).
pub(crate) fn read(size: Size, lba: u32, blocks: u8) -> Vec<u8> {
    transfer(size, [0x08, 0x28, 0xa8, 0x88], lba, blocks)
}

/// WRITE(6), (10), (12) or (16) (SBC-3).
pub(crate) fn write(size: Size, lba: u32, blocks: u8) -> Vec<u8> {
    transfer(size, [0x0a, 0x2a, 0xaa, 0x8a], lba, blocks)
}

/// LOGICAL BLOCK ADDRESS is 21 bits from byte 1, 32 bits from byte 2, or 64 bits from byte 2; TRANSFER
/// LENGTH 8 bits in byte 4, 16 bits from byte 7, 32 bits from byte 6, or 32 bits from byte 10.
fn transfer(size: Size, opcodes: [u8; 4], lba: u32, blocks: u8) -> Vec<u8> {
    let [a, b, c, d] = lba.to_be_bytes();
    let [six, ten, twelve, sixteen] = opcodes;
    match size {
        Size::Six => {
            assert!(a == 0 && b < 0x20, "LBA {lba:#x} has more than 21 bits");
            vec![six, b, c, d, blocks, 0]
        }
        Size::Ten => vec![ten, 0, a, b, c, d, 0, 0, blocks, 0],
        Size::Twelve => vec![twelve, 0, a, b, c, d, 0, 0, 0, blocks, 0, 0],
        Size::Sixteen => vec![sixteen, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, blocks, 0, 0],
    }
}

/// `blocks` blocks of `block_len` bytes from `lba`: each repeats its own address and `mark`, so that a
/// block at the wrong place, or of an earlier write, shows.
pub(crate) fn pattern_of(block_len: usize, lba: u32, blocks: u8, mark: u32) -> Vec<u8> {
    let addresses = lba..lba + u32::from(blocks);
    let words = addresses.flat_map(|lba| {
        std::iter::repeat_n([lba.to_be_bytes(), mark.to_be_bytes()].concat(), block_len / 8)
    });
    words.flatten().collect()
}

/// [`pattern_of`] blocks of 512 bytes.
pub(crate) fn pattern(lba: u32, blocks: u8, mark: u32) -> Vec<u8> {
    pattern_of(BLOCK, lba, blocks, mark)
}
