//! A command on a ring: what goes to the kernel, and what comes back.

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use uring_cmd::{
    Completed, Pointer, Sqe,
    sqe::{CMD_FIXED, OP_URING_CMD, OP_URING_CMD128, SQE_IO_HARDLINK, SQE_IO_LINK},
};
use zerocopy::IntoBytes;

use crate::{
    Completion, Error, Node, Raw, Request,
    request::{Call, Placed, cdb_memory, data_bytes, len_u32, sense_memory, sense_written},
    uapi::{BsgUringCmd, Res2},
};

/// A command as `struct bsg_uring_cmd` in its submission entry, to bend as a test likes.
#[derive(Debug)]
pub struct UringFrame {
    /// The entry around the command. `fd`, `user_data` and `cmd` are overwritten on submission; `opcode` 0 stands
    /// for what the ring needs, [`OP_URING_CMD`] or, on a mixed one, [`OP_URING_CMD128`], and may be either; all
    /// others go to the kernel as they are.
    pub sqe: Sqe,
    /// The command. Its address fields are overwritten from the pointers below.
    pub command: BsgUringCmd,
    /// What `request` points to.
    pub request: Pointer,
    /// What `response` points to.
    pub response: Pointer,
    /// What `dout_xferp` points to. [`Pointer::Fixed`] sets the entry's flag for registered buffers.
    pub dout: Pointer,
    /// What `din_xferp` points to.
    pub din: Pointer,
    /// Keeps the node open until the kernel has seen the entry.
    node: Option<Node>,
}

impl From<Request> for UringFrame {
    fn from(request: Request) -> Self {
        let mut frame = UringFrame {
            request: cdb_memory(&request.cdb),
            response: sense_memory(request.sense_capacity),
            ..UringFrame::default()
        };
        frame.command.request_len = len_u32(request.cdb.len());
        frame.command.max_response_len = request.sense_capacity;
        frame.command.timeout_ms = request.timeout_ms;
        if let Some(index) = request.fixed {
            frame.sqe.uring_cmd_flags = CMD_FIXED;
            frame.sqe.buf_index = index;
        }
        let data = Placed::from(request.data);
        frame.command.dout_xfer_len = data.dout_len;
        frame.command.din_xfer_len = data.din_len;
        UringFrame { dout: data.dout, din: data.din, ..frame }
    }
}

impl Default for UringFrame {
    fn default() -> Self {
        UringFrame {
            sqe: Sqe::zeroed(),
            command: BsgUringCmd::default(),
            request: Pointer::Null,
            response: Pointer::Null,
            dout: Pointer::Null,
            din: Pointer::Null,
            node: None,
        }
    }
}

impl UringFrame {
    /// Has the next command on the ring begin when this one is complete.
    #[must_use]
    pub fn link(mut self, link: Link) -> Self {
        self.sqe.flags |= match link {
            Link::Soft => SQE_IO_LINK,
            Link::Hard => SQE_IO_HARDLINK,
        };
        self
    }

    /// Aims the command at a node, for a ring other than [`crate::BsgUring`]'s, to which this is an
    /// [`uring_cmd::Operation`] beside others.
    #[must_use]
    pub fn aim(mut self, node: &Node, user_data: u64) -> Self {
        self.node = Some(node.clone());
        self.sqe.user_data = user_data;
        self
    }

    /// The entry with the addresses of the pointers in it.
    ///
    /// # Panics
    /// If it is another operation than a command for a driver, or CDB or sense data are in a registered buffer,
    /// where the kernel does not look for them.
    pub(crate) fn entry(&mut self) -> Sqe {
        let opcode = match self.sqe.opcode {
            0 => OP_URING_CMD,
            opcode @ (OP_URING_CMD | OP_URING_CMD128) => opcode,
            other => panic!("operation {other} is no command for a driver"),
        };
        self.command.request = self.request.address();
        self.command.response = self.response.address();
        let (dout, dout_is_fixed) = place(&mut self.dout);
        let (din, din_is_fixed) = place(&mut self.din);
        self.command.dout_xferp = dout;
        self.command.din_xferp = din;
        if dout_is_fixed || din_is_fixed {
            self.sqe.uring_cmd_flags |= CMD_FIXED;
        }
        let fd = self.node.as_ref().map_or(-1, |node| node.file().as_raw_fd());
        let command =
            Sqe::uring_cmd(fd, self.sqe.cmd_op, self.command.as_bytes(), self.sqe.user_data);
        Sqe { opcode, fd, cmd: command.cmd, ..self.sqe }
    }
}

/// What the field of a data pointer holds, and whether it means the table of registered buffers.
fn place(pointer: &mut Pointer) -> (u64, bool) {
    match pointer {
        Pointer::Fixed(at) => (*at, true),
        pointer => (pointer.address(), false),
    }
}

/// How a command holds back the next one on its ring.
///
/// A SCSI failure is no failure of the entry: its result is 0, and both kinds go on. Only what the kernel refuses, and
/// sense data that could not be written, cuts a soft link; what hangs on it completes with `ECANCELED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// `IOSQE_IO_LINK`.
    Soft,
    /// `IOSQE_IO_HARDLINK`.
    Hard,
}

/// A command that has come back.
#[derive(Debug)]
pub struct UringCompletion {
    /// What [`crate::BsgUring::submit`] returned.
    pub token: u64,
    /// `cqe.res`: 0 if the command was executed, else a negated errno.
    pub res: i32,
    /// `cqe.flags`.
    pub flags: u32,
    /// `cqe.big_cqe[0]`, see [`Res2`]; `None` if the completion has 16 bytes.
    pub res2: Option<u64>,
    /// `cqe.big_cqe[1]`; `None` if the completion has 16 bytes.
    pub extra2: Option<u64>,
    /// The command and its memory, which can be submitted again as they are.
    pub frame: UringFrame,
}

impl UringCompletion {
    /// What a ring has given back; an [`Error::Stray`] if there is no command with it.
    pub fn new(done: Completed<UringFrame>) -> Result<Self, Error> {
        let cqe = done.cqe;
        Ok(UringCompletion {
            token: cqe.user_data,
            res: cqe.res,
            flags: cqe.flags,
            res2: cqe.big.map(|words| words[0]),
            extra2: cqe.big.map(|words| words[1]),
            frame: done.operation.ok_or(Error::Stray(cqe))?,
        })
    }

    /// The outcome, or the refusal as an error.
    pub fn completion(&self) -> Result<Completion, Error> {
        if self.res < 0 {
            let errno = Errno::from_raw_os_error(-self.res);
            return Err(Error::Refused { call: Call::UringCmd, errno });
        }
        let (Some(res2), Some(extra2)) = (self.res2, self.extra2) else {
            return Err(Error::SmallCompletion);
        };
        let decoded = Res2::from(res2);
        let data = match &self.frame.dout {
            Pointer::Null => &self.frame.din,
            dout => dout,
        };
        Ok(Completion {
            device_status: decoded.device_status.into(),
            driver_status: decoded.driver_status.into(),
            host_status: decoded.host_status.into(),
            sense: sense_written(&self.frame.response, decoded.sense_len_wr.into())?,
            residual: decoded.residual.into(),
            info: None,
            data: data_bytes(data),
            raw: Raw::Uring { res: self.res, res2, extra2 },
        })
    }
}
