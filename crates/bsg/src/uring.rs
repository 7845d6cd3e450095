//! `URING_CMD` on a bsg node.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use uring_cmd::{
    Cancel, CancelError, LooseWord, Region, Ring, Shape, SqeSize, sqe::OP_URING_CMD128,
};

use crate::{Access, Completion, Error, Node, Passthrough, Request, UringCompletion, UringFrame};

/// A bsg node and a ring of its own.
///
/// A command that was submitted cannot be taken back: bsg marks none as one that can be cancelled
/// (`scsi_bsg.c:scsi_bsg_uring_cmd`). Whoever loses interest says so with [`BsgUring::discard`], or drops the whole;
/// the memory of what is in flight stays with the ring, or with the process-wide [`uring_cmd::keeper`], until the
/// completion has come.
#[derive(Debug)]
pub struct BsgUring {
    /// `None` only while it is being dropped.
    ring: Option<Ring<UringFrame>>,
    node: Node,
    /// Whether large submissions have an operation of their own.
    is_mixed: bool,
    next_token: u64,
    /// Commands whose completion nobody wants.
    discarded: BTreeSet<u64>,
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
        let node = Node::open(path, access)?;
        let ring = Ring::new(shape).map_err(Error::Setup)?;
        Ok(BsgUring {
            ring: Some(ring),
            node,
            is_mixed: shape.sqe == SqeSize::Mixed,
            next_token: 1,
            discarded: BTreeSet::new(),
            early: VecDeque::new(),
        })
    }

    fn ring(&mut self) -> &mut Ring<UringFrame> {
        self.ring.as_mut().expect("there is a ring until this is dropped")
    }

    /// Makes a table of buffers, by position, for [`Request::fixed`]; `None` is an empty slot. The kernel pins their
    /// pages, which it then need not do for each command. EBUSY if there is a table already, EFAULT for a region
    /// that cannot be written.
    pub fn register_buffers(&mut self, regions: &[Option<Arc<Region>>]) -> Result<(), Error> {
        self.ring().register_buffers(regions).map_err(Error::Register)
    }

    /// Changes one slot of the table. Commands in flight keep the buffer they began with.
    pub fn update_buffer(&mut self, index: u16, region: Option<Arc<Region>>) -> Result<(), Error> {
        self.ring().update_buffer(index, region).map_err(Error::Register)
    }

    /// Ends the table. Commands in flight keep their buffers.
    pub fn unregister_buffers(&mut self) -> Result<(), Error> {
        self.ring().unregister_buffers().map_err(Error::Register)
    }

    /// Registers the credentials this thread has now, for `personality` in [`UringFrame::sqe`]: the opcode filter
    /// asks those of the command.
    pub fn register_personality(&mut self) -> Result<u16, Error> {
        self.ring().register_personality().map_err(Error::Register)
    }

    /// Puts a command into the submission queue and returns its token. The kernel sees it at the next
    /// [`BsgUring::flush`] or wait, together with all others pushed before.
    pub fn push(&mut self, mut frame: UringFrame) -> Result<u64, Error> {
        if frame.sqe.opcode == 0 && self.is_mixed {
            frame.sqe.opcode = OP_URING_CMD128;
        }
        let frame = frame.aim(&self.node, self.next_token);
        let token = self.ring().push(frame).map_err(|refused| refused.kind)?;
        self.next_token += 1;
        Ok(token)
    }

    /// A length or a time in the entry of the command pushed last, by its offset in the entry, to be changed while the
    /// kernel reads it ([`Ring::loose_word`]).
    ///
    /// # Panics
    /// If it is anything else, or the ring's submission entries do not all have 128 bytes.
    pub fn loose_word(&mut self, offset: u32) -> LooseWord {
        self.ring().loose_word(offset)
    }

    /// Hands all pushed commands to the kernel and returns their number.
    pub fn flush(&mut self) -> Result<usize, Error> {
        self.ring().submit().map_err(Error::Submit)
    }

    /// Hands one command to the kernel and returns its token.
    pub fn submit(&mut self, frame: UringFrame) -> Result<u64, Error> {
        let token = self.push(frame)?;
        self.flush()?;
        Ok(token)
    }

    /// Commands the ring owns.
    pub fn in_flight(&self) -> usize {
        self.ring.as_ref().map_or(0, Ring::in_flight)
    }

    /// Asks the kernel to cancel a command. Only one that waits in the queue of io_uring's workers can be: it is
    /// [`Cancel::Cancelled`] and completes with ECANCELED. One that the device has, or that waits behind a link
    /// ([`Cancel::NotFound`]), or for which a worker waits to get a tag ([`Cancel::Running`]), goes on as if nothing
    /// had been asked. Either way its completion comes by [`BsgUring::wait`].
    pub fn cancel(&mut self, token: u64, deadline: Instant) -> Result<Cancel, CancelError> {
        self.ring().cancel(token, deadline)
    }

    /// Gives a command up: its completion, if it is there or when it comes, is thrown away, and its memory with it.
    /// Until then the ring has it.
    pub fn discard(&mut self, token: u64) {
        let before = self.early.len();
        self.early.retain(|early| early.token != token);
        if self.early.len() == before {
            self.discarded.insert(token);
        }
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
        loop {
            let completion = UringCompletion::new(self.ring().wait(deadline)?)?;
            if !self.discarded.remove(&completion.token) {
                return Ok(completion);
            }
        }
    }
}

impl Drop for BsgUring {
    /// Hands what is in flight to the [`uring_cmd::keeper`].
    fn drop(&mut self) {
        if let Some(ring) = self.ring.take() {
            ring.keep();
        }
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
