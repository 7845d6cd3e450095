//! What a queue knows of one tag.

use std::time::Instant;

use rustix::io::Errno;
use ublk_fault::{Effect, Event};
use uring_cmd::Buffer;
use zerocopy::FromZeros;

use crate::{
    target::{Op, Request, Work},
    uapi::{BLK_ZONE_LEN, IoDesc, SECTOR_LEN},
};

/// What a waiting request waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Time(Instant),
    /// More releases than so many.
    Released(u64),
    Never,
}

/// Who has a tag.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// The driver.
    Fetching,
    /// A fault.
    Waiting(Until),
    /// The server.
    Executing,
    /// The ring, for its table.
    Registering,
    /// The ring, for its table, and the result is known.
    Unregistering,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// `None` while the driver or the ring has it.
    pub(super) buffer: Option<Buffer>,
    /// Metadata of the request; empty if it has none.
    pub(super) metadata: Vec<u8>,
    pub(super) stage: Stage,
    pub(super) descriptor: IoDesc,
    pub(super) effect: Effect,
    /// The data is in the ring's table by our own command.
    pub(super) registered: bool,
    /// An operation that is not begun yet.
    pub(super) parked: Option<Box<dyn Work>>,
    /// What was done.
    pub(super) outcome: Result<u32, Errno>,
    /// Sector to which a zone append went.
    pub(super) landed: u64,
}

impl Slot {
    pub(super) fn new(buffer: Option<Buffer>) -> Self {
        Slot {
            buffer,
            metadata: Vec::new(),
            stage: Stage::Fetching,
            descriptor: IoDesc::new_zeroed(),
            effect: Effect::default(),
            registered: false,
            parked: None,
            outcome: Ok(0),
            landed: 0,
        }
    }

    /// A request has come.
    pub(super) fn begin(&mut self, descriptor: IoDesc) {
        self.descriptor = descriptor;
        self.effect = Effect::default();
        self.stage = Stage::Executing;
        self.outcome = Ok(0);
        self.landed = 0;
        self.metadata.clear();
    }

    pub(super) fn number(&self) -> u8 {
        let [number, ..] = self.descriptor.op_flags.to_le_bytes();
        number
    }

    pub(super) fn event(&self, queue: u16, tag: u16) -> Event {
        Event {
            op: self.number(),
            queue,
            tag,
            first_sector: self.descriptor.start_sector,
            sectors: self.descriptor.nr_sectors,
        }
    }

    pub(super) fn op(&self) -> Op {
        Op::from(self.number())
    }

    pub(super) fn moves_data(&self) -> bool {
        self.op().stores() || self.op().fetches()
    }

    /// Bytes of what the descriptor counts: sectors, or entries of a report.
    fn unit(&self) -> u64 {
        match self.op() {
            Op::ReportZones => BLK_ZONE_LEN.into(),
            _ => SECTOR_LEN.into(),
        }
    }

    /// Bytes of data to move: those of the request, or fewer if a fault wants it so, in whole sectors.
    pub(super) fn data_len(&self) -> u64 {
        let len = u64::from(self.descriptor.nr_sectors) * self.unit();
        let part = |short: u32| u64::from(short).next_multiple_of(SECTOR_LEN.into());
        self.effect.short.map_or(len, |short| len.min(part(short)))
    }

    /// The request, with so many bytes of the buffer as its data.
    pub(super) fn request<'a>(
        descriptor: &IoDesc,
        queue: u16,
        tag: u16,
        data: &'a mut [u8],
    ) -> Request<'a> {
        let [number, ..] = descriptor.op_flags.to_le_bytes();
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        // A part of a request is a shorter one for the target.
        let op = Op::from(number);
        let part = match op {
            _ if data.is_empty() => descriptor.nr_sectors,
            Op::ReportZones => len / BLK_ZONE_LEN,
            _ => len.div_ceil(SECTOR_LEN),
        };
        Request {
            op,
            flags: descriptor.op_flags & !0xff,
            start_sector: descriptor.start_sector,
            sectors: part,
            data,
            metadata: &mut [],
            queue,
            tag,
        }
    }

    /// What is committed.
    pub(super) fn committed(&self) -> i32 {
        if let Some(result) = self.effect.result {
            return result;
        }
        if let Some(errno) = self.effect.errno {
            return -errno.number();
        }
        match self.outcome {
            // The room of its request may be more than the descriptor says, and a part of it would be asked for again.
            Ok(_) if self.op() == Op::ReportZones => i32::MAX,
            Ok(bytes) => {
                let told = self.effect.short.unwrap_or(bytes).min(bytes);
                let told = told.saturating_add(self.effect.overlong.unwrap_or(0));
                i32::try_from(told).unwrap_or(i32::MAX)
            }
            Err(errno) => -errno.raw_os_error(),
        }
    }

    /// # Panics
    /// If it is lent already.
    pub(super) fn take_buffer(&mut self) -> Buffer {
        self.buffer.take().expect("a tag is with one party at a time")
    }
}
