//! The ring the kernel shares: its two mappings, its indices, its system calls. No notion of ownership.
//!
//! Layout and protocol are those of `include/uapi/linux/io_uring.h` (`struct io_uring_params`) and
//! `io_uring/io_uring.c`: the submission queue is an array of entries behind a table of indices, which here
//! is the identity, or left out where the kernel can do without; each side stores its own index with release and loads the other's with acquire.

use std::{
    fmt, io,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::{
    ffi::c_void,
    io::Errno,
    io_uring::{
        IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringFeatureFlags,
        IoringRegisterOp, IoringSetupFlags, io_uring_enter, io_uring_enter_arg,
        io_uring_getevents_arg, io_uring_params, io_uring_ptr, io_uring_register, io_uring_setup,
    },
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use zerocopy::{FromZeros, IntoBytes};

use crate::{
    entrance::Entrance,
    feature::{PROBE_OPS, Probe},
    shape::{CqeSize, Shape, SqeSize},
    sqe::{CQE_F_32, CQE_F_SKIP, Cqe, OP_NOP, SQE_IO_HARDLINK, SQE_IO_LINK, Sqe},
};

/// `IORING_SQ_NEED_WAKEUP` in the flags of the submission queue: the polling thread sleeps.
const SQ_NEED_WAKEUP: u32 = 1 << 0;

/// `IORING_SETUP_NO_SQARRAY` (Linux 6.6): no table of indices, which would be the identity.
const NO_SQARRAY: u32 = 1 << 16;

/// `IORING_FEAT_NO_IOWAIT` and `IORING_ENTER_NO_IOWAIT` (Linux 6.15).
const FEAT_NO_IOWAIT: u32 = 1 << 17;
const ENTER_NO_IOWAIT: u32 = 1 << 7;

/// `user_data` of entries that only fill the end of a mixed submission queue.
const PADDING: u64 = u64::MAX;

/// Pages the kernel shares with us.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to whoever has it as an allocation to a `Vec`.
unsafe impl Send for Mapping {}
// SAFETY: what is shared gives words that are accessed atomically, and addresses.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, offset: u64, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice harms nobody.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                fd,
                offset,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { start, len })
    }

    /// Address of `len` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not inside: the kernel's own numbers are wrong.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the ring");
        // SAFETY: the bytes are inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        &self.words(offset, 1)[0]
    }

    /// A word that is looked at for every entry.
    fn kept_word(&self, offset: u32) -> KeptWord {
        KeptWord(NonNull::from(self.word(offset)))
    }

    fn words(&self, offset: u32, count: usize) -> &[AtomicU32] {
        assert!(offset.is_multiple_of(4), "between two words");
        let at = self.at(index(offset), 4 * count).cast::<AtomicU32>();
        // SAFETY: inside the mapping, which begins at a page and lives as long as `self`; the kernel accesses its words
        // atomically.
        unsafe { std::slice::from_raw_parts(at, count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and with `self` the last reference to it ends.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        unmapped.expect("a ring's own mapping can be unmapped");
    }
}

/// A word of a mapping, whose place was checked once. Whoever has it has the mapping too.
struct KeptWord(NonNull<AtomicU32>);

impl Deref for KeptWord {
    type Target = AtomicU32;

    #[inline]
    fn deref(&self) -> &AtomicU32 {
        // SAFETY: it lies in a mapping of the ring that this belongs to, which is never given away alone.
        unsafe { self.0.as_ref() }
    }
}

/// The words by which both sides say how far they are (`struct io_sqring_offsets`, `struct io_cqring_offsets`).
struct Indices {
    sq_head: KeptWord,
    sq_tail: KeptWord,
    sq_flags: KeptWord,
    cq_head: KeptWord,
    cq_tail: KeptWord,
}

impl Indices {
    fn of(rings: &Mapping, params: &io_uring_params) -> Self {
        Indices {
            sq_head: rings.kept_word(params.sq_off.head),
            sq_tail: rings.kept_word(params.sq_off.tail),
            sq_flags: rings.kept_word(params.sq_off.flags),
            cq_head: rings.kept_word(params.cq_off.head),
            cq_tail: rings.kept_word(params.cq_off.tail),
        }
    }
}

#[inline]
fn index(number: u32) -> usize {
    usize::try_from(number).expect("an address has 64 bits")
}

/// A word of a submission entry that is written while the kernel may read it. See
/// [`crate::Operation::loose_words`].
pub struct LooseWord {
    entries: Arc<Mapping>,
    offset: u32,
}

impl LooseWord {
    /// Writes the word, whatever the ring has in that place by now.
    pub fn store(&self, value: u32) {
        self.entries.word(self.offset).store(value, Ordering::Relaxed);
    }
}

impl fmt::Debug for LooseWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LooseWord").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// A ring of any shape.
pub(crate) struct KernelRing {
    fd: OwnedFd,
    entrance: Option<Entrance>,
    /// Of each call that waits.
    wait_flags: IoringEnterFlags,
    params: io_uring_params,
    indices: Indices,
    rings: Mapping,
    entries: Arc<Mapping>,
    sqe: SqeSize,
    cqe: CqeSize,
    /// Where the next entry goes; the kernel sees it when it is published.
    tail: u32,
    /// How far the kernel had taken entries when that was last looked at.
    taken: u32,
    /// The next completion.
    next: u32,
    /// How far there were completions when that was last looked at.
    posted: u32,
    /// Link flags of the entry before.
    linked: u8,
}

// SAFETY: the mappings belong to the ring as an allocation to a `Vec`; nothing is tied to a thread. What the
// kernel ties to one (SINGLE_ISSUER) it answers with an error.
unsafe impl Send for KernelRing {}

/// Asks the kernel for a ring; its errno if it refuses.
fn set_up(shape: &Shape) -> io::Result<(OwnedFd, io_uring_params)> {
    let attempt = |flags: u32| {
        let mut params = io_uring_params::default();
        params.flags = IoringSetupFlags::from_bits_retain(shape.flags() | flags);
        params.sq_thread_idle = shape.sqpoll_idle_ms.unwrap_or(0);
        // SAFETY: no flag asks the kernel to use memory of ours for the ring (NO_MMAP).
        let fd = unsafe { io_uring_setup(shape.entries, &mut params) };
        fd.map(|fd| (fd, params))
    };
    match attempt(NO_SQARRAY) {
        // It knows no such flag, or refuses another.
        Err(Errno::INVAL) => Ok(attempt(0)?),
        result => Ok(result?),
    }
}

impl KernelRing {
    /// Sets up a ring; the kernel's errno if it refuses.
    pub(crate) fn new(shape: &Shape) -> io::Result<Self> {
        let (fd, params) = set_up(shape)?;
        // Linux 5.4 and 5.11, long before the first driver of ours.
        let needed = IoringFeatureFlags::SINGLE_MMAP | IoringFeatureFlags::EXT_ARG;
        if !params.features.contains(needed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let cqe_len = if shape.cqe == CqeSize::Bytes32 { 32 } else { 16 };
        let sqe_len = if shape.sqe == SqeSize::Bytes128 { 128 } else { 64 };
        let has_array = params.flags.bits() & NO_SQARRAY == 0;
        let indices = if has_array { params.sq_entries } else { 0 };
        let array_end = index(params.sq_off.array) + 4 * index(indices);
        let cqes_end = index(params.cq_off.cqes) + cqe_len * index(params.cq_entries);
        let rings = Mapping::new(&fd, IORING_OFF_SQ_RING, array_end.max(cqes_end))?;
        let entries = Mapping::new(&fd, IORING_OFF_SQES, sqe_len * index(params.sq_entries))?;
        let entries = Arc::new(entries);
        for slot in 0..indices {
            rings.word(params.sq_off.array + 4 * slot).store(slot, Ordering::Relaxed);
        }
        let (sqe, cqe) = (shape.sqe, shape.cqe);
        Ok(KernelRing {
            fd,
            entrance: None,
            wait_flags: IoringEnterFlags::empty(),
            params,
            indices: Indices::of(&rings, &params),
            rings,
            entries,
            sqe,
            cqe,
            tail: 0,
            taken: 0,
            next: 0,
            posted: 0,
            linked: 0,
        })
    }

    #[inline]
    fn head(&self) -> u32 {
        self.indices.sq_head.load(Ordering::Acquire)
    }

    /// Slots that are pushed and not yet taken by the kernel.
    #[inline]
    fn taken_by_us(&self) -> u32 {
        self.tail.wrapping_sub(self.head())
    }

    /// Whether there is room for any entry.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        // A large one in a mixed queue, and what fills the end before it.
        const MOST: u32 = 3;
        let needed = if self.sqe == SqeSize::Mixed { MOST } else { 1 };
        if self.free() < needed {
            self.taken = self.head();
        }
        self.free() >= needed
    }

    /// Copies an entry into the submission queue, where the kernel does not look before [`Self::publish`];
    /// `false` if there is no room.
    ///
    /// # Safety
    /// The memory the entry refers to stays valid, and out of reach, until its last completion.
    #[inline]
    pub(crate) unsafe fn push(&mut self, sqe: &Sqe) -> bool {
        if self.sqe == SqeSize::Mixed {
            return self.push_mixed(sqe);
        }
        let has_room = self.has_room();
        if has_room {
            self.write(sqe, 1);
        }
        has_room
    }

    /// The same for a ring of entries that take one slot or two.
    fn push_mixed(&mut self, sqe: &Sqe) -> bool {
        let mask = self.params.sq_entries - 1;
        let slots = if sqe.is_wide() { 2 } else { 1 };
        // Both halves of an entry lie side by side (io_uring.c:io_init_req): the last slot cannot begin one.
        let padding = u32::from(slots == 2 && self.tail & mask == mask);
        if self.free() < slots + padding {
            self.taken = self.head();
            if self.free() < slots + padding {
                return false;
            }
        }
        if padding == 1 {
            let nop =
                Sqe { opcode: OP_NOP, flags: self.linked, user_data: PADDING, ..Sqe::zeroed() };
            self.write(&nop, 1);
        }
        self.write(sqe, slots);
        self.linked = sqe.flags & (SQE_IO_LINK | SQE_IO_HARDLINK);
        true
    }

    /// Slots that nobody has, as far as that was looked at.
    #[inline]
    fn free(&self) -> u32 {
        self.params.sq_entries - self.tail.wrapping_sub(self.taken)
    }

    /// Copies an entry to so many slots at the tail.
    #[inline]
    fn write(&mut self, sqe: &Sqe, slots: u32) {
        let slot = self.slot(self.tail);
        self.tail = self.tail.wrapping_add(slots);
        let bytes = sqe.as_bytes();
        match (self.sqe, slots) {
            (SqeSize::Bytes128, _) => {
                // Somebody may have a `LooseWord` there.
                let words = bytes.as_chunks().0;
                let at = self.entries.words(slot, words.len());
                for (word, at) in words.iter().zip(at) {
                    at.store(u32::from_ne_bytes(*word), Ordering::Relaxed);
                }
            }
            (_, 1) => self.copy::<64>(slot, bytes),
            (..) => self.copy::<128>(slot, bytes),
        }
    }

    /// Copies the first bytes of an entry.
    #[inline]
    fn copy<const LEN: usize>(&self, slot: u32, bytes: &[u8]) {
        let bytes: &[u8; LEN] = bytes.first_chunk().expect("no entry is longer than the largest");
        let at = self.entries.at(index(slot), LEN);
        // SAFETY: inside the mapping, where neither the kernel looks before the slot is published, nor anybody else.
        unsafe { at.cast::<[u8; LEN]>().write_unaligned(*bytes) };
    }

    /// Where the slot of this number begins.
    #[inline]
    fn slot(&self, number: u32) -> u32 {
        let slot_len = if self.sqe == SqeSize::Bytes128 { 128 } else { 64 };
        (number & (self.params.sq_entries - 1)) * slot_len
    }

    /// The word at `offset` of the entry that was pushed last.
    ///
    /// # Panics
    /// On a ring whose entries do not all have 128 bytes: what is a word of one is another of the next.
    pub(crate) fn loose_word(&self, offset: u32) -> LooseWord {
        assert_eq!(self.sqe, SqeSize::Bytes128, "words of entries that lie anywhere");
        let offset = self.slot(self.tail.wrapping_sub(1)) + offset;
        LooseWord { entries: self.entries.clone(), offset }
    }

    /// Shows the kernel what was pushed, and says how many slots it has not taken yet.
    #[inline]
    pub(crate) fn publish(&mut self) -> u32 {
        self.indices.sq_tail.store(self.tail, Ordering::Release);
        self.taken_by_us()
    }

    /// Slots pushed which the kernel has not taken.
    pub(crate) fn unsubmitted(&self) -> u32 {
        self.taken_by_us()
    }

    /// Whether there is a completion to take, or an entry that only fills the end of the queue.
    #[inline]
    pub(crate) fn has_completion(&self) -> bool {
        self.next != self.indices.cq_tail.load(Ordering::Acquire)
    }

    /// Takes the next completion, if there is one.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Cqe> {
        loop {
            let head = self.next;
            if head == self.posted {
                self.posted = self.indices.cq_tail.load(Ordering::Acquire);
                if head == self.posted {
                    return None;
                }
            }
            let slot = index(head & (self.params.cq_entries - 1));
            let (cqe, slots) = match self.cqe {
                CqeSize::Bytes16 => (self.cqe_at(slot * 16, false), 1),
                CqeSize::Bytes32 | CqeSize::Mixed => self.large_cqe(slot),
            };
            self.next = head.wrapping_add(slots);
            self.indices.cq_head.store(self.next, Ordering::Release);
            let is_filler = self.cqe == CqeSize::Mixed && cqe.flags & CQE_F_SKIP != 0;
            if !is_filler && cqe.user_data != PADDING {
                return Some(cqe);
            }
        }
    }

    /// The completion in this slot of a queue that has large ones, and how many slots it takes.
    fn large_cqe(&self, slot: usize) -> (Cqe, u32) {
        if self.cqe == CqeSize::Bytes32 {
            return (self.cqe_at(slot * 32, true), 1);
        }
        // A mixed ring says of each entry how large it is (io_uring.h:io_get_cqe_overflow).
        let cqe = self.cqe_at(slot * 16, false);
        match cqe.flags & CQE_F_32 {
            0 => (cqe, 1),
            _ => (self.cqe_at(slot * 16, true), 2),
        }
    }

    /// The completion at this place, with its second half or without.
    #[inline]
    fn cqe_at(&self, offset: usize, with_big: bool) -> Cqe {
        let offset = index(self.params.cq_off.cqes) + offset;
        let [user_data, words] = self.cqe_words(offset);
        let (res, flags) = halves(words);
        let big = with_big.then(|| self.cqe_words(offset + 16));
        Cqe { user_data, res, flags, big }
    }

    #[inline]
    fn cqe_words(&self, offset: usize) -> [u64; 2] {
        let at = self.rings.at(offset, 16).cast::<[u64; 2]>();
        // SAFETY: 16 bytes inside the mapping, of which any are a value; the kernel writes no slot between
        // our head and its tail.
        unsafe { at.read_volatile() }
    }

    /// `io_uring_enter`: hands over `to_submit` slots, and waits for `min_complete` completions, no longer than a
    /// `timeout` if there is one; with a `timeout` and none to wait for, runs what the kernel has put off. Returns how
    /// many slots were taken.
    #[inline]
    pub(crate) fn enter(
        &self,
        to_submit: u32,
        min_complete: u32,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        let mut flags = IoringEnterFlags::empty();
        if self.is_polled() && self.sq_flags() & SQ_NEED_WAKEUP != 0 {
            flags |= IoringEnterFlags::SQ_WAKEUP;
        }
        if min_complete > 0 {
            flags |= IoringEnterFlags::GETEVENTS | self.wait_flags;
        }
        let here = self.entrance.as_ref().and_then(Entrance::name);
        let (ring, named) = here.unwrap_or((self.fd.as_fd(), IoringEnterFlags::empty()));
        flags |= named;
        match timeout {
            // SAFETY: no argument; whoever pushed has promised for the memory behind the entries.
            None => Ok(unsafe { io_uring_enter(ring, to_submit, min_complete, flags)? }),
            Some(timeout) => enter_until(ring, to_submit, min_complete, flags, timeout),
        }
    }

    /// Whether a thread of the kernel takes entries from the queue.
    #[inline]
    pub(crate) fn is_polled(&self) -> bool {
        self.params.flags.contains(IoringSetupFlags::SQPOLL)
    }

    /// Whether that thread has to be woken.
    pub(crate) fn needs_wakeup(&self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        self.sq_flags() & SQ_NEED_WAKEUP != 0
    }

    fn sq_flags(&self) -> u32 {
        self.indices.sq_flags.load(Ordering::Relaxed)
    }

    /// The ring.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits are no waits for I/O from now on, if the kernel can tell.
    pub(crate) fn wait_for_work(&mut self) {
        if self.params.features.contains(IoringFeatureFlags::from_bits_retain(FEAT_NO_IOWAIT)) {
            self.wait_flags = IoringEnterFlags::from_bits_retain(ENTER_NO_IOWAIT);
        }
    }

    /// Has this thread call the ring by a place in a table of its own from now on.
    pub(crate) fn enter_by_place(&mut self) -> io::Result<()> {
        self.close_entrance()?;
        self.entrance = Some(Entrance::new(&self.fd)?);
        Ok(())
    }

    /// The thread that did so calls it by its descriptor again, and does not keep it open any more.
    pub(crate) fn close_entrance(&mut self) -> io::Result<()> {
        self.entrance.take().map_or(Ok(()), |entrance| entrance.close(&self.fd))
    }

    /// `io_uring_register` with an array of `count` things.
    ///
    /// # Safety
    /// `arg` is what the operation takes, and lives until the call returns.
    pub(crate) unsafe fn register<T>(
        &self,
        op: IoringRegisterOp,
        arg: *const T,
        count: u32,
    ) -> io::Result<u32> {
        // SAFETY: the caller's promise.
        Ok(unsafe { io_uring_register(self.fd.as_fd(), op, arg.cast::<c_void>(), count)? })
    }

    /// Ends the table of files at once: a ring that is closed keeps its own for a while.
    pub(crate) fn unregister_files(&self) -> io::Result<()> {
        let op = IoringRegisterOp::UnregisterFiles;
        // SAFETY: the operation takes nothing.
        unsafe { self.register(op, ptr::null::<u8>(), 0) }.map(drop)
    }

    /// What operations the kernel has.
    pub(crate) fn probe(&self) -> io::Result<Probe> {
        let mut probe = Probe::new_zeroed();
        let op = IoringRegisterOp::RegisterProbe;
        // SAFETY: the operation fills a `struct io_uring_probe` with at most so many operations, which this has.
        unsafe { self.register(op, &raw mut probe, PROBE_OPS)? };
        Ok(probe)
    }
}

impl Drop for KernelRing {
    fn drop(&mut self) {
        // It was there: the kernel has nothing to refuse.
        let _closed = self.close_entrance();
    }
}

/// `io_uring_enter` of a published queue, no longer than that.
fn enter_until(
    ring: BorrowedFd<'_>,
    to_submit: u32,
    min_complete: u32,
    flags: IoringEnterFlags,
    timeout: Duration,
) -> io::Result<u32> {
    let flags = flags | IoringEnterFlags::GETEVENTS | IoringEnterFlags::EXT_ARG;
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    // `struct __kernel_timespec`.
    let mut time = [seconds, i64::from(timeout.subsec_nanos())];
    let arg = io_uring_getevents_arg {
        ts: io_uring_ptr::new(ptr::from_mut(&mut time).cast()),
        ..io_uring_getevents_arg::default()
    };
    // SAFETY: the argument and the time it points to live until the call returns; whoever pushed has promised for the
    // memory behind the entries.
    Ok(unsafe { io_uring_enter_arg(ring, to_submit, min_complete, flags, Some(&arg))? })
}

/// `res` and `flags` of a completion.
#[inline]
fn halves(words: u64) -> (i32, u32) {
    let [a, b, c, d, e, f, g, h] = words.to_ne_bytes();
    (i32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}
