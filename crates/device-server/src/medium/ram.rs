//! A medium in anonymous memory.

use std::io;

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::{Extent, Medium, MediumError, granules::Granules, pages::discard};

/// Room there is in any case, in bytes: addresses, not memory.
const ROOM_MIN: usize = 64 << 20;

/// Zeroed memory; pages are taken from the system when first written.
#[derive(Debug)]
pub struct RamMedium {
    region: MmapRegion,
    /// What is mapped, if it is thinly provisioned.
    granules: Option<Granules>,
}

impl RamMedium {
    /// A medium of `len` bytes with room for as many again, and for 64 MiB at least, all mapped unless it is thinly provisioned.
    ///
    /// # Errors
    /// The system has no address space for it.
    pub fn new(len: usize, thin: bool) -> Result<Self, vm_memory::mmap::MmapRegionError> {
        let room = len.saturating_mul(2).max(ROOM_MIN);
        // Addresses may be scarce where memory is not.
        let region = MmapRegion::new(room).or_else(|_| MmapRegion::new(len))?;
        let granules = thin.then(|| Granules::new(region.size() as u64));
        Ok(RamMedium { region, granules })
    }

    fn stored(&self, offset: u64, len: usize) -> io::Result<VolatileSlice<'_>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.region.get_slice(start, len).map_err(io::Error::other)
    }

    /// Walks `len` bytes of the region from `offset` and the slices side by side.
    fn copy(
        &self,
        offset: u64,
        slices: &[VolatileSlice<'_>],
        len: u64,
        mut copy: impl FnMut(u64, &VolatileSlice<'_>, &VolatileSlice<'_>),
    ) -> Result<(), MediumError> {
        let mut done = 0;
        for slice in slices {
            let count = usize::try_from(len - done).unwrap_or(usize::MAX).min(slice.len());
            if count == 0 {
                continue;
            }
            let stored =
                self.stored(offset + done, count).map_err(|source| MediumError { done, source })?;
            let piece = slice
                .subslice(0, count)
                .map_err(|source| MediumError { done, source: io::Error::other(source) })?;
            copy(offset + done, &stored, &piece);
            done += count as u64;
        }
        Ok(())
    }
}

/// Reads memory that may be unmapped in part. What is unmapped is not touched: reading it would make the
/// system keep tables for it.
fn read_granules(
    granules: &Granules,
    offset: u64,
    stored: &VolatileSlice<'_>,
    piece: &VolatileSlice<'_>,
) {
    let mut at = 0;
    while at < piece.len() {
        let extent = granules.extent(offset + at as u64, (piece.len() - at) as u64);
        let len = usize::try_from(extent.len).expect("no longer than the piece");
        let within = "within both slices, which are equally long";
        let piece = piece.subslice(at, len).expect(within);
        if extent.mapped {
            stored.subslice(at, len).expect(within).copy_to_volatile_slice(piece);
        } else {
            zero(&piece);
        }
        at += len;
    }
}

fn zero(slice: &VolatileSlice<'_>) {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = 0;
    while at < slice.len() {
        let len = ZEROS.len().min(slice.len() - at);
        slice.subslice(at, len).expect("within").copy_from(&ZEROS[..len]);
        at += len;
    }
}

impl Medium for RamMedium {
    fn read_at(
        &self,
        offset: u64,
        into: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        self.copy(offset, into, len, |at, stored, piece| match &self.granules {
            Some(granules) => read_granules(granules, at, stored, piece),
            None => stored.copy_to_volatile_slice(*piece),
        })
    }

    fn write_at(
        &self,
        offset: u64,
        from: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        if let Some(granules) = &self.granules {
            granules.map(offset, len);
        }
        self.copy(offset, from, len, |_, stored, piece| piece.copy_to_volatile_slice(*stored))
    }

    fn make_room(&self, len: u64) -> io::Result<()> {
        let room = self.region.size();
        if len <= room as u64 {
            return Ok(());
        }
        let message = format!("a medium in memory has room for {room} bytes, once it is made");
        Err(io::Error::new(io::ErrorKind::StorageFull, message))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Memory can be read.
    fn verify(&self, _: u64, _: u64) -> Result<(), MediumError> {
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some(granules) = &self.granules else { return Ok(()) };
        // In this order: what is unmapped is not looked at.
        granules.unmap(offset, len);
        let len = usize::try_from(len).map_err(io::Error::other)?;
        discard(&self.stored(offset, len)?)
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        Ok(match &self.granules {
            Some(granules) => granules.extent(offset, len),
            None => Extent { mapped: true, len },
        })
    }

    fn has_volatile_cache(&self) -> bool {
        false
    }
}
