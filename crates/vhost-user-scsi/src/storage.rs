//! What waits for the host's storage: an io_uring that its commands are left to, so that a queue goes on
//! meanwhile, and one thread that ends them.
//!
//! Data that is not cached and flushes are waited for here. Whatever the system does not do this way, because it has
//! no io_uring, forbids it, or has enough to do, the caller does by itself.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::Builder,
};

use device_server::{
    Wait,
    medium::{FileOperation, FileWait},
};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use vm_memory::VolatileSlice;

use crate::{request_queue::Command, target::Target};

/// Commands that wait at the same time at most.
const IN_FLIGHT_MAX: u32 = 256;

/// Pieces of memory in one operation; Linux takes at most 1024 (UIO_MAXIOV).
const IOV_MAX: usize = 1024;

/// What the completion is called that only wakes the thread. Commands have smaller numbers.
const WAKE: u64 = u64::MAX;

/// Commands that wait for storage. Dropping it ends the thread when the last of them has come back.
#[derive(Debug)]
pub(crate) struct Storage {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Submissions are made with the state locked; completions are looked at by the thread alone.
    ring: IoUring,
    waits: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    next: u64,
    /// By the numbers of their operations. The memory of an operation is that of its command's chain, its file that
    /// of the wait: both stay here until the kernel has said that it is done with them.
    in_flight: BTreeMap<u64, (Command, Wait)>,
}

impl Storage {
    /// Starts the thread; commands are ended on this target while it lasts. None if the system has no io_uring that
    /// would do, forbids it, or gives no thread.
    pub(crate) fn start(target: Weak<Target>) -> Option<Self> {
        let start = || {
            let (state, waits) = (Mutex::default(), AtomicU64::new(0));
            let shared = Arc::new(Shared { state, ring: probe()?, waits });
            let of_thread = Arc::clone(&shared);
            Builder::new().name("storage".into()).spawn(move || of_thread.run(&target))?;
            Ok(Storage { shared })
        };
        let why = |error: &io::Error| tracing::info!(%error, "no io_uring: queues wait for data");
        start().inspect_err(why).ok()
    }

    /// Lets a command wait. It comes back if it cannot.
    pub(crate) fn wait(&self, command: Command, wait: Wait) -> Option<(Command, Wait)> {
        self.shared.wait(command, wait)
    }

    /// How many commands have waited.
    pub(crate) fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Relaxed)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        self.shared.submit(&mut state, &opcode::Nop::new().build().user_data(WAKE));
    }
}

/// A ring, if this system's can do what is asked of it.
fn probe() -> io::Result<IoUring> {
    let ring = IoUring::new(IN_FLIGHT_MAX)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let knows = |opcode| probe.is_supported(opcode);
    // The kernel has its own copy of a list of pieces once it has taken an operation.
    let copies = ring.params().is_feature_submit_stable();
    // A filter of system calls may let a ring be made, and not be entered.
    ring.submitter().submit()?;
    if copies && knows(opcode::Readv::CODE) && knows(opcode::Fsync::CODE) {
        Ok(ring)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn wait(&self, command: Command, wait: Wait) -> Option<(Command, Wait)> {
        let FileWait { file, operation } = wait.file();
        let fd = types::Fd(file.as_raw_fd());
        let state = &mut self.state();
        let is_full = state.in_flight.len() >= IN_FLIGHT_MAX as usize;
        if is_full || command.data_in_slices().len() > IOV_MAX {
            return Some((command, wait));
        }
        let number = state.next;
        state.next += 1;
        let iovecs: Vec<libc::iovec>;
        let entry = match *operation {
            FileOperation::Read { offset, len } => {
                iovecs = pieces(&command.data_in_slices(), len);
                let count = u32::try_from(iovecs.len()).expect("at most IOV_MAX");
                opcode::Readv::new(fd, iovecs.as_ptr(), count).offset(offset).build()
            }
            FileOperation::SyncData => {
                iovecs = Vec::new();
                opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()
            }
        };
        state.in_flight.insert(number, (command, wait));
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.submit(state, &entry.user_data(number));
        // The kernel has its own copy now.
        drop(iovecs);
        None
    }

    /// Hands an operation to the kernel.
    fn submit(&self, _locked: &mut State, entry: &squeue::Entry) {
        // SAFETY: there is one submission queue at a time, because the state is locked. What the entry points to
        // lives as long as the kernel uses it: the caller has the list of pieces until this returns, by when the
        // kernel has taken the entry and copied it; the memory and the file are kept in `in_flight` until the
        // operation has completed.
        unsafe { self.ring.submission_shared().push(entry) }
            .expect("each entry is taken before the next is pushed");
        loop {
            match self.ring.submit() {
                // SAFETY: as above.
                Ok(_) if unsafe { self.ring.submission_shared() }.is_empty() => return,
                Ok(_) => {}
                Err(error) => assert!(passes(&error), "io_uring_enter(2) fails: {error}"),
            }
        }
    }

    fn run(&self, target: &Weak<Target>) {
        loop {
            // SAFETY: this thread alone looks at completions.
            let completions = unsafe { self.ring.completion_shared() };
            for completion in completions {
                let taken = self.state().in_flight.remove(&completion.user_data());
                let Some((command, wait)) = taken else { continue };
                if let Some(target) = target.upgrade() {
                    end(&target, command, wait, completion.result());
                }
            }
            let state = self.state();
            if state.ended && state.in_flight.is_empty() {
                return;
            }
            drop(state);
            if let Err(error) = self.ring.submit_and_wait(1) {
                assert!(passes(&error), "io_uring_enter(2) fails: {error}");
            }
        }
    }
}

/// Whether it is worth trying again at once. It is our own ring, and a good one: nothing else can be wrong.
fn passes(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
}

/// The memory of the first `len` bytes.
fn pieces(slices: &[VolatileSlice<'_>], len: u64) -> Vec<libc::iovec> {
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    let piece = |slice: &VolatileSlice<'_>| {
        let iov_len = slice.len().min(left);
        left -= iov_len;
        let iov_base = slice.ptr_guard_mut().as_ptr().cast();
        (iov_len > 0).then_some(libc::iovec { iov_base, iov_len })
    };
    slices.iter().filter_map(piece).collect()
}

/// Ends a command by the result of its operation: a count, or an error as a negative number.
fn end(target: &Target, command: Command, wait: Wait, result: i32) {
    let result = match u64::try_from(result) {
        Ok(moved) => Some(Ok(moved)),
        // The thread that began it has ended, or was about to: it is as if nothing had been done.
        Err(_) if matches!(-result, libc::ECANCELED | libc::EINTR) => None,
        Err(_) => Some(Err(io::Error::from_raw_os_error(-result))),
    };
    if let Some(finished) = command.has_waited(target, wait, result) {
        finished.complete(target);
    }
}
