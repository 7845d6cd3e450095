//! Commands that have been answered, on their way back to the driver: several of a ring together.

use scsi_fault::Hostile;

use crate::{backend::Ring, chain::Chain, journal::now_us, target::Target, unit::Running};

/// So many commands are given back together at most, so that the driver gets its first answers early.
const BATCH_MAX: usize = 8;

/// A command that has been answered. The driver does not see it yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Finished {
    pub(crate) chain: Chain,
    pub(crate) used_len: u32,
    /// When it was answered, if anybody looked.
    pub(crate) ended_us: Option<u64>,
    /// Only when the driver sees it has it ended for those who wait for it.
    pub(crate) running: Option<Running>,
}

impl Finished {
    /// Gives it back to the driver, and tells it.
    pub(crate) fn complete(self, target: &Target) {
        self.chain.complete(self.used_len);
        if let Some(running) = self.running {
            running.end(target);
        }
    }

    pub(crate) fn complete_falsely(self, target: &Target, hostile: Hostile) {
        let Hostile { used_id, used_len, used_times, .. } = hostile;
        let len = used_len.unwrap_or(self.used_len);
        self.chain.complete_falsely(used_id, len, used_times.unwrap_or(1));
        if let Some(running) = self.running {
            running.end(target);
        }
    }
}

/// Commands of a ring that are given back together.
#[derive(Debug)]
pub(crate) struct Batch<'r> {
    target: &'r Target,
    ring: &'r Ring,
    finished: Vec<(Chain, u32)>,
    running: Vec<Running>,
    /// When the last one was answered, if it was just now.
    ended_us: Option<u64>,
}

impl<'r> Batch<'r> {
    pub(crate) fn new(target: &'r Target, ring: &'r Ring) -> Self {
        Batch { target, ring, finished: Vec::new(), running: Vec::new(), ended_us: None }
    }

    pub(crate) fn add(&mut self, finished: Finished) {
        self.ended_us = finished.ended_us;
        self.running.extend(finished.running);
        self.finished.push((finished.chain, finished.used_len));
        if self.finished.len() >= BATCH_MAX {
            self.give_back();
        }
    }

    /// Gives back what there is; whether there was anything.
    pub(crate) fn give_back(&mut self) -> bool {
        self.ended_us = None;
        if self.finished.is_empty() {
            return false;
        }
        self.ring.complete_all(self.finished.drain(..));
        // Only now have they ended for those who wait for them.
        self.running.drain(..).for_each(|running| running.end(self.target));
        true
    }

    /// The time. Between the end of a command and the next one that is there already none has passed.
    pub(crate) fn now_us(&mut self) -> u64 {
        self.ended_us.take().unwrap_or_else(now_us)
    }
}
