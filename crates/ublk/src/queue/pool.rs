//! The buffers of a queue whose tags go to any of its threads.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uring_cmd::Buffer;

/// A buffer for each tag. Whichever thread is brought a tag takes its buffer, and puts it back before it commits.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The driver is told the addresses.
    lends: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buffers: Vec<Option<Buffer>>,
    /// Fetches that the driver has not given back.
    fetches: usize,
}

impl Pool {
    /// Of a queue of so many tags, none of which has a buffer.
    pub(crate) fn new(depth: u16, lends: bool) -> Self {
        let buffers = (0..depth).map(|_| None).collect();
        Pool { lends, state: Mutex::new(State { buffers, fetches: 0 }) }
    }

    /// The buffer of a tag; `None` if somebody has it, or there is no such tag.
    pub(super) fn take(&self, tag: u16) -> Option<Buffer> {
        self.lock().buffers.get_mut(usize::from(tag))?.take()
    }

    /// The driver may have the tag, with this buffer.
    pub(super) fn put(&self, tag: u16, buffer: Buffer) {
        self.lock().buffers[usize::from(tag)] = Some(buffer);
    }

    /// The driver gets a fetch: from now on it may write to any buffer that is here.
    pub(super) fn fetch_begins(&self) {
        self.lock().fetches += 1;
    }

    /// The driver has given it back.
    pub(super) fn fetch_ended(&self) {
        self.lock().fetches -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    /// Leaks the buffers if a ring has ended with a fetch in flight: the driver, which may be about to copy to one of
    /// them, is not waited for.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.lends && state.fetches > 0 {
            mem::forget(mem::take(&mut state.buffers));
        }
    }
}
