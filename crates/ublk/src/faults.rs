//! Faults of a device, decided by rules and carried out by its queues.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fault::{RuleCount, RuleError};
use ublk_fault::{Effect, Engine, Event, Rule, Scenario};

use crate::target::NotHeld;

/// The rules of a device, for [`crate::Config::faults`], and what became of them.
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    engine: Engine,
    /// How often everything held was released.
    releases: u64,
    held: usize,
}

impl Faults {
    /// Faults by these rules; the seed is where chance comes from.
    pub fn new(rules: Vec<Rule>, seed: u64) -> Result<Arc<Self>, RuleError> {
        let state = State { engine: Engine::new(rules, seed)?, releases: 0, held: 0 };
        Ok(Arc::new(Faults { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Faults by a scenario.
    pub fn of(scenario: Scenario) -> Result<Arc<Self>, RuleError> {
        Self::new(scenario.rules, scenario.seed)
    }

    /// How often each rule was asked and fired. A test looks here, so that a fault which never happened is seen.
    pub fn counts(&self) -> Vec<RuleCount> {
        self.lock().engine.counts()
    }

    /// Lets all held requests go on. Those that come later are held again, as far as the rules say so.
    pub fn release(&self) {
        self.lock().releases += 1;
        self.changed.notify_all();
    }

    /// Waits until at least `awaited` requests are held.
    pub fn wait_held(&self, awaited: usize, timeout: Duration) -> Result<(), NotHeld> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.held < awaited {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(NotHeld { held: state.held, awaited });
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    pub(crate) fn decide(&self, event: &Event) -> Option<Effect> {
        let fired = self.lock().engine.decide(event)?;
        tracing::info!(rule = fired.rule.name, count = fired.count, ?event, "fault");
        Some(fired.rule.effect.clone())
    }

    /// Counts a request as held, and returns what [`Faults::releases`] has to exceed for it to go on.
    pub(crate) fn hold(&self) -> u64 {
        let mut state = self.lock();
        state.held += 1;
        self.changed.notify_all();
        state.releases
    }

    /// A request is held no more.
    pub(crate) fn let_go(&self) {
        self.lock().held -= 1;
    }

    pub(crate) fn releases(&self) -> u64 {
        self.lock().releases
    }

    /// Waits for a change, at most so long.
    pub(crate) fn pause(&self, timeout: Duration) {
        let waited = self.changed.wait_timeout(self.lock(), timeout);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
