//! Requests of a target that works on the queue's ring.

use std::time::Instant;

use uring_cmd::{Cqe, Either, Pointer};

use super::{Queue, QueueError, Slot, Stage, Until};
use crate::{
    mode::DataMode,
    target::{Memory, Op, Progress, Worker},
    transfer::Working,
    uapi::{SECTOR_LEN, io as io_op},
};

impl Queue<'_> {
    /// Begins a request, or has its data registered first.
    pub(super) fn employ(
        &mut self,
        worker: &dyn Worker,
        tag: u16,
        by_server: bool,
    ) -> Result<(), QueueError> {
        if !self.slot(tag).moves_data() {
            return self.begin(worker, tag, Memory::None);
        }
        match self.spec.mode {
            DataMode::AutoBuf if !by_server => self.begin_registered(worker, tag),
            DataMode::ZeroCopy | DataMode::AutoBuf => {
                self.slot(tag).stage = Stage::Registering;
                self.push(io_op::REGISTER_IO_BUF, tag, 0, Pointer::Null)
            }
            DataMode::UserCopy => {
                let len = usize::try_from(self.slot(tag).data_len()).expect("it fits the buffer");
                match self.copy_in(tag, len) {
                    Ok(()) => self.begin_with_buffer(worker, tag),
                    Err(errno) => self.failed(tag, errno),
                }
            }
            DataMode::Copy | DataMode::GetData => self.begin_with_buffer(worker, tag),
        }
    }

    fn begin_with_buffer(&mut self, worker: &dyn Worker, tag: u16) -> Result<(), QueueError> {
        let buffer = self.slot(tag).take_buffer();
        self.begin(worker, tag, Memory::Buffer(buffer))
    }

    pub(super) fn begin_registered(
        &mut self,
        worker: &dyn Worker,
        tag: u16,
    ) -> Result<(), QueueError> {
        let index = self.index(tag);
        self.begin(worker, tag, Memory::Registered(index))
    }

    fn begin(&mut self, worker: &dyn Worker, tag: u16, memory: Memory) -> Result<(), QueueError> {
        let queue = self.spec.queue;
        let slot = self.slot(tag);
        slot.stage = Stage::Executing;
        let mut request = Slot::request(&slot.descriptor, queue, tag, &mut []);
        if matches!(request.op, Op::Read | Op::Write) {
            // A fault may want only a part of it.
            let sectors = slot.data_len() / u64::from(SECTOR_LEN);
            request.sectors = u32::try_from(sectors).expect("no longer than the request");
        }
        let progress = worker.begin(&request, memory);
        self.progressed(tag, progress)
    }

    /// An operation of the target's has completed.
    pub(super) fn worked(&mut self, working: Working, cqe: Cqe) -> Result<(), QueueError> {
        let tag = u16::try_from(working.user_data).expect("a tag");
        let progress = working.work.completed(cqe);
        self.progressed(tag, progress)
    }

    fn progressed(&mut self, tag: u16, progress: Progress) -> Result<(), QueueError> {
        match progress {
            Progress::Push(work) => {
                let working = Working { work, user_data: tag.into() };
                let pushed = self.ring.push(Either::Second(Either::Second(Either::First(working))));
                pushed.map_err(|refused| refused.kind)?;
                Ok(())
            }
            Progress::PushLater(pause, work) => {
                let slot = self.slot(tag);
                slot.parked = Some(work);
                slot.stage = Stage::Waiting(Until::Time(Instant::now() + pause));
                self.waiting.push(tag);
                Ok(())
            }
            Progress::Done(outcome, memory) => {
                if let Memory::Buffer(buffer) = memory {
                    self.slot(tag).buffer = Some(buffer);
                }
                self.slot(tag).outcome = outcome;
                self.copy_out(tag)
            }
        }
    }

    /// What a tag waited for has come.
    pub(super) fn resume(&mut self, tag: u16) -> Result<(), QueueError> {
        match self.slot(tag).parked.take() {
            Some(work) => {
                self.slot(tag).stage = Stage::Executing;
                self.progressed(tag, Progress::Push(work))
            }
            None => self.execute(tag),
        }
    }
}
