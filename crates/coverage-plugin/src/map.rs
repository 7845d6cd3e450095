//! The log as the plugin sees it: mapped, and appended to without a lock.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use coverage_log::{COUNT_WORD, FIRST_BLOCK_WORD, MAGIC, MAGIC_WORD};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The mapped file, for as long as QEMU lives.
pub(crate) struct Map {
    words: &'static [AtomicU64],
}

impl Map {
    pub(crate) fn open(path: &Path) -> io::Result<Map> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len < FIRST_BLOCK_WORD * 8 {
            return Err(io::Error::other("too short for a log"));
        }
        // SAFETY: a new mapping replaces none.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        // SAFETY: the mapping is `len` bytes long, aligned to a page, and never undone. Others see
        // and change it only through the file, one aligned word at a time, as atomics allow. The
        // bench does not shorten the file.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), len / 8) };
        if words[MAGIC_WORD].load(Ordering::Relaxed).to_le() != MAGIC {
            return Err(io::Error::other("not a log of the bench"));
        }
        Ok(Map { words })
    }

    /// Adds a block. One that finds no room is counted all the same.
    pub(crate) fn append(&self, word: u64) {
        // Release: who sees the count sees what was written before. That the word behind a fresh
        // count may still be zero is part of the format.
        let number = self.words[COUNT_WORD].fetch_add(1, Ordering::AcqRel);
        let place = usize::try_from(number).ok().and_then(|n| n.checked_add(FIRST_BLOCK_WORD));
        if let Some(place) = place.and_then(|place| self.words.get(place)) {
            place.store(word, Ordering::Release);
        }
    }
}
