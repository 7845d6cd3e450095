//! `preadv2` and `pwritev` between a file and volatile memory.
//!
//! The standard library's vectored I/O wants references to memory, which must not change behind
//! their back; a guest's memory does. So the system call gets raw pointers.

use std::{fs::File, io, os::fd::AsRawFd};

use vm_memory::VolatileSlice;

use super::MediumError;

/// Pieces in one system call; Linux takes at most 1024 (UIO_MAXIOV).
const IOV_MAX: usize = 1024;

/// What a system call does.
#[derive(Clone, Copy)]
enum Direction {
    Read,
    /// Reads what can be had without waiting.
    ReadCached,
    Write,
}

pub(super) fn read_at(
    file: &File,
    offset: u64,
    into: &[VolatileSlice<'_>],
    len: u64,
) -> Result<(), MediumError> {
    transfer(file, offset, into, len, Direction::Read)
}

/// Reads these bytes if all of them are in the page cache. If not, or if the file system cannot tell, some may
/// have been read.
pub(super) fn read_cached_at(
    file: &File,
    offset: u64,
    into: &[VolatileSlice<'_>],
    len: u64,
) -> bool {
    call(file, offset, into, 0, len, Direction::ReadCached).is_ok_and(|moved| moved == len)
}

pub(super) fn write_at(
    file: &File,
    offset: u64,
    from: &[VolatileSlice<'_>],
    len: u64,
) -> Result<(), MediumError> {
    transfer(file, offset, from, len, Direction::Write)
}

/// Moves `len` bytes, in as many calls as it takes: a call may move less than asked for.
fn transfer(
    file: &File,
    offset: u64,
    slices: &[VolatileSlice<'_>],
    len: u64,
    direction: Direction,
) -> Result<(), MediumError> {
    let mut done = 0;
    while done < len {
        let moved = offset
            .checked_add(done)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
            .and_then(|at| call(file, at, slices, done, len - done, direction));
        match moved {
            Ok(0) => {
                // The file was made long enough once; somebody has cut it, or the device is full.
                let source = match direction {
                    Direction::Read | Direction::ReadCached => io::ErrorKind::UnexpectedEof.into(),
                    Direction::Write => io::ErrorKind::WriteZero.into(),
                };
                return Err(MediumError { done, source });
            }
            Ok(count) => done += count,
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(MediumError { done, source }),
        }
    }
    Ok(())
}

/// One system call: at most `len` bytes at file offset `at`, beginning `skip` bytes into `slices`.
fn call(
    file: &File,
    at: u64,
    slices: &[VolatileSlice<'_>],
    mut skip: u64,
    len: u64,
    direction: Direction,
) -> io::Result<u64> {
    let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
    let mut guards = Vec::with_capacity(slices.len().min(IOV_MAX));
    let mut iovecs = Vec::with_capacity(slices.len().min(IOV_MAX));
    let mut rest = len;
    for slice in slices {
        let slice_len = slice.len() as u64;
        if skip >= slice_len {
            skip -= slice_len;
            continue;
        }
        if rest == 0 || iovecs.len() == IOV_MAX {
            break;
        }
        // `skip` and `rest` fit: both are below the length of the slice where they are used.
        let start = usize::try_from(skip).map_err(io::Error::other)?;
        let count = usize::try_from(rest.min(slice_len - skip)).map_err(io::Error::other)?;
        skip = 0;
        let guard = slice.subslice(start, count).map_err(io::Error::other)?.ptr_guard_mut();
        iovecs.push(libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: count });
        guards.push(guard);
        rest -= count as u64;
    }
    let iov_count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    // SAFETY: every iovec lies within a VolatileSlice, whose memory its lifetime keeps mapped and
    // its guard, alive until the end of this function, keeps accessible. The kernel copies as another
    // device would; no reference to that memory exists.
    let moved = unsafe {
        let (fd, iovecs) = (file.as_raw_fd(), iovecs.as_ptr());
        match direction {
            Direction::Read => libc::preadv(fd, iovecs, iov_count, at),
            Direction::ReadCached => libc::preadv2(fd, iovecs, iov_count, at, libc::RWF_NOWAIT),
            Direction::Write => libc::pwritev(fd, iovecs, iov_count, at),
        }
    };
    drop(guards);
    u64::try_from(moved).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Every beginning and length within ten bytes in five pieces, as after calls that moved less
    /// than asked for: exactly those bytes move, to and from exactly their place.
    #[test]
    fn a_transfer_resumes_and_ends_anywhere() {
        let file = tempfile::tempfile().expect("temporary file");
        for skip in 0..10usize {
            for len in 1..=10 - skip {
                file.set_len(0)
                    .and_then(|()| file.write_all_at(b"..abcdefghij", 0))
                    .expect("written");
                let mut memory = *b"0123456789";
                let moved = on_pieces(&mut memory, |slices| {
                    call(&file, 2, slices, skip as u64, len as u64, Direction::Read)
                });
                let mut expected = *b"0123456789";
                expected[skip..skip + len].copy_from_slice(&b"abcdefghij"[..len]);
                assert_eq!((moved, memory), (len as u64, expected), "read {len} from {skip}");

                let moved = on_pieces(&mut memory, |slices| {
                    call(&file, 1, slices, skip as u64, len as u64, Direction::Write)
                });
                let mut stored = [0; 12];
                file.read_exact_at(&mut stored, 0).expect("read");
                let mut expected = *b"..abcdefghij";
                expected[1..=len].copy_from_slice(&b"abcdefghij"[..len]);
                assert_eq!((moved, stored), (len as u64, expected), "write {len} from {skip}");
            }
        }
    }

    fn on_pieces(
        memory: &mut [u8; 10],
        call: impl FnOnce(&[VolatileSlice<'_>]) -> io::Result<u64>,
    ) -> u64 {
        let whole = VolatileSlice::from(&mut memory[..]);
        let pieces = [(0, 3), (3, 0), (3, 1), (4, 4), (8, 2)];
        let slices = pieces.map(|(at, len)| whole.subslice(at, len).expect("within"));
        call(&slices).expect("moved")
    }
}
