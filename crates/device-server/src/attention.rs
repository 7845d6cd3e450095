//! Unit attention conditions (SAM, Unit attention conditions), for each nexus of a logical unit.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use scsi::Sense;

use crate::NexusId;

/// Most conditions kept for a nexus. One more pushes out the one that would be reported last: no
/// initiator can make a unit remember without bound by not asking.
const CONDITIONS_MAX: usize = 16;

/// The conditions of a logical unit that have not been reported.
#[derive(Debug, Default)]
pub(crate) struct UnitAttentions {
    /// How many conditions there are, so that a command need not take the lock to see none.
    count: AtomicUsize,
    /// In the order of reporting. A nexus without conditions is absent.
    queues: Mutex<BTreeMap<NexusId, Vec<Sense>>>,
}

/// Place in the order of reporting (SAM, Unit attention condition precedence): whatever made a unit
/// forget comes before what it has since been told. Equals are reported in order of arrival.
fn precedence(sense: &Sense) -> u8 {
    match (sense.asc, sense.ascq) {
        // POWER ON OCCURRED, DEVICE INTERNAL RESET, and the code that may stand for all of them.
        (0x29, 0x00 | 0x01 | 0x04) => 0,
        // SCSI BUS RESET OCCURRED, MICROCODE HAS BEEN CHANGED.
        (0x29, 0x02) | (0x3f, 0x01) => 1,
        // BUS DEVICE RESET FUNCTION OCCURRED.
        (0x29, 0x03) => 2,
        // I_T NEXUS LOSS OCCURRED.
        (0x29, 0x07) => 3,
        // COMMANDS CLEARED BY POWER LOSS NOTIFICATION.
        (0x2f, 0x01) => 4,
        _ => 5,
    }
}

/// Whether a condition is reported before RESERVATION CONFLICT (SAM, Status precedence).
fn precedes_conflict(sense: &Sense) -> bool {
    precedence(sense) < 5
}

impl UnitAttentions {
    fn queues(&self) -> MutexGuard<'_, BTreeMap<NexusId, Vec<Sense>>> {
        self.queues.lock().expect("no holder panics")
    }

    /// Establishes a condition. One that is there already is not repeated.
    pub(crate) fn establish(&self, nexus: NexusId, sense: Sense) {
        let mut queues = self.queues();
        let queue = queues.entry(nexus).or_default();
        if queue.iter().any(|each| (each.asc, each.ascq) == (sense.asc, sense.ascq)) {
            return;
        }
        let place = queue.partition_point(|each| precedence(each) <= precedence(&sense));
        queue.insert(place, sense);
        if queue.len() > CONDITIONS_MAX {
            queue.truncate(CONDITIONS_MAX);
        } else {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the condition to be reported next.
    pub(crate) fn take(&self, nexus: NexusId) -> Option<Sense> {
        self.take_if(nexus, |_| true)
    }

    /// Takes the condition to be reported next if it comes before RESERVATION CONFLICT.
    pub(crate) fn take_before_conflict(&self, nexus: NexusId) -> Option<Sense> {
        self.take_if(nexus, precedes_conflict)
    }

    fn take_if(&self, nexus: NexusId, wanted: impl Fn(&Sense) -> bool) -> Option<Sense> {
        // Established by a command that has ended, a condition is seen by those sent afterwards: the
        // transport orders them. A command beside it may miss it, as one sent before.
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut queues = self.queues();
        let queue = queues.get_mut(&nexus)?;
        let sense = *queue.first().filter(|sense| wanted(sense))?;
        self.remove(&mut queues, nexus, |each| *each == sense);
        Some(sense)
    }

    /// Clears every condition with this additional sense code.
    pub(crate) fn clear(&self, nexus: NexusId, sense: Sense) {
        if self.count.load(Ordering::Relaxed) != 0 {
            let same = |each: &Sense| (each.asc, each.ascq) == (sense.asc, sense.ascq);
            self.remove(&mut self.queues(), nexus, same);
        }
    }

    /// Clears every condition of a nexus.
    pub(crate) fn forget(&self, nexus: NexusId) {
        self.remove(&mut self.queues(), nexus, |_| true);
    }

    fn remove(
        &self,
        queues: &mut BTreeMap<NexusId, Vec<Sense>>,
        nexus: NexusId,
        which: impl Fn(&Sense) -> bool,
    ) {
        let Some(queue) = queues.get_mut(&nexus) else { return };
        let before = queue.len();
        queue.retain(|sense| !which(sense));
        self.count.fetch_sub(before - queue.len(), Ordering::Relaxed);
        if queue.is_empty() {
            queues.remove(&nexus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXUS: NexusId = NexusId(3);

    #[test]
    fn what_made_the_unit_forget_is_reported_first_and_equals_in_order_of_arrival() {
        let attentions = UnitAttentions::default();
        for sense in [
            Sense::MODE_PARAMETERS_CHANGED,
            Sense::I_T_NEXUS_LOSS_OCCURRED,
            Sense::CAPACITY_DATA_HAS_CHANGED,
            Sense::BUS_DEVICE_RESET_FUNCTION_OCCURRED,
            Sense::MODE_PARAMETERS_CHANGED,
            Sense::POWER_ON_OCCURRED,
        ] {
            attentions.establish(NEXUS, sense);
        }
        let reported: Vec<_> = std::iter::from_fn(|| attentions.take(NEXUS)).collect();
        let codes: Vec<_> = reported.iter().map(|sense| (sense.asc, sense.ascq)).collect();
        assert_eq!(codes, [(0x29, 1), (0x29, 3), (0x29, 7), (0x2a, 1), (0x2a, 9)]);
        assert_eq!(attentions.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_nexus_that_never_asks_costs_sixteen_conditions() {
        let attentions = UnitAttentions::default();
        for ascq in 0..=u8::MAX {
            attentions.establish(NEXUS, Sense::new(scsi::SenseKey::UnitAttention, 0x2a, ascq));
        }
        attentions.establish(NEXUS, Sense::POWER_ON_OCCURRED);
        assert_eq!(attentions.count.load(Ordering::Relaxed), 16);
        assert_eq!(attentions.take(NEXUS), Some(Sense::POWER_ON_OCCURRED));
        assert_eq!(std::iter::from_fn(|| attentions.take(NEXUS)).count(), 15);
        assert!(attentions.queues().is_empty());
    }

    #[test]
    fn another_nexus_takes_nothing() {
        let attentions = UnitAttentions::default();
        attentions.establish(NEXUS, Sense::MODE_PARAMETERS_CHANGED);
        assert_eq!(attentions.take(NexusId(4)), None);
        assert_eq!(attentions.take_before_conflict(NEXUS), None);
        attentions.clear(NEXUS, Sense::MODE_PARAMETERS_CHANGED);
        assert_eq!(attentions.take(NEXUS), None);
    }
}
