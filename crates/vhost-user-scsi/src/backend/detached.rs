//! Rings in memory that no front end has shared, and that no worker serves: whoever has them is driver
//! and front end at once, and serves them on its own thread with [`super::QueueHandler::serve`].

use std::{
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Ring,
    memory::{Extent, Memory},
    split::Addresses,
};

/// How long stopping waits.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Memory for such rings.
#[derive(Debug)]
pub struct Detached {
    memory: Arc<Memory>,
}

/// Where a ring is, and how it begins. Addresses are the guest's.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Of the descriptor table.
    pub descriptors: u64,
    /// Of the available ring.
    pub available: u64,
    /// Of the used ring.
    pub used: u64,
    /// Entries.
    pub size: u16,
    /// Next available index to fetch.
    pub base: u16,
    /// Whether EVENT_IDX is negotiated.
    pub event_idx: bool,
}

impl Detached {
    /// The first `len` bytes of each file, at its guest address; the front end's addresses are the same.
    ///
    /// # Errors
    /// If regions overlap, or a file is too short or cannot be mapped.
    pub fn new(regions: impl IntoIterator<Item = (u64, u64, File)>) -> io::Result<Self> {
        let mut memory = Memory::default();
        for (address, len, file) in regions {
            let extent = Extent { guest: address, user: address, len, file_offset: 0 };
            memory = memory.with(extent, file).map_err(io::Error::other)?;
        }
        Ok(Detached { memory: Arc::new(memory) })
    }

    /// A ring that runs.
    ///
    /// # Errors
    /// What a front end would be told that asks for such a ring.
    pub fn ring(&self, placed: &Placed) -> io::Result<Ring> {
        let Placed { descriptors, available, used, size, base, event_idx } = *placed;
        let ring = Ring::new();
        let start = || {
            ring.set_size(size.into())?;
            ring.set_addresses(Addresses { descriptors, available, used })?;
            ring.set_base(base)?;
            ring.set_event_idx(event_idx)?;
            ring.set_enabled(true);
            ring.start(&self.memory)
        };
        start().map_err(io::Error::other)?;
        Ok(ring)
    }

    /// Stops a ring: what is kept of it is dropped, and what runs is waited for.
    pub fn stop(ring: &Ring) {
        ring.begin_stop();
        ring.finish_stop(Instant::now() + STOP_LIMIT);
    }
}
