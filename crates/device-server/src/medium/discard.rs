//! Gives memory back to the system: `madvise`, of which the standard library knows nothing.

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
