//! Queue commands with every field in the caller's hand, for tests of what the driver refuses.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use uring_cmd::{CqeSize, Either, Pointer, Region, Ring, Shape, SqeSize, WaitError};

use crate::{
    command::{Command, Node, Payload},
    control::open,
    descriptors::{Descriptors, probe},
    error::Error,
    transfer::FixedTransfer,
    uapi::{IoCmd, IoDesc},
};

/// A queue command. What is left out of [`RawCommand::new`] is zero.
#[derive(Debug)]
pub struct RawCommand {
    /// See [`crate::uapi::io`]; any number will do.
    pub op: u32,
    /// The queue.
    pub q_id: u16,
    /// The tag.
    pub tag: u16,
    /// The result, for a commit.
    pub result: i32,
    /// The address.
    pub memory: Pointer,
    /// Stands in for an address of 0: the index of a registered buffer.
    pub number: u16,
    /// `sqe.addr`: what automatic registration is told.
    pub sqe_addr: u64,
    /// `sqe.flags`, for example [`crate::SQE_ASYNC`].
    pub sqe_flags: u8,
}

impl RawCommand {
    /// A command about a tag.
    pub fn new(op: u32, q_id: u16, tag: u16) -> Self {
        let memory = Pointer::Null;
        RawCommand { op, q_id, tag, result: 0, memory, number: 0, sqe_addr: 0, sqe_flags: 0 }
    }

    /// The same, with this memory.
    #[must_use]
    pub fn memory(self, memory: impl Into<Pointer>) -> Self {
        RawCommand { memory: memory.into(), ..self }
    }
}

/// The answer to a command.
#[derive(Debug)]
pub struct RawReply {
    /// `cqe.res`.
    pub res: i32,
    /// The memory of the command.
    pub memory: Pointer,
}

impl RawReply {
    /// The result, or the errno.
    pub fn result(&self) -> Result<i32, Errno> {
        match self.res {
            0.. => Ok(self.res),
            negative => Err(Errno::from_raw_os_error(-negative)),
        }
    }
}

/// An open char device with a ring, and nobody who serves its requests. Dropping it leaves the device as a server does
/// that dies.
#[derive(Debug)]
pub struct RawQueue {
    ring: Ring<Either<Command, FixedTransfer>>,
    device: Arc<File>,
    next_token: u64,
    early: VecDeque<(u64, RawReply)>,
}

impl RawQueue {
    /// Opens the char device of a number, which has one opener at a time.
    pub fn open(dev_id: u32) -> Result<Self, Error> {
        let device = Arc::new(open(format!("/dev/ublkc{dev_id}").into())?);
        Self::on(device)
    }

    /// Another ring for the same open device.
    pub fn another(&self) -> Result<Self, Error> {
        Self::on(self.device.clone())
    }

    /// A ring for a char device that is open already, for example in another process.
    pub fn over(device: File) -> Result<Self, Error> {
        Self::on(Arc::new(device))
    }

    fn on(device: Arc<File>) -> Result<Self, Error> {
        let shape = Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..Shape::big(64) };
        let ring = Ring::new(&shape).map_err(Error::Setup)?;
        Ok(RawQueue { ring, device, next_token: 1, early: VecDeque::new() })
    }

    /// The char device, to read and write the data of requests.
    pub fn device(&self) -> &File {
        &self.device
    }

    /// Gives the ring a table of so many empty slots for buffers of requests.
    pub fn make_table(&mut self, slots: usize) -> io::Result<()> {
        self.ring.register_buffers(&vec![None; slots])
    }

    /// Puts memory of this process into a slot of the table.
    pub fn fill_slot(&mut self, slot: u16, memory: Arc<Region>) -> io::Result<()> {
        self.ring.update_buffer(slot, Some(memory))
    }

    /// Gives the ring a table of another's buffers.
    pub fn clone_table(&mut self, other: &mut RawQueue) -> io::Result<()> {
        self.ring.clone_buffers(&mut other.ring)
    }

    /// Maps a part of the char device and unmaps it again.
    pub fn probe_map(&self, offset: u64, len: usize, writable: bool) -> io::Result<()> {
        probe(&self.device, offset, len, writable)
    }

    /// The descriptor of a tag of a queue of so many tags.
    pub fn descriptor(&self, queue: u16, depth: u16, tag: u16) -> io::Result<IoDesc> {
        let stride = crate::uapi::IO_DESC_LEN;
        Ok(Descriptors::map(&self.device, queue, depth, stride)?.read(tag))
    }

    /// Submits a command and returns its token.
    pub fn begin(&mut self, command: RawCommand) -> Result<u64, Error> {
        let RawCommand { op, q_id, tag, result, memory, number, sqe_addr, sqe_flags } = command;
        let command = Command {
            node: Node::Open(self.device.clone()),
            cmd_op: op,
            payload: Payload::Io(IoCmd { q_id, tag, result, addr: 0 }),
            memory,
            number: number.into(),
            sqe_addr,
            sqe_flags,
            user_data: self.next_token,
        };
        self.submit(Either::First(command))
    }

    /// Submits a move of data of a request that is registered with this ring, and returns its token.
    pub fn begin_transfer(&mut self, transfer: FixedTransfer) -> Result<u64, Error> {
        let transfer = FixedTransfer { user_data: self.next_token, ..transfer };
        self.submit(Either::Second(transfer))
    }

    fn submit(&mut self, operation: Either<Command, FixedTransfer>) -> Result<u64, Error> {
        let token = self.ring.push(operation).map_err(|refused| refused.kind)?;
        self.next_token += 1;
        self.ring.submit().map_err(Error::Submit)?;
        Ok(token)
    }

    /// Waits for the answer to a command until the deadline; `None` if the driver keeps the command.
    pub fn finish(&mut self, token: u64, deadline: Instant) -> Result<Option<RawReply>, Error> {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == token) {
            return Ok(self.early.remove(at).map(|(_, reply)| reply));
        }
        loop {
            let done = match self.ring.wait(deadline) {
                Ok(done) => done,
                Err(WaitError::Deadline { .. }) => return Ok(None),
                Err(source) => return Err(Error::Wait { command: "queue command", source }),
            };
            let memory = match done.operation.ok_or(Error::Stray(done.cqe))? {
                Either::First(command) => command.memory,
                Either::Second(_) => Pointer::Null,
            };
            let reply = RawReply { res: done.cqe.res, memory };
            match done.cqe.user_data == token {
                true => return Ok(Some(reply)),
                false => self.early.push_back((done.cqe.user_data, reply)),
            }
        }
    }

    /// Submits a command and waits for its answer; `None` if the driver keeps it longer than `patience`.
    pub fn exchange(
        &mut self,
        command: RawCommand,
        patience: Duration,
    ) -> Result<Option<RawReply>, Error> {
        let deadline = Instant::now() + patience;
        let token = self.begin(command)?;
        self.finish(token, deadline)
    }
}
