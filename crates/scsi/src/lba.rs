//! Logical block addresses and lengths: units that cannot be mixed.

use std::fmt;

/// LOGICAL BLOCK ADDRESS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lba(pub u64);

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// LOGICAL BLOCK LENGTH IN BYTES of a unit: 512 or 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockLen(u32);

impl BlockLen {
    /// A length this project supports.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<BlockLen> {
        match bytes {
            512 | 4096 => Some(BlockLen(bytes)),
            _ => None,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// Length of this many blocks in bytes; `None` beyond 64 bits.
    #[must_use]
    pub fn bytes_of(self, blocks: u64) -> Option<u64> {
        blocks.checked_mul(self.0.into())
    }
}

/// Consecutive logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// The first block.
    pub start: Lba,
    /// How many.
    pub blocks: u64,
}

impl BlockRange {
    /// Whether every block lies within a unit of `capacity` blocks. An empty range may start right
    /// behind the last block and no further.
    #[must_use]
    pub fn is_within(self, capacity: u64) -> bool {
        self.start.0.checked_add(self.blocks).is_some_and(|end| end <= capacity)
    }

    /// Whether both have a block.
    #[must_use]
    pub fn overlaps(self, other: BlockRange) -> bool {
        let end = |range: BlockRange| range.start.0.saturating_add(range.blocks);
        self.start.0.max(other.start.0) < end(self).min(end(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_where_they_share_a_block() {
        let range = |start, blocks| BlockRange { start: Lba(start), blocks };
        for (one, other, expected) in [
            (range(0, 4), range(3, 1), true),
            (range(0, 4), range(4, 1), false),
            (range(2, 0), range(0, 4), false),
            (range(1, 2), range(0, 8), true),
            (range(u64::MAX - 1, 1), range(0, u64::MAX), true),
        ] {
            assert_eq!((one.overlaps(other), other.overlaps(one)), (expected, expected));
        }
    }

    #[test]
    fn a_range_that_wraps_around_is_outside() {
        let range = |start, blocks| BlockRange { start: Lba(start), blocks };
        assert!(range(0, 8).is_within(8));
        assert!(range(8, 0).is_within(8));
        assert!(!range(8, 1).is_within(8));
        assert!(!range(9, 0).is_within(8));
        assert!(!range(u64::MAX, 1).is_within(u64::MAX));
        assert!(!range(u64::MAX, u64::MAX).is_within(u64::MAX));
    }
}
