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
    /// How many mappings it has watched.
    generation: AtomicUsize,
    start: AtomicUsize,
    /// Behind the last byte; 0 while nothing is watched.
    end: AtomicUsize,
    broken: AtomicBool,
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            taken: AtomicBool::new(false),
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Of a slot that watches nothing.
    fn watch(&self, start: usize, end: usize) {
        self.broken.store(false, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
    }

    /// Whether an address is in the mapping that is watched. While one takes the place of another it is in
    /// neither: whose page could not be had is watched until the handler has returned.
    fn watches(&self, address: usize) -> bool {
        let generation = self.generation.load(Ordering::SeqCst);
        let end = self.end.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        (start..end).contains(&address) && self.generation.load(Ordering::SeqCst) == generation
    }
}

static WATCHED: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

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
        slot.watch(start, start + region.size());
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
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Codes above zero are the kernel's: only those have an address.
    if code <= 0 || !replace_page(address) {
        die();
    }
}

/// Puts a page of zeros in the place of one that cannot be had, if it is in a watched mapping.
fn replace_page(address: usize) -> bool {
    let watches = |slot: &&Slot| slot.watches(address);
    let (Some(slot), Some(Some(page_len))) = (WATCHED.iter().find(watches), PAGE_LEN.get()) else {
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

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command, thread};

    use super::*;

    /// Two mappings take turns in a slot: what is between them is in neither.
    #[test]
    fn slot_that_is_reused_is_never_half_old_and_half_new() {
        let slot = &Slot::new();
        let done = &AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..1_000_000_usize {
                    let start = [0x1000, 0x5000][round % 2];
                    slot.watch(start, start + 0x1000);
                    slot.end.store(0, Ordering::SeqCst);
                }
                done.store(true, Ordering::SeqCst);
            });
            while !done.load(Ordering::SeqCst) {
                assert!(!slot.watches(0x3000));
            }
        });
        slot.watch(0x1000, 0x2000);
        assert!(slot.watches(0x1000) && slot.watches(0x1fff) && !slot.watches(0x2000));
    }

    /// A signal that somebody has sent is no page that cannot be had, whatever address it claims.
    #[test]
    fn bus_error_that_was_sent_ends_the_process() {
        const CHILD: &str = "SENSECHECK_TEST_SENT_BUS_ERROR";
        if std::env::var_os(CHILD).is_some() {
            let region = MmapRegion::<()>::new(1 << 16).expect("mapped");
            let _watch = Watch::of(&region).expect("a free slot");
            // SAFETY: all fields of a siginfo_t may be zero. rt_sigqueueinfo(2) reads it; si_addr is at byte 16
            // of it (include/uapi/asm-generic/siginfo.h).
            unsafe {
                let mut info: libc::siginfo_t = mem::zeroed();
                info.si_code = libc::SI_QUEUE;
                (&raw mut info).cast::<usize>().add(2).write(region.as_ptr() as usize);
                let process = libc::getpid();
                libc::syscall(libc::SYS_rt_sigqueueinfo, process, libc::SIGBUS, &raw mut info);
            }
            return;
        }
        let this = std::env::current_exe().expect("a path");
        let name = "medium::bus_error::tests::bus_error_that_was_sent_ends_the_process";
        let ended = Command::new(this).args(["--exact", name]).env(CHILD, "1").output();
        assert_eq!(ended.expect("started").status.signal(), Some(libc::SIGBUS));
    }
}
