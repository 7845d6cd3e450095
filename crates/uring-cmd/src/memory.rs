//! Memory that is lent to the kernel: pages of their own, with a guard on either side.
//!
//! Tests of a driver lie about lengths and pass bad addresses. The guards make that safe: an access
//! that starts in a [`Buffer`] and runs past its pages faults before it meets other memory, and the
//! bad addresses of [`Pointer`] never belong to anyone.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

use rustix::{
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap},
    param::page_size,
};

use crate::{Region, Slice};

/// Zeroed pages between two inaccessible ones, and a window into them that a command uses.
///
/// The window is what [`Deref`] gives; the slack around it is in [`Buffer::pages`], for canaries.
pub struct Buffer {
    /// First byte of the accessible pages; the page before and the page after them are guards.
    pages: NonNull<u8>,
    pages_len: usize,
    /// Where the window starts in the pages.
    offset: usize,
    len: usize,
}

// SAFETY: a buffer owns its mapping as a `Vec` owns its allocation; nothing is tied to a thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer only gives shared slices.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zero bytes that start at a page boundary.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        Self::at_offset(0, len)
    }

    /// `len` zero bytes that start `offset` bytes after a page boundary, to choose an alignment.
    pub fn at_offset(offset: usize, len: usize) -> io::Result<Self> {
        let page = page_size();
        let pages_len = offset
            .checked_add(len)
            .and_then(|end| end.max(1).checked_next_multiple_of(page))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let map_len = pages_len.checked_add(2 * page).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice harms nobody.
        let map = unsafe {
            mmap_anonymous(ptr::null_mut(), map_len, ProtFlags::empty(), MapFlags::PRIVATE)?
        };
        // SAFETY: the mapping is `map_len` > `page` bytes long and an address of it is never null.
        let pages = unsafe { NonNull::new_unchecked(map.cast::<u8>().add(page)) };
        let buffer = Buffer { pages, pages_len, offset, len };
        // SAFETY: these pages are inside the new mapping, to which nothing refers yet.
        unsafe {
            mprotect(
                buffer.pages.as_ptr().cast(),
                pages_len,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )?;
        }
        Ok(buffer)
    }

    /// A copy of `bytes` that starts at a page boundary.
    pub fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut buffer = Self::zeroed(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(buffer)
    }

    /// All accessible bytes, the window and the slack before and after it.
    pub fn pages(&self) -> &[u8] {
        // SAFETY: the pages are mapped readable, initialised by the kernel, and owned by `self`.
        unsafe { slice::from_raw_parts(self.pages.as_ptr(), self.pages_len) }
    }

    /// All accessible bytes, to fill with a pattern.
    pub fn pages_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `pages`, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.pages.as_ptr(), self.pages_len) }
    }

    /// Address of the window. Taken mutably, because the kernel may be told to write there.
    #[inline]
    pub fn address(&mut self) -> u64 {
        self.as_mut_ptr().expose_provenance() as u64
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages()[self.offset..][..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (offset, len) = (self.offset, self.len);
        &mut self.pages_mut()[offset..][..len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let page = page_size();
        // SAFETY: the mapping runs from one page before `pages` to one page after them, and with
        // `self` the last reference to it ends.
        let unmapped =
            unsafe { munmap(self.pages.as_ptr().sub(page).cast(), self.pages_len + 2 * page) };
        unmapped.expect("a buffer's own mapping can be unmapped");
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("offset", &self.offset).field("len", &self.len).finish()
    }
}

/// What a pointer field of a command holds: memory of the command's own, or an address at which this
/// process can have no memory.
///
/// That is all a field can hold, so that code without `unsafe` can say anything of lengths, flags and indices, and
/// the kernel still meets nobody's memory but what was given to it.
#[derive(Debug, Default)]
pub enum Pointer {
    /// Address 0.
    #[default]
    Null,
    /// An address of user space where nothing is mapped: the second page, below `mmap_min_addr`.
    Unmapped,
    /// An address of the kernel's half.
    Kernel,
    /// The last page of all addresses: a longer length wraps around.
    Top,
    /// The window of a buffer. The length told to the kernel may differ from the window's.
    To(Buffer),
    /// So many bytes behind the beginning of that window, or right behind its end.
    Into(Buffer, usize),
    /// A place in a region, or right behind it, by its offset. The length told to the kernel may go past its end.
    In(Arc<Region>, usize),
    /// Any number, which the kernel looks up in the table of registered buffers and nowhere else: the address in a
    /// region, or an offset in a buffer that a driver has registered. Only where a command says so with
    /// [`crate::sqe::CMD_FIXED`].
    Fixed(u64),
}

impl Pointer {
    /// The number that goes into the field.
    ///
    /// # Panics
    /// If it is [`Pointer::Fixed`], which is no address, or an offset is behind its memory.
    pub fn address(&mut self) -> u64 {
        match self {
            Pointer::Null => 0,
            Pointer::Unmapped => 0x1000,
            Pointer::Kernel => 0xffff_8000_0000_0000,
            Pointer::Top => 0xffff_ffff_ffff_f000,
            Pointer::To(buffer) => buffer.address(),
            Pointer::Into(buffer, offset) => {
                assert!(*offset <= buffer.len(), "{offset} is behind the buffer");
                buffer.address() + u64::try_from(*offset).expect("an address has 64 bits")
            }
            Pointer::In(region, offset) => {
                assert!(*offset <= region.len(), "{offset} is behind the region");
                region.address() + u64::try_from(*offset).expect("an address has 64 bits")
            }
            Pointer::Fixed(at) => panic!("{at:#x} is a place in a registered buffer, no address"),
        }
    }

    /// The buffer pointed to.
    pub fn buffer(&self) -> Option<&Buffer> {
        match self {
            Pointer::To(buffer) | Pointer::Into(buffer, _) => Some(buffer),
            Pointer::Null
            | Pointer::Unmapped
            | Pointer::Kernel
            | Pointer::Top
            | Pointer::In(..)
            | Pointer::Fixed(_) => None,
        }
    }

    /// Gives the buffer back.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Pointer::To(buffer) | Pointer::Into(buffer, _) => Some(buffer),
            Pointer::Null
            | Pointer::Unmapped
            | Pointer::Kernel
            | Pointer::Top
            | Pointer::In(..)
            | Pointer::Fixed(_) => None,
        }
    }
}

impl From<&Slice> for Pointer {
    fn from(slice: &Slice) -> Self {
        Pointer::In(slice.region.clone(), slice.offset)
    }
}

impl From<Buffer> for Pointer {
    fn from(buffer: Buffer) -> Self {
        Pointer::To(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lies_where_it_was_asked_for() {
        let mut buffer = Buffer::at_offset(3, 5000).expect("two pages of memory");
        assert_eq!(buffer.len(), 5000);
        assert_eq!(buffer.pages().len(), 8192);
        assert_eq!(buffer.address() % 4096, 3);
        buffer.fill(0xaa);
        assert_eq!(buffer.pages()[2..4], [0, 0xaa]);
        assert_eq!(buffer.pages()[5002..5004], [0xaa, 0]);
    }

    #[test]
    fn a_place_in_a_window_is_behind_its_beginning() {
        let mut buffer = Buffer::at_offset(3, 5000).expect("two pages of memory");
        let address = buffer.address();
        let mut pointer = Pointer::Into(buffer, 4096);
        assert_eq!(pointer.address(), address + 4096);
        assert_eq!(pointer.into_buffer().expect("the buffer").len(), 5000);
    }

    #[test]
    fn an_empty_window_still_has_an_address() {
        let mut buffer = Buffer::zeroed(0).expect("a page of memory");
        assert!(buffer.is_empty());
        assert_ne!(buffer.address(), 0);
    }

    #[test]
    fn the_pages_around_a_buffer_are_out_of_reach() {
        let mut buffer = Buffer::zeroed(4096).expect("a page of memory");
        let first = buffer.address();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps are readable");
        let access = |address: u64| {
            maps.lines().find_map(|line| {
                let (range, rest) = line.split_once(' ')?;
                let (start, end) = range.split_once('-')?;
                let parse = |text| u64::from_str_radix(text, 16).expect("maps hold hex");
                (parse(start)..parse(end)).contains(&address).then(|| rest[..4].to_owned())
            })
        };
        assert_eq!(access(first).as_deref(), Some("rw-p"));
        assert_eq!(access(first - 1).as_deref(), Some("---p"));
        assert_eq!(access(first + 4096).as_deref(), Some("---p"));
    }
}
