//! Whether a logical unit is ready (SPC, TEST UNIT READY; SBC, START STOP UNIT).

use std::sync::atomic::{AtomicU32, Ordering};

use scsi::Sense;

/// Whether a unit processes commands that want its medium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    #[default]
    Ready,
    /// START STOP UNIT has stopped it: it waits to be started.
    Stopped,
    /// It is becoming ready, and that takes a while.
    BecomingReady {
        /// PROGRESS INDICATION in 65536ths, if the unit tells.
        progress: Option<u16>,
    },
}

impl Readiness {
    /// The sense data of a command that finds the unit like this; `None` if it is ready.
    #[must_use]
    pub fn sense(self) -> Option<Sense> {
        match self {
            Readiness::Ready => None,
            Readiness::Stopped => Some(Sense::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED),
            Readiness::BecomingReady { progress } => {
                let sense = Sense::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY;
                Some(progress.map_or(sense, |progress| sense.with_progress(progress)))
            }
        }
    }
}

const READY: u32 = 0x0000_0000;
const STOPPED: u32 = 0x0001_0000;
const BECOMING: u32 = 0x0002_0000;
/// With the progress below.
const BECOMING_WITH_PROGRESS: u32 = 0x0003_0000;

/// The readiness as it is now, read without a lock.
#[derive(Debug, Default)]
pub(crate) struct CurrentReadiness(AtomicU32);

impl CurrentReadiness {
    pub(crate) fn get(&self) -> Readiness {
        let value = self.0.load(Ordering::Relaxed);
        match value & 0xffff_0000 {
            READY => Readiness::Ready,
            STOPPED => Readiness::Stopped,
            BECOMING => Readiness::BecomingReady { progress: None },
            _ => {
                let [_, _, high, low] = value.to_be_bytes();
                Readiness::BecomingReady { progress: Some(u16::from_be_bytes([high, low])) }
            }
        }
    }

    pub(crate) fn set(&self, readiness: Readiness) {
        let value = match readiness {
            Readiness::Ready => READY,
            Readiness::Stopped => STOPPED,
            Readiness::BecomingReady { progress: None } => BECOMING,
            Readiness::BecomingReady { progress: Some(progress) } => {
                BECOMING_WITH_PROGRESS | u32::from(progress)
            }
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_got() {
        let current = CurrentReadiness::default();
        assert_eq!(current.get(), Readiness::Ready);
        for readiness in [
            Readiness::Stopped,
            Readiness::BecomingReady { progress: None },
            Readiness::BecomingReady { progress: Some(0) },
            Readiness::BecomingReady { progress: Some(0xfffe) },
            Readiness::Ready,
        ] {
            current.set(readiness);
            assert_eq!(current.get(), readiness);
        }
    }
}
