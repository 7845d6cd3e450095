//! `URING_CMD` on a bsg node.

use std::{
    collections::VecDeque,
    fs::File,
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use uring_cmd::{Pointer, Ring, Shape, Sqe};
use zerocopy::IntoBytes;

use crate::{
    Access, Completion, Data, Error, Passthrough, Raw, Request,
    request::{Call, cdb_memory, data_bytes, len_u32, sense_memory, sense_written},
    uapi::{BsgUringCmd, Res2},
};

/// A command as `struct bsg_uring_cmd` in its submission entry, to bend as a test likes.
#[derive(Debug)]
pub struct UringFrame {
    /// The entry around the command. `opcode`, `fd`, `user_data` and `cmd` are overwritten on
    /// submission; all others go to the kernel as they are.
    pub sqe: Sqe,
    /// The command. Its address fields are overwritten from the pointers below.
    pub command: BsgUringCmd,
    /// What `request` points to.
    pub request: Pointer,
    /// What `response` points to.
    pub response: Pointer,
    /// What `dout_xferp` points to.
    pub dout: Pointer,
    /// What `din_xferp` points to.
    pub din: Pointer,
    /// Keeps the node open until the kernel has seen the entry.
    node: Option<Arc<File>>,
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
        match request.data {
            Data::None => {}
            Data::In(buffer) => {
                frame.command.din_xfer_len = len_u32(buffer.len());
                frame.din = buffer.into();
            }
            Data::Out(buffer) => {
                frame.command.dout_xfer_len = len_u32(buffer.len());
                frame.dout = buffer.into();
            }
        }
        frame
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
    /// The entry with the addresses of the pointers in it.
    pub(crate) fn entry(&mut self) -> Sqe {
        self.command.request = self.request.address();
        self.command.response = self.response.address();
        self.command.dout_xferp = self.dout.address();
        self.command.din_xferp = self.din.address();
        let fd = self.node.as_ref().map_or(-1, |node| node.as_raw_fd());
        let command =
            Sqe::uring_cmd(fd, self.sqe.cmd_op, self.command.as_bytes(), self.sqe.user_data);
        Sqe { opcode: command.opcode, fd, cmd: command.cmd, ..self.sqe }
    }
}

/// A command that has come back.
#[derive(Debug)]
pub struct UringCompletion {
    /// What [`BsgUring::submit`] returned.
    pub token: u64,
    /// `cqe.res`: 0 if the command was executed, else a negated errno.
    pub res: i32,
    /// `cqe.flags`.
    pub flags: u32,
    /// `cqe.big_cqe[0]`, see [`Res2`]; `None` on a ring of 16-byte completions.
    pub res2: Option<u64>,
    /// `cqe.big_cqe[1]`; `None` on a ring of 16-byte completions.
    pub extra2: Option<u64>,
    /// The command and its memory.
    pub frame: UringFrame,
}

impl UringCompletion {
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

/// A bsg node and a ring of its own.
#[derive(Debug)]
pub struct BsgUring {
    ring: Ring<UringFrame>,
    node: Arc<File>,
    next_token: u64,
    /// Completions that came while another one was waited for.
    early: VecDeque<UringCompletion>,
}

/// Time [`BsgUring::execute`] gives the completion beyond the command's own: the kernel's timer is a
/// second or two late, and error handling comes on top.
const GRACE: Duration = Duration::from_secs(30);

/// What the kernel makes of `timeout_ms` 0.
const KERNEL_DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

impl BsgUring {
    /// Opens a node, for example `/dev/bsg/0:0:0:0`, with a ring of 64 big entries.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, Error> {
        Self::with_shape(path, access, &Shape::big(64))
    }

    /// Opens a node with a ring of the given shape, which the kernel may find unfit for bsg.
    pub fn with_shape(
        path: impl AsRef<Path>,
        access: Access,
        shape: &Shape,
    ) -> Result<Self, Error> {
        let node = Arc::new(crate::open(path.as_ref(), access)?);
        let ring = Ring::new(shape).map_err(Error::Setup)?;
        Ok(BsgUring { ring, node, next_token: 1, early: VecDeque::new() })
    }

    /// Puts a command into the submission queue and returns its token. The kernel sees it at the next
    /// [`BsgUring::flush`] or wait, together with all others pushed before.
    pub fn push(&mut self, mut frame: UringFrame) -> Result<u64, Error> {
        frame.sqe.user_data = self.next_token;
        frame.node = Some(self.node.clone());
        let token = self.ring.push(frame).map_err(|refused| refused.kind)?;
        self.next_token += 1;
        Ok(token)
    }

    /// Hands all pushed commands to the kernel and returns their number.
    pub fn flush(&mut self) -> Result<usize, Error> {
        self.ring.submit().map_err(Error::Submit)
    }

    /// Hands one command to the kernel and returns its token.
    pub fn submit(&mut self, frame: UringFrame) -> Result<u64, Error> {
        let token = self.push(frame)?;
        self.flush()?;
        Ok(token)
    }

    /// Commands the ring owns.
    pub fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }

    /// Waits for any command until `deadline`.
    pub fn wait(&mut self, deadline: Instant) -> Result<UringCompletion, Error> {
        match self.early.pop_front() {
            Some(completion) => Ok(completion),
            None => self.next(deadline),
        }
    }

    /// Waits for the command with this token until `deadline`; others that come are kept for
    /// [`BsgUring::wait`].
    pub fn wait_for(&mut self, token: u64, deadline: Instant) -> Result<UringCompletion, Error> {
        if let Some(at) = self.early.iter().position(|early| early.token == token) {
            return Ok(self.early.remove(at).expect("the position was just found"));
        }
        loop {
            let completion = self.next(deadline)?;
            if completion.token == token {
                return Ok(completion);
            }
            self.early.push_back(completion);
        }
    }

    fn next(&mut self, deadline: Instant) -> Result<UringCompletion, Error> {
        let done = self.ring.wait(deadline)?;
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
}

impl Passthrough for BsgUring {
    /// Fails with [`Error::Wait`] when no completion comes within the command's time and 30 s.
    fn execute(&mut self, request: Request) -> Result<Completion, Error> {
        let time = match request.timeout_ms {
            0 => KERNEL_DEFAULT_TIMEOUT,
            ms => Duration::from_millis(ms.into()),
        };
        let token = self.submit(request.into())?;
        self.wait_for(token, Instant::now() + time + GRACE)?.completion()
    }
}
