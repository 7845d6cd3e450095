//! Where the blocks of a logical unit are kept.
//!
//! A medium is shared by all queue workers and takes no lock while it copies: SAM leaves the order of
//! overlapping SIMPLE tasks open, so readers and writers of the same blocks may see them mixed.

mod bus_error;
mod faulty;
mod file;
mod granules;
mod mapped;
mod pages;
mod ram;
mod vectored;

use std::{fmt, fs::File, io, sync::Arc};

use vm_memory::VolatileSlice;

pub(crate) use faulty::{FaultyMedium, StaleWrites};
pub use file::FileMedium;
pub use ram::RamMedium;

/// A transfer that stopped early.
#[derive(Debug)]
pub struct MediumError {
    /// Bytes moved before the failure; the byte behind them is the first bad one.
    pub done: u64,
    /// What the system said.
    pub source: io::Error,
}

/// Something to be done to a file that takes its time, and that somebody else may wait for.
#[derive(Clone, Debug)]
pub struct FileWait {
    /// The file.
    pub file: Arc<File>,
    /// What is to be done.
    pub operation: FileOperation,
}

/// See [`FileWait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// To read so many bytes from an offset to the beginning of the buffers.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// To make durable what has been written.
    SyncData,
}

/// What is mapped and unmapped at once, in bytes.
pub const GRANULE: u64 = 4096;

/// Bytes that are all mapped, or none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Whether they are mapped. What is not reads as zeros.
    pub mapped: bool,
    /// How many.
    pub len: u64,
}

/// Blocks seen as bytes. Callers stay within the length the medium was made with or has made room for,
/// and within the length of the slices.
pub trait Medium: fmt::Debug + Send + Sync {
    /// Copies `len` bytes from `offset` to the beginning of `into`.
    ///
    /// # Errors
    /// The medium failed; what it has moved is in the error.
    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>], len: u64)
    -> Result<(), MediumError>;

    /// As [`Self::read_at`], but what would have to be waited for is left to the caller, and the beginning of
    /// `into` in any state.
    ///
    /// # Errors
    /// As those of [`Self::read_at`].
    fn begin_read_at(
        &self,
        offset: u64,
        into: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<Option<FileWait>, MediumError> {
        self.read_at(offset, into, len).map(|()| None)
    }

    /// Copies `len` bytes from the beginning of `from` to `offset`.
    ///
    /// # Errors
    /// The medium failed; what it has moved is in the error.
    fn write_at(
        &self,
        offset: u64,
        from: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError>;

    /// Makes room for `len` bytes in all. What is there stays; what is new reads as zeros, unless the
    /// medium was as large before.
    ///
    /// # Errors
    /// There is no such room; nothing has changed then.
    fn make_room(&self, len: u64) -> io::Result<()>;

    /// Makes durable what has been written.
    ///
    /// # Errors
    /// It may not be durable.
    fn flush(&self) -> io::Result<()>;

    /// As [`Self::flush`], but what would have to be waited for is left to the caller.
    ///
    /// # Errors
    /// As those of [`Self::flush`].
    fn begin_flush(&self) -> io::Result<Option<FileWait>> {
        self.flush().map(|()| None)
    }

    /// Looks whether these bytes can be read, without moving them.
    ///
    /// # Errors
    /// The medium failed at the byte behind those that are done.
    fn verify(&self, offset: u64, len: u64) -> Result<(), MediumError>;

    /// Fetches these bytes from where they are slow to where they are not, or does not: it is a wish. Where
    /// all are equally near there is nothing to do.
    fn fetch_ahead(&self, offset: u64, len: u64) {
        let _nothing_to_fetch = (offset, len);
    }

    /// Unmaps whole granules of a thinly provisioned unit: they read as zeros from now on, and take no
    /// space where the system can do without. Both numbers are multiples of [`GRANULE`], or end with the
    /// medium. Nobody writes there meanwhile.
    ///
    /// # Errors
    /// The granules may be unmapped or as they were.
    fn unmap(&self, offset: u64, len: u64) -> io::Result<()>;

    /// What the bytes from `offset` are, in a thinly provisioned unit, and for how many of the next
    /// `len` bytes that holds.
    ///
    /// # Errors
    /// The medium does not tell.
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent>;

    /// Whether written data may be lost before [`Self::flush`]: WCE, and what FUA must get past.
    fn has_volatile_cache(&self) -> bool;
}
