//! A medium in a file.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Seek},
    num::NonZeroU64,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{
        Advice, FallocateFlags, OFlags, SeekFrom, fadvise, fallocate, fcntl_getfl, fcntl_setfl,
        seek,
    },
    io::Errno,
    process::geteuid,
};
use vm_memory::VolatileSlice;

use super::{Extent, FileOperation, FileWait, Medium, MediumError, mapped::Mapped, vectored};

/// How much of a file is looked at in one go.
const VERIFY_LEN: usize = 128 << 10;

/// A regular file or a block device. Data moves between the page cache and the buffers without a
/// copy of ours in between.
#[derive(Debug)]
pub struct FileMedium {
    file: Arc<File>,
    /// How a regular file is read that keeps its blocks.
    mapped: Option<Mapped>,
}

impl FileMedium {
    /// Opens the file for `len` bytes: created if absent, extended sparsely if too short. With
    /// `read_only` an existing file that is long enough is not opened for writing. `thin`: its blocks
    /// will be unmapped.
    ///
    /// # Errors
    /// The file cannot be opened, created or extended, or is neither a regular file nor a block
    /// device.
    pub fn open(path: &Path, len: u64, read_only: bool, thin: bool) -> io::Result<Self> {
        let file = Arc::new(Self::open_file(path, len, read_only)?);
        // It is no pipe. An io_uring would take the flag for a wish not to be waited for.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        let metadata = file.metadata()?;
        let maps = !thin && metadata.is_file() && tells_what_is_resident(&file, &metadata)?;
        let mapped = if maps { Mapped::new(&file, len) } else { None };
        Ok(FileMedium { file, mapped })
    }

    #[cfg(test)]
    pub(super) fn mapped(&self) -> Option<&Mapped> {
        self.mapped.as_ref()
    }

    /// Reads what is in the page cache; whether all of it was.
    fn read_cached(&self, offset: u64, into: &[VolatileSlice<'_>], len: u64) -> bool {
        if self.mapped.as_ref().is_some_and(|mapped| mapped.read(offset, into, len)) {
            return true;
        }
        let read = vectored::read_cached_at(&self.file, offset, into, len);
        if let (true, Some(mapped)) = (read, &self.mapped) {
            mapped.has_read(offset, len);
        }
        read
    }

    fn wait_for(&self, operation: FileOperation) -> FileWait {
        FileWait { file: Arc::clone(&self.file), operation }
    }

    fn open_file(path: &Path, len: u64, read_only: bool) -> io::Result<File> {
        if read_only {
            match options().open(path) {
                Ok(file) if stored_len(&file)? >= len => return Ok(file),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let file = options().write(true).create(true).truncate(false).open(path)?;
        if stored_len(&file)? < len {
            file.set_len(len)?;
        }
        Ok(file)
    }
}

/// Whether mincore(2) tells the truth of a file. Of one that the user neither owns nor may write it says that
/// all is resident (mm/mincore.c:can_do_mincore), and reading would fill the holes of a tmpfs.
fn tells_what_is_resident(file: &File, metadata: &Metadata) -> io::Result<bool> {
    let is_writable = fcntl_getfl(file)?.contains(OFlags::RDWR);
    Ok(is_writable || metadata.uid() == geteuid().as_raw())
}

/// Opening a pipe must not wait for its other end; files and disks do not care.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options
}

fn stored_len(mut file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else if metadata.file_type().is_block_device() {
        file.seek(io::SeekFrom::End(0))
    } else {
        let message = "neither a regular file nor a block device";
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

impl Medium for FileMedium {
    fn read_at(
        &self,
        offset: u64,
        into: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        let Some(mapped) = &self.mapped else {
            return vectored::read_at(&self.file, offset, into, len);
        };
        if !mapped.read(offset, into, len) {
            vectored::read_at(&self.file, offset, into, len)?;
            mapped.has_read(offset, len);
        }
        Ok(())
    }

    fn begin_read_at(
        &self,
        offset: u64,
        into: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<Option<FileWait>, MediumError> {
        let cached = self.read_cached(offset, into, len);
        Ok((!cached).then(|| self.wait_for(FileOperation::Read { offset, len })))
    }

    fn write_at(
        &self,
        offset: u64,
        from: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        vectored::write_at(&self.file, offset, from, len)
    }

    fn make_room(&self, len: u64) -> io::Result<()> {
        if stored_len(&self.file)? < len { self.file.set_len(len) } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn begin_flush(&self) -> io::Result<Option<FileWait>> {
        Ok(Some(self.wait_for(FileOperation::SyncData)))
    }

    fn verify(&self, offset: u64, len: u64) -> Result<(), MediumError> {
        let mut buffer = vec![0; VERIFY_LEN];
        let mut done = 0;
        while done < len {
            let failed = |source| MediumError { done, source };
            let extent = self.extent(offset + done, len - done).map_err(failed)?;
            let count = extent.len.min(VERIFY_LEN as u64);
            if extent.mapped {
                let slices = [VolatileSlice::from(&mut buffer[..])];
                self.read_at(offset + done, &slices, count)
                    .map_err(|error| MediumError { done: done + error.done, ..error })?;
                done += count;
            } else {
                done += extent.len;
            }
        }
        Ok(())
    }

    fn fetch_ahead(&self, offset: u64, len: u64) {
        let Some(len) = NonZeroU64::new(len) else { return };
        if let Err(error) = fadvise(&self.file, offset, Some(len), Advice::WillNeed) {
            tracing::debug!(%error, "the file is not read ahead");
        }
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, len)?)
    }

    /// What is a hole in the file.
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let find = |what| match seek(&self.file, what) {
            Ok(at) => Ok(Some(at)),
            // Nothing of it up to the end of the file.
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        };
        let data = find(SeekFrom::Data(offset))?;
        let (mapped, end) = match data {
            Some(data) if data <= offset => (true, find(SeekFrom::Hole(offset))?),
            data => (false, data),
        };
        // Somebody else may change the file between the two questions: there is always some progress.
        let len = end.map_or(len, |end| len.min(end.saturating_sub(offset).max(1)));
        Ok(Extent { mapped, len })
    }

    fn has_volatile_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
