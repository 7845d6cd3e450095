//! A queue of a device with UBLK_F_BATCH_IO: one command fetches whatever tags come, one commits many of them
//! (Documentation/block/ublk.rst). What is done with a request in between is the same.

use std::{
    mem, process,
    sync::{Arc, mpsc::Sender},
    time::Instant,
};

use rustix::io::Errno;
use ublk_fault::{DiePoint, WrongBuffer};
use uring_cmd::{Buffer, Cqe, Either, Pointer, Region, WaitError};

use super::{BatchSpec, DIED, IDLE_LOOK, Queue, QueueError, QueueSpec, slot::Stage};
use crate::{
    command::BatchCommand,
    mode::{DataMode, Fallback},
    uapi::{BatchIo, ElemHeader, batch, io as io_op},
};

/// Buffers for tags of a fetch. It ends when they are used up, and begins again.
const BUFFERS: u16 = 16;

/// Tags that the driver puts into one of them at most (`ublk_drv.c:MAX_NR_TAG`).
const TAGS: u16 = 128;

/// Entries of the ring beside one for each tag: the fetch, a commit, and buffers given back.
pub(super) const ENTRIES: u32 = 32;

// `user_data` of what is about no tag in particular.
const FETCH: u64 = 1 << 16;
const PREP: u64 = 2 << 16;
/// And the number of a buffer.
const PROVIDE: u64 = 3 << 16;
/// And how many were before.
const COMMIT: u64 = 1 << 32;

/// What a queue knows of its batches.
#[derive(Debug)]
pub(super) struct Batch {
    /// Of every header, see [`batch`].
    flags: u16,
    buffer_len: usize,
    /// Where fetches put tags.
    region: Arc<Region>,
    /// Bytes of each of its buffers.
    each: u32,
    /// Elements to commit, coded.
    elements: Vec<u8>,
    /// Memory for elements that no command has.
    spare: Vec<Buffer>,
    commits: u64,
}

impl Batch {
    pub(super) fn new(
        spec: &QueueSpec,
        batch: &BatchSpec,
        buffer_len: usize,
    ) -> Result<Self, QueueError> {
        let fallback = spec.mode == DataMode::AutoBuf && spec.fallback != Fallback::Fail;
        let flags = [
            (spec.mode.lends_buffer(), batch::HAS_BUF_ADDR),
            (batch.zoned, batch::HAS_ZONE_LBA),
            (fallback, batch::AUTO_BUF_REG_FALLBACK),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, bit)| flags | bit);
        let each = 2 * u32::from(spec.depth.min(TAGS));
        let len = usize::from(BUFFERS) * usize::try_from(each).expect("at least 32 bits");
        let region = Region::zeroed(len).map_err(QueueError::Memory)?;
        let (elements, spare) = (Vec::new(), Vec::new());
        Ok(Batch { flags, buffer_len, region, each, elements, spare, commits: 0 })
    }
}

impl Queue<'_> {
    /// Serves tags until their device is stopped. Sends `true` on `fetching` once they are prepared.
    pub(super) fn serve_batches(mut self, fetching: &Sender<bool>) -> Result<(), QueueError> {
        self.provide(0, BUFFERS)?;
        if self.spec.batch.as_ref().is_some_and(|batch| batch.prepares) {
            self.prepare()?;
        }
        self.fetch_many()?;
        self.ring.submit().map_err(QueueError::Submit)?;
        // Nobody listens any more if the start was given up; then the device is being deleted.
        let _ = fetching.send(true);
        self.run()
    }

    fn batch(&mut self) -> &mut Batch {
        self.batch.as_mut().expect("this queue works in batches")
    }

    fn batch_spec(&self) -> &BatchSpec {
        self.spec.batch.as_ref().expect("this queue works in batches")
    }

    /// Gives buffers for tags to the kernel.
    fn provide(&mut self, first: u16, buffers: u16) -> Result<(), QueueError> {
        let Batch { region, each, .. } = self.batch();
        let (region, len) = (region.clone(), *each);
        let user_data = PROVIDE + u64::from(first);
        self.push_batch(BatchCommand::Provide { region, first, buffers, len, group: 0, user_data })
    }

    fn push_batch(&mut self, command: BatchCommand) -> Result<(), QueueError> {
        let operation = Either::Second(Either::Second(Either::Second(Either::First(command))));
        self.ring.push(operation).map_err(|refused| refused.kind)?;
        Ok(())
    }

    /// Pushes a command about these elements.
    fn push_elements(
        &mut self,
        cmd_op: u32,
        bytes: &[u8],
        user_data: u64,
    ) -> Result<(), QueueError> {
        let (file, q_id, depth) = (self.spec.device.clone(), self.spec.queue, self.spec.depth);
        let Batch { flags, spare, .. } = self.batch();
        let elem_bytes = batch::elem_bytes(*flags);
        let mut elements = match spare.pop() {
            Some(buffer) => buffer,
            None => Buffer::zeroed(usize::from(depth) * usize::from(elem_bytes))
                .map_err(QueueError::Memory)?,
        };
        elements[..bytes.len()].copy_from_slice(bytes);
        let nr_elem = u16::try_from(bytes.len() / usize::from(elem_bytes)).expect("16 bits");
        let header =
            BatchIo { q_id, flags: *flags, nr_elem, elem_bytes, reserved: 0, reserved2: 0 };
        let (elements, multishot, group) = (elements.into(), false, 0);
        self.push_batch(BatchCommand::Command {
            file,
            cmd_op,
            header,
            elements,
            multishot,
            group,
            user_data,
        })
    }

    /// Gives the driver every tag, and waits for its consent: it refuses fetches before.
    fn prepare(&mut self) -> Result<(), QueueError> {
        let mut elements = Vec::new();
        for tag in self.spec.tags.clone() {
            let len = self.batch().buffer_len;
            let mut buffer = Buffer::zeroed(len).map_err(QueueError::Memory)?;
            self.encode(&mut elements, tag, 0, buffer.address(), 0);
            self.batch_spec().pool.put(tag, buffer);
        }
        self.push_elements(io_op::PREP_IO_CMDS, &elements, PREP)?;
        loop {
            match self.ring.wait(Instant::now() + IDLE_LOOK) {
                Ok(completed) => {
                    let over = completed.cqe.user_data == PREP;
                    self.completed(completed)?;
                    if over {
                        return Ok(());
                    }
                }
                Err(WaitError::Deadline { .. }) if !self.spec.abandon.is_said() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends an element about a tag.
    fn encode(&mut self, bytes: &mut Vec<u8>, tag: u16, result: i32, address: u64, zone_lba: u64) {
        let buf_index = match self.spec.fallback {
            Fallback::Fail | Fallback::Register => self.index(tag),
            Fallback::Provoked => u16::MAX,
        };
        let header = ElemHeader { tag, buf_index, result };
        batch::encode(bytes, self.batch().flags, header, address, zone_lba);
    }

    /// Has the driver bring tags, as often as there are some.
    fn fetch_many(&mut self) -> Result<(), QueueError> {
        let header = BatchIo {
            q_id: self.spec.queue,
            flags: 0,
            nr_elem: 0,
            elem_bytes: 2,
            reserved: 0,
            reserved2: 0,
        };
        self.batch_spec().pool.fetch_begins();
        self.push_batch(BatchCommand::Command {
            file: self.spec.device.clone(),
            cmd_op: io_op::FETCH_IO_CMDS,
            header,
            elements: Pointer::Null,
            multishot: true,
            group: 0,
            user_data: FETCH,
        })
    }

    /// A fetch has brought tags, and goes on.
    pub(super) fn brought(&mut self, cqe: Cqe) -> Result<(), QueueError> {
        let (Some(batch), Some(number)) = (&self.batch, cqe.buffer()) else {
            return Err(QueueError::Unexpected(cqe));
        };
        let each = usize::try_from(batch.each).expect("at least 32 bits");
        let len = usize::try_from(cqe.res).ok().filter(|len| *len <= each);
        let len = len.ok_or(QueueError::Unexpected(cqe))?;
        let tags = batch::tags(&batch.region.read(usize::from(number) * each, len));
        self.provide(number, 1)?;
        for tag in tags {
            let buffer = self.batch_spec().pool.take(tag).ok_or(QueueError::Unexpected(cqe))?;
            self.slot(tag).buffer = Some(buffer);
            self.delivered(tag)?;
        }
        Ok(())
    }

    /// The driver has given a command back.
    pub(super) fn batch_answered(
        &mut self,
        command: BatchCommand,
        cqe: Cqe,
    ) -> Result<(), QueueError> {
        let errno = (cqe.res < 0).then(|| Errno::from_raw_os_error(-cqe.res));
        let (cmd_op, header, elements) = match (command, errno) {
            (BatchCommand::Command { cmd_op, header, elements, .. }, _) => {
                (cmd_op, header, elements)
            }
            (BatchCommand::Provide { .. }, None) => return Ok(()),
            (BatchCommand::Provide { .. }, Some(errno)) => {
                return Err(QueueError::RefusedBatch { command: "PROVIDE_BUFFERS", errno });
            }
        };
        let command = match cmd_op {
            io_op::PREP_IO_CMDS => "PREP_IO_CMDS",
            io_op::COMMIT_IO_CMDS => "COMMIT_IO_CMDS",
            _ => "FETCH_IO_CMDS",
        };
        match (cmd_op, errno) {
            (io_op::FETCH_IO_CMDS, _) => {
                self.batch_spec().pool.fetch_ended();
                match errno {
                    // The buffers were used up; they are with the kernel again by now.
                    Some(Errno::NOBUFS) => self.fetch_many(),
                    // The device is being stopped or left.
                    Some(Errno::NODEV) => Ok(()),
                    Some(errno) => Err(QueueError::RefusedBatch { command, errno }),
                    None => Err(QueueError::Unexpected(cqe)),
                }
            }
            (_, Some(errno)) => Err(QueueError::RefusedBatch { command, errno }),
            (io_op::COMMIT_IO_CMDS, None) => self.committed(header, elements, cqe.res),
            (_, None) => {
                self.batch().spare.extend(elements.into_buffer());
                Ok(())
            }
        }
    }

    /// The driver has done so many bytes of a commit. It says why not the rest only if that comes first.
    fn committed(
        &mut self,
        header: BatchIo,
        elements: Pointer,
        done: i32,
    ) -> Result<(), QueueError> {
        let buffer = elements.into_buffer().expect("elements lie in a buffer");
        let all = usize::from(header.nr_elem) * usize::from(header.elem_bytes);
        let done = usize::try_from(done).expect("it is no errno");
        let rest = buffer.get(done..all).unwrap_or(&[]).to_vec();
        let batch = self.batch();
        batch.spare.push(buffer);
        // Before those that came since.
        batch.elements.splice(..0, rest);
        Ok(())
    }

    /// What was done with a request is told with the others that are ready.
    pub(super) fn commit_in_batch(&mut self, tag: u16) -> Result<(), QueueError> {
        let slot = self.slot(tag);
        slot.stage = Stage::Fetching;
        let (result, effect) = (slot.committed(), mem::take(&mut slot.effect));
        let landed = slot.landed;
        let mut buffer = slot.take_buffer();
        let lends = self.spec.mode.lends_buffer();
        let address = match effect.buffer.filter(|_| lends) {
            None => buffer.address(),
            Some(WrongBuffer::Unmapped) => Pointer::Unmapped.address(),
            Some(WrongBuffer::Other) => {
                buffer = Buffer::zeroed(self.spec.buffer_len).map_err(QueueError::Memory)?;
                buffer.fill(0xa5);
                buffer.address()
            }
        };
        let mut elements = mem::take(&mut self.batch().elements);
        self.encode(&mut elements, tag, result, address, landed);
        self.batch().elements = elements;
        self.batch_spec().pool.put(tag, buffer);
        if effect.die == Some(DiePoint::Committed) {
            self.commit_many()?;
            self.ring.submit().map_err(QueueError::Submit)?;
            process::exit(DIED);
        }
        Ok(())
    }

    /// Pushes what is to be committed.
    pub(super) fn commit_many(&mut self) -> Result<(), QueueError> {
        let batch = self.batch();
        let elements = mem::take(&mut batch.elements);
        if elements.is_empty() {
            return Ok(());
        }
        let user_data = COMMIT + batch.commits;
        batch.commits += 1;
        self.push_elements(io_op::COMMIT_IO_CMDS, &elements, user_data)?;
        // Its memory serves the next.
        let batch = self.batch();
        batch.elements = elements;
        batch.elements.clear();
        Ok(())
    }
}
