//! Rings nobody waits for any more, until what they have in flight is complete.
//!
//! A driver that cannot cancel has the memory of its commands until they end. [`crate::Ring::keep`] hands a ring to
//! this process-wide list; [`reap`] looks which operations have completed since, frees their memory, and closes rings
//! that have nothing in flight any more. Every [`crate::Ring::keep`] looks too, so that a program which opens and
//! gives up rings holds no more than what the kernel holds.
//!
//! Completions are posted while the thread that submitted the commands runs, as everywhere in io_uring. A ring with
//! `SINGLE_ISSUER` and `DEFER_TASKRUN` can be looked at only by the thread it belongs to: call [`reap`] there. When
//! that thread has ended, its ring is kept for good.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A ring of whatever operations.
pub(crate) trait Keep: Send {
    /// Frees what has completed, and says how many operations are still in flight.
    fn reap(&mut self) -> usize;
}

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

struct Kept {
    ring: Box<dyn Keep>,
    in_flight: usize,
}

fn kept_rings() -> MutexGuard<'static, Vec<Kept>> {
    // Whoever panicked was freeing an operation that has completed; the list is whole.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn keep(ring: Box<dyn Keep>) {
    let mut rings = kept_rings();
    rings.push(Kept { ring, in_flight: 0 });
    look(&mut rings);
}

/// Frees what has completed, and returns the number of operations that are still in flight on kept rings.
pub fn reap() -> usize {
    look(&mut kept_rings())
}

fn look(rings: &mut Vec<Kept>) -> usize {
    rings.retain_mut(|kept| {
        kept.in_flight = kept.ring.reap();
        kept.in_flight > 0
    });
    rings.iter().map(|kept| kept.in_flight).sum()
}
