//! One queue of a device: fetch, answer, commit and fetch again.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use rustix::io::Errno;
use uring_cmd::{Buffer, CqeSize, Pointer, PushErrorKind, Ring, Shape, SqeSize, WaitError};

use crate::{
    command::{Command, Payload},
    descriptors::Descriptors,
    target::{Op, Request, Target},
    uapi::{IoCmd, SECTOR_LEN, io as io_op},
};

/// Why a queue ended before its device was stopped.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The ring could not be set up.
    #[error("cannot set up a ring: {0}")]
    Setup(#[source] uring_cmd::SetupError),
    /// The descriptors could not be mapped.
    #[error("cannot map the descriptors: {0}")]
    Map(#[source] io::Error),
    /// There is no memory for data buffers.
    #[error("no memory for data buffers: {0}")]
    Memory(#[source] io::Error),
    /// The ring takes no more commands.
    #[error("cannot push a command: {0}")]
    Push(#[from] PushErrorKind),
    /// `io_uring_enter` failed.
    #[error("cannot submit: {0}")]
    Submit(#[source] io::Error),
    /// The driver gave no command back although one is in flight.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The driver refused a command.
    #[error("tag {tag}: the driver refused {command}: {errno}")]
    Refused {
        /// The tag.
        tag: u16,
        /// The command.
        command: &'static str,
        /// What the driver said.
        errno: Errno,
    },
    /// The driver delivered a request longer than a data buffer.
    #[error("tag {tag}: a request of {len} bytes does not fit the buffer")]
    TooLong {
        /// The tag.
        tag: u16,
        /// Length of the request in bytes.
        len: u64,
    },
    /// A completion that belongs to no command, or a result no version of the driver has.
    #[error("unexpected completion: {0:?}")]
    Unexpected(uring_cmd::Cqe),
}

/// What a queue is made of.
#[derive(Debug)]
pub(crate) struct QueueSpec {
    pub(crate) device: Arc<File>,
    pub(crate) queue: u16,
    pub(crate) depth: u16,
    pub(crate) buffer_len: usize,
    /// Ends the queue even if the driver keeps its fetches.
    pub(crate) abandon: Arc<AtomicBool>,
}

/// How often an idle queue looks whether it is abandoned.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// Serves one queue until its device is stopped. Sends `true` on `fetching` once
/// every tag is fetched.
pub(crate) fn serve(
    spec: QueueSpec,
    target: &dyn Target,
    fetching: &Sender<bool>,
) -> Result<(), QueueError> {
    let shape =
        Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..Shape::big(spec.depth.into()) };
    let mut ring = Ring::new(&shape).map_err(QueueError::Setup)?;
    let descriptors =
        Descriptors::map(&spec.device, spec.queue, spec.depth).map_err(QueueError::Map)?;
    for tag in 0..spec.depth {
        let buffer = Buffer::zeroed(spec.buffer_len).map_err(QueueError::Memory)?;
        push(&mut ring, &spec, io_op::FETCH_REQ, tag, 0, buffer.into())?;
    }
    ring.submit().map_err(QueueError::Submit)?;
    // Nobody listens any more if the start was given up; then the device is being deleted.
    let _ = fetching.send(true);

    loop {
        let done = match ring.wait(Instant::now() + IDLE_LOOK) {
            Ok(done) => done,
            Err(WaitError::Idle) => return Ok(()),
            Err(WaitError::Deadline { .. }) if spec.abandon.load(Ordering::Relaxed) => {
                return Ok(());
            }
            Err(WaitError::Deadline { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(mut command) = done.operation else {
            return Err(QueueError::Unexpected(done.cqe));
        };
        let tag = match command.payload {
            Payload::Io(io) => io.tag,
            Payload::Ctrl(_) => return Err(QueueError::Unexpected(done.cqe)),
        };
        match done.cqe.res {
            0 => {
                let result = answer(&spec, &descriptors, tag, &mut command.memory, target)?;
                let op = io_op::COMMIT_AND_FETCH_REQ;
                push(&mut ring, &spec, op, tag, result, command.memory)?;
                ring.submit().map_err(QueueError::Submit)?;
            }
            // The device is being stopped: the tag comes back for good.
            gone if gone == -Errno::NODEV.raw_os_error() => {}
            refused if refused < 0 => return Err(refusal(tag, command.cmd_op, refused)),
            _ => return Err(QueueError::Unexpected(done.cqe)),
        }
    }
}

fn push(
    ring: &mut Ring<Command>,
    spec: &QueueSpec,
    cmd_op: u32,
    tag: u16,
    result: i32,
    memory: Pointer,
) -> Result<(), QueueError> {
    let payload = Payload::Io(IoCmd { q_id: spec.queue, tag, result, addr: 0 });
    let file = spec.device.clone();
    let command = Command { file, cmd_op, payload, memory, user_data: tag.into() };
    ring.push(command).map_err(|refused| refused.kind)?;
    Ok(())
}

/// Lets the target answer the request of a tag and returns what is committed: bytes, or a negated
/// errno.
fn answer(
    spec: &QueueSpec,
    descriptors: &Descriptors,
    tag: u16,
    memory: &mut Pointer,
    target: &dyn Target,
) -> Result<i32, QueueError> {
    let descriptor = descriptors.read(tag);
    let [number, ..] = descriptor.op_flags.to_le_bytes();
    let op = Op::from(number);
    let buffer: &mut [u8] = match memory {
        Pointer::To(buffer) => buffer,
        Pointer::Null
        | Pointer::Unmapped
        | Pointer::Kernel
        | Pointer::Top
        | Pointer::In(..)
        | Pointer::Fixed(_) => &mut [],
    };
    let data = match op {
        Op::Read | Op::Write => {
            let len = u64::from(descriptor.nr_sectors) * u64::from(SECTOR_LEN);
            usize::try_from(len)
                .ok()
                .and_then(|len| buffer.get_mut(..len))
                .ok_or(QueueError::TooLong { tag, len })?
        }
        Op::Flush | Op::Discard | Op::WriteZeroes | Op::Other(_) => &mut [],
    };
    let mut request = Request {
        op,
        flags: descriptor.op_flags & !0xff,
        start_sector: descriptor.start_sector,
        sectors: descriptor.nr_sectors,
        data,
        queue: spec.queue,
        tag,
    };
    let result = target.handle(&mut request);
    tracing::debug!(queue = spec.queue, tag, ?op, ?result, "request");
    Ok(match result {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(errno) => -errno.raw_os_error(),
    })
}

fn refusal(tag: u16, cmd_op: u32, res: i32) -> QueueError {
    let command = if cmd_op == io_op::FETCH_REQ { "FETCH_REQ" } else { "COMMIT_AND_FETCH_REQ" };
    QueueError::Refused { tag, command, errno: Errno::from_raw_os_error(-res) }
}
