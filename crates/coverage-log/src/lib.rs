//! The file in which a running QEMU writes down which code of the guest's kernel it has translated.
//!
//! The bench makes it, the plugin maps it and appends, the bench reads how much there is whenever it
//! likes: what came between two looks was reached between them. No message goes either way.
//!
//! ```text
//! offset  bytes  little-endian
//! 0       8      MAGIC
//! 8       8      how many blocks were met; larger than the capacity if some found no room
//! 16      8 × n  blocks; zero is one that is being written
//! ```
//!
//! It must not know QEMU, nor what an address means.

#![forbid(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

/// The first eight bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"blocks 1");
/// Where [`MAGIC`] stands, in words of eight bytes.
pub const MAGIC_WORD: usize = 0;
/// Where the count stands, in words.
pub const COUNT_WORD: usize = 1;
/// Where the blocks begin, in words.
pub const FIRST_BLOCK_WORD: usize = 2;

/// Instructions that follow each other, entered at the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Virtual address of the first instruction, in the upper half.
    pub address: u64,
    /// Length in bytes.
    pub len_bytes: u16,
}

/// The bits of an address that can differ: with four levels of page tables the upper half begins at
/// `0xffff_8000_0000_0000`.
const ADDRESS_BITS: u32 = 48;
/// The lowest address of the upper half.
const UPPER_HALF: u64 = !0 << (ADDRESS_BITS - 1);

impl Block {
    /// One word, never zero. `None` if the address is not in the upper half, or there is nothing to
    /// write down.
    pub fn to_word(self) -> Option<u64> {
        let is_kernel = self.address >= UPPER_HALF && self.len_bytes > 0;
        is_kernel.then(|| self.address << (u64::BITS - ADDRESS_BITS) | u64::from(self.len_bytes))
    }

    /// What [`Block::to_word`] made.
    fn of_word(word: u64) -> Option<Block> {
        let [low, high, ..] = word.to_le_bytes();
        let address = word >> (u64::BITS - ADDRESS_BITS) | UPPER_HALF;
        (word != 0).then_some(Block { address, len_bytes: u16::from_le_bytes([low, high]) })
    }

    /// The addresses of its bytes.
    pub fn range(self) -> Range<u64> {
        self.address..self.address.saturating_add(self.len_bytes.into())
    }
}

/// The bench's side of the file.
#[derive(Debug)]
pub struct Log {
    file: File,
    capacity: u64,
}

impl Log {
    /// Makes an empty file with room for `capacity` blocks. It takes disk space as it fills.
    pub fn create(path: &Path, capacity: u64) -> io::Result<Log> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(offset(capacity))?;
        file.write_all_at(&MAGIC.to_le_bytes(), 0)?;
        Ok(Log { file, capacity })
    }

    /// How many blocks are there so far.
    pub fn count(&self) -> io::Result<u64> {
        Ok(self.met()?.min(self.capacity))
    }

    /// How many blocks found no room.
    pub fn lost(&self) -> io::Result<u64> {
        Ok(self.met()?.saturating_sub(self.capacity))
    }

    /// A file that was overwritten or emptied would otherwise say that nothing was met.
    fn met(&self) -> io::Result<u64> {
        let mut head = [0; 16];
        self.file.read_exact_at(&mut head, 0)?;
        let (words, _) = head.as_chunks::<8>();
        let [magic, met] = [words[MAGIC_WORD], words[COUNT_WORD]].map(u64::from_le_bytes);
        if magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no log of blocks"));
        }
        Ok(met)
    }

    /// Blocks with their numbers. One that is being written this moment is left out.
    pub fn blocks(&self, numbers: Range<u64>) -> io::Result<Vec<(u64, Block)>> {
        let len = numbers.end.saturating_sub(numbers.start);
        let len = usize::try_from(len * 8).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset(numbers.start))?;
        let (words, _) = bytes.as_chunks::<8>();
        let block = |word: &[u8; 8]| Block::of_word(u64::from_le_bytes(*word));
        let blocks = (numbers.start..).zip(words.iter().map(block));
        Ok(blocks.filter_map(|(number, block)| Some((number, block?))).collect())
    }
}

/// Where a block stands, in bytes.
fn offset(number: u64) -> u64 {
    16 + 8 * number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: u64, len_bytes: u16) -> Block {
        Block { address, len_bytes }
    }

    #[test]
    fn a_block_is_one_word_and_back() {
        for (block, word) in [
            (block(0xffff_ffff_8100_0000, 1), 0xffff_8100_0000_0001),
            (block(0xffff_8000_0000_0000, 0x1234), 0x8000_0000_0000_1234),
            (block(0xffff_ffff_ffff_ffff, 0xffff), 0xffff_ffff_ffff_ffff),
        ] {
            assert_eq!(block.to_word(), Some(word), "{block:x?}");
            assert_eq!(Block::of_word(word), Some(block));
        }
        assert_eq!(Block::of_word(0), None);
    }

    #[test]
    fn only_the_kernels_half_is_written_down() {
        for outside in [0, 0x40_0000, 0x7fff_ffff_ffff, 0xffff_7fff_ffff_ffff] {
            assert_eq!(block(outside, 8).to_word(), None, "{outside:x}");
        }
        assert_eq!(block(UPPER_HALF, 0).to_word(), None);
    }

    #[test]
    fn what_is_appended_is_read_and_a_full_file_says_what_it_lost() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("log");
        let log = Log::create(&path, 2).expect("create");
        assert_eq!(std::fs::metadata(&path).expect("metadata").len(), 32);
        assert_eq!((log.count().expect("count"), log.lost().expect("lost")), (0, 0));

        let first = block(0xffff_ffff_8100_0000, 7);
        let write = |word: usize, value: u64| {
            let at = u64::try_from(word * 8).expect("small");
            log.file.write_all_at(&value.to_le_bytes(), at).expect("write");
        };
        write(FIRST_BLOCK_WORD, first.to_word().expect("of the kernel"));
        write(COUNT_WORD, 2);
        // The second is counted and not yet written.
        assert_eq!(log.blocks(0..2).expect("blocks"), [(0, first)]);
        assert_eq!(log.blocks(1..2).expect("blocks"), []);
        write(COUNT_WORD, 5);
        assert_eq!((log.count().expect("count"), log.lost().expect("lost")), (2, 3));
    }

    /// None of them is an empty log.
    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("log");
        let log = Log::create(&path, 4).expect("create");
        log.file.write_all_at(&[3, 0, 0, 0, 0, 0, 0, 0], 8).expect("write");
        assert_eq!(log.count().expect("count"), 3);
        for len in [0, 8, 15] {
            log.file.set_len(len).expect("cut");
            log.count().expect_err("too short for a count");
            log.lost().expect_err("too short for a count");
        }
        log.file.set_len(64).expect("as long as before, and empty");
        log.count().expect_err("no magic");
        log.file.write_all_at(b"blocks 2", 0).expect("write");
        log.lost().expect_err("another magic");
        log.file.write_all_at(b"blocks 1", 0).expect("write");
        log.file.write_all_at(&[3, 0, 0, 0, 0, 0, 0, 0], 8).expect("write");
        log.file.set_len(16 + 2 * 8 + 7).expect("cut");
        log.blocks(0..3).expect_err("the third is cut off");
        assert_eq!(log.blocks(0..2).expect("two of them"), []);
    }
}
