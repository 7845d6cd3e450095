//! What answers the requests of a device.

mod file;
mod ram;
mod worker;
mod zoned;

use std::{
    fmt,
    fs::File,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::io::Errno;

pub use self::{
    file::FileTarget,
    ram::RamTarget,
    worker::{Memory, Progress, Work, Worker},
    zoned::ZonedTarget,
};
use crate::uapi::{SECTOR_LEN, op};

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Fill the buffer.
    Read,
    /// Store the buffer.
    Write,
    /// Make everything written so far durable.
    Flush,
    /// The contents are no longer needed.
    Discard,
    /// The contents become zeroes.
    WriteZeroes,
    /// Store the buffer where the zone that begins there has been written to.
    ZoneAppend,
    /// Fill the buffer with an entry for each zone ([`crate::uapi::BlkZone`]).
    ReportZones,
    /// Change the state of a zone.
    Zone(ZoneOp),
    /// An operation this crate has no name for.
    Other(u8),
}

/// What becomes of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneOp {
    /// It is open.
    Open,
    /// It is closed.
    Close,
    /// It is full.
    Finish,
    /// It is empty.
    Reset,
    /// All are.
    ResetAll,
}

impl From<u8> for Op {
    fn from(number: u8) -> Self {
        match number {
            op::READ => Op::Read,
            op::WRITE => Op::Write,
            op::FLUSH => Op::Flush,
            op::DISCARD => Op::Discard,
            op::WRITE_ZEROES => Op::WriteZeroes,
            op::ZONE_APPEND => Op::ZoneAppend,
            op::REPORT_ZONES => Op::ReportZones,
            op::ZONE_OPEN => Op::Zone(ZoneOp::Open),
            op::ZONE_CLOSE => Op::Zone(ZoneOp::Close),
            op::ZONE_FINISH => Op::Zone(ZoneOp::Finish),
            op::ZONE_RESET => Op::Zone(ZoneOp::Reset),
            op::ZONE_RESET_ALL => Op::Zone(ZoneOp::ResetAll),
            other => Op::Other(other),
        }
    }
}

impl Op {
    /// Data comes with it.
    pub(crate) fn stores(self) -> bool {
        matches!(self, Op::Write | Op::ZoneAppend)
    }

    /// Data goes back with the answer.
    pub(crate) fn fetches(self) -> bool {
        matches!(self, Op::Read | Op::ReportZones)
    }
}

/// A request of the block layer.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it wants.
    pub op: Op,
    /// See [`crate::uapi::io_flag`].
    pub flags: u32,
    /// Where it starts, in sectors of 512 bytes. Of a [`Op::ZoneAppend`] it is the zone, and the target says here where
    /// the data went.
    pub start_sector: u64,
    /// How long it is, in sectors. Of [`Op::ReportZones`] it is the number of zones.
    pub sectors: u32,
    /// Data of a read, write or append, as long as the request; room for a report, which is zero; empty for the others.
    pub data: &'a mut [u8],
    /// Metadata of the data, of a device that has some ([`crate::Config::integrity`]) and a request that brings it along
    /// or asks for it; else empty.
    pub metadata: &'a mut [u8],
    /// The queue it came on.
    pub queue: u16,
    /// Its tag, unique within the queue while the request is open.
    pub tag: u16,
}

impl Request<'_> {
    /// The length in bytes.
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.sectors) * u64::from(SECTOR_LEN)
    }

    /// Where it starts in bytes; EIO if no medium reaches so far.
    pub fn start_byte(&self) -> Result<u64, Errno> {
        self.start_sector.checked_mul(SECTOR_LEN.into()).ok_or(Errno::IO)
    }
}

/// Where the data of a request lies on its medium.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file.
    pub file: Arc<File>,
    /// Offset in it in bytes.
    pub offset: u64,
}

/// Answers requests. Called on the thread of the request's queue, which answers nothing else
/// meanwhile; requests of other queues come at the same time.
pub trait Target: Send + Sync {
    /// Does what the request wants and returns the number of bytes done, or the error the block
    /// layer shall see. A flush returns 0.
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno>;

    /// Where the data of a read or write lies, if the medium is a file: then the queue moves it by its own ring, from
    /// or to the driver's memory where the device allows it, and nobody calls [`Target::handle`].
    fn place(&self, request: &Request<'_>) -> Option<Place> {
        let _none = request;
        None
    }

    /// Whether it looks at data at all. If not, the data of a request that the driver would have to be asked for stays
    /// where it is.
    fn needs_data(&self) -> bool {
        true
    }

    /// Whoever does all requests by operations on the ring of their queue: then nobody calls [`Target::handle`] or
    /// [`Target::place`].
    fn worker(&self) -> Option<&dyn Worker> {
        None
    }
}

/// Does nothing, and says it was done: to measure what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullTarget;

impl Target for NullTarget {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        match request.op {
            Op::Flush => Ok(0),
            _ => Ok(u32::try_from(request.len_bytes()).unwrap_or(u32::MAX)),
        }
    }

    fn needs_data(&self) -> bool {
        false
    }
}

/// A target that keeps chosen requests until they are released, for tests of what happens meanwhile.
///
/// A held request holds its whole queue, and a device with a held request cannot be stopped.
pub struct Hold<T> {
    inner: T,
    wanted: Box<dyn Fn(&Request<'_>) -> bool + Send + Sync>,
    state: Mutex<HoldState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HoldState {
    held: usize,
    released: bool,
}

/// Fewer requests than awaited were held at the deadline.
#[derive(Debug, thiserror::Error)]
#[error("{held} requests were held at the deadline, not {awaited}")]
pub struct NotHeld {
    /// What was held.
    pub held: usize,
    /// What was awaited.
    pub awaited: usize,
}

impl<T: Target> Hold<T> {
    /// Holds requests which `wanted` accepts; hands the others, and all after the release, to `inner`.
    pub fn new(inner: T, wanted: impl Fn(&Request<'_>) -> bool + Send + Sync + 'static) -> Self {
        let state = Mutex::default();
        Hold { inner, wanted: Box::new(wanted), state, changed: Condvar::new() }
    }

    /// The target behind.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Waits until at least `awaited` requests are held.
    pub fn wait_held(&self, awaited: usize, timeout: Duration) -> Result<(), NotHeld> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.held < awaited {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(NotHeld { held: state.held, awaited });
            }
            (state, _) =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Lets all held requests go on, and holds no more.
    pub fn release(&self) {
        self.lock().released = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HoldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Target> Target for Hold<T> {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        if (self.wanted)(request) {
            let mut state = self.lock();
            state.held += 1;
            self.changed.notify_all();
            while !state.released {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.held -= 1;
        }
        self.inner.handle(request)
    }
}

impl<T: fmt::Debug> fmt::Debug for Hold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn request(op: Op, start_sector: u64, data: &mut [u8]) -> Request<'_> {
        let sectors = u32::try_from(data.len() / 512).expect("short");
        Request { op, flags: 0, start_sector, sectors, data, metadata: &mut [], queue: 0, tag: 0 }
    }

    #[test]
    fn ram_keeps_what_was_written_and_forgets_what_was_discarded() {
        let ram = RamTarget::new(4);
        let mut data = [0x5a; 1024];
        assert_eq!(ram.handle(&mut request(Op::Write, 1, &mut data)), Ok(1024));
        let mut back = [0; 2048];
        assert_eq!(ram.handle(&mut request(Op::Read, 0, &mut back)), Ok(2048));
        assert_eq!(back[511..513], [0, 0x5a]);
        assert_eq!(back[1535..1537], [0x5a, 0]);
        let mut discard = Request { sectors: 1, ..request(Op::Discard, 2, &mut []) };
        assert_eq!(ram.handle(&mut discard), Ok(512));
        assert_eq!(ram.bytes()[1023..1025], [0x5a, 0]);
    }

    #[test]
    fn ram_ends_at_its_capacity() {
        let ram = RamTarget::new(4);
        let mut data = [0; 1024];
        assert_eq!(ram.handle(&mut request(Op::Read, 3, &mut data)), Err(Errno::IO));
        assert_eq!(ram.handle(&mut request(Op::Read, u64::MAX, &mut data)), Err(Errno::IO));
        assert_eq!(ram.handle(&mut request(Op::Other(4), 0, &mut data)), Err(Errno::NOTSUP));
    }

    #[test]
    fn a_held_request_waits_for_its_release() {
        let hold = Hold::new(RamTarget::new(1), |request| request.op == Op::Write);
        let mut data = [1; 512];
        assert_eq!(hold.handle(&mut request(Op::Read, 0, &mut [0; 512])), Ok(512));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| hold.handle(&mut request(Op::Write, 0, &mut data)));
            hold.wait_held(1, Duration::from_secs(20)).expect("the write is held");
            assert_eq!(hold.inner().bytes()[0], 0);
            hold.release();
            assert_eq!(writer.join().expect("no panic"), Ok(512));
        });
        assert_eq!(hold.inner().bytes()[0], 1);
        assert_eq!(hold.wait_held(1, Duration::ZERO).expect_err("none is held").held, 0);
    }
}
