//! The control plane: commands on `/dev/ublk-control`.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    path::PathBuf,
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use uring_cmd::{Buffer, CqeSize, Pointer, PushErrorKind, Ring, Shape, WaitError};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::{
    command::{Command, Payload},
    queue::QueueError,
    uapi::{ANY_DEVICE, CtrlCmd, DevInfo, Params, ctrl},
};

/// Why a device or its server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A node could not be opened, or is not what it should be.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A ring could not be set up.
    #[error("cannot set up a ring: {0}")]
    Setup(#[source] uring_cmd::SetupError),
    /// The driver refused a control command.
    #[error("{command} failed: {errno}")]
    Refused {
        /// Its name.
        command: &'static str,
        /// What the driver said.
        errno: Errno,
    },
    /// The control ring takes no more commands now.
    #[error("cannot push a control command: {0}")]
    Push(#[from] PushErrorKind),
    /// `io_uring_enter` failed on submission.
    #[error("cannot submit a control command: {0}")]
    Submit(#[source] io::Error),
    /// No answer came before the deadline. The command stays in flight, its memory with the ring.
    #[error("{command}: {source}")]
    Wait {
        /// Its name.
        command: &'static str,
        /// Why there is no answer.
        source: WaitError,
    },
    /// The driver answered without a command, or more than once.
    #[error("stray completion: {0:?}")]
    Stray(uring_cmd::Cqe),
    /// A thread of the server could not be started.
    #[error("cannot start the thread of queue {queue}: {source}")]
    Thread {
        /// The queue.
        queue: u16,
        /// Why.
        source: io::Error,
    },
    /// The queues of the server did not fetch all their tags in time.
    #[error("not every queue fetched its tags before the deadline")]
    NotFetching,
    /// A queue of the server ended in an error.
    #[error("queue {queue}: {source}")]
    Queue {
        /// The queue.
        queue: u16,
        /// What went wrong.
        source: QueueError,
    },
    /// A queue of the server did not end in time: its target still has a request.
    #[error("queue {queue} did not end before the deadline")]
    QueueStuck {
        /// The queue.
        queue: u16,
    },
    /// The thread of a queue panicked: its target did.
    #[error("the thread of queue {queue} panicked")]
    QueuePanicked {
        /// The queue.
        queue: u16,
    },
}

impl Error {
    /// The errno with which the driver refused a control command.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Setup(source) => Errno::from_io_error(source.io_error()),
            Error::Open { source, .. } | Error::Submit(source) | Error::Thread { source, .. } => {
                Errno::from_io_error(source)
            }
            Error::Push(_)
            | Error::Wait { .. }
            | Error::Stray(_)
            | Error::NotFetching
            | Error::Queue { .. }
            | Error::QueueStuck { .. }
            | Error::QueuePanicked { .. } => None,
        }
    }
}

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
            early: VecDeque::new(),
        })
    }

    /// Changes the time each typed command has.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// `GET_FEATURES`: the `UBLK_F_*` bits the driver knows.
    pub fn features(&mut self) -> Result<u64, Error> {
        self.get("GET_FEATURES", ctrl::GET_FEATURES, CtrlCmd::for_device(ANY_DEVICE))
    }

    /// `ADD_DEV`: makes a device and returns it as the driver did.
    pub fn add(&mut self, info: &DevInfo) -> Result<DevInfo, Error> {
        let command = CtrlCmd::for_device(info.dev_id);
        let reply = self.exchange("ADD_DEV", ctrl::ADD_DEV, command, Some(info.as_bytes()))?;
        Ok(value(&reply.memory))
    }

    /// `GET_DEV_INFO`.
    pub fn info(&mut self, dev_id: u32) -> Result<DevInfo, Error> {
        self.get("GET_DEV_INFO", ctrl::GET_DEV_INFO, CtrlCmd::for_device(dev_id))
    }

    /// `GET_DEV_INFO2`, which an unprivileged owner may use too: it proves the access to the char
    /// device by its path.
    pub fn info2(&mut self, dev_id: u32) -> Result<DevInfo, Error> {
        let path = format!("/dev/ublkc{dev_id}\0");
        let mut bytes = path.into_bytes();
        let path_len = bytes.len();
        bytes.resize(path_len + size_of::<DevInfo>(), 0);
        let mut command = CtrlCmd::for_device(dev_id);
        command.dev_path_len = len_u16(path_len);
        let reply = self.exchange("GET_DEV_INFO2", ctrl::GET_DEV_INFO2, command, Some(&bytes))?;
        let bytes = reply.memory.buffer().expect("the command had a buffer");
        Ok(DevInfo::read_from_bytes(&bytes[path_len..]).expect("the buffer was made to fit"))
    }

    /// `SET_PARAMS`.
    pub fn set_params(&mut self, dev_id: u32, params: &Params) -> Result<(), Error> {
        let command = CtrlCmd::for_device(dev_id);
        self.exchange("SET_PARAMS", ctrl::SET_PARAMS, command, Some(params.as_bytes()))?;
        Ok(())
    }

    /// `GET_PARAMS`.
    pub fn params(&mut self, dev_id: u32) -> Result<Params, Error> {
        let mut params = Params::new_zeroed();
        params.len = u32::from(len_u16(size_of::<Params>()));
        let command = CtrlCmd::for_device(dev_id);
        let reply =
            self.exchange("GET_PARAMS", ctrl::GET_PARAMS, command, Some(params.as_bytes()))?;
        Ok(value(&reply.memory))
    }

    /// `START_DEV` on behalf of this process. Waits for every queue to have fetched every tag.
    pub fn start(&mut self, dev_id: u32) -> Result<(), Error> {
        let mut command = CtrlCmd::for_device(dev_id);
        command.data = process::id().into();
        self.plain("START_DEV", ctrl::START_DEV, command)
    }

    /// `STOP_DEV`: removes the block device and gives all fetches back. Waits for requests to be
    /// committed, so the server must go on serving.
    pub fn stop(&mut self, dev_id: u32) -> Result<(), Error> {
        self.plain("STOP_DEV", ctrl::STOP_DEV, CtrlCmd::for_device(dev_id))
    }

    /// `DEL_DEV`: stops the device, removes it, and waits until its number is free, that is until
    /// its char device is closed.
    pub fn delete(&mut self, dev_id: u32) -> Result<(), Error> {
        self.plain("DEL_DEV", ctrl::DEL_DEV, CtrlCmd::for_device(dev_id))
    }

    /// Submits a command and returns its token. `command.addr` is overwritten with the address of
    /// `memory`; everything else goes to the driver as it is.
    pub fn begin(&mut self, op: u32, command: CtrlCmd, memory: Pointer) -> Result<u64, Error> {
        let token = self.next_token;
        let command = Command {
            file: self.file.clone(),
            cmd_op: op,
            payload: Payload::Ctrl(command),
            memory,
            user_data: token,
        };
        self.ring.push(command).map_err(|refused| refused.kind)?;
        self.next_token += 1;
        self.ring.submit().map_err(Error::Submit)?;
        Ok(token)
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

    fn plain(&mut self, name: &'static str, op: u32, command: CtrlCmd) -> Result<(), Error> {
        self.exchange(name, op, command, None).map(|_| ())
    }

    fn get<T: FromBytes>(
        &mut self,
        name: &'static str,
        op: u32,
        command: CtrlCmd,
    ) -> Result<T, Error> {
        let reply = self.exchange(name, op, command, Some(&vec![0; size_of::<T>()]))?;
        Ok(value(&reply.memory))
    }

    /// One command with a buffer that holds `bytes`, and its answer.
    fn exchange(
        &mut self,
        name: &'static str,
        op: u32,
        mut command: CtrlCmd,
        bytes: Option<&[u8]>,
    ) -> Result<Reply, Error> {
        let memory = match bytes {
            None => Pointer::Null,
            Some(bytes) => {
                command.len = len_u16(bytes.len());
                Buffer::copy_of(bytes).expect("memory for a control command").into()
            }
        };
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
        Ok(reply)
    }
}

/// The structure at the start of a command's buffer.
fn value<T: FromBytes>(memory: &Pointer) -> T {
    let bytes = memory.buffer().expect("the command had a buffer");
    T::read_from_bytes(bytes).expect("the buffer was made to fit")
}

/// A length for a 16-bit field.
fn len_u16(len: usize) -> u16 {
    u16::try_from(len).expect("control buffers are small")
}
