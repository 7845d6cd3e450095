//! The guest's memory as the front end shares it: pieces of files, each known by two addresses.

use std::{fs::File, io, sync::Arc, sync::atomic::AtomicU16, sync::atomic::AtomicU32};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// Most regions, as many as libvhost-user takes.
pub(super) const REGIONS_MAX: usize = 509;

/// Why a table of memory regions is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("memory region of {len:#x} bytes at guest address {guest:#x} is empty or has no end")]
    Extent { guest: u64, len: u64 },
    #[error("memory regions at guest addresses {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    #[error("more than {REGIONS_MAX} memory regions")]
    TooMany,
    #[error("no memory region begins at guest address {0:#x}")]
    Absent(u64),
    #[error("memory region at guest address {guest:#x} cannot be mapped: {source}")]
    Map { guest: u64, source: io::Error },
}

/// One region as the front end describes it. Addresses and lengths in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Where the guest sees it.
    pub(super) guest: u64,
    /// Where the front end sees it; it names rings so.
    pub(super) user: u64,
    pub(super) len: u64,
    /// Where it begins in its file.
    pub(super) file_offset: u64,
}

#[derive(Clone, Debug)]
struct Region {
    extent: Extent,
    mapping: Arc<MmapRegion>,
}

/// Guest memory at one time. A changed table is another value; whoever holds this one keeps its
/// mappings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// In order of guest addresses.
    regions: Vec<Region>,
}

/// Where something begins in a [`Memory`]. Good for that memory only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    offset: usize,
    region: u16,
}

/// A piece of a [`Memory`], known to be mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    offset: usize,
    pub(crate) len: u32,
    region: u16,
}

impl Segment {
    /// The same without its first `skip` bytes.
    pub(crate) fn after(self, skip: u32) -> Segment {
        Segment { offset: self.offset + skip as usize, len: self.len - skip, ..self }
    }
}

/// Maps `len` bytes of a file, shared. What lies beyond its end is refused: a touch would be fatal.
pub(super) fn map(file: File, offset: u64, len: u64) -> io::Result<MmapRegion> {
    let metadata = file.metadata()?;
    let end = offset.checked_add(len);
    // A device such as DAX has no length of its own.
    if metadata.is_file() && end.is_none_or(|end| end > metadata.len()) {
        let file_len = metadata.len();
        return Err(io::Error::other(format!("{len} bytes at {offset} of a file of {file_len}")));
    }
    let size = usize::try_from(len).map_err(io::Error::other)?;
    MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(io::Error::other)
}

fn overlap(one: u64, one_len: u64, other: u64, other_len: u64) -> bool {
    one < other + other_len && other < one + one_len
}

impl Memory {
    /// This memory and one more region, the piece of `file` that `extent` names.
    pub(super) fn with(&self, extent: Extent, file: File) -> Result<Memory, MemoryError> {
        let Extent { guest, user, len, file_offset } = extent;
        let ends = [guest, user, file_offset].map(|start| start.checked_add(len));
        if len == 0 || ends.contains(&None) {
            return Err(MemoryError::Extent { guest, len });
        }
        if self.regions.len() >= REGIONS_MAX {
            return Err(MemoryError::TooMany);
        }
        let overlapped = self.regions.iter().map(|region| &region.extent).find(|other| {
            overlap(guest, len, other.guest, other.len) || overlap(user, len, other.user, other.len)
        });
        if let Some(other) = overlapped {
            return Err(MemoryError::Overlap(other.guest, guest));
        }
        let mapping =
            map(file, file_offset, len).map_err(|source| MemoryError::Map { guest, source })?;
        let mut regions = self.regions.clone();
        let at = regions.partition_point(|region| region.extent.guest < guest);
        regions.insert(at, Region { extent, mapping: Arc::new(mapping) });
        Ok(Memory { regions })
    }

    /// This memory without the region that begins at this guest address and this user address.
    pub(super) fn without(&self, guest: u64, user: u64) -> Result<Memory, MemoryError> {
        let is_it = |region: &Region| (region.extent.guest, region.extent.user) == (guest, user);
        if !self.regions.iter().any(is_it) {
            return Err(MemoryError::Absent(guest));
        }
        let kept = self.regions.iter().filter(|region| !is_it(region)).cloned();
        Ok(Memory { regions: kept.collect() })
    }

    /// The place of `len` bytes the front end sees at `address`, all in one region.
    pub(super) fn at_user(&self, address: u64, len: u64) -> Option<Place> {
        self.find(address, len, |extent| extent.user)
    }

    /// The place of `len` bytes the guest sees at `address`, if they are all in one region.
    pub(crate) fn at_guest(&self, address: u64, len: u64) -> Option<Place> {
        self.find(address, len, |extent| extent.guest)
    }

    fn find(&self, address: u64, len: u64, start: impl Fn(&Extent) -> u64) -> Option<Place> {
        // A handful of regions, of which the biggest has nearly everything.
        (0..).zip(&self.regions).find_map(|(region, Region { extent, .. })| {
            let offset = address.checked_sub(start(extent))?;
            if extent.len.checked_sub(offset)? < len {
                return None;
            }
            Some(Place { region, offset: usize::try_from(offset).ok()? })
        })
    }

    /// Cuts `len` bytes the guest sees at `address` into segments; false if some of them are not there.
    pub(crate) fn cut(&self, address: u64, len: u32, mut take: impl FnMut(Segment)) -> bool {
        if let Some(place) = self.at_guest(address, len.into()) {
            take(Segment { offset: place.offset, len, region: place.region });
            return true;
        }
        // Across regions that follow one another.
        let (mut address, mut rest) = (address, u64::from(len));
        while rest > 0 {
            let Some(place) = self.at_guest(address, 1) else { return false };
            let Place { offset, region } = place;
            let now = rest.min(self.region(region).extent.len - offset as u64);
            take(Segment { offset, len: u32::try_from(now).expect("no more than `len`"), region });
            rest -= now;
            let Some(next) = address.checked_add(now) else { return rest == 0 };
            address = next;
        }
        true
    }

    fn region(&self, index: u16) -> &Region {
        &self.regions[usize::from(index)]
    }

    /// The bytes of a segment.
    pub(crate) fn slice(&self, segment: Segment) -> VolatileSlice<'_> {
        let Segment { offset, len, region } = segment;
        self.bytes(Place { offset, region }, 0, len as usize)
    }

    /// `len` bytes from `offset` behind a place that was found with at least so many.
    pub(crate) fn bytes(&self, place: Place, offset: usize, len: usize) -> VolatileSlice<'_> {
        self.region(place.region)
            .mapping
            .get_slice(place.offset + offset, len)
            .expect("places lie within their region")
    }

    /// A 16-bit word of a ring, at `offset` behind an aligned place.
    pub(super) fn word16(&self, place: Place, offset: usize) -> &AtomicU16 {
        self.region(place.region)
            .mapping
            .get_atomic_ref(place.offset + offset)
            .expect("rings are mapped and aligned")
    }

    /// A 32-bit word of a ring, at `offset` behind an aligned place.
    pub(super) fn word32(&self, place: Place, offset: usize) -> &AtomicU32 {
        self.region(place.region)
            .mapping
            .get_atomic_ref(place.offset + offset)
            .expect("rings are mapped and aligned")
    }
}

impl Place {
    /// Whether it is a multiple of `alignment` bytes, which is at most a page.
    pub(super) fn is_aligned(self, alignment: usize) -> bool {
        self.offset.is_multiple_of(alignment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().expect("temporary file");
        file.set_len(len).expect("room");
        file
    }

    fn extent(guest: u64, user: u64, len: u64) -> Extent {
        Extent { guest, user, len, file_offset: 0 }
    }

    /// 0x1000 to 0x5000 in two regions, and 0x8000 to 0x9000.
    fn memory() -> Memory {
        [(0x3000, 0x2_0000, 0x2000), (0x1000, 0x1_0000, 0x2000), (0x8000, 0x3_0000, 0x1000)]
            .into_iter()
            .fold(Memory::default(), |memory, (guest, user, len)| {
                memory.with(extent(guest, user, len), file(len)).expect("apart from the others")
            })
    }

    fn cut(address: u64, len: u32) -> Option<Vec<u32>> {
        let mut pieces = Vec::new();
        memory().cut(address, len, |segment| pieces.push(segment.len)).then_some(pieces)
    }

    #[test]
    fn bytes_are_cut_where_regions_meet() {
        assert_eq!(cut(0x1000, 0x2000), Some(vec![0x2000]));
        assert_eq!(cut(0x2f00, 0x200), Some(vec![0x100, 0x100]));
        assert_eq!(cut(0x1000, 0x4000), Some(vec![0x2000, 0x2000]));
        assert_eq!(cut(0x8fff, 1), Some(vec![1]));
        for (address, len) in
            [(0, 1), (0xfff, 2), (0x4fff, 2), (0x7000, 0x1001), (0x9000, 1), (u64::MAX, 2)]
        {
            assert_eq!(cut(address, len), None, "{len} at {address:#x}");
        }
    }

    #[test]
    fn regions_that_make_no_sense_are_refused() {
        let memory = memory();
        let refused = |extent, len| memory.with(extent, file(len)).expect_err("refused");
        for (guest, user, len) in
            [(0x9000, 0x9_0000, 0), (u64::MAX - 1, 0x9_0000, 0x1000), (0x9000, u64::MAX, 0x1000)]
        {
            let error = refused(extent(guest, user, len), 0x1000);
            assert!(matches!(error, MemoryError::Extent { .. }), "{error}");
        }
        for (guest, user) in [(0x4000, 0x9_0000), (0, 0x9_0000), (0xf000, 0x1_1000)] {
            let error = refused(extent(guest, user, 0x2000), 0x2000);
            assert!(matches!(error, MemoryError::Overlap(..)), "{error}");
        }
        // Beyond the end of its file.
        let error = refused(extent(0xf000, 0x9_0000, 0x2000), 0x1000);
        assert!(matches!(error, MemoryError::Map { .. }), "{error}");
        let late = Extent { file_offset: 0x1000, ..extent(0xf000, 0x9_0000, 0x1000) };
        assert!(matches!(refused(late, 0x1000), MemoryError::Map { .. }));
    }

    #[test]
    fn region_can_be_taken_away_again() {
        let memory = memory();
        assert!(matches!(memory.without(0x1000, 0x2_0000), Err(MemoryError::Absent(0x1000))));
        let less = memory.without(0x1000, 0x1_0000).expect("it is there");
        assert!(less.at_guest(0x1000, 1).is_none() && less.at_guest(0x3000, 1).is_some());
        assert!(memory.at_guest(0x1000, 1).is_some(), "the old one is as it was");
    }
}
