//! What can be done to pages of memory, and the standard library knows nothing of: `madvise`, `mincore`.

use std::io;

use vm_memory::VolatileSlice;

/// Makes anonymous private memory read as zeros, and frees its pages. The slice begins at a page; its
/// last page counts as whole.
pub(super) fn discard(slice: &VolatileSlice<'_>) -> io::Result<()> {
    let guard = slice.ptr_guard_mut();
    // SAFETY: the slice's lifetime keeps its memory mapped and the guard, alive until the end of this
    // function, accessible. The caller owns that memory as an anonymous private mapping of its own, so
    // that its pages come back as zeros and nobody else loses any; it is volatile memory, to which no
    // reference exists.
    let result = unsafe { libc::madvise(guard.as_ptr().cast(), slice.len(), libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The shortest page there is, in bytes.
const PAGE_LEN_MIN: usize = 4096;

/// Whether all pages of memory can be read without waiting: those of a file, whether they are in the page
/// cache, where a hole of a tmpfs is not. The slice begins at a page and is of [`RESIDENT_LEN_MAX`] bytes at
/// most.
pub(super) fn are_resident(slice: &VolatileSlice<'_>) -> io::Result<bool> {
    let mut pages = [0_u8; RESIDENT_LEN_MAX / PAGE_LEN_MIN];
    assert!(slice.len() <= RESIDENT_LEN_MAX);
    let guard = slice.ptr_guard();
    // SAFETY: the slice's lifetime keeps its memory mapped, and the guard accessible. mincore(2) writes a byte
    // for each page, and there is room for those of the longest slice.
    let result =
        unsafe { libc::mincore(guard.as_ptr().cast_mut().cast(), slice.len(), pages.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages[..slice.len().div_ceil(PAGE_LEN_MIN)].iter().all(|page| page & 1 == 1))
}

/// See [`are_resident`].
pub(super) const RESIDENT_LEN_MAX: usize = 64 << 10;
