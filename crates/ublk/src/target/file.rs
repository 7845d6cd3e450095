//! A medium that is a file, or another block device.

use std::{fs::File, sync::Arc};

use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync},
    io::{Errno, pread, pwrite},
};

use super::{Op, Place, Request, Target};

/// A file, from its beginning. Data of reads and writes is moved by the queue's own ring; the rest is done at once.
#[derive(Debug)]
pub struct FileTarget {
    file: Arc<File>,
}

impl FileTarget {
    /// The medium is this file, which is as long as the device.
    pub fn new(file: File) -> Self {
        FileTarget { file: Arc::new(file) }
    }
}

/// Moves all of a request, piece by piece, or as much as there is.
fn whole(
    len: usize,
    mut piece: impl FnMut(usize) -> rustix::io::Result<usize>,
) -> Result<u32, Errno> {
    let mut done = 0;
    while done < len {
        match piece(done) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(u32::try_from(done).unwrap_or(u32::MAX))
}

impl Target for FileTarget {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        let start = request.start_byte()?;
        let all = u32::try_from(request.len_bytes()).unwrap_or(u32::MAX);
        let at = |done: usize| start + done as u64;
        match request.op {
            Op::Read => {
                let len = request.data.len();
                whole(len, |done| pread(&self.file, &mut request.data[done..], at(done)))
            }
            Op::Write => {
                let len = request.data.len();
                whole(len, |done| pwrite(&self.file, &request.data[done..], at(done)))
            }
            Op::Flush => fdatasync(&self.file).map(|()| 0),
            Op::Discard | Op::WriteZeroes => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, flags, start, request.len_bytes()).map(|()| all)
            }
            Op::ZoneAppend | Op::ReportZones | Op::Zone(_) | Op::Other(_) => Err(Errno::NOTSUP),
        }
    }

    fn place(&self, request: &Request<'_>) -> Option<Place> {
        if !matches!(request.op, Op::Read | Op::Write) {
            return None;
        }
        Some(Place { file: self.file.clone(), offset: request.start_byte().ok()? })
    }
}
