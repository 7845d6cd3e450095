//! Memory that stays ours while the kernel has it: it is never lent as a slice, only copied from and to.
//!
//! What is registered with a ring, and what is taken away while a command is in flight, is used by the kernel at
//! times nobody here can know. A [`Region`] therefore gives no references, and keeps its addresses reserved as long
//! as it lives, whatever is done to its pages: no other memory can come to lie there.

use std::{
    fmt, io,
    ops::Range,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{
        Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
    },
    param::page_size,
};

/// Length of a huge page of x86-64 and of arm64 with small base pages.
pub const HUGE_PAGE: usize = 2 << 20;

/// What can be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Writable,
    ReadOnly,
    /// Nothing is there.
    Hole,
}

/// Pages between two inaccessible ones, shared with the kernel.
pub struct Region {
    /// Everything that is reserved, with the guards.
    reserved: NonNull<u8>,
    reserved_len: usize,
    start: NonNull<u8>,
    len: usize,
    page_len: usize,
    /// Also the lock under which we, and not the kernel, touch the bytes.
    pages: Mutex<Vec<Page>>,
}

// SAFETY: a region owns its reservation as a `Vec` owns its allocation; nothing is tied to a thread.
unsafe impl Send for Region {}
// SAFETY: our own accesses are copies under the lock.
unsafe impl Sync for Region {}

impl Region {
    /// At least `len` zero bytes, in whole pages.
    pub fn zeroed(len: usize) -> io::Result<Arc<Self>> {
        let region = Self::reserve(len, page_size())?;
        region.protect_all()?;
        Ok(Arc::new(region))
    }

    /// As [`Region::zeroed`], in huge pages, each of them contiguous. `ENOMEM` if the system has not reserved as
    /// many (`/proc/sys/vm/nr_hugepages`).
    pub fn huge(len: usize) -> io::Result<Arc<Self>> {
        let region = Self::reserve(len, HUGE_PAGE)?;
        // SAFETY: it replaces a part of our own reservation, to which nothing refers yet.
        unsafe {
            mmap_anonymous(
                region.start.as_ptr().cast(),
                region.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::HUGETLB | MapFlags::POPULATE,
            )?;
        }
        Ok(Arc::new(region))
    }

    /// One zeroed page of memory that appears `pages` times in a row. No two neighbours are contiguous in physical
    /// memory, so that a device needs a segment for each.
    pub fn repeated(pages: usize) -> io::Result<Arc<Self>> {
        let page = page_size();
        let region = Self::reserve(pages * page, page)?;
        let file = memfd_create("region", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, u64::try_from(page).expect("a page is short"))?;
        for at in (0..region.len).step_by(page) {
            // SAFETY: it replaces a page of our own reservation, to which nothing refers yet.
            unsafe {
                mmap(
                    region.start.as_ptr().add(at).cast(),
                    page,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED,
                    &file,
                    0,
                )?;
            }
        }
        Ok(Arc::new(region))
    }

    /// Addresses for `len` bytes and a guard on either side, with nothing there yet.
    fn reserve(len: usize, page_len: usize) -> io::Result<Self> {
        let len =
            len.max(1).checked_next_multiple_of(page_len).ok_or(io::ErrorKind::OutOfMemory)?;
        let reserved_len = len.checked_add(3 * page_len).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice harms nobody.
        let reserved = unsafe {
            mmap_anonymous(ptr::null_mut(), reserved_len, ProtFlags::empty(), MapFlags::PRIVATE)?
        };
        let reserved =
            NonNull::new(reserved.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // A page before it at least, and what is left, at least a page, behind it.
        let skip = page_len + reserved.as_ptr().align_offset(page_len);
        // SAFETY: `skip` is less than two of the three pages more than `len`.
        let start = unsafe { reserved.add(skip) };
        let pages = Mutex::new(vec![Page::Writable; len / page_len]);
        Ok(Region { reserved, reserved_len, start, len, page_len, pages })
    }

    fn protect_all(&self) -> io::Result<()> {
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: our own pages, to which nothing refers.
        unsafe { mprotect(self.start.as_ptr().cast(), self.len, access)? };
        Ok(())
    }

    /// Length in bytes, a multiple of the page's.
    #[expect(clippy::len_without_is_empty, reason = "a region has a page at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Address of its first byte.
    pub fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// A part of it for a command.
    ///
    /// # Panics
    /// If it is not inside.
    pub fn slice(self: &Arc<Self>, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        Slice { region: self.clone(), offset: range.start, len: range.len() }
    }

    fn pages(&self) -> MutexGuard<'_, Vec<Page>> {
        // Whoever panicked has copied too little; the states are as they were.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages that hold these bytes.
    fn touched(&self, offset: usize, len: usize) -> Range<usize> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let end = end.unwrap_or_else(|| panic!("{len} bytes at {offset} of {}", self.len));
        offset / self.page_len..end.div_ceil(self.page_len)
    }

    /// Copies bytes out. What a command in flight still writes is there or not yet there.
    ///
    /// # Panics
    /// If they are not all inside, or in a hole.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let touched = self.touched(offset, len);
        let pages = self.pages();
        assert!(!pages[touched].contains(&Page::Hole), "{len} bytes at {offset}: there is a hole");
        let mut bytes = vec![0; len];
        // SAFETY: the bytes are mapped readable, nothing of ours writes them while we have the lock, and nothing
        // has a reference to them.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), bytes.as_mut_ptr(), len);
        }
        bytes
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If they do not all fit, or not all of it can be written.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let touched = self.touched(offset, bytes.len());
        let pages = self.pages();
        let writable = pages[touched].iter().all(|page| *page == Page::Writable);
        assert!(writable, "{} bytes at {offset} cannot be written", bytes.len());
        // SAFETY: the bytes are mapped writable, nothing of ours touches them while we have the lock, and nothing
        // has a reference to them.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len());
        }
    }

    /// Fills all of it.
    pub fn fill(&self, byte: u8) {
        self.write(0, &vec![byte; self.len]);
    }

    fn whole_pages(&self, range: &Range<usize>) -> Range<usize> {
        let whole = |at: usize| at.is_multiple_of(self.page_len) && at <= self.len;
        assert!(range.start < range.end && whole(range.start) && whole(range.end), "{range:?}");
        range.start / self.page_len..range.end / self.page_len
    }

    /// Makes pages read-only, for the kernel's copies too.
    ///
    /// # Panics
    /// If the range is not whole pages of it.
    pub fn make_read_only(&self, range: Range<usize>) -> io::Result<()> {
        let pages = self.whole_pages(&range);
        let mut states = self.pages();
        // SAFETY: our own pages; nothing has a reference to them.
        unsafe {
            let at = self.start.as_ptr().add(range.start).cast();
            mprotect(at, range.len(), MprotectFlags::READ)?;
        }
        states[pages].fill(Page::ReadOnly);
        Ok(())
    }

    /// Takes the pages away. A command that pinned them goes on with them, unseen; one that has to copy from or to
    /// them fails. Their addresses stay reserved.
    ///
    /// # Panics
    /// If the range is not whole pages of it.
    pub fn unmap(&self, range: Range<usize>) -> io::Result<()> {
        let pages = self.whole_pages(&range);
        let mut states = self.pages();
        // SAFETY: it replaces our own pages; nothing has a reference to them.
        unsafe {
            mmap_anonymous(
                self.start.as_ptr().add(range.start).cast(),
                range.len(),
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED,
            )?;
        }
        states[pages].fill(Page::Hole);
        Ok(())
    }

    /// Gives the pages' memory back: they read as zeros. A command that pinned the old ones goes on with them,
    /// unseen.
    ///
    /// # Panics
    /// If the range is not whole pages of it.
    pub fn discard(&self, range: Range<usize>) -> io::Result<()> {
        self.whole_pages(&range);
        let _lock = self.pages();
        // SAFETY: our own pages; nothing has a reference to them.
        unsafe {
            let at = self.start.as_ptr().add(range.start).cast();
            madvise(at, range.len(), Advice::LinuxDontNeed)?;
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours, and with `self` the last reference to it ends.
        let unmapped = unsafe { munmap(self.reserved.as_ptr().cast(), self.reserved_len) };
        unmapped.expect("a region's own reservation can be unmapped");
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A part of a region, for the data of a command.
#[derive(Clone, Debug)]
pub struct Slice {
    pub(crate) region: Arc<Region>,
    pub(crate) offset: usize,
    len: usize,
}

impl Slice {
    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a length for a command, not a container")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// A copy of the bytes.
    ///
    /// # Panics
    /// If there is a hole.
    pub fn read(&self) -> Vec<u8> {
        self.region.read(self.offset, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_whole_pages_that_keep_what_is_written() {
        let region = Region::zeroed(5000).expect("two pages");
        assert_eq!((region.len(), region.address() % 4096), (8192, 0));
        region.write(4090, b"across pages");
        assert_eq!(region.read(4089, 14), b"\0across pages\0");
        assert_eq!(region.slice(4090..4096).read(), b"across");
    }

    #[test]
    fn a_repeated_page_is_everywhere() {
        let region = Region::repeated(3).expect("a page");
        region.write(4096, b"one");
        assert_eq!(region.read(0, 4), b"one\0");
        assert_eq!(region.read(8192, 4), b"one\0");
    }

    #[test]
    fn discarded_pages_are_zeros() {
        let region = Region::zeroed(8192).expect("two pages");
        region.fill(7);
        region.discard(0..4096).expect("discarded");
        assert_eq!(region.read(4095, 2), [0, 7]);
    }

    #[test]
    #[should_panic(expected = "there is a hole")]
    fn a_hole_is_not_read() {
        let region = Region::zeroed(8192).expect("two pages");
        region.unmap(4096..8192).expect("unmapped");
        region.read(4000, 200);
    }

    #[test]
    #[should_panic(expected = "cannot be written")]
    fn a_read_only_page_is_not_written() {
        let region = Region::zeroed(8192).expect("two pages");
        region.make_read_only(0..4096).expect("protected");
        assert_eq!(region.read(0, 1), [0]);
        region.write(4095, &[1, 2]);
    }

    #[test]
    fn the_addresses_of_a_hole_stay_reserved() {
        let region = Region::zeroed(4096).expect("a page");
        region.unmap(0..4096).expect("unmapped");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps are readable");
        let inside = maps.lines().any(|line| {
            let (range, rest) = line.split_once(' ').expect("a range and more");
            let (start, end) = range.split_once('-').expect("a range");
            let parse = |text| u64::from_str_radix(text, 16).expect("maps hold hex");
            (parse(start)..parse(end)).contains(&region.address()) && rest.starts_with("---p")
        });
        assert!(inside, "{:#x} is free for others", region.address());
    }
}
