//! The data of requests: how it gets from the application to the medium and back.

use std::{os::fd::AsFd, sync::Arc};

use rustix::io::{Errno, pread, pwrite};
use uring_cmd::{Either, Pointer};

use super::{Queue, QueueError, Slot, Stage};
use crate::{
    mode::DataMode,
    target::{Memory, Op, Place},
    transfer::Transfer,
    uapi::{io as io_op, io_flag, position},
};

/// Moves all bytes by a call that may move fewer.
fn all(len: usize, mut piece: impl FnMut(usize) -> rustix::io::Result<usize>) -> Result<(), Errno> {
    let mut done = 0;
    while done < len {
        match piece(done) {
            Ok(0) => return Err(Errno::IO),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Queue<'_> {
    /// Does what a request wants, or begins to.
    pub(super) fn execute(&mut self, tag: u16) -> Result<(), QueueError> {
        let buffer_len = self.spec.buffer_len;
        let slot = self.slot(tag);
        slot.stage = Stage::Executing;
        let len = slot.data_len();
        if !slot.effect.executes() || slot.effect.short == Some(0) {
            return self.done(tag);
        }
        let moves_data = slot.moves_data();
        if moves_data && slot.descriptor.op_flags & io_flag::SHMEM_ZC != 0 {
            // Its data is where the application has it, in memory this server does not know.
            return self.failed(tag, Errno::OPNOTSUPP);
        }
        let by_server = slot.descriptor.op_flags & io_flag::NEED_REG_BUF != 0;
        let fits = usize::try_from(len).ok().filter(|len| !moves_data || *len <= buffer_len);
        let len = fits.ok_or(QueueError::TooLong { tag, len })?;
        if let Some(worker) = self.target.worker() {
            return self.employ(worker, tag, by_server);
        }
        if !moves_data {
            return self.handle(tag, 0);
        }
        match self.spec.mode {
            _ if !self.needs_data => self.handle(tag, 0),
            DataMode::Copy | DataMode::GetData => self.by_buffer(tag, len),
            DataMode::UserCopy => match self.copy_in(tag, len) {
                Ok(()) => self.by_buffer(tag, len),
                Err(errno) => self.failed(tag, errno),
            },
            DataMode::AutoBuf if !by_server => self.move_registered(tag),
            DataMode::ZeroCopy | DataMode::AutoBuf => {
                self.slot(tag).stage = Stage::Registering;
                self.push(io_op::REGISTER_IO_BUF, tag, 0, Pointer::Null)
            }
        }
    }

    pub(super) fn failed(&mut self, tag: u16, errno: Errno) -> Result<(), QueueError> {
        self.slot(tag).outcome = Err(errno);
        self.done(tag)
    }

    /// Has the target do it at once, with the first `len` bytes of the buffer as data.
    fn handle(&mut self, tag: u16, len: usize) -> Result<(), QueueError> {
        self.ask(tag, len)?;
        self.copy_out(tag)
    }

    fn ask(&mut self, tag: u16, len: usize) -> Result<(), QueueError> {
        if self.needs_data {
            // It may take its time, for which those that are answered must not wait.
            self.ring.submit().map_err(QueueError::Submit)?;
        }
        let (queue, target) = (self.spec.queue, self.target);
        let slot = self.slot(tag);
        let descriptor = slot.descriptor;
        let data = match len {
            0 => &mut [],
            len => &mut slot.buffer.as_mut().expect("a request has its buffer")[..len],
        };
        let mut request = Slot::request(&descriptor, queue, tag, data);
        request.metadata = &mut slot.metadata;
        if request.op == Op::ReportZones {
            // An entry without a length ends the report; the bytes of the last request must not make more of it.
            request.data.fill(0);
        }
        let outcome = target.handle(&mut request);
        tracing::debug!(queue, tag, op = ?request.op, ?outcome, "request");
        if request.op == Op::ZoneAppend {
            slot.landed = request.start_sector;
        }
        slot.outcome = outcome;
        Ok(())
    }

    /// Where the data of a tag's request lies on the medium, if that is a file.
    fn place(&mut self, tag: u16) -> Option<Place> {
        let descriptor = self.slot(tag).descriptor;
        self.target.place(&Slot::request(&descriptor, self.spec.queue, tag, &mut []))
    }

    /// Data is in the buffer, or comes there.
    fn by_buffer(&mut self, tag: u16, len: usize) -> Result<(), QueueError> {
        if !self.slot(tag).metadata.is_empty() {
            // The ring moves none.
            return self.handle(tag, len);
        }
        let Some(place) = self.place(tag) else { return self.handle(tag, len) };
        let memory = Memory::Buffer(self.slot(tag).take_buffer());
        self.transfer(tag, &place, len, memory)
    }

    /// Data is in the ring's table, and goes to the medium, or to the scratch file, without a look at it.
    pub(super) fn move_registered(&mut self, tag: u16) -> Result<(), QueueError> {
        let len = usize::try_from(self.slot(tag).data_len()).expect("it fits the buffer");
        let place = match self.place(tag) {
            Some(place) => place,
            None => {
                let place = self.scratch(tag);
                if self.op(tag).fetches() {
                    self.ask(tag, len)?;
                    let buffer = self.slot(tag).buffer.take().expect("a request has its buffer");
                    let written = all(len, |done| {
                        pwrite(&place.file, &buffer[done..len], place.offset + done as u64)
                    });
                    self.slot(tag).buffer = Some(buffer);
                    let failed = written.err().or(self.slot(tag).outcome.err());
                    if let Some(errno) = failed {
                        return self.failed(tag, errno);
                    }
                }
                place
            }
        };
        self.transfer(tag, &place, len, Memory::Registered(self.index(tag)))
    }

    /// The part of the scratch file that is a tag's.
    fn scratch(&self, tag: u16) -> Place {
        let file = self.scratch.clone().expect("there is one where data is registered");
        let len = u64::try_from(self.spec.buffer_len).expect("an address has 64 bits");
        Place { file, offset: u64::from(self.index(tag)) * len }
    }

    fn op(&mut self, tag: u16) -> Op {
        self.slot(tag).op()
    }

    fn transfer(
        &mut self,
        tag: u16,
        place: &Place,
        len: usize,
        memory: Memory,
    ) -> Result<(), QueueError> {
        let transfer = Transfer {
            file: Arc::clone(&place.file),
            offset: place.offset,
            len: u32::try_from(len).expect("a request is shorter than 4 GiB"),
            to_file: self.op(tag).stores(),
            memory,
            user_data: tag.into(),
        };
        self.ring.push(Either::Second(Either::First(transfer))).map_err(|refused| refused.kind)?;
        Ok(())
    }

    /// A transfer has ended.
    pub(super) fn moved(&mut self, transfer: Transfer, res: i32) -> Result<(), QueueError> {
        let tag = u16::try_from(transfer.user_data).expect("a tag");
        let moved = u32::try_from(res).map_err(|_| Errno::from_raw_os_error(-res));
        let registered = match transfer.memory {
            Memory::Buffer(buffer) => {
                self.slot(tag).buffer = Some(buffer);
                false
            }
            Memory::Registered(_) | Memory::None => true,
        };
        let by_scratch = registered && self.place(tag).is_none();
        let reads = self.op(tag).fetches();
        let slot = self.slot(tag);
        match moved {
            // The target has said how much of it there is.
            Ok(moved) if by_scratch && reads => {
                slot.outcome = slot.outcome.map(|bytes| bytes.min(moved));
            }
            Ok(moved) if by_scratch => return self.written_to_scratch(tag, moved),
            moved => slot.outcome = moved,
        }
        self.copy_out(tag)
    }

    /// The data of a WRITE is in the scratch file; the target gets it.
    fn written_to_scratch(&mut self, tag: u16, moved: u32) -> Result<(), QueueError> {
        let place = self.scratch(tag);
        let len = usize::try_from(moved).expect("it fits the buffer");
        let buffer = self.slot(tag).buffer.as_mut().expect("a request has its buffer");
        let read =
            all(len, |done| pread(&place.file, &mut buffer[done..len], place.offset + done as u64));
        if let Err(errno) = read {
            return self.failed(tag, errno);
        }
        self.ask(tag, len)?;
        self.done(tag)
    }

    /// In user copy mode, brings the data of a WRITE into the buffer, and its metadata beside it.
    pub(super) fn copy_in(&mut self, tag: u16, len: usize) -> Result<(), Errno> {
        let room = self.metadata_len(tag, len);
        let (device, at) = (self.spec.device.clone(), position::of(self.spec.queue, tag, 0));
        let slot = self.slot(tag);
        slot.metadata.resize(room, 0);
        if !slot.op().stores() {
            return Ok(());
        }
        let buffer = slot.buffer.as_mut().expect("a request has its buffer");
        all(len, |done| pread(device.as_fd(), &mut buffer[done..len], at + done as u64))?;
        let (metadata, at) = (&mut slot.metadata, at | position::INTEGRITY_FLAG);
        all(room, |done| pread(device.as_fd(), &mut metadata[done..], at + done as u64))
    }

    /// Bytes of metadata of so many bytes of a request.
    fn metadata_len(&mut self, tag: u16, len: usize) -> usize {
        let has_some = self.slot(tag).descriptor.op_flags & io_flag::INTEGRITY != 0;
        match &self.spec.integrity {
            Some(shape) if has_some => {
                (len >> shape.interval_exp) * usize::from(shape.metadata_size)
            }
            _ => 0,
        }
    }

    /// In user copy mode, brings what was read to the application.
    pub(super) fn copy_out(&mut self, tag: u16) -> Result<(), QueueError> {
        let copies = self.needs_data && self.spec.mode == DataMode::UserCopy;
        if let (true, true, Ok(bytes)) = (copies, self.op(tag).fetches(), self.slot(tag).outcome) {
            let limit = self.slot(tag).data_len();
            let len = usize::try_from(limit.min(bytes.into())).expect("it fits the buffer");
            let metadata_len = self.metadata_len(tag, len);
            let (device, at) = (self.spec.device.clone(), position::of(self.spec.queue, tag, 0));
            let slot = self.slot(tag);
            let buffer = slot.buffer.as_ref().expect("a request has its buffer");
            let copied =
                all(len, |done| pwrite(device.as_fd(), &buffer[done..len], at + done as u64));
            let (metadata, at) = (&slot.metadata, at | position::INTEGRITY_FLAG);
            let copied = copied.and_then(|()| {
                all(metadata_len, |done| {
                    pwrite(device.as_fd(), &metadata[done..metadata_len], at + done as u64)
                })
            });
            if let Err(errno) = copied {
                return self.failed(tag, errno);
            }
        }
        self.done(tag)
    }
}
