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
    Buffer, CqeSize, Operation, PushErrorKind, Ring, Shape, Sqe, SqeSize, WaitError,
    sqe::{OP_NOP, OP_READ},
};

/// A READ into a buffer, a command for `/dev/null`, or a NOP.
#[derive(Debug)]
struct Op {
    sqe: Sqe,
    file: Arc<OwnedFd>,
    buffer: Buffer,
    dropped: Arc<AtomicUsize>,
}

// SAFETY: the only address is that of `buffer`, with its length, and `file` is kept open.
unsafe impl Operation for Op {
    fn sqe(&mut self) -> Sqe {
        let mut sqe = self.sqe;
        sqe.fd = self.file.as_raw_fd();
        if sqe.opcode == OP_READ {
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
        Err(error) if matches!(error.raw_os_error(), Some(1 | 38)) => {
            #[expect(clippy::print_stderr, reason = "a skip names its reason")]
            {
                eprintln!("skipped: the host refuses io_uring: {error}");
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
    #[values(SqeSize::Bytes64, SqeSize::Bytes128)] sqe: SqeSize,
    #[values(CqeSize::Bytes16, CqeSize::Bytes32)] cqe: CqeSize,
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
