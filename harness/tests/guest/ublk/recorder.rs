//! Targets for tests: what came, and answers made to measure.

use std::{
    fs, iter,
    path::Path,
    sync::{Mutex, MutexGuard},
};

use ublk::{Buffer, Config, Errno, Op, RamTarget, Request, Target};

/// A disk in which the kernel looks for no partitions, so that every request is the test's:
/// UBLK_F_NO_AUTO_PART_SCAN, 1 << 18 (include/uapi/linux/ublk_cmd.h; Linux 7.0).
pub(crate) fn unscanned(sectors: u64) -> Config {
    let mut config = Config::disk(sectors);
    config.info.flags = 1 << 18;
    config
}

/// `sectors` sectors that repeat their own number and `mark`.
pub(crate) fn pattern(sector: u64, sectors: u64, mark: u8) -> Vec<u8> {
    (sector..sector + sectors)
        .flat_map(|sector| iter::repeat_n([&sector.to_le_bytes()[..7], &[mark]].concat(), 64))
        .flatten()
        .collect()
}

/// Memory that has a huge page in it, if the kernel has one to give, and where that begins: its pages are neighbours in
/// the machine's memory as well.
pub(crate) fn huge_page() -> (Buffer, usize) {
    const LEN: usize = 2 << 20;
    // Off where there is little memory; a kernel without them has no such file, and a page is as good as it gets.
    let switch = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if switch.exists() {
        fs::write(switch, "always").expect("root may");
    }
    let mut memory = Buffer::zeroed(2 * LEN).expect("memory");
    let start = usize::try_from(memory.address().wrapping_neg()).expect("64 bits") % LEN;
    (memory, start)
}

/// A request as it came: operation, flags, first sector, sectors.
pub(crate) type Seen = (Op, u32, u64, u32);

/// Remembers every request.
#[derive(Debug)]
pub(crate) struct Recorder {
    ram: RamTarget,
    seen: Mutex<Vec<Seen>>,
}

impl Recorder {
    pub(crate) fn new(sectors: u64) -> Self {
        Recorder { ram: RamTarget::new(sectors), seen: Mutex::default() }
    }

    /// The medium.
    pub(crate) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.ram.bytes()
    }

    /// How many requests there were since the last look.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().expect("no thread panics with the list").len()
    }

    /// The requests since the last look.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("no thread panics with the list"))
    }
}

impl Target for Recorder {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        let seen = (request.op, request.flags, request.start_sector, request.sectors);
        self.seen.lock().expect("no thread panics with the list").push(seen);
        self.ram.handle(request)
    }
}

/// What is committed instead of what memory has answered.
pub(crate) type Answer = fn(Seen, Result<u32, Errno>) -> Result<u32, Errno>;

/// Answers one operation in a way of its own, after memory has done it.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) recorder: Recorder,
    pub(crate) op: Op,
    pub(crate) answer: Answer,
}

impl Target for Answering {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        let result = self.recorder.handle(request);
        let seen = (request.op, request.flags, request.start_sector, request.sectors);
        if request.op == self.op { (self.answer)(seen, result) } else { result }
    }
}
