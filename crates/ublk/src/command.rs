//! What is submitted to `/dev/ublk-control` and `/dev/ublkcN`: a payload whose bytes 8 to 15 are the
//! address of the command's memory, in both of the driver's layouts.

use std::{fs::File, mem, os::fd::AsRawFd, sync::Arc};

use uring_cmd::{
    Operation, Pointer, Region, Sqe,
    sqe::{CMD_MULTISHOT, SQE_BUFFER_SELECT, SQE_FIXED_FILE},
};
use zerocopy::IntoBytes;

use crate::uapi::{BatchIo, CtrlCmd, IoCmd, io};

/// The payload of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload {
    Ctrl(CtrlCmd),
    Io(IoCmd),
}

/// The file of a command.
#[derive(Debug)]
pub(crate) enum Node {
    /// An open one.
    Open(Arc<File>),
    /// The one at this place in the ring's table of files.
    InTable(i32),
}

/// A command and everything it refers to.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) node: Node,
    pub(crate) cmd_op: u32,
    pub(crate) payload: Payload,
    /// Overwrites the `addr` of the payload.
    pub(crate) memory: Pointer,
    /// Stands in for address 0 where the driver takes no address: the index of a registered buffer, or the sector to
    /// which a zone append went, of a device that has none ([`crate::Features::ZONED`] needs user or zero copy).
    pub(crate) number: u64,
    /// `sqe.addr`, which this driver takes for no address but for numbers ([`crate::uapi::auto_buf`]).
    pub(crate) sqe_addr: u64,
    /// `IOSQE_*` beside that of the node.
    pub(crate) sqe_flags: u8,
    pub(crate) user_data: u64,
}

// SAFETY: the only address in the entry is that of `memory`, whose buffer stays where it is when the
// command moves and is out of reach while the ring has the command; `node` keeps the descriptor open, if it is one.
// A length that lies runs into the guard page behind the buffer. A `number` is either below 2^16, where no process has
// memory, or pushed by a queue that lends no buffers, whose driver takes it for no address.
unsafe impl Operation for Command {
    fn sqe(&mut self) -> Sqe {
        let address = match &mut self.memory {
            Pointer::Null => self.number,
            // What it is for every request of a device that copies.
            Pointer::To(buffer) => buffer.address(),
            memory => memory.address(),
        };
        let (fd, flags) = match &self.node {
            Node::Open(file) => (file.as_raw_fd(), 0),
            Node::InTable(place) => (*place, SQE_FIXED_FILE),
        };
        // Each with its length known to the compiler: this is done for every request.
        let mut sqe = match &mut self.payload {
            Payload::Ctrl(ctrl) => {
                ctrl.addr = address;
                Sqe::uring_cmd(fd, self.cmd_op, ctrl.as_bytes(), self.user_data)
            }
            Payload::Io(io) => {
                io.addr = address;
                Sqe::uring_cmd(fd, self.cmd_op, io.as_bytes(), self.user_data)
            }
        };
        (sqe.flags, sqe.addr) = (flags | self.sqe_flags, self.sqe_addr);
        sqe
    }

    /// Leaks the memory and lets go of the file: a char device that stays open cannot be deleted.
    fn abandon(self) {
        let Command { memory, .. } = self;
        mem::forget(memory);
    }
}

/// A queue command of a device with zero copy (`UBLK_F_SUPPORT_ZERO_COPY`), which refers to no memory, for a ring with
/// other operations beside it: the data of a request is registered with that ring, and they use it there.
#[derive(Debug)]
pub struct QueueCommand {
    device: Arc<File>,
    cmd_op: u32,
    command: IoCmd,
    user_data: u64,
}

impl QueueCommand {
    /// `UBLK_U_IO_FETCH_REQ` of the first queue's first tag.
    pub fn fetch(device: Arc<File>, user_data: u64) -> Self {
        let command = IoCmd { q_id: 0, tag: 0, result: -1, addr: 0 };
        QueueCommand { device, cmd_op: io::FETCH_REQ, command, user_data }
    }

    /// `UBLK_U_IO_COMMIT_AND_FETCH_REQ` after it.
    #[must_use]
    pub fn commit_and_fetch(self, result: i32) -> Self {
        let command = IoCmd { result, addr: 0, ..self.command };
        QueueCommand { cmd_op: io::COMMIT_AND_FETCH_REQ, command, ..self }
    }

    /// `UBLK_U_IO_REGISTER_IO_BUF` after it: the data of the request becomes buffer `index` of the ring this is pushed
    /// to, whose slot must be empty.
    #[must_use]
    pub fn register_buffer(self, index: u16) -> Self {
        let command = IoCmd { addr: index.into(), ..self.command };
        QueueCommand { cmd_op: io::REGISTER_IO_BUF, command, ..self }
    }

    /// `UBLK_U_IO_UNREGISTER_IO_BUF` after it: the slot is empty again.
    #[must_use]
    pub fn unregister_buffer(self, index: u16) -> Self {
        let command = IoCmd { addr: index.into(), ..self.command };
        QueueCommand { cmd_op: io::UNREGISTER_IO_BUF, command, ..self }
    }
}

// SAFETY: there is no address in the entry: 0, or the index of a slot, at which no process has memory. `device` keeps
// the descriptor open.
unsafe impl Operation for QueueCommand {
    fn sqe(&mut self) -> Sqe {
        let payload = self.command.as_bytes();
        Sqe::uring_cmd(self.device.as_raw_fd(), self.cmd_op, payload, self.user_data)
    }

    /// Lets go of everything: there is no memory.
    fn abandon(self) {}
}

/// `IORING_OP_PROVIDE_BUFFERS`.
const OP_PROVIDE_BUFFERS: u8 = 31;

/// A command of a device with [`crate::Features::BATCH_IO`], or what goes with it.
#[derive(Debug)]
pub(crate) enum BatchCommand {
    /// A command with a header.
    Command {
        file: Arc<File>,
        cmd_op: u32,
        header: BatchIo,
        /// What `sqe.addr` says.
        elements: Pointer,
        /// Answers more than once.
        multishot: bool,
        /// Group of provided buffers.
        group: u16,
        user_data: u64,
    },
    /// Buffers for tags, of `len` bytes, that lie one after the other in a region from its beginning: so many of them,
    /// from number `first` on.
    Provide { region: Arc<Region>, first: u16, buffers: u16, len: u32, group: u16, user_data: u64 },
}

// SAFETY: the only address of a command is that of `elements`, as for `Command`; those in the elements are of memory that
// is never freed (`raw_batch.rs`), or not before the driver has given up the fetches by which it could use it
// (`queue/pool.rs`). The memory of provided buffers is never freed either: the kernel writes there for as long as the
// ring lives.
unsafe impl Operation for BatchCommand {
    fn sqe(&mut self) -> Sqe {
        match self {
            BatchCommand::Command {
                file,
                cmd_op,
                header,
                elements,
                multishot,
                group,
                user_data,
            } => {
                let sqe = Sqe::uring_cmd(file.as_raw_fd(), *cmd_op, header.as_bytes(), *user_data);
                let (flags, command_flags) = match multishot {
                    true => (SQE_BUFFER_SELECT, CMD_MULTISHOT),
                    false => (0, 0),
                };
                let addr = elements.address();
                Sqe { addr, flags, uring_cmd_flags: command_flags, buf_index: *group, ..sqe }
            }
            BatchCommand::Provide { region, first, buffers, len, group, user_data } => {
                let end = usize::from(*first) + usize::from(*buffers);
                assert!(region.len() >= end * *len as usize, "they are in it");
                mem::forget(region.clone());
                Sqe {
                    opcode: OP_PROVIDE_BUFFERS,
                    fd: (*buffers).into(),
                    // `off` of the kernel's union: the number of the first.
                    cmd_op: (*first).into(),
                    addr: region.address() + u64::from(*first) * u64::from(*len),
                    len: *len,
                    buf_index: *group,
                    user_data: *user_data,
                    ..Sqe::zeroed()
                }
            }
        }
    }

    /// Leaks the elements, and lets go of the file.
    fn abandon(self) {
        if let BatchCommand::Command { elements, .. } = self {
            mem::forget(elements);
        }
    }
}
