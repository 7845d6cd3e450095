//! The ring on the host's kernel: ownership, deadlines, entry sizes.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rstest::rstest;
use uring_cmd::{
    Buffer, Cancel, CqeSize, Feature, Operation, PushErrorKind, Region, Ring, SetupError, Shape,
    Sqe, SqeSize, WaitError, keeper,
    sqe::{OP_NOP, OP_NOP128, OP_READ, SQE_IO_HARDLINK, SQE_IO_LINK},
};

/// `IORING_OP_READ_FIXED`.
const OP_READ_FIXED: u8 = 4;

/// A READ into a buffer, a command for `/dev/null`, or a NOP.
#[derive(Debug)]
struct Op {
    sqe: Sqe,
    file: Arc<OwnedFd>,
    buffer: Buffer,
    dropped: Arc<AtomicUsize>,
}

// SAFETY: the only addresses are that of `buffer`, with its length, and those of registered regions, which the kernel
// has pinned; `file` is kept open.
unsafe impl Operation for Op {
    fn sqe(&mut self) -> Sqe {
        let mut sqe = self.sqe;
        sqe.fd = self.file.as_raw_fd();
        if sqe.opcode == OP_READ && sqe.addr == 0 {
            sqe.addr = self.buffer.address();
            sqe.len = u32::try_from(self.buffer.len()).expect("buffers here are small");
        }
        sqe
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn op(opcode: u8, file: &Arc<OwnedFd>, user_data: u64) -> Op {
    Op {
        sqe: Sqe { opcode, user_data, ..Sqe::zeroed() },
        file: file.clone(),
        buffer: Buffer::zeroed(16).expect("a page of memory"),
        dropped: Arc::default(),
    }
}

/// `None`, with the reason on the terminal, where the host forbids io_uring altogether.
fn ring(shape: &Shape) -> Option<Ring<Op>> {
    match Ring::new(shape) {
        Ok(ring) => Some(ring),
        Err(SetupError::Missing { feature, source }) => {
            #[expect(clippy::print_stderr, reason = "a skip names its reason")]
            {
                eprintln!("skipped: the host has no {feature}: {source}");
            }
            None
        }
        Err(error) => panic!("ring of shape {shape:?}: {error}"),
    }
}

fn null() -> Arc<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null");
    Arc::new(file.expect("/dev/null opens").into())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[rstest]
fn every_shape_completes_with_its_own_entry_size(
    #[values(SqeSize::Bytes64, SqeSize::Bytes128, SqeSize::Mixed)] sqe: SqeSize,
    #[values(CqeSize::Bytes16, CqeSize::Bytes32, CqeSize::Mixed)] cqe: CqeSize,
) {
    let Some(mut ring) = ring(&Shape { sqe, cqe, ..Shape::big(4) }) else { return };
    let mut command = op(OP_NOP, &null(), 7);
    // The null device answers every command with 0 and reads nothing of it.
    command.sqe = Sqe::uring_cmd(0, 0x1234, &[0xff; 80], 0xdead_beef);
    ring.push(command).expect("an empty ring has room");
    ring.push(op(OP_NOP, &null(), 8)).expect("four entries have room for two");
    for _ in 0..2 {
        let done = ring.wait(soon()).expect("the null device answers at once");
        assert!([8, 0xdead_beef].contains(&done.cqe.user_data));
        assert_eq!(done.cqe.res, 0);
        assert_eq!(done.cqe.big.is_some(), cqe == CqeSize::Bytes32);
        assert!(done.operation.is_some());
    }
    assert!(matches!(ring.wait(soon()), Err(WaitError::Idle)));
}

/// Another thread has another ring in that place of its own table, and must not be taken there.
#[test]
fn a_ring_that_one_thread_has_registered_works_on_any() {
    let Some(mut ours) = ring(&Shape::big(4)) else { return };
    ours.register_with_thread().expect("a place in the table");
    let complete = |ring: &mut Ring<Op>, number| {
        ring.push(op(OP_NOP, &null(), number)).expect("room");
        ring.wait(soon()).expect("a NOP completes").cqe.user_data
    };
    assert_eq!(complete(&mut ours, 1), 1);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut theirs = ring(&Shape::big(4)).expect("as the first");
            theirs.register_with_thread().expect("the first place");
            let completed = [complete(&mut ours, 2), complete(&mut theirs, 3)];
            assert_eq!((completed, theirs.in_flight()), ([2, 3], 0));
        });
        other.join().expect("no panic");
    });
    assert_eq!(complete(&mut ours, 4), 4);
}

/// As many as a thread can register (`IO_RINGFD_REG_MAX`), twice.
#[test]
fn a_ring_that_is_dropped_leaves_its_place_to_the_next() {
    const MOST: usize = 16;
    if ring(&Shape::big(1)).is_none() {
        return;
    }
    for _ in 0..2 {
        let mut rings: Vec<_> = (0..=MOST).filter_map(|_| ring(&Shape::big(1))).collect();
        let (last, rings) = rings.split_last_mut().expect("they are seventeen");
        for ring in rings {
            ring.register_with_thread().expect("a free place");
        }
        let refused = last.register_with_thread().expect_err("the table is full");
        assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    }
}

#[test]
fn waiting_ends_at_the_deadline_and_the_operation_stays_with_the_ring() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    let (read_end, write_end) = rustix::pipe::pipe().expect("a pipe");
    ring.push(op(OP_READ, &Arc::new(read_end), 1)).expect("room");
    let started = Instant::now();
    let waited = ring.wait(started + Duration::from_millis(50));
    assert!(matches!(waited, Err(WaitError::Deadline { in_flight: 1 })), "{waited:?}");
    assert!(started.elapsed() >= Duration::from_millis(50));

    File::from(write_end).write_all(b"late").expect("the pipe has a reader");
    let done = ring.wait(soon()).expect("the pipe is readable now");
    assert_eq!(done.cqe.res, 4);
    let operation = done.operation.expect("the operation comes back");
    assert_eq!(operation.buffer[..6], *b"late\0\0");
}

/// Whatever is pushed goes with the call that waits, also what comes behind an entry that the kernel refuses.
#[rstest]
fn one_call_submits_and_waits(#[values(false, true)] defer_taskrun: bool) {
    let shape = Shape { single_issuer: defer_taskrun, defer_taskrun, ..Shape::big(4) };
    let Some(mut ring) = ring(&shape) else { return };
    let long = Duration::from_secs(20);
    let limit = Some(long);
    assert!(matches!(ring.submit_and_wait(limit), Err(WaitError::Idle)));
    let (read_end, write_end) = rustix::pipe::pipe().expect("a pipe");
    ring.push(op(OP_READ, &Arc::new(read_end), 1)).expect("room");
    let waited = ring.submit_and_wait(Some(Duration::from_millis(20)));
    assert!(matches!(waited, Err(WaitError::Deadline { in_flight: 1 })), "{waited:?}");

    // No operation has this number (include/uapi/linux/io_uring.h).
    ring.push(op(0xff, &null(), 2)).expect("room");
    ring.push(op(OP_NOP, &null(), 3)).expect("room");
    let mut results = Vec::new();
    let started = Instant::now();
    while results.len() < 2 {
        ring.submit_and_wait(limit).expect("completed");
        results.extend(std::iter::from_fn(|| ring.try_next()).map(|done| done.cqe));
    }
    let results = results.iter().map(|cqe| (cqe.user_data, cqe.res)).collect::<Vec<_>>();
    assert_eq!(results, [(2, -22), (3, 0)], "EINVAL, and what came behind");
    assert!(started.elapsed() < long, "it waited for what it had not submitted");

    File::from(write_end).write_all(b"late").expect("the pipe has a reader");
    ring.submit_and_wait(None).expect("the pipe is readable now");
    assert_eq!(ring.try_next().expect("it was said").cqe.res, 4);
    assert!(ring.try_next().is_none());
}

/// What goes again is executed again, and stays in flight; what does not comes back.
#[test]
fn an_operation_goes_again_where_it_is() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    for user_data in [7, 8] {
        ring.push(op(OP_NOP, &null(), user_data)).expect("room");
    }
    let (mut times, mut ended) = (0, Vec::new());
    while ring.in_flight() > 0 {
        ring.submit_and_wait(Some(Duration::from_secs(20))).expect("completed");
        let again = |cqe: &uring_cmd::Cqe, _: &mut Op| {
            times += usize::from(cqe.user_data == 7);
            cqe.user_data == 7 && times < 4
        };
        let done = ring.try_next_unless(again);
        ended.extend(done.map(|done| (done.cqe.user_data, done.operation.is_some())));
    }
    assert_eq!((times, ended), (4, vec![(8, true), (7, true)]));
}

#[test]
fn operations_in_flight_outlive_their_ring() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    let (read_end, _write_end) = rustix::pipe::pipe().expect("a pipe");
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut held = op(OP_READ, &Arc::new(read_end), 1);
    held.dropped = dropped.clone();
    ring.push(held).expect("room");
    ring.submit().expect("submitted");
    drop(ring);
    assert_eq!(dropped.load(Ordering::Relaxed), 0, "memory was freed under the kernel");
}

#[test]
fn a_user_data_in_flight_and_a_full_queue_are_refused_with_the_operation() {
    let Some(mut ring) = ring(&Shape::big(1)) else { return };
    ring.push(op(OP_NOP, &null(), 5)).expect("room for one");
    let twice = ring.push(op(OP_NOP, &null(), 5)).expect_err("5 is in flight");
    assert_eq!(twice.kind, PushErrorKind::UserDataInUse(5));
    let full = ring.push(op(OP_NOP, &null(), 6)).expect_err("the queue has one entry");
    assert_eq!(full.kind, PushErrorKind::Full);
    assert_eq!(full.operation.sqe.user_data, 6);
    ring.wait(soon()).expect("a NOP completes");
    ring.push(op(OP_NOP, &null(), 5)).expect("5 is free again");
}

/// Links: a failed one cancels the next (ECANCELED, -125), a hard link does not.
#[rstest]
#[case::link(SQE_IO_LINK, -125)]
#[case::hard_link(SQE_IO_HARDLINK, 0)]
fn a_link_is_cut_by_a_failure_and_a_hard_link_is_not(#[case] flags: u8, #[case] second: i32) {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    let mut failing = op(OP_READ_FIXED, &null(), 1);
    failing.sqe.flags = flags;
    ring.push(failing).expect("room");
    ring.push(op(OP_NOP, &null(), 2)).expect("room");
    assert_eq!(ring.submit().expect("submitted"), 2);
    let results = [(); 2].map(|()| ring.wait(soon()).expect("completed").cqe);
    assert!(results[0].res < 0, "nothing is registered: {results:?}");
    assert_eq!((results[1].user_data, results[1].res), (2, second));
}

#[test]
fn many_batches_go_round_the_queue() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    for round in 0..10 {
        for entry in 0..3 {
            ring.push(op(OP_NOP, &null(), 10 * round + entry)).expect("room");
        }
        assert_eq!(ring.submit().expect("submitted"), 3);
        for entry in 0..3 {
            assert_eq!(ring.wait(soon()).expect("completed").cqe.user_data, 10 * round + entry);
        }
    }
}

/// On a mixed queue a wide entry never straddles the end: what fills it is the ring's own and never seen.
#[test]
fn wide_and_narrow_entries_share_a_mixed_queue() {
    let Some(mut ring) = ring(&Shape::mixed(4)) else { return };
    for user_data in 0..100 {
        let opcode = if user_data % 3 == 0 { OP_NOP } else { OP_NOP128 };
        ring.push(op(opcode, &null(), user_data)).expect("room");
        assert_eq!(ring.submit().expect("submitted"), 1);
        let done = ring.wait(soon()).expect("completed").cqe;
        assert_eq!((done.user_data, done.res, done.big), (user_data, 0, None));
    }
    assert!(matches!(ring.wait(soon()), Err(WaitError::Idle)));
}

#[test]
fn a_polling_thread_takes_what_is_submitted() {
    let shape = Shape { sqpoll_idle_ms: Some(1), ..Shape::big(4) };
    let Some(mut ring) = ring(&shape) else { return };
    for user_data in 0..20 {
        ring.push(op(OP_NOP, &null(), user_data)).expect("room");
        assert_eq!(ring.submit().expect("submitted"), 1);
        assert_eq!(ring.wait(soon()).expect("completed").cqe.user_data, user_data);
    }
}

#[test]
fn a_shape_the_kernel_lacks_or_refuses_says_why() {
    let Some(_) = ring(&Shape::big(1)) else { return };
    for feature in [Feature::SqeMixed, Feature::CqeMixed] {
        let shape = match feature {
            Feature::SqeMixed => Shape { sqe: SqeSize::Mixed, ..Shape::big(2) },
            _ => Shape { cqe: CqeSize::Mixed, ..Shape::big(2) },
        };
        match Ring::<Op>::new(&shape) {
            Ok(_) => assert!(feature.is_supported()),
            Err(SetupError::Missing { feature: missing, .. }) => assert_eq!(missing, feature),
            Err(error) => panic!("{error}"),
        }
    }
    // io_uring.c:io_uring_sanitise_params: deferred task work needs a single issuer.
    let refused = Ring::<Op>::new(&Shape { defer_taskrun: true, ..Shape::big(1) });
    let error = refused.expect_err("a combination no kernel takes");
    assert_eq!(error.io_error().raw_os_error(), Some(22));
    assert!(matches!(error, SetupError::Refused(_)), "{error}");
}

#[test]
fn registered_buffers_are_read_into_by_index() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    let region = Region::zeroed(4096).expect("a page of memory");
    ring.register_buffers(&[None, Some(region.clone())]).expect("registered");
    let zero = File::open("/proc/version").expect("the kernel says its version");
    let zero: Arc<OwnedFd> = Arc::new(zero.into());
    let read = |user_data, buf_index| {
        let mut read = op(OP_READ_FIXED, &zero, user_data);
        read.sqe = Sqe { addr: region.address() + 100, len: 5, buf_index, ..read.sqe };
        read
    };
    ring.push(read(1, 1)).expect("room");
    assert_eq!(ring.wait(soon()).expect("completed").cqe.res, 5);
    assert_eq!(region.read(99, 7), *b"\0Linux\0");
    for (user_data, index) in [(2, 0), (3, 2)] {
        ring.push(read(user_data, index)).expect("room");
        assert_eq!(ring.wait(soon()).expect("completed").cqe.res, -14, "EFAULT at {index}");
    }
    ring.update_buffer(1, None).expect("emptied");
    ring.push(read(4, 1)).expect("room");
    assert_eq!(ring.wait(soon()).expect("completed").cqe.res, -14);
    ring.update_buffer(2, None).expect_err("there is no such slot");
    ring.unregister_buffers().expect("unregistered");
}

/// Cancelling asks; what can be stopped completes with ECANCELED, and what is not there is not found.
#[test]
fn cancel_stops_what_waits_and_says_what_it_found() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    let (read_end, _write_end) = rustix::pipe::pipe().expect("a pipe");
    ring.push(op(OP_NOP, &null(), 1)).expect("room");
    ring.push(op(OP_READ, &Arc::new(read_end), 2)).expect("room");
    assert_eq!(ring.cancel(3, soon()).expect("answered"), Cancel::NotFound);
    assert_eq!(ring.cancel(2, soon()).expect("answered"), Cancel::Cancelled);
    let mut results = [(); 2].map(|()| ring.wait(soon()).expect("completed").cqe);
    results.sort_by_key(|cqe| cqe.user_data);
    assert_eq!([results[0].res, results[1].res], [0, -125]);
}

/// Nothing is freed while the kernel may write to it, and everything when it no longer does.
#[test]
fn a_kept_ring_frees_its_operations_when_they_complete() {
    let Some(mut ring) = ring(&Shape::big(4)) else { return };
    let (read_end, write_end) = rustix::pipe::pipe().expect("a pipe");
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut held = op(OP_READ, &Arc::new(read_end), 1);
    held.dropped = dropped.clone();
    ring.push(held).expect("room");
    ring.submit().expect("submitted");
    ring.keep();
    assert_eq!((keeper::reap(), dropped.load(Ordering::Relaxed)), (1, 0));
    File::from(write_end).write_all(b"end").expect("the pipe has a reader");
    while keeper::reap() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn the_rings_own_user_data_are_refused() {
    let Some(mut ring) = ring(&Shape::big(1)) else { return };
    let refused = ring.push(op(OP_NOP, &null(), 1 << 63)).expect_err("the ring's own");
    assert_eq!(refused.kind, PushErrorKind::UserDataReserved(1 << 63));
}
