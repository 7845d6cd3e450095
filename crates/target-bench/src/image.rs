//! What is on a medium before it is measured: every block says which it is.

use std::{
    fs::File,
    io::{BufWriter, Write},
    num::NonZeroU64,
    path::Path,
};

use rustix::fs::{Advice, fadvise};

use crate::Error;

/// Bytes of a block.
pub(crate) const BLOCK_LEN: usize = 512;
/// Bytes of a medium: more than the last level of a cache holds, and little to fill.
pub(crate) const IMAGE_LEN: usize = 128 << 20;
/// Bytes filled at once.
pub(crate) const FILL_LEN: usize = 1 << 20;

/// Writes `bytes`, whole blocks, as they are from block `lba` on.
pub(crate) fn fill(lba: u32, bytes: &mut [u8]) {
    for (lba, block) in (lba..).zip(bytes.chunks_mut(BLOCK_LEN)) {
        // An odd factor: no two blocks are the same, and none is all zeros.
        let word = (u64::from(lba) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        block.chunks_mut(word.len()).for_each(|part| part.copy_from_slice(&word[..part.len()]));
    }
}

/// Makes a file of [`IMAGE_LEN`] without holes.
pub(crate) fn write(path: &Path) -> Result<(), Error> {
    let file = File::create(path).map_err(Error::file("make", path))?;
    let mut file = BufWriter::with_capacity(0, file);
    let mut bytes = vec![0; FILL_LEN];
    for lba in lbas() {
        fill(lba, &mut bytes);
        file.write_all(&bytes).map_err(Error::file("write", path))?;
    }
    Ok(())
}

/// Puts a file out of the page cache. Where that is all there is, as in a tmpfs, nothing happens.
pub(crate) fn evict(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    file.sync_data().map_err(Error::file("write back", path))?;
    let len = NonZeroU64::new(IMAGE_LEN as u64);
    let evicted = fadvise(&file, 0, len, Advice::DontNeed).map_err(Into::into);
    evicted.map_err(Error::file("put out of the page cache", path))
}

/// Where each of the pieces begins that an image is filled by.
pub(crate) fn lbas() -> impl Iterator<Item = u32> {
    let step = FILL_LEN / BLOCK_LEN;
    (0..IMAGE_LEN / BLOCK_LEN).step_by(step).map(|lba| u32::try_from(lba).expect("a small disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_differ_and_lie_where_they_belong() {
        let mut bytes = vec![0; 2 * BLOCK_LEN];
        fill(7, &mut bytes);
        let (seven, eight) = bytes.split_at(BLOCK_LEN);
        assert_ne!(seven, eight);
        let mut again = vec![0; BLOCK_LEN];
        fill(8, &mut again);
        assert_eq!(again, eight);
        assert_eq!(seven[..8], (8 * 0x9e37_79b9_7f4a_7c15_u128).to_le_bytes()[..8]);
        assert_eq!(lbas().count() * FILL_LEN, IMAGE_LEN);
    }
}
