//! A file that is read in its mapping: what is in the page cache is copied without a system call.
//!
//! `preadv` of a cached page costs two to three times the copy, in a tmpfs more (its folios are single
//! pages), and io_uring costs no less. Reading a mapping has its own price: what is not cached comes page
//! by page, and a hole of a tmpfs is filled when it is read. So each part of a file is read by `preadv`
//! until all of it is in the page cache, and in its mapping from then on.
//!
//! Of a file that somebody cuts, bytes behind the new end in its last page read as zeros; all others are
//! an error, as those of `preadv` are.

use std::{
    fmt,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::{
    bus_error::Watch,
    pages::{RESIDENT_LEN_MAX, are_resident},
};

/// How much of a file is looked at together, in bytes.
const PART_LEN: u64 = RESIDENT_LEN_MAX as u64;
/// A longer file is not mapped: it has few parts that are read twice, and a bit for each is kept.
const LEN_MAX: u64 = 1 << 42;

/// The mapping, and what is known of its parts.
pub(super) struct Mapped {
    // Dropped first.
    watch: Watch,
    region: MmapRegion,
    /// A bit for each part that has been in the page cache as a whole.
    parts: Vec<AtomicU64>,
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Mapped {
    /// Maps `len` bytes of a file, which is as long and in which nobody makes holes; none where that
    /// cannot be.
    pub(super) fn new(file: &Arc<File>, len: u64) -> Option<Self> {
        if len > LEN_MAX {
            return None;
        }
        let map = || -> io::Result<MmapRegion> {
            let size = usize::try_from(len).map_err(io::Error::other)?;
            let file = FileOffset::from_arc(Arc::clone(file), 0);
            let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
            MmapRegion::build(Some(file), size, libc::PROT_READ, flags).map_err(io::Error::other)
        };
        let region =
            map().inspect_err(|error| tracing::debug!(%error, "the file is not mapped")).ok()?;
        let watch = Watch::of(&region)?;
        let words = len.div_ceil(PART_LEN).div_ceil(u64::BITS.into());
        // Taken from the system as zeros: pages of a long list that are not used cost nothing.
        let parts = vec![0_u64; usize::try_from(words).ok()?];
        Some(Mapped { watch, region, parts: parts.into_iter().map(AtomicU64::new).collect() })
    }

    /// The parts that these bytes are in; none if they are not all mapped.
    fn parts(&self, offset: u64, len: u64) -> Option<impl Iterator<Item = Part<'_>>> {
        let end = offset.checked_add(len)?;
        let mapped = len > 0 && end <= self.region.size() as u64;
        mapped.then(|| {
            (offset / PART_LEN..=(end - 1) / PART_LEN).filter_map(|number| self.part(number))
        })
    }

    fn part(&self, number: u64) -> Option<Part<'_>> {
        let word = self.parts.get(usize::try_from(number / u64::from(u64::BITS)).ok()?)?;
        let start = usize::try_from(number * PART_LEN).ok()?;
        let len = (self.region.size() - start).min(RESIDENT_LEN_MAX);
        Some(Part { word, bit: 1 << (number % u64::from(u64::BITS)), start, len })
    }

    /// Copies `len` bytes from `offset` to the beginning of `into`, if they can be read here. If not, some
    /// may have been copied.
    pub(super) fn read(&self, offset: u64, into: &[VolatileSlice<'_>], len: u64) -> bool {
        let known =
            self.parts(offset, len).is_some_and(|mut parts| parts.all(|part| part.is_cached()));
        known && !self.watch.is_broken() && self.copy(offset, into, len) && !self.watch.is_broken()
    }

    fn copy(&self, offset: u64, into: &[VolatileSlice<'_>], len: u64) -> bool {
        let (Ok(mut at), Ok(mut left)) = (usize::try_from(offset), usize::try_from(len)) else {
            return false;
        };
        for slice in into {
            let count = slice.len().min(left);
            let Ok(from) = self.region.get_slice(at, count) else { return false };
            from.copy_to_volatile_slice(*slice);
            at += count;
            left -= count;
        }
        left == 0
    }

    /// These bytes have been read from the file.
    pub(super) fn has_read(&self, offset: u64, len: u64) {
        for part in self.parts(offset, len).into_iter().flatten().filter(|part| !part.is_cached()) {
            let slice = self.region.get_slice(part.start, part.len);
            // Where the system does not say, it is not read here.
            if slice.is_ok_and(|slice| are_resident(&slice).unwrap_or(false)) {
                part.word.fetch_or(part.bit, Ordering::Relaxed);
            }
        }
    }
}

/// A part of the file.
struct Part<'a> {
    word: &'a AtomicU64,
    bit: u64,
    start: usize,
    len: usize,
}

impl Part<'_> {
    fn is_cached(&self) -> bool {
        self.word.load(Ordering::Relaxed) & self.bit != 0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            fd::AsRawFd,
            unix::{
                fs::{FileExt, MetadataExt},
                process::ExitStatusExt,
            },
        },
        process::Command,
    };

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::medium::{FileMedium, Medium, MediumError};

    const LEN: usize = 256 << 10;

    /// A sparse file in a tmpfs, which is the file system that reading a mapping fills.
    fn sparse() -> File {
        let file = File::from(memfd_create("medium", MemfdFlags::CLOEXEC).expect("a memfd"));
        file.set_len(LEN as u64).expect("room");
        file
    }

    fn medium(file: &File) -> FileMedium {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        FileMedium::open(path.as_ref(), LEN as u64, false, false).expect("a medium")
    }

    fn read(medium: &impl Medium, offset: u64, len: usize) -> Result<Vec<u8>, MediumError> {
        let mut bytes = vec![0xee; len];
        medium.read_at(offset, &[VolatileSlice::from(&mut bytes[..])], len as u64)?;
        Ok(bytes)
    }

    /// Whether these bytes are read in the mapping.
    fn is_read_mapped(medium: &FileMedium, offset: u64, len: u64) -> bool {
        let mut bytes = vec![0; usize::try_from(len).expect("a few")];
        let mapped = medium.mapped().expect("it is mapped");
        mapped.read(offset, &[VolatileSlice::from(&mut bytes[..])], len)
    }

    #[test]
    fn second_read_of_data_is_one_of_the_mapping_and_sees_what_was_written_since() {
        let file = sparse();
        file.write_all_at(&[1; LEN], 0).expect("written");
        let medium = medium(&file);
        assert!(!is_read_mapped(&medium, 70_000, 4096));
        assert_eq!(read(&medium, 70_000, 4096).expect("read"), [1; 4096]);
        assert!(is_read_mapped(&medium, 70_000, 4096));
        assert!(!is_read_mapped(&medium, 60_000, 10_000), "the part before was not read");
        let mut bytes = [2; 512];
        medium.write_at(70_144, &[VolatileSlice::from(&mut bytes[..])], 512).expect("written");
        let seen = read(&medium, 70_000, 4096).expect("read");
        assert_eq!((&seen[..144], &seen[144..656], seen[656]), (&[1; 144][..], &[2; 512][..], 1));
        assert!(is_read_mapped(&medium, 70_000, 4096));
    }

    #[test]
    fn hole_stays_one_however_often_it_is_read() {
        let file = sparse();
        file.write_all_at(&[1; 4096], 0).expect("written");
        let medium = medium(&file);
        let before = file.metadata().expect("metadata").blocks();
        for _ in 0..3 {
            read(&medium, 0, LEN).expect("read");
        }
        assert_eq!(file.metadata().expect("metadata").blocks(), before);
        // What fills it makes it data.
        let mut bytes = vec![3; 64 << 10];
        medium.write_at(0, &[VolatileSlice::from(&mut bytes[..])], 64 << 10).expect("written");
        assert_eq!(read(&medium, 0, 64 << 10).expect("read"), bytes);
        assert!(is_read_mapped(&medium, 0, 64 << 10));
    }

    #[test]
    fn file_that_is_cut_is_an_error_of_its_medium_and_no_end_of_the_process() {
        let (cut, sound) = (sparse(), sparse());
        let media = [&cut, &sound].map(|file| {
            file.write_all_at(&[1; LEN], 0).expect("written");
            let medium = medium(file);
            read(&medium, 0, LEN).expect("read");
            assert!(is_read_mapped(&medium, 0, LEN as u64));
            medium
        });
        cut.set_len(8192).expect("cut");
        let error = read(&media[0], 0, LEN).expect_err("it is too short");
        assert_eq!((error.done, error.source.kind()), (8192, io::ErrorKind::UnexpectedEof));
        assert_eq!(read(&media[0], 0, 8192).expect("what is left"), [1; 8192]);
        assert!(!is_read_mapped(&media[0], 0, 8192), "zeros may be in it");
        assert_eq!(read(&media[1], 0, LEN).expect("read"), [1; LEN]);
        assert!(is_read_mapped(&media[1], 0, LEN as u64));
    }

    /// The handler is for mappings that are watched; whatever else touches what is not there has a bug.
    #[test]
    fn bus_error_elsewhere_ends_the_process() {
        const CHILD: &str = "SENSECHECK_TEST_BUS_ERROR";
        if std::env::var_os(CHILD).is_some() {
            let (watched, other) = (sparse(), sparse());
            assert!(medium(&watched).mapped().is_some());
            let region =
                MmapRegion::from_file(FileOffset::new(other.try_clone().expect("cloned"), 0), LEN);
            let region: MmapRegion = region.expect("mapped");
            other.set_len(0).expect("cut");
            let mut bytes = [0; 16];
            let slice = region.get_slice(0, 16).expect("inside");
            slice.copy_to_volatile_slice(VolatileSlice::from(&mut bytes[..]));
            return;
        }
        let this = std::env::current_exe().expect("a path");
        let name = "medium::mapped::tests::bus_error_elsewhere_ends_the_process";
        let ended = Command::new(this).args(["--exact", name]).env(CHILD, "1").output();
        assert_eq!(ended.expect("started").status.signal(), Some(libc::SIGBUS));
    }
}
