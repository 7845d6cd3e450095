//! Where the blocks of a logical unit are kept.
//!
//! A medium is shared by all queue workers and takes no lock while it copies: SAM leaves the order of
//! overlapping SIMPLE tasks open, so readers and writers of the same blocks may see them mixed.

mod file;
mod ram;
mod vectored;

use std::{fmt, io};

use vm_memory::VolatileSlice;

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

/// Blocks seen as bytes. Callers stay within the length the medium was made with, and within the
/// length of the slices.
pub trait Medium: fmt::Debug + Send + Sync {
    /// Copies `len` bytes from `offset` to the beginning of `into`.
    ///
    /// # Errors
    /// The medium failed; what it has moved is in the error.
    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>], len: u64)
    -> Result<(), MediumError>;

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

    /// Makes durable what has been written.
    ///
    /// # Errors
    /// It may not be durable.
    fn flush(&self) -> io::Result<()>;

    /// Whether written data may be lost before [`Self::flush`]: WCE, and what FUA must get past.
    fn has_volatile_cache(&self) -> bool;
}

/// Stands between single commands and the medium of their unit, for whoever runs the command.
pub trait MediumLayer: fmt::Debug + Sync {
    /// The medium as the command sees it.
    fn over<'a>(&'a self, medium: &'a dyn Medium) -> Box<dyn Medium + 'a>;
}
