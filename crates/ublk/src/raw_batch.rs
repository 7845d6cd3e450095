//! Batch commands with every field in the caller's hand.

use std::{collections::VecDeque, fs::File, io, mem, sync::Arc, time::Instant};

use rustix::io::Errno;
use uring_cmd::{Buffer, CqeSize, Pointer, Region, Ring, Shape, SqeSize, WaitError};

use crate::{
    command::BatchCommand,
    control::open,
    descriptors::Descriptors,
    error::Error,
    uapi::{BatchIo, ElemHeader, IO_DESC_LEN, IoDesc, batch},
};

/// One element of a PREP or a COMMIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The tag.
    pub tag: u16,
    /// Buffer of automatic registration.
    pub buf_index: u16,
    /// Result, for a commit.
    pub result: i32,
    /// Whether the tag's buffer is lent, where the header says that elements have one; else its address is 0.
    pub lends: bool,
    /// LBA of a zone append, where the header says that there is one.
    pub zone_lba: u64,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReply {
    /// `cqe.res`.
    pub res: i32,
    /// There will be more.
    pub more: bool,
    /// Tags that a fetch has brought.
    pub tags: Vec<u16>,
}

impl BatchReply {
    /// The result, or the errno.
    pub fn result(&self) -> Result<i32, Errno> {
        match self.res {
            0.. => Ok(self.res),
            negative => Err(Errno::from_raw_os_error(-negative)),
        }
    }
}

/// An open char device of a device with [`crate::Features::BATCH_IO`], with a ring, and nobody who serves its requests.
///
/// What the driver may write to at any time, buffers of tags and provided buffers, is never freed: rings end behind the
/// back of those who close them.
#[derive(Debug)]
pub struct BatchQueue {
    ring: Ring<BatchCommand>,
    device: Arc<File>,
    buffers: Arc<Region>,
    /// Bytes of each tag's buffer.
    buffer_len: usize,
    /// Provided buffers: the region of each group, from 0 on, and the length of a buffer.
    provided: Vec<(Arc<Region>, usize)>,
    next_token: u64,
    early: VecDeque<(u64, BatchReply)>,
}

impl BatchQueue {
    /// Opens the char device of a number, with room for so many tags' data.
    pub fn open(dev_id: u32, tags: u16, buffer_len: usize) -> Result<Self, Error> {
        let device = Arc::new(open(format!("/dev/ublkc{dev_id}").into())?);
        Self::on(device, tags, buffer_len)
    }

    fn on(device: Arc<File>, tags: u16, buffer_len: usize) -> Result<Self, Error> {
        let shape = Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..Shape::big(64) };
        let ring = Ring::new(&shape).map_err(Error::Setup)?;
        let buffers = Region::zeroed(usize::from(tags) * buffer_len).map_err(Error::Submit)?;
        mem::forget(buffers.clone());
        let (provided, early) = (Vec::new(), VecDeque::new());
        Ok(BatchQueue { ring, device, buffers, buffer_len, provided, next_token: 1, early })
    }

    /// The char device, to read and write the data of requests.
    pub fn device(&self) -> &File {
        &self.device
    }

    /// Gives the ring a table of so many empty slots for buffers of requests.
    pub fn make_table(&mut self, slots: usize) -> io::Result<()> {
        self.ring.register_buffers(&vec![None; slots])
    }

    /// The descriptor of a tag of a queue of so many tags.
    pub fn descriptor(&self, queue: u16, depth: u16, tag: u16) -> io::Result<IoDesc> {
        Ok(Descriptors::map(&self.device, queue, depth, IO_DESC_LEN)?.read(tag))
    }

    /// Bytes of a tag's buffer.
    pub fn data(&self, tag: u16, len: usize) -> Vec<u8> {
        self.buffers.read(usize::from(tag) * self.buffer_len, len)
    }

    /// Fills the beginning of a tag's buffer.
    pub fn set_data(&self, tag: u16, bytes: &[u8]) {
        self.buffers.write(usize::from(tag) * self.buffer_len, bytes);
    }

    /// Provides so many buffers of `len` bytes as the next group, from 0 on, and returns their memory.
    pub fn provide(
        &mut self,
        buffers: u16,
        len: u32,
        deadline: Instant,
    ) -> Result<Arc<Region>, Error> {
        let group = u16::try_from(self.provided.len()).expect("few groups");
        let each = usize::try_from(len).expect("at least 32 bits");
        let region = Region::zeroed((usize::from(buffers) * each).max(1)).map_err(Error::Submit)?;
        region.fill(0xff);
        self.provided.push((region.clone(), each));
        let user_data = self.next_token;
        let token = self.submit(BatchCommand::Provide {
            region: region.clone(),
            first: 0,
            buffers,
            len,
            group,
            user_data,
        })?;
        match self.finish(token, deadline)? {
            Some(reply) if reply.res >= 0 => Ok(region),
            Some(reply) => {
                let errno = Errno::from_raw_os_error(-reply.res);
                Err(Error::Refused { command: "PROVIDE_BUFFERS", errno })
            }
            None => Err(Error::Refused { command: "PROVIDE_BUFFERS", errno: Errno::TIMEDOUT }),
        }
    }

    /// How many groups of buffers were provided.
    pub fn groups(&self) -> u16 {
        u16::try_from(self.provided.len()).expect("few groups")
    }

    /// Submits a command with these elements, coded as the flags of the header say, and returns its token.
    pub fn begin(&mut self, op: u32, header: BatchIo, elements: &[Element]) -> Result<u64, Error> {
        let mut bytes = Vec::new();
        for element in elements {
            let Element { tag, buf_index, result, lends, zone_lba } = *element;
            let at = usize::from(tag) * self.buffer_len;
            let lends = lends && at + self.buffer_len <= self.buffers.len();
            let address = if lends { self.buffers.address() + at as u64 } else { 0 };
            let head = ElemHeader { tag, buf_index, result };
            batch::encode(&mut bytes, header.flags, head, address, zone_lba);
        }
        let elements = match bytes.as_slice() {
            [] => Pointer::Null,
            bytes => Buffer::copy_of(bytes).map_err(Error::Submit)?.into(),
        };
        self.begin_at(op, header, elements)
    }

    /// Submits a command whose elements are nowhere.
    pub fn begin_nowhere(&mut self, op: u32, header: BatchIo) -> Result<u64, Error> {
        self.begin_at(op, header, Pointer::Unmapped)
    }

    fn begin_at(&mut self, op: u32, header: BatchIo, elements: Pointer) -> Result<u64, Error> {
        let command = BatchCommand::Command {
            file: self.device.clone(),
            cmd_op: op,
            header,
            elements,
            multishot: false,
            group: 0,
            user_data: self.next_token,
        };
        self.submit(command)
    }

    /// Submits a fetch that answers as often as tags come, in buffers of a group.
    pub fn begin_multishot(&mut self, op: u32, header: BatchIo, group: u16) -> Result<u64, Error> {
        let command = BatchCommand::Command {
            file: self.device.clone(),
            cmd_op: op,
            header,
            elements: Pointer::Null,
            multishot: true,
            group,
            user_data: self.next_token,
        };
        self.submit(command)
    }

    fn submit(&mut self, command: BatchCommand) -> Result<u64, Error> {
        let token = self.ring.push(command).map_err(|refused| refused.kind)?;
        self.next_token += 1;
        self.ring.submit().map_err(Error::Submit)?;
        Ok(token)
    }

    /// Waits for the next answer to a command until the deadline; `None` if there is none.
    pub fn finish(&mut self, token: u64, deadline: Instant) -> Result<Option<BatchReply>, Error> {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == token) {
            return Ok(self.early.remove(at).map(|(_, reply)| reply));
        }
        loop {
            let done = match self.ring.wait(deadline) {
                Ok(done) => done,
                Err(WaitError::Deadline { .. } | WaitError::Idle) => return Ok(None),
                Err(source) => return Err(Error::Wait { command: "batch command", source }),
            };
            let buffer = done.cqe.buffer();
            let tags = buffer.map_or_else(Vec::new, |buffer| self.tags(buffer, done.cqe.res));
            let reply = BatchReply { res: done.cqe.res, more: done.cqe.has_more(), tags };
            match done.cqe.user_data == token {
                true => return Ok(Some(reply)),
                false => self.early.push_back((done.cqe.user_data, reply)),
            }
        }
    }

    /// Tags in a provided buffer. One group is in use at a time, the last.
    fn tags(&self, buffer: u16, res: i32) -> Vec<u16> {
        let Some((region, each)) = self.provided.last() else { return Vec::new() };
        let len = usize::try_from(res).unwrap_or(0);
        batch::tags(&region.read(usize::from(buffer) * each, len))
    }
}
