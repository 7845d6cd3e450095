//! Which granules are mapped: a bit for each, made as they are needed.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{Extent, GRANULE};

/// Granules of a word, words of a chunk: a chunk of 4 KiB is about 128 MiB of medium.
const WORD: u64 = 64;
const CHUNK_WORDS: usize = 512;
const CHUNK: u64 = WORD * CHUNK_WORDS as u64;

type Chunk = Box<[AtomicU64; CHUNK_WORDS]>;

/// The map of a medium. A chunk in which nothing was ever mapped takes no memory.
#[derive(Debug)]
pub(super) struct Granules {
    chunks: Vec<OnceLock<Chunk>>,
}

/// The part of a word that these granules take: the word's number in its chunk, and its bits.
struct Part {
    chunk: usize,
    word: usize,
    bits: u64,
    /// The first granule behind it.
    end: u64,
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("a medium has been made with this many")
}

/// The beginning of `start..end` that lies in one word. Not empty.
fn first_part(start: u64, end: u64) -> Part {
    let bit = start % WORD;
    let count = (WORD - bit).min(end - start);
    let bits = (u64::MAX >> (WORD - count)) << bit;
    Part {
        chunk: index(start / CHUNK),
        word: index(start % CHUNK / WORD),
        bits,
        end: start + count,
    }
}

impl Granules {
    /// A map of a medium of `len` bytes, with nothing mapped.
    pub(super) fn new(len: u64) -> Self {
        let chunks = len.div_ceil(GRANULE).div_ceil(CHUNK);
        Granules { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// Maps every granule that has one of these bytes.
    pub(super) fn map(&self, offset: u64, len: u64) {
        let (mut at, end) = (offset / GRANULE, (offset + len).div_ceil(GRANULE));
        while at < end {
            let part = first_part(at, end);
            let chunk = self.chunks[part.chunk]
                .get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK_WORDS]));
            let word = &chunk[part.word];
            if word.load(Ordering::Relaxed) & part.bits != part.bits {
                word.fetch_or(part.bits, Ordering::Relaxed);
            }
            at = part.end;
        }
    }

    /// Unmaps the granules of these bytes.
    pub(super) fn unmap(&self, offset: u64, len: u64) {
        let (mut at, end) = (offset / GRANULE, (offset + len).div_ceil(GRANULE));
        while at < end {
            let Some(chunk) = self.chunks[index(at / CHUNK)].get() else {
                at = (at / CHUNK + 1) * CHUNK;
                continue;
            };
            let part = first_part(at, end);
            chunk[part.word].fetch_and(!part.bits, Ordering::Relaxed);
            at = part.end;
        }
    }

    /// As [`super::Medium::extent`]. At least one byte is asked for.
    pub(super) fn extent(&self, offset: u64, len: u64) -> Extent {
        let (start, end) = (offset / GRANULE, (offset + len).div_ceil(GRANULE));
        let mapped = self.bits(&first_part(start, end)) & 1 << (start % WORD) != 0;
        let mut at = start;
        while at < end {
            if !mapped && self.chunks[index(at / CHUNK)].get().is_none() {
                at = (at / CHUNK + 1) * CHUNK;
                continue;
            }
            let part = first_part(at, end);
            let bits = self.bits(&part);
            let other = if mapped { part.bits & !bits } else { part.bits & bits };
            if other != 0 {
                at = at / WORD * WORD + u64::from(other.trailing_zeros());
                break;
            }
            at = part.end;
        }
        Extent { mapped, len: len.min(at * GRANULE - offset) }
    }

    fn bits(&self, part: &Part) -> u64 {
        self.chunks[part.chunk].get().map_or(0, |chunk| chunk[part.word].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_extent_crosses_words_and_chunks() {
        let len = 4 * CHUNK * GRANULE;
        let granules = Granules::new(len);
        let whole = Extent { mapped: false, len };
        assert_eq!(granules.extent(0, len), whole);
        let (start, end) = (CHUNK * GRANULE - 4096, 3 * CHUNK * GRANULE + 4096);
        granules.map(start + 1, end - start - 2);
        assert_eq!(granules.extent(0, len), Extent { mapped: false, len: start });
        assert_eq!(granules.extent(start, len - start), Extent { mapped: true, len: end - start });
        assert_eq!(granules.extent(start + 512, 512), Extent { mapped: true, len: 512 });
        assert_eq!(granules.extent(end, len - end), Extent { mapped: false, len: len - end });
        granules.unmap(0, len);
        assert_eq!(granules.extent(0, len), whole);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list of flags.
        #[test]
        fn the_map_is_a_list_of_flags(
            steps in proptest::collection::vec((0..300u64, 1..200u64, any::<bool>()), 1..20),
        ) {
            let granules = Granules::new(500 * GRANULE);
            let mut flags = [false; 500];
            for (start, count, map) in steps {
                let (offset, len) = (start * GRANULE, count * GRANULE);
                if map { granules.map(offset, len) } else { granules.unmap(offset, len) }
                flags[index(start)..index(start + count)].fill(map);
            }
            let mut at = 0;
            while at < 500 {
                let mapped = flags[index(at)];
                let count = flags[index(at)..].iter().take_while(|flag| **flag == mapped).count();
                let extent = granules.extent(at * GRANULE, (500 - at) * GRANULE);
                prop_assert_eq!(extent, Extent { mapped, len: count as u64 * GRANULE });
                at += count as u64;
            }
        }
    }
}
