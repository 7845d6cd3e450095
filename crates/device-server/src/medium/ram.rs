//! A medium in anonymous memory.

use std::io;

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::{Medium, MediumError};

/// Zeroed memory; pages are taken from the system when first written.
#[derive(Debug)]
pub struct RamMedium {
    region: MmapRegion,
}

impl RamMedium {
    /// A medium of `len` bytes.
    ///
    /// # Errors
    /// The system has no address space for it.
    pub fn new(len: usize) -> Result<Self, vm_memory::mmap::MmapRegionError> {
        Ok(RamMedium { region: MmapRegion::new(len)? })
    }

    /// Walks `len` bytes of the region from `offset` and the slices side by side.
    fn copy(
        &self,
        offset: u64,
        slices: &[VolatileSlice<'_>],
        len: u64,
        copy: impl Fn(&VolatileSlice<'_>, &VolatileSlice<'_>),
    ) -> Result<(), MediumError> {
        let mut done = 0;
        for slice in slices {
            let count = usize::try_from(len - done).unwrap_or(usize::MAX).min(slice.len());
            if count == 0 {
                continue;
            }
            let stored = usize::try_from(offset + done)
                .map_err(io::Error::other)
                .and_then(|start| self.region.get_slice(start, count).map_err(io::Error::other))
                .map_err(|source| MediumError { done, source })?;
            let piece = slice
                .subslice(0, count)
                .map_err(|source| MediumError { done, source: io::Error::other(source) })?;
            copy(&stored, &piece);
            done += count as u64;
        }
        Ok(())
    }
}

impl Medium for RamMedium {
    fn read_at(
        &self,
        offset: u64,
        into: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        self.copy(offset, into, len, |stored, piece| stored.copy_to_volatile_slice(*piece))
    }

    fn write_at(
        &self,
        offset: u64,
        from: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        self.copy(offset, from, len, |stored, piece| piece.copy_to_volatile_slice(*stored))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn has_volatile_cache(&self) -> bool {
        false
    }
}
