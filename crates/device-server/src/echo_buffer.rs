//! The echo buffer of a logical unit (SPC, WRITE BUFFER, Write data to echo buffer mode).

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard},
};

use crate::{NexusId, error::CommandError};

/// What was written last, and by whom.
#[derive(Debug, Default)]
pub(crate) struct EchoBuffer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    data: Vec<u8>,
    last: Option<NexusId>,
    /// Everybody who has written.
    writers: BTreeSet<NexusId>,
}

impl EchoBuffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    pub(crate) fn write(&self, nexus: NexusId, data: Vec<u8>) {
        let mut state = self.state();
        state.data = data;
        state.last = Some(nexus);
        state.writers.insert(nexus);
    }

    /// What this nexus has written, if nobody has overwritten it.
    pub(crate) fn read(&self, nexus: NexusId) -> Result<Vec<u8>, CommandError> {
        let state = self.state();
        match state.last {
            _ if !state.writers.contains(&nexus) => Err(CommandError::CommandSequence),
            Some(last) if last == nexus => Ok(state.data.clone()),
            _ => Err(CommandError::EchoBufferOverwritten),
        }
    }

    /// Nobody has written anything.
    pub(crate) fn clear(&self) {
        *self.state() = State::default();
    }

    /// This nexus has written nothing.
    pub(crate) fn forget(&self, nexus: NexusId) {
        let mut state = self.state();
        state.writers.remove(&nexus);
        if state.last == Some(nexus) {
            state.last = None;
        }
    }
}
