//! A medium of memory.

use std::{
    fmt,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{Op, Request, Target};
use crate::uapi::{ParamIntegrity, SECTOR_LEN};

/// A medium of memory. Discarded and write-zeroed ranges read as zeroes.
pub struct RamTarget {
    bytes: Mutex<Vec<u8>>,
    metadata: Mutex<Vec<u8>>,
    /// Bytes of data with metadata of their own, and bytes of that.
    interval: (u64, u64),
}

impl RamTarget {
    /// `sectors` sectors of zeroes.
    ///
    /// # Panics
    /// If the medium does not fit into the address space.
    pub fn new(sectors: u64) -> Self {
        Self::of(sectors, (SECTOR_LEN.into(), 0))
    }

    /// The same with metadata of this shape, which is FFh where nothing is written: that is protection information which
    /// nobody checks (SBC-4, Protection information; NVM Command Set Specification, End-to-end data protection).
    ///
    /// # Panics
    /// If the medium does not fit into the address space.
    pub fn with_metadata(sectors: u64, shape: &ParamIntegrity) -> Self {
        Self::of(sectors, (1 << shape.interval_exp, shape.metadata_size.into()))
    }

    fn of(sectors: u64, interval: (u64, u64)) -> Self {
        let len = sectors * u64::from(SECTOR_LEN);
        let bytes = |len| usize::try_from(len).expect("a medium fits in memory");
        let metadata = vec![0xff; bytes(len / interval.0 * interval.1)];
        let bytes = vec![0; bytes(len)];
        RamTarget { bytes: Mutex::new(bytes), metadata: Mutex::new(metadata), interval }
    }

    /// The medium, to look behind the block layer's back.
    pub fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its metadata, likewise.
    pub fn metadata(&self) -> MutexGuard<'_, Vec<u8>> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does with the metadata of these bytes what the request does with them.
    fn handle_metadata(&self, request: &mut Request<'_>, bytes: &Range<usize>) -> Option<()> {
        let (len, size) = self.interval;
        let place = |at: usize| usize::try_from(u64::try_from(at).ok()? / len * size).ok();
        let mut metadata = self.metadata();
        let medium = metadata.get_mut(place(bytes.start)?..place(bytes.end)?)?;
        match request.op {
            // Who brings no metadata along has protected nothing.
            Op::Write if request.metadata.is_empty() => medium.fill(0xff),
            Op::Write => medium.copy_from_slice(request.metadata),
            Op::Read if request.metadata.is_empty() => {}
            Op::Read => request.metadata.copy_from_slice(medium),
            _ => medium.fill(0xff),
        }
        Some(())
    }
}

impl fmt::Debug for RamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamTarget").field("len", &self.bytes().len()).finish()
    }
}

impl Target for RamTarget {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        if request.op == Op::Flush {
            return Ok(0);
        }
        let mut bytes = self.bytes();
        let range = request
            .start_sector
            .checked_mul(SECTOR_LEN.into())
            .and_then(|start| Some((start, start.checked_add(request.len_bytes())?)))
            .and_then(|(start, end)| {
                Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
            });
        let range = range.ok_or(Errno::IO)?;
        let medium = bytes.get_mut(range.clone()).ok_or(Errno::IO)?;
        match request.op {
            Op::Read => request.data.copy_from_slice(medium),
            Op::Write => medium.copy_from_slice(request.data),
            Op::Discard | Op::WriteZeroes => medium.fill(0),
            _ => return Err(Errno::NOTSUP),
        }
        if self.interval.1 > 0 {
            self.handle_metadata(request, &range).ok_or(Errno::IO)?;
        }
        // The result field has 31 bits for a length; a longer discard counts as done with any.
        Ok(u32::try_from(request.len_bytes()).unwrap_or(u32::MAX))
    }
}
