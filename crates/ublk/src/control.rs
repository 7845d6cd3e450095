//! The control plane: commands on `/dev/ublk-control`.

mod commands;

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use uring_cmd::{Buffer, Cancel, CancelError, CqeSize, Pointer, Ring, Shape};

use crate::{
    command::{Command, Node, Payload},
    error::Error,
    uapi::{CtrlCmd, ctrl, legacy},
};

/// Opens a node for reading and writing.
pub(crate) fn open(path: PathBuf) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| Error::Open { path, source })
}

/// The answer to a control command.
#[derive(Debug)]
pub struct Reply {
    /// What [`Control::begin`] returned.
    pub token: u64,
    /// `cqe.res`: 0 or positive on success, a negated errno otherwise.
    pub res: i32,
    /// The memory of the command.
    pub memory: Pointer,
}

/// Time a typed command has unless [`Control::set_timeout`] says otherwise. STOP and DEL wait for
/// requests to drain, START for the fetches of a server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An open `/dev/ublk-control` with a ring.
///
/// Typed commands wait for their answer, at most for the timeout. [`Control::begin`] and
/// [`Control::finish`] are the two halves of any command, with every field in the caller's hand.
#[derive(Debug)]
pub struct Control {
    ring: Ring<Command>,
    file: Arc<File>,
    timeout: Duration,
    next_token: u64,
    /// Commands are sent by the numbers of Linux 6.0.
    legacy: bool,
    /// Commands say the path of the char device.
    says_path: bool,
    /// Answers that came while another one was waited for.
    early: VecDeque<Reply>,
}

impl Control {
    /// Opens the control node with a ring of 128-byte submission entries.
    pub fn open() -> Result<Self, Error> {
        Self::with_shape(&Shape { cqe: CqeSize::Bytes16, ..Shape::big(16) })
    }

    /// Opens the control node with a ring of the given shape, which the driver may find unfit.
    pub fn with_shape(shape: &Shape) -> Result<Self, Error> {
        Ok(Control {
            file: Arc::new(open("/dev/ublk-control".into())?),
            ring: Ring::new(shape).map_err(Error::Setup)?,
            timeout: TIMEOUT,
            next_token: 1,
            legacy: false,
            says_path: false,
            early: VecDeque::new(),
        })
    }

    /// Changes the time each typed command has.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Has typed commands sent by the numbers of Linux 6.0, see [`legacy`]. Those that came later have none; the
    /// driver refuses them.
    pub fn use_legacy_numbers(&mut self) {
        self.legacy = true;
    }

    /// Has typed commands say the path of the char device, `/dev/ublkcN`, by whose permissions the driver then judges
    /// the caller. A device that was made with [`crate::Features::UNPRIVILEGED_DEV`] asks for it, even of its owner.
    pub fn say_path(&mut self) {
        self.says_path = true;
    }

    /// Submits a command and returns its token. `command.addr` is overwritten with the address of
    /// `memory`; everything else goes to the driver as it is.
    pub fn begin(&mut self, op: u32, command: CtrlCmd, memory: Pointer) -> Result<u64, Error> {
        let token = self.next_token;
        let command = Command {
            node: Node::Open(self.file.clone()),
            cmd_op: op,
            payload: Payload::Ctrl(command),
            memory,
            number: 0,
            sqe_addr: 0,
            sqe_flags: 0,
            user_data: token,
        };
        self.ring.push(command).map_err(|refused| refused.kind)?;
        self.next_token += 1;
        self.ring.submit().map_err(Error::Submit)?;
        Ok(token)
    }

    /// Asks the kernel to cancel a command, and waits until `deadline` to hear what became of that. One that a worker of the
    /// ring waits with is interrupted as by a signal ([`Cancel::Running`]); its own answer comes in any case.
    pub fn cancel(&mut self, token: u64, deadline: Instant) -> Result<Cancel, CancelError> {
        self.ring.cancel(token, deadline)
    }

    /// Waits for the answer to a command until `deadline`.
    pub fn finish(&mut self, token: u64, deadline: Instant) -> Result<Reply, Error> {
        if let Some(at) = self.early.iter().position(|early| early.token == token) {
            return Ok(self.early.remove(at).expect("the position was just found"));
        }
        loop {
            let done = self
                .ring
                .wait(deadline)
                .map_err(|source| Error::Wait { command: "control command", source })?;
            let memory = done.operation.ok_or(Error::Stray(done.cqe))?.memory;
            let reply = Reply { token: done.cqe.user_data, res: done.cqe.res, memory };
            if reply.token == token {
                return Ok(reply);
            }
            self.early.push_back(reply);
        }
    }

    /// One command, and its answer. What follows the path of the char device in the buffer comes back with it.
    fn exchange(
        &mut self,
        name: &'static str,
        op: u32,
        mut command: CtrlCmd,
        payload: &[u8],
    ) -> Result<Answer, Error> {
        let path = match self.says_path || op == ctrl::GET_DEV_INFO2 {
            true => format!("/dev/ublkc{}\0", command.dev_id).into_bytes(),
            false => Vec::new(),
        };
        command.dev_path_len = len_u16(path.len());
        let bytes = [&path, payload].concat();
        command.len = len_u16(bytes.len());
        let memory = match bytes.as_slice() {
            [] => Pointer::Null,
            bytes => Buffer::copy_of(bytes).expect("memory for a control command").into(),
        };
        let op = if self.legacy { legacy(op) } else { op };
        let deadline = Instant::now() + self.timeout;
        let token = self.begin(op, command, memory)?;
        let reply = self.finish(token, deadline).map_err(|error| match error {
            Error::Wait { source, .. } => Error::Wait { command: name, source },
            other => other,
        })?;
        if reply.res < 0 {
            let errno = Errno::from_raw_os_error(-reply.res);
            return Err(Error::Refused { command: name, errno });
        }
        let payload = reply.memory.buffer().map_or_else(Vec::new, |all| all[path.len()..].to_vec());
        Ok(Answer { res: reply.res, payload })
    }
}

/// What a command that succeeded has said.
struct Answer {
    res: i32,
    payload: Vec<u8>,
}

/// A length for a 16-bit field.
fn len_u16(len: usize) -> u16 {
    u16::try_from(len).expect("control buffers are small")
}
