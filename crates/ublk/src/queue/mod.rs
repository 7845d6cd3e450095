//! One queue of a device, or a part of its tags: fetch, answer, commit and fetch again.

mod batch;
mod data;
mod error;
mod pool;
mod quick;
mod slot;
mod work;

use std::{
    fs::File,
    ops::Range,
    os::fd::AsFd,
    process,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use rustix::fs::{MemfdFlags, memfd_create};
use ublk_fault::{DiePoint, Hold, WrongBuffer};
use uring_cmd::{Buffer, Completed, CqeSize, Either, Pointer, Ring, Shape, SqeSize, WaitError};

use self::batch::Batch;
pub use self::error::QueueError;
pub(crate) use self::pool::Pool;
use self::slot::{Slot, Stage, Until};
use crate::{
    abandon::Abandon,
    command::{BatchCommand, Command, Node, Payload},
    descriptors::Descriptors,
    faults::Faults,
    mode::{DataMode, Fallback},
    target::Target,
    transfer::{Transfer, Watch, Working},
    uapi::{IoCmd, ParamIntegrity, auto_buf, fetch_result, io as io_op},
};

/// What a queue is made of.
#[derive(Debug)]
pub(crate) struct QueueSpec {
    pub(crate) device: Arc<File>,
    pub(crate) queue: u16,
    /// Tags of the queue.
    pub(crate) depth: u16,
    /// Those that are served here.
    pub(crate) tags: Range<u16>,
    pub(crate) buffer_len: usize,
    /// Bytes from one descriptor to the next.
    pub(crate) stride: u16,
    pub(crate) mode: DataMode,
    /// Shape of the metadata, of a device with [`crate::Features::INTEGRITY`].
    pub(crate) integrity: Option<ParamIntegrity>,
    pub(crate) fallback: Fallback,
    pub(crate) faults: Option<Arc<Faults>>,
    /// The device is one with [`crate::Features::BATCH_IO`].
    pub(crate) batch: Option<BatchSpec>,
    /// Ends the queue whatever it has.
    pub(crate) abandon: Arc<Abandon>,
}

/// What is different about a queue whose tags are fetched and committed in batches. Any of its threads may get any tag.
#[derive(Debug)]
pub(crate) struct BatchSpec {
    pub(crate) pool: Arc<Pool>,
    /// This thread prepares the tags, before any other is started.
    pub(crate) prepares: bool,
    /// Commits say where a zone append went.
    pub(crate) zoned: bool,
}

/// How often a queue that has nothing but requests that wait looks whether it is abandoned.
const IDLE_LOOK: Duration = Duration::from_millis(100);

/// How often a queue that holds requests looks whether they are released.
const HELD_LOOK: Duration = Duration::from_millis(5);

/// Exit status of a server that dies by a fault, for whoever waits for the process.
const DIED: i32 = 86;

type Operation = Either<Command, Either<Transfer, Either<Working, Either<BatchCommand, Watch>>>>;

/// Place of the char device in the ring's table of files.
const DEVICE: i32 = 0;

/// `user_data` of the wait for the word to end; tags have 16 bits, and batches have what begins above them.
const WATCH: u64 = 4 << 16;
/// Operations in flight that are about no tag, nor about batches.
const WATCHES: usize = 1;

/// Serves tags until their device is stopped. Sends `true` on `fetching` once
/// every one is fetched.
pub(crate) fn serve(
    spec: QueueSpec,
    target: &dyn Target,
    fetching: &Sender<bool>,
) -> Result<(), QueueError> {
    let mut queue = Queue::new(&spec, target)?;
    queue.watch()?;
    if queue.batch.is_some() {
        return queue.serve_batches(fetching);
    }
    for tag in spec.tags.clone() {
        queue.fetch(tag)?;
    }
    queue.ring.submit().map_err(QueueError::Submit)?;
    // Nobody listens any more if the start was given up; then the device is being deleted.
    let _ = fetching.send(true);
    queue.run()
}

struct Queue<'a> {
    spec: &'a QueueSpec,
    target: &'a dyn Target,
    /// [`Target::needs_data`].
    needs_data: bool,
    /// Requests can be answered at once, whatever they are.
    is_quick: bool,
    ring: Ring<Operation>,
    descriptors: Descriptors,
    /// A file as long as all buffers, through which a target without one gets registered data.
    scratch: Option<Arc<File>>,
    slots: Vec<Slot>,
    /// Tags whose requests wait, in their order of arrival.
    waiting: Vec<u16>,
    batch: Option<Batch>,
}

impl<'a> Queue<'a> {
    fn new(spec: &'a QueueSpec, target: &'a dyn Target) -> Result<Self, QueueError> {
        let tags = u32::try_from(spec.tags.len()).expect("tags have 16 bits");
        let count = tags + if spec.batch.is_some() { batch::ENTRIES } else { 0 };
        // The thread that makes the ring is the one that uses it: nothing has to interrupt it, and what comes while it
        // works comes together.
        let shape = Shape { single_issuer: true, defer_taskrun: true, ..Shape::big(count) };
        let shape = match target.worker() {
            Some(_) => shape,
            None => Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..shape },
        };
        let mut ring = Ring::new(&shape).map_err(QueueError::Setup)?;
        ring.register_files(&[spec.device.as_fd()]).map_err(QueueError::Register)?;
        ring.register_with_thread().map_err(QueueError::Register)?;
        ring.wait_for_work();
        let mut scratch = None;
        if spec.mode.registers() {
            ring.register_buffers(&vec![None; spec.tags.len()]).map_err(QueueError::Register)?;
        }
        // A worker needs no memory of ours to reach registered data.
        let reaches = spec.mode.registers() && target.worker().is_some();
        if spec.mode.registers() && !reaches {
            let file = memfd_create("ublk", MemfdFlags::CLOEXEC);
            scratch = Some(Arc::new(File::from(file.map_err(|e| QueueError::Memory(e.into()))?)));
        }
        let descriptors = Descriptors::map(&spec.device, spec.queue, spec.depth, spec.stride)
            .map_err(QueueError::Map)?;
        let mut slots = Vec::new();
        let buffer_len = if reaches { 0 } else { spec.buffer_len };
        for _ in spec.tags.clone() {
            // In batches a buffer comes with its tag.
            let buffer = match spec.batch {
                Some(_) => None,
                None => Some(Buffer::zeroed(buffer_len).map_err(QueueError::Memory)?),
            };
            slots.push(Slot::new(buffer));
        }
        let batch = spec.batch.as_ref().map(|batch| Batch::new(spec, batch, buffer_len));
        Ok(Queue {
            spec,
            target,
            needs_data: target.needs_data(),
            is_quick: quick::Quick::can(spec, target),
            ring,
            descriptors,
            scratch,
            slots,
            waiting: Vec::new(),
            batch: batch.transpose()?,
        })
    }

    fn slot(&mut self, tag: u16) -> &mut Slot {
        &mut self.slots[usize::from(tag - self.spec.tags.start)]
    }

    /// Has the word to end wake the queue.
    fn watch(&mut self) -> Result<(), QueueError> {
        let watch = Watch { file: self.spec.abandon.event(), user_data: WATCH };
        let watch = Either::Second(Either::Second(watch));
        let operation = Either::Second(Either::Second(watch));
        self.ring.push(operation).map_err(|refused| refused.kind)?;
        // The fetches need all the room there is.
        self.ring.submit().map_err(QueueError::Submit)?;
        Ok(())
    }

    /// The place of a tag in the ring's table.
    fn index(&self, tag: u16) -> u16 {
        tag - self.spec.tags.start
    }

    fn run(mut self) -> Result<(), QueueError> {
        while !self.spec.abandon.is_said() {
            let patience = self.wake()?;
            if self.batch.is_some() {
                // What is ready together is committed together.
                self.commit_many()?;
            }
            if self.ring.in_flight() == WATCHES {
                let Some(patience) = patience else { return Ok(()) };
                self.pause(patience);
                continue;
            }
            // What was answered since goes to the driver with the same call.
            match self.ring.submit_and_wait(patience) {
                Ok(()) | Err(WaitError::Deadline { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            loop {
                let quick = quick::Quick {
                    spec: self.spec,
                    target: self.target,
                    descriptors: &self.descriptors,
                };
                let next = match self.is_quick {
                    true => self.ring.try_next_unless(|cqe, done| quick.answers(cqe, done)),
                    false => self.ring.try_next(),
                };
                let Some(completed) = next else { break };
                self.completed(completed)?;
            }
        }
        Ok(())
    }

    fn completed(&mut self, completed: Completed<Operation>) -> Result<(), QueueError> {
        let Completed { cqe, operation } = completed;
        match operation {
            Some(Either::First(command)) => self.answered(command, cqe.res),
            Some(Either::Second(Either::First(transfer))) => self.moved(transfer, cqe.res),
            Some(Either::Second(Either::Second(Either::First(working)))) => {
                self.worked(working, cqe)
            }
            Some(Either::Second(Either::Second(Either::Second(Either::First(batch))))) => {
                self.batch_answered(batch, cqe)
            }
            // The word is said.
            Some(Either::Second(Either::Second(Either::Second(Either::Second(_))))) => Ok(()),
            None => self.brought(cqe),
        }
    }

    /// Waits although nothing is in flight.
    fn pause(&self, left: Duration) {
        match &self.spec.faults {
            Some(faults) => faults.pause(left),
            None => std::thread::park_timeout(left),
        }
    }

    /// Executes the requests that have waited long enough, and says how long the others can; `None` if there is none.
    fn wake(&mut self) -> Result<Option<Duration>, QueueError> {
        // Mostly so, and then nobody needs to know the time.
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut next = now + IDLE_LOOK;
        for tag in std::mem::take(&mut self.waiting) {
            let Stage::Waiting(until) = self.slot(tag).stage else { continue };
            let over = match until {
                Until::Time(due) => {
                    next = next.min(due);
                    due <= now
                }
                Until::Released(before) => {
                    next = next.min(now + HELD_LOOK);
                    let faults = self.spec.faults.as_ref().expect("a fault holds it");
                    let released = faults.releases() > before;
                    if released {
                        faults.let_go();
                    }
                    released
                }
                Until::Never => false,
            };
            if over {
                self.resume(tag)?;
            } else {
                self.waiting.push(tag);
            }
        }
        // None waits any more: what was begun just now has an operation in flight.
        let left = next.saturating_duration_since(now);
        Ok((!self.waiting.is_empty()).then_some(left))
    }

    /// Pushes a command about a tag.
    fn push(
        &mut self,
        cmd_op: u32,
        tag: u16,
        result: i32,
        memory: Pointer,
    ) -> Result<(), QueueError> {
        let payload = Payload::Io(IoCmd { q_id: self.spec.queue, tag, result, addr: 0 });
        let buffer_op = matches!(cmd_op, io_op::REGISTER_IO_BUF | io_op::UNREGISTER_IO_BUF);
        let number = match cmd_op {
            _ if buffer_op => self.index(tag).into(),
            io_op::COMMIT_AND_FETCH_REQ if !self.spec.mode.lends_buffer() => self.slot(tag).landed,
            _ => 0,
        };
        let sqe_addr = match (self.spec.mode, buffer_op) {
            (DataMode::AutoBuf, false) => self.auto_buf(tag),
            _ => 0,
        };
        let (node, user_data) = (Node::InTable(DEVICE), tag.into());
        let sqe_flags = 0;
        let command =
            Command { node, cmd_op, payload, memory, number, sqe_addr, sqe_flags, user_data };
        self.ring.push(Either::First(command)).map_err(|refused| refused.kind)?;
        Ok(())
    }

    /// What a fetch says of automatic registration.
    fn auto_buf(&self, tag: u16) -> u64 {
        match self.spec.fallback {
            Fallback::Fail => auto_buf::sqe_addr(self.index(tag), 0),
            Fallback::Register => auto_buf::sqe_addr(self.index(tag), auto_buf::FALLBACK),
            Fallback::Provoked => auto_buf::sqe_addr(u16::MAX, auto_buf::FALLBACK),
        }
    }

    /// The buffer of a tag, to lend to the driver, if the device is one that takes it.
    fn lent(&mut self, tag: u16) -> Pointer {
        match self.spec.mode.lends_buffer() {
            true => self.slot(tag).take_buffer().into(),
            false => Pointer::Null,
        }
    }

    fn fetch(&mut self, tag: u16) -> Result<(), QueueError> {
        // With NEED_GET_DATA the first buffer may come as late as that command.
        let memory = match self.spec.mode {
            DataMode::GetData => Pointer::Null,
            _ => self.lent(tag),
        };
        self.push(io_op::FETCH_REQ, tag, 0, memory)
    }

    /// The driver has given a command back.
    fn answered(&mut self, command: Command, res: i32) -> Result<(), QueueError> {
        let Payload::Io(IoCmd { tag, .. }) = command.payload else {
            unreachable!("queues send no control commands")
        };
        if let Some(buffer) = command.memory.into_buffer() {
            self.slot(tag).buffer = Some(buffer);
        }
        match (self.slot(tag).stage, res) {
            (Stage::Fetching, fetch_result::OK) => self.delivered(tag),
            (Stage::Fetching, fetch_result::NEED_GET_DATA) => {
                let memory = self.lent(tag);
                self.push(io_op::NEED_GET_DATA, tag, 0, memory)
            }
            // The device is being stopped or left: the tag comes back for good.
            (Stage::Fetching, fetch_result::ABORT) => Ok(()),
            (Stage::Registering, 0) => {
                self.slot(tag).registered = true;
                match self.target.worker() {
                    Some(worker) => self.begin_registered(worker, tag),
                    None => self.move_registered(tag),
                }
            }
            (Stage::Unregistering, 0) => self.commit(tag),
            (_, refused) if refused < 0 => Err(error::refusal(tag, command.cmd_op, refused)),
            (_, res) => Err(QueueError::Result { tag, res }),
        }
    }

    /// A request has come.
    fn delivered(&mut self, tag: u16) -> Result<(), QueueError> {
        let descriptor = self.descriptors.read(tag);
        let (spec, queue) = (self.spec, self.spec.queue);
        let slot = self.slot(tag);
        slot.begin(descriptor);
        let Some(faults) = &spec.faults else { return self.execute(tag) };
        let event = slot.event(queue, tag);
        let Some(effect) = faults.decide(&event) else { return self.execute(tag) };
        if effect.die == Some(DiePoint::Fetched) {
            process::exit(DIED);
        }
        let delayed =
            effect.delay_us.map(|us| Until::Time(Instant::now() + Duration::from_micros(us)));
        let until = match effect.hold {
            Some(Hold::ForEver) => {
                faults.hold();
                Some(Until::Never)
            }
            Some(Hold::UntilReleased) => Some(Until::Released(faults.hold())),
            None => delayed,
        };
        let slot = self.slot(tag);
        slot.effect = effect;
        match until {
            Some(until) => {
                slot.stage = Stage::Waiting(until);
                self.waiting.push(tag);
                Ok(())
            }
            None => self.execute(tag),
        }
    }

    /// What was done with a request is known, and its data is where it belongs.
    fn done(&mut self, tag: u16) -> Result<(), QueueError> {
        if self.slot(tag).effect.die == Some(DiePoint::Executed) {
            process::exit(DIED);
        }
        if !self.slot(tag).registered {
            return self.commit(tag);
        }
        let slot = self.slot(tag);
        (slot.registered, slot.stage) = (false, Stage::Unregistering);
        self.push(io_op::UNREGISTER_IO_BUF, tag, 0, Pointer::Null)
    }

    fn commit(&mut self, tag: u16) -> Result<(), QueueError> {
        if self.batch.is_some() {
            return self.commit_in_batch(tag);
        }
        let lends = self.spec.mode.lends_buffer();
        let slot = self.slot(tag);
        slot.stage = Stage::Fetching;
        let (result, effect) = (slot.committed(), std::mem::take(&mut slot.effect));
        let memory = match effect.buffer.filter(|_| lends) {
            None => self.lent(tag),
            Some(WrongBuffer::Unmapped) => Pointer::Unmapped,
            Some(WrongBuffer::Other) => {
                let mut other = Buffer::zeroed(self.spec.buffer_len).map_err(QueueError::Memory)?;
                other.fill(0xa5);
                other.into()
            }
        };
        self.push(io_op::COMMIT_AND_FETCH_REQ, tag, result, memory)?;
        if effect.die == Some(DiePoint::Committed) {
            self.ring.submit().map_err(QueueError::Submit)?;
            process::exit(DIED);
        }
        Ok(())
    }
}
