//! What is submitted to `/dev/ublk-control` and `/dev/ublkcN`: a payload whose bytes 8 to 15 are the
//! address of the command's memory, in both of the driver's layouts.

use std::{fs::File, mem, os::fd::AsRawFd, sync::Arc};

use uring_cmd::{Operation, Pointer, Sqe};
use zerocopy::IntoBytes;

use crate::uapi::{CtrlCmd, IoCmd};

/// The payload of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload {
    Ctrl(CtrlCmd),
    Io(IoCmd),
}

/// A command and everything it refers to.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) file: Arc<File>,
    pub(crate) cmd_op: u32,
    pub(crate) payload: Payload,
    /// Overwrites the `addr` of the payload.
    pub(crate) memory: Pointer,
    pub(crate) user_data: u64,
}

// SAFETY: the only address in the entry is that of `memory`, whose buffer stays where it is when the
// command moves and is out of reach while the ring has the command; `file` keeps the descriptor open.
// A length that lies runs into the guard page behind the buffer.
unsafe impl Operation for Command {
    fn sqe(&mut self) -> Sqe {
        let address = self.memory.address();
        let payload = match &mut self.payload {
            Payload::Ctrl(ctrl) => {
                ctrl.addr = address;
                ctrl.as_bytes()
            }
            Payload::Io(io) => {
                io.addr = address;
                io.as_bytes()
            }
        };
        Sqe::uring_cmd(self.file.as_raw_fd(), self.cmd_op, payload, self.user_data)
    }

    /// Leaks the memory and lets go of the file: a char device that stays open cannot be deleted.
    fn abandon(self) {
        let Command { memory, .. } = self;
        mem::forget(memory);
    }
}
