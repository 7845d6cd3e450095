//! Mappings of files that somebody else may cut short, or whose storage may fail, while they are read:
//! SIGBUS becomes a mark on the mapping.
//!
//! A page that cannot be had is replaced by a page of zeros, so that the copy under way comes to its
//! end; whoever made it then sees the mark, and that what he has read means nothing. The mark comes
//! before the page: who has read zeros sees it.

use std::{
    io, mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use vm_memory::MmapRegion;

/// So many mappings can be watched at once.
const SLOTS: usize = 64;

/// What the signal handler reads. Nothing is allocated or locked there.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    /// Behind the last byte; 0 while nothing is watched.
    end: AtomicUsize,
    broken: AtomicBool,
}

static WATCHED: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
    }
}; SLOTS];

/// The length of a page once the handler is installed; none where it cannot be.
static PAGE_LEN: OnceLock<Option<usize>> = OnceLock::new();

/// Watches a mapping until dropped, which has to be before the mapping is.
pub(super) struct Watch(&'static Slot);

impl Watch {
    /// Watches a mapping; none if too many are watched already.
    pub(super) fn of(region: &MmapRegion) -> Option<Watch> {
        (*PAGE_LEN.get_or_init(install))?;
        let free = |slot: &&Slot| !slot.taken.swap(true, Ordering::Acquire);
        let slot = WATCHED.iter().find(free)?;
        let start = region.as_ptr() as usize;
        slot.broken.store(false, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store(start + region.size(), Ordering::SeqCst);
        Some(Watch(slot))
    }

    /// Whether a page of it could not be had. What was read before may be wrong.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::SeqCst);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Installs the handler; the length of a page.
fn install() -> Option<usize> {
    // SAFETY: sysconf(3) reads a number.
    let page_len = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    // SAFETY: all fields of a sigaction may be zero.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the form that SA_SIGINFO asks for, and does only what a signal handler may.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
    if result != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "SIGBUS cannot be caught");
        return None;
    }
    Some(page_len)
}

extern "C" fn on_bus_error(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a siginfo_t that is valid while it runs. Of a
    // signal that somebody has sent, the address is another field's bytes, which is a number too.
    let address = unsafe { (*info).si_addr() } as usize;
    if !replace_page(address) {
        die();
    }
}

/// Puts a page of zeros in the place of one that cannot be had, if it is in a watched mapping.
fn replace_page(address: usize) -> bool {
    let within = |slot: &&Slot| {
        address < slot.end.load(Ordering::SeqCst) && address >= slot.start.load(Ordering::SeqCst)
    };
    let (Some(slot), Some(Some(page_len))) = (WATCHED.iter().find(within), PAGE_LEN.get()) else {
        return false;
    };
    slot.broken.store(true, Ordering::SeqCst);
    let page = (address & !(page_len - 1)) as *mut libc::c_void;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page is part of a mapping that is watched, and therefore mapped until its watch is
    // dropped. It is volatile memory, of which nobody expects that it stays the same. mmap(2) is a plain
    // system call, which a handler may make.
    let mapped = unsafe { libc::mmap(page, *page_len, libc::PROT_READ, flags, -1, 0) };
    mapped == page
}

/// It was none of ours: the process ends as if nobody had caught the signal.
fn die() {
    // SAFETY: both may be called in a handler. The signal is blocked while the handler runs, and is
    // delivered when it returns.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        libc::raise(libc::SIGBUS);
    }
}
