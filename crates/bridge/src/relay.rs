//! A request on its way through.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bsg::{Pointer, UringFrame, sqe::Sqe, uapi::Res2};
use rustix::io::Errno;
use ublk::{Buffer, Cqe, Memory, Op, Operation, Progress, Request, Work, uapi::SECTOR_LEN};

use crate::{
    bridge::Shared,
    log::{Event, Seen},
    order::{Order, Payload, order},
    verdict::{Answer, Verdict, refused, verdict},
};

/// How long a unit that is busy, or not ready yet, is left alone.
const PAUSE: Duration = Duration::from_millis(10);

/// A command and the request it is for. What has done its work does it again for another.
#[derive(Debug)]
pub(crate) struct Relay {
    /// `None` while it is idle.
    shared: Option<Arc<Shared>>,
    frame: UringFrame,
    /// Data of the bridge's own: a list, or a block of zeroes. `None` while the frame has it.
    own: Option<Buffer>,
    order: Option<Order>,
    /// Where the data of the request is; a buffer is in the frame while a command is about.
    memory: Memory,
    /// What the request wants.
    op: Op,
    flags: u32,
    start_sector: u64,
    sectors: u32,
    /// Bytes of it that are done.
    done: u32,
    place: (u16, u16),
    attempts: u8,
    since: Instant,
}

// SAFETY: the entry is the frame's, which keeps the promise for it; the frame's memory is out of reach of the code here
// while the ring has the relay. A place in a registered buffer is no address.
unsafe impl Operation for Relay {
    fn sqe(&mut self) -> Sqe {
        self.frame.sqe()
    }
}

impl Relay {
    /// An idle one, with memory for every command.
    pub(crate) fn new(shared: &Shared) -> std::io::Result<Self> {
        let own = Buffer::zeroed(shared.disk.block_len.try_into().expect("a block is short"))?;
        let frame = UringFrame::from(bsg::Request::new(&[0; 16])).aim(&shared.node, 0);
        Ok(Relay {
            shared: None,
            frame,
            own: Some(own),
            order: None,
            memory: Memory::None,
            op: Op::Flush,
            flags: 0,
            start_sector: 0,
            sectors: 0,
            done: 0,
            place: (0, 0),
            attempts: 0,
            since: Instant::now(),
        })
    }

    /// Begins a request.
    pub(crate) fn begin(
        mut self: Box<Self>,
        shared: &Arc<Shared>,
        request: &Request<'_>,
        memory: Memory,
    ) -> Progress {
        self.shared = Some(shared.clone());
        self.place = (request.queue, request.tag);
        self.memory = memory;
        let Request { op, flags, start_sector, sectors, .. } = *request;
        (self.op, self.flags, self.start_sector, self.sectors) = (op, flags, start_sector, sectors);
        (self.done, self.attempts, self.since) = (0, 0, Instant::now());
        self.note(|| Seen::Delivered { op, start_sector, sectors });
        self.go_on()
    }

    /// Sends a command for what is not done yet.
    fn go_on(mut self: Box<Self>) -> Progress {
        let sectors = self.done / SECTOR_LEN;
        let rest = Request {
            op: self.op,
            flags: self.flags,
            start_sector: self.start_sector + u64::from(sectors),
            sectors: self.sectors - sectors,
            data: &mut [],
            metadata: &mut [],
            queue: self.place.0,
            tag: self.place.1,
        };
        match order(&rest, &self.shared().disk) {
            Ok(order) => {
                self.order = Some(order);
                self.send(None)
            }
            Err(errno) => self.end(Err(errno)),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.shared.as_ref().expect("a relay at work has a bridge")
    }

    fn order(&self) -> &Order {
        self.order.as_ref().expect("a relay at work has a command")
    }

    fn note(&self, what: impl FnOnce() -> Seen) {
        if let Some(log) = &self.shared().log {
            let (queue, tag) = self.place;
            log.add(Event { at: Instant::now(), queue, tag, what: what() });
        }
    }

    /// Makes the frame a command and has it sent.
    fn send(mut self: Box<Self>, pause: Option<Duration>) -> Progress {
        self.note(|| Seen::Sent { cdb: self.order().cdb().to_vec() });
        self.aim();
        match pause {
            None => Progress::Push(self),
            Some(pause) => Progress::PushLater(pause, self),
        }
    }

    fn aim(&mut self) {
        let order = *self.order();
        let timeout_ms = self.shared().patience.command.as_millis();
        let done = usize::try_from(self.done).expect("an address has 64 bits");
        let frame = &mut self.frame;
        let Pointer::To(cdb) = &mut frame.request else { unreachable!("a frame has its CDB") };
        cdb[..order.cdb().len()].copy_from_slice(order.cdb());
        frame.command.request_len = u32::try_from(order.cdb().len()).expect("at most 16");
        frame.command.timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        (frame.command.din_xfer_len, frame.command.dout_xfer_len) = (0, 0);
        (frame.sqe.uring_cmd_flags, frame.sqe.buf_index) = (0, 0);
        let data = match std::mem::replace(&mut self.memory, Memory::None) {
            Memory::Buffer(buffer) => Pointer::Into(buffer, done),
            Memory::Registered(index) => {
                frame.sqe.buf_index = index;
                self.memory = Memory::Registered(index);
                Pointer::Fixed(self.done.into())
            }
            Memory::None => Pointer::Null,
        };
        match order.payload {
            Payload::None => {}
            Payload::In => (frame.din, frame.command.din_xfer_len) = (data, order.asked.len),
            Payload::Out => (frame.dout, frame.command.dout_xfer_len) = (data, order.asked.len),
            Payload::List(list) => {
                let mut own = self.own.take().expect("a relay has memory of its own");
                own[..list.len()].copy_from_slice(&list);
                frame.command.dout_xfer_len = u32::try_from(list.len()).expect("24");
                frame.dout = own.into();
            }
            Payload::Zeroes => {
                let mut own = self.own.take().expect("a relay has memory of its own");
                own.fill(0);
                frame.command.dout_xfer_len = u32::try_from(own.len()).expect("a block");
                frame.dout = own.into();
            }
        }
    }

    /// Takes the memory back from the frame.
    fn recover(&mut self) {
        let pointers = [&mut self.frame.din, &mut self.frame.dout];
        let buffer = pointers.into_iter().find_map(|pointer| std::mem::take(pointer).into_buffer());
        match (buffer, self.order().payload) {
            (Some(buffer), Payload::List(_) | Payload::Zeroes) => self.own = Some(buffer),
            (Some(buffer), Payload::In | Payload::Out | Payload::None) => {
                self.memory = Memory::Buffer(buffer);
            }
            (None, _) => {}
        }
    }

    /// The outcome of the request, and the relay is idle.
    fn end(mut self: Box<Self>, outcome: Result<u32, Errno>) -> Progress {
        self.note(|| Seen::Committed(outcome));
        let memory = std::mem::replace(&mut self.memory, Memory::None);
        let shared = self.shared.take().expect("a relay at work has a bridge");
        shared.idle().push(self);
        Progress::Done(outcome, memory)
    }

    fn judge(&self, cqe: &Cqe) -> Verdict {
        let words = cqe.big.expect("the ring has large completions");
        let outcome = Res2::from(words[0]);
        let room = self.frame.response.buffer().expect("a frame has room for sense data");
        let sense = room.get(..outcome.sense_len_wr.into()).unwrap_or_default();
        let answer = Answer {
            host_status: outcome.host_status,
            status: outcome.device_status,
            sense,
            residual: outcome.residual,
        };
        let verdict = verdict(&self.order().asked, &answer);
        self.note(|| Seen::Answered {
            host_status: outcome.host_status,
            status: outcome.device_status,
            sense: sense.to_vec(),
            residual: outcome.residual,
            verdict,
        });
        verdict
    }
}

impl Work for Relay {
    fn completed(mut self: Box<Self>, cqe: Cqe) -> Progress {
        if cqe.res < 0 {
            let errno = Errno::from_raw_os_error(-cqe.res);
            tracing::warn!(%errno, cdb = ?self.order().cdb(), "the kernel refuses a command");
            self.note(|| Seen::Refused(errno));
            self.recover();
            return self.end(Err(refused(errno)));
        }
        let verdict = self.judge(&cqe);
        self.recover();
        let patience = self.shared().patience;
        match verdict {
            Verdict::Done(_) if self.order().asked.len == 0 => {
                let all = match self.op {
                    Op::Flush => 0,
                    _ => self.sectors.saturating_mul(SECTOR_LEN),
                };
                self.end(Ok(all))
            }
            // Not told to the driver: some take a part for the whole (ublk_drv.c:__ublk_complete_rq of Linux 7.3).
            Verdict::Done(bytes) if bytes < self.order().asked.len => {
                (self.done, self.attempts) = (self.done + bytes, 0);
                self.go_on()
            }
            Verdict::Done(bytes) => {
                let all = self.done + bytes;
                self.end(Ok(all))
            }
            Verdict::Retried(_) if self.attempts < patience.retries => {
                self.attempts += 1;
                self.send(None)
            }
            Verdict::Passes { pause, .. } if self.since.elapsed() < patience.request => {
                self.send(pause.then_some(PAUSE))
            }
            // What is good has arrived, or is on the disk; an answer that says both there is not.
            Verdict::Failed(failure)
            | Verdict::Retried(failure)
            | Verdict::Passes { failure, .. } => self.end(Err(failure.errno)),
        }
    }
}
