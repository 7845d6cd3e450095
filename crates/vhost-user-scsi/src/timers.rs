//! What waits for a time: one thread that lets requests go on when theirs has come.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    thread::Builder,
    time::Instant,
};

use crate::{target::Target, unit::Turn};

/// The times requests wait for. Dropping the last handle ends the thread.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    next: u64,
    due: BTreeMap<Due, Turn>,
}

/// When, and which of those that are due then.
type Due = (Instant, u64);

/// The place of what waits among the times. Whatever else ends the wait drops it, and nothing is left of it here.
#[derive(Debug)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
    due: Due,
}

impl Drop for Timer {
    fn drop(&mut self) {
        // There is none any more if its time has come.
        self.shared.state().due.remove(&self.due);
    }
}

impl Timers {
    /// Starts the thread; what is due is carried out on this target while it lasts.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(&self, target: Weak<Target>) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        Builder::new().name("timers".into()).spawn(move || shared.run(&target)).map(drop)
    }

    /// What has this turn takes it at `at`, unless the timer is dropped before.
    #[must_use]
    pub(crate) fn add(&self, at: Instant, turn: Turn) -> Timer {
        let mut state = self.shared.state();
        let due = (at, state.next);
        state.next += 1;
        state.due.insert(due, turn);
        self.shared.changed.notify_one();
        Timer { shared: Arc::clone(&self.shared), due }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn run(&self, target: &Weak<Target>) {
        while let Some(turn) = self.next_due() {
            if let Some(target) = target.upgrade() {
                turn.take(&target);
            }
        }
    }

    /// Waits for the next that is due; `None` at the end.
    fn next_due(&self) -> Option<Turn> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            state = match state.due.first_entry() {
                None => self.changed.wait(state).expect("no holder panics"),
                Some(first) if first.key().0 <= now => return Some(first.remove()),
                Some(first) => {
                    let left = first.key().0 - now;
                    self.changed.wait_timeout(state, left).expect("no holder panics").0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use control::Faults;
    use device_server::{Device, DeviceConfig, LuConfig, LunAddress};
    use rstest::rstest;
    use scsi_fault::{Effect, Rule};

    use crate::{
        backend::{Detached, QueueHandler as _, Ring, ring_with_a_command},
        target::{Settings, Target},
        wire::FIRST_REQUEST_QUEUE,
    };

    const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
    const HOUR_US: u64 = 3_600_000_000;

    /// A guest that sends and aborts without end has nothing grow, though none of its commands is due.
    #[rstest]
    #[case::aborted(|target: &Target, _: &Ring| target.abort_held(ADDRESS).expect("the unit"))]
    #[case::reset(|target: &Target, _: &Ring| {
        target.reset_lun(ADDRESS, &LuConfig::default()).expect("nothing runs");
    })]
    #[case::ring_stopped(|_: &Target, ring: &Ring| Detached::stop(ring))]
    fn wait_that_has_ended_leaves_nothing(#[case] end: fn(&Target, &Ring)) {
        let units = vec![(ADDRESS, LuConfig::default())];
        let device = Device::new(DeviceConfig { identifier: 0, units }).expect("a fine device");
        let target = Target::new(device, Settings::new(1, 1)).expect("a thread");
        let due = || target.timers().shared.state().due.len();
        let slow = Effect { delay_us: Some(HOUR_US), ..Effect::default() };
        for _ in 0..3 {
            let rules = vec![Rule::new("slow", slow.clone())];
            target.set_faults(ADDRESS, &Faults { seed: 0, rules }).expect("nothing runs");
            let ring = ring_with_a_command();
            target.serve(0, FIRST_REQUEST_QUEUE, &ring);
            assert_eq!(due(), 1);
            end(&target, &ring);
            assert_eq!(due(), 0);
        }
    }
}
