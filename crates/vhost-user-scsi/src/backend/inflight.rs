//! Which chains are in flight, in memory that outlives the process: the front end keeps it and gives it
//! to the next one (vhost-user, Inflight I/O tracking). At least once, not exactly once: a command that
//! was carried out and not yet given back is carried out again.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering},
    },
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicInteger, MmapRegion, VolatileMemory};

use super::{QUEUES_MAX, memory, split::SIZE_MAX};

/// `QueueRegionSplit`: features (8 bytes, 0), then these.
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_IDX: usize = 14;
const DESC: usize = 16;
/// `DescStateSplit`, 16 bytes: inflight (a byte), padding, then these.
const NEXT: usize = 6;
const COUNTER: usize = 8;
const DESC_LEN: usize = 16;

/// What `version` is when the rest means something.
const VERSION_1: u16 = 1;

/// Why shared memory for chains in flight is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum InflightError {
    #[error(
        "inflight memory for {num_queues} queues of {queue_size} entries: \
         1 to {QUEUES_MAX} queues of 1 to {SIZE_MAX} are possible"
    )]
    Dimensions { num_queues: u16, queue_size: u16 },
    #[error("inflight memory of {given} bytes, {needed} are needed")]
    TooSmall { given: u64, needed: u64 },
    #[error("inflight memory cannot be {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// The memory, a region for each queue.
#[derive(Debug)]
pub(super) struct Inflight {
    mapping: Arc<MmapRegion>,
    num_queues: u16,
    queue_size: u16,
}

/// Bytes of a queue's region: header and entries, on cache lines of its own.
fn region_len(queue_size: u16) -> usize {
    (DESC + DESC_LEN * usize::from(queue_size)).next_multiple_of(64)
}

/// Bytes of the whole, if such dimensions are possible.
fn total_len(num_queues: u16, queue_size: u16) -> Result<u64, InflightError> {
    let possible =
        (1..=QUEUES_MAX).contains(&usize::from(num_queues)) && (1..=SIZE_MAX).contains(&queue_size);
    if !possible {
        return Err(InflightError::Dimensions { num_queues, queue_size });
    }
    Ok((usize::from(num_queues) * region_len(queue_size)) as u64)
}

/// New memory for so many queues, with nothing in flight, for the front end to keep.
pub(super) fn create(
    asked: &VhostUserInflight,
) -> Result<(VhostUserInflight, File), InflightError> {
    let len = total_len(asked.num_queues, asked.queue_size)?;
    let make = || -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("inflight", flags)?);
        file.set_len(len)?;
        // Nobody can make it shorter under our hands, which would be fatal.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(file)
    };
    let file = make().map_err(|source| InflightError::System { what: "made", source })?;
    Ok((VhostUserInflight::new(len, 0, asked.num_queues, asked.queue_size), file))
}

impl Inflight {
    /// The memory the front end has kept.
    pub(super) fn map(given: &VhostUserInflight, file: File) -> Result<Self, InflightError> {
        let VhostUserInflight { mmap_size, mmap_offset, num_queues, queue_size } = *given;
        let needed = total_len(num_queues, queue_size)?;
        if mmap_size < needed {
            return Err(InflightError::TooSmall { given: mmap_size, needed });
        }
        let mapping = memory::map(file, mmap_offset, needed)
            .map_err(|source| InflightError::System { what: "mapped", source })?;
        Ok(Inflight { mapping: Arc::new(mapping), num_queues, queue_size })
    }

    /// The region of a queue, if the front end has one for it.
    pub(super) fn tracker(&self, queue: usize) -> Option<Tracker> {
        (queue < usize::from(self.num_queues)).then(|| Tracker {
            mapping: Arc::clone(&self.mapping),
            region: queue * region_len(self.queue_size),
            entries: self.queue_size,
            counter: 0,
        })
    }
}

/// The region of one queue. Its numbers are the host's, not little-endian: the next process runs here.
#[derive(Debug)]
pub(super) struct Tracker {
    mapping: Arc<MmapRegion>,
    /// Where it begins, in bytes.
    region: usize,
    /// How many heads it has room for.
    entries: u16,
    counter: u64,
}

impl Tracker {
    /// How many heads it has room for.
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    fn word<T: AtomicInteger>(&self, offset: usize) -> &T {
        self.mapping.get_atomic_ref(self.region + offset).expect("inside the region, aligned")
    }

    fn half(&self, offset: usize) -> &AtomicU16 {
        self.word(offset)
    }

    fn entry(head: u16) -> usize {
        DESC + DESC_LEN * usize::from(head)
    }

    fn flag(&self, head: u16) -> &AtomicU8 {
        self.word(Self::entry(head))
    }

    fn is_in_flight(&self, head: u16) -> bool {
        self.flag(head).load(Ordering::Relaxed) == 1
    }

    /// A chain has been fetched. Like all that follows it is stored in this order, each store released,
    /// so that death between any two of them leaves one of the states [`Tracker::recover`] knows.
    pub(super) fn fetched(&mut self, head: u16) {
        let counter: &AtomicU64 = self.word(Self::entry(head) + COUNTER);
        counter.store(self.counter, Ordering::Release);
        self.flag(head).store(1, Ordering::Release);
        // It wraps only if the region was damaged.
        self.counter = self.counter.wrapping_add(1);
    }

    /// A chain is about to be given back, perhaps with others. Between this and [`Tracker::completed`] the
    /// index of the used ring says whether they were.
    pub(super) fn completing(&self, head: u16) {
        let last = self.half(LAST_BATCH_HEAD);
        self.half(Self::entry(head) + NEXT).store(last.load(Ordering::Relaxed), Ordering::Release);
        last.store(head, Ordering::Release);
    }

    /// They have been given back, and the index of the used ring is now `used_idx`.
    pub(super) fn completed(&self, heads: &[u16], used_idx: u16) {
        for head in heads {
            self.flag(*head).store(0, Ordering::Release);
        }
        self.half(USED_IDX).store(used_idx, Ordering::Release);
    }

    /// Nothing is in flight.
    pub(super) fn clear(&mut self, used_idx: u16) {
        for head in 0..self.entries {
            self.flag(head).store(0, Ordering::Relaxed);
        }
        self.half(USED_IDX).store(used_idx, Ordering::Relaxed);
        self.half(DESC_NUM).store(self.entries, Ordering::Relaxed);
        self.half(VERSION).store(VERSION_1, Ordering::Release);
        self.counter = 0;
    }

    /// Finds out what was in flight when the process before died, and returns the heads in the order
    /// they were fetched in; `None` if there was none before. `used_idx` is the index of the used ring,
    /// `outstanding` how many chains the driver has made available beyond it.
    ///
    /// A region that contradicts the ring is from before a reset of the device, or damaged: nothing of
    /// it is in flight in this ring.
    pub(super) fn recover(&mut self, used_idx: u16, outstanding: u16) -> Option<Vec<u16>> {
        let known = self.half(VERSION).load(Ordering::Acquire) == VERSION_1
            && self.half(DESC_NUM).load(Ordering::Relaxed) == self.entries;
        if !known {
            self.clear(used_idx);
            return None;
        }
        self.settle(used_idx);
        let counter = |head: u16| -> u64 {
            self.word::<AtomicU64>(Self::entry(head) + COUNTER).load(Ordering::Relaxed)
        };
        let mut heads: Vec<(u64, u16)> = (0..self.entries)
            .filter(|head| self.is_in_flight(*head))
            .map(|head| (counter(head), head))
            .collect();
        if heads.len() > usize::from(outstanding) {
            self.clear(used_idx);
            return Some(Vec::new());
        }
        heads.sort_unstable();
        self.counter = heads.last().map_or(0, |(last, _)| last.wrapping_add(1));
        Some(heads.into_iter().map(|(_, head)| head).collect())
    }

    /// Chains that were given back and are still marked: the last batch, as far as the index of the used
    /// ring is ahead of the one noted here.
    fn settle(&self, used_idx: u16) {
        let noted = self.half(USED_IDX);
        let batch = used_idx.wrapping_sub(noted.load(Ordering::Relaxed));
        let mut head = self.half(LAST_BATCH_HEAD).load(Ordering::Relaxed);
        for _ in 0..batch.min(self.entries) {
            if head >= self.entries {
                break;
            }
            self.flag(head).store(0, Ordering::Release);
            head = self.half(Self::entry(head) + NEXT).load(Ordering::Relaxed);
        }
        noted.store(used_idx, Ordering::Release);
    }
}
