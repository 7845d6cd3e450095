//! What is left of a run, for machines that work at it side by side.
//!
//! It must not know machines or results: who asks gets a [`Share`] of a group, takes tests from it one at
//! a time, and gives back what has to be run again.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use guest_protocol::needs::VmShape;

use crate::plan::Group;

/// A machine joins others at a group if so many tests are left: they take about as long as its boot under
/// emulation.
const WORTH_A_BOOT: usize = 50;

/// Groups of tests, and which of them machines work at.
#[derive(Debug)]
pub struct Agenda {
    pools: Mutex<Vec<Pool>>,
    stopped: AtomicBool,
}

/// What is left of a group.
#[derive(Debug)]
struct Pool {
    group: Group,
    left: VecDeque<usize>,
    machines: usize,
}

impl Agenda {
    /// Nothing is done yet. Groups begin in the order given.
    pub fn new(groups: Vec<Group>) -> Agenda {
        let pool = |group: Group| Pool { left: group.members.clone().into(), machines: 0, group };
        let pools = groups.into_iter().map(pool).collect();
        Agenda { pools: Mutex::new(pools), stopped: AtomicBool::new(false) }
    }

    /// Work for one more machine: a group nobody works at, or else the one with the most left to do.
    pub fn next(&self) -> Option<Share<'_>> {
        if self.is_stopped() {
            return None;
        }
        let mut pools = self.lock();
        let free = pools.iter().position(|pool| pool.machines == 0 && !pool.left.is_empty());
        let at = free.or_else(|| {
            let most = (0..pools.len()).max_by_key(|at| pools[*at].left.len())?;
            let pool = &pools[most];
            (!pool.group.alone && pool.left.len() >= WORTH_A_BOOT).then_some(most)
        })?;
        pools[at].machines += 1;
        let group = &pools[at].group;
        let (shape, alone) = (group.shape.clone(), group.alone);
        Some(Share { agenda: self, at, shape, alone })
    }

    /// No further test begins.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether no further test begins.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pool>> {
        self.pools.lock().expect("no thread panics with the lock")
    }
}

/// A machine's part in a group, until it is dropped.
#[derive(Debug)]
pub struct Share<'a> {
    agenda: &'a Agenda,
    at: usize,
    /// What the machine has to be.
    pub shape: VmShape,
    /// Whether tests run one after the other.
    pub alone: bool,
}

impl Share<'_> {
    /// The first test left that `fits`, by its place in the list of tests.
    pub fn take(&self, fits: impl FnMut(&usize) -> bool) -> Option<usize> {
        if self.agenda.is_stopped() {
            return None;
        }
        let left = &mut self.agenda.lock()[self.at].left;
        let at = left.iter().position(fits)?;
        left.remove(at)
    }

    /// Whether no test is left to take.
    pub fn is_done(&self) -> bool {
        self.agenda.is_stopped() || self.agenda.lock()[self.at].left.is_empty()
    }

    /// These have to be run again, and are the next.
    pub fn give_back(&self, members: Vec<usize>) {
        let left = &mut self.agenda.lock()[self.at].left;
        members.into_iter().rev().for_each(|member| left.push_front(member));
    }

    /// Everything that is left; nothing is afterwards.
    pub fn take_all(&self) -> Vec<usize> {
        std::mem::take(&mut self.agenda.lock()[self.at].left).into()
    }

    /// No further test of the whole run begins.
    pub fn stop_all(&self) {
        self.agenda.stop();
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.agenda.lock()[self.at].machines -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: std::ops::Range<usize>) -> Group {
        Group { shape: VmShape::default(), members: members.collect(), alone: false }
    }

    fn rest(share: &Share<'_>) -> Vec<usize> {
        std::iter::from_fn(|| share.take(|_| true)).collect()
    }

    #[test]
    fn machines_get_groups_of_their_own_and_then_join_the_one_with_the_most_left() {
        let agenda = Agenda::new(vec![group(0..100), group(100..101), group(101..160)]);
        let shares: Vec<_> = (0..4).filter_map(|_| agenda.next()).collect();
        let places: Vec<usize> = shares.iter().map(|share| share.at).collect();
        assert_eq!(places, [0, 1, 2, 0]);
        for _ in 0..51 {
            shares[0].take(|_| true);
        }
        assert_eq!(shares[3].take(|_| true), Some(51), "both take from one heap");
        assert_eq!(agenda.next().map(|share| share.at), Some(2), "59 are left there, 48 here");
    }

    #[test]
    fn few_tests_are_left_to_the_machine_that_is_up_and_a_lost_machine_is_replaced() {
        let agenda = Agenda::new(vec![group(0..49)]);
        let share = agenda.next().expect("work");
        assert!(agenda.next().is_none(), "another would boot for longer than it helps");
        drop(share);
        let again = agenda.next().expect("what the lost machine has left");
        assert_eq!(rest(&again).len(), 49);
        assert!(again.is_done());
        again.give_back(vec![7, 8]);
        assert_eq!(rest(&again), [7, 8]);
    }

    #[test]
    fn a_test_that_does_not_fit_lets_others_go_first() {
        let agenda = Agenda::new(vec![group(0..3)]);
        let share = agenda.next().expect("work");
        assert_eq!(share.take(|member| *member != 0), Some(1));
        assert_eq!(rest(&share), [0, 2]);
    }

    #[test]
    fn nothing_begins_after_a_stop() {
        let agenda = Agenda::new(vec![group(0..100), group(100..200)]);
        let share = agenda.next().expect("work");
        share.stop_all();
        assert_eq!(share.take(|_| true), None);
        assert!(share.is_done() && agenda.next().is_none());
    }
}
