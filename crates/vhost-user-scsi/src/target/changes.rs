//! Changes of what is served, while it is: what the control socket asks for, behind its barrier.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use control::Faults;
use device_server::{ConfigError, LuConfig, LunAddress, NexusId, Nexuses, Readiness};
use scsi::{Sense, SenseKey};

use super::{PLUGGED_MAX, Target};
use crate::{
    event_queue::Happening,
    faults::{self, RuleProblem},
    unit::{BadOrder, StillInFlight, Unit, Which},
};

/// Why a logical unit was not changed. Nothing has happened to it then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such unit, or it cannot be what it shall become.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A rule cannot be carried out.
    #[error(transparent)]
    Rule(#[from] RuleProblem),
    /// So many addresses have had a unit that the journals of more are not kept.
    #[error("units have been plugged at {PLUGGED_MAX} addresses; plug at one of them")]
    TooMany,
    /// No unit attention condition has this text.
    #[error("`{0}` is no unit attention condition of the table of additional sense codes")]
    NoAttention(String),
    /// What is held cannot be released in this order.
    #[error(transparent)]
    Order(#[from] BadOrder),
    /// Requests did not end in time, or others kept coming.
    #[error("{source} on target {} LUN {} after {} ms", address.target, address.lun, limit.as_millis())]
    Busy {
        /// Which unit.
        address: LunAddress,
        /// How long was waited.
        limit: Duration,
        /// What was left.
        source: StillInFlight,
    },
}

/// A change that waits for its turn, until dropped.
struct Changing<'a>(&'a AtomicUsize);

impl<'a> Changing<'a> {
    fn begin(changes: &'a AtomicUsize) -> Self {
        changes.fetch_add(1, Ordering::Relaxed);
        Changing(changes)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    /// Makes a logical unit as new, behind the barrier.
    ///
    /// # Errors
    /// If the configuration is refused or a request that runs does not end; nothing has changed then.
    pub fn reset_lun(&self, address: LunAddress, config: &LuConfig) -> Result<(), ChangeError> {
        self.change(address, |unit| {
            self.device.reset_lu(address, config.clone())?;
            unit.configure(config);
            unit.set_faults(faults::Engine::default());
            self.end_held(unit);
            unit.clear_journal();
            Ok(())
        })
    }

    /// Ends everything that waits on a unit as aborted, whatever it waits for.
    ///
    /// # Errors
    /// If there is no such unit.
    pub fn abort_held(&self, address: LunAddress) -> Result<(), ChangeError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        self.end_held(&unit);
        Ok(())
    }

    /// Carries out what waits on a unit to be released, in order of arrival or in another.
    ///
    /// # Errors
    /// If there is no such unit, or the order is none; nothing has happened then.
    pub fn release(&self, address: LunAddress, order: Option<&[u32]>) -> Result<(), ChangeError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        for turn in unit.release(order)? {
            turn.take(self);
        }
        Ok(())
    }

    /// Says what goes wrong on a logical unit, behind the barrier.
    ///
    /// # Errors
    /// If a rule makes no sense or a request that runs does not end; nothing has changed then.
    pub fn set_faults(&self, address: LunAddress, faults: &Faults) -> Result<(), ChangeError> {
        let engine = self.engine(faults, address)?;
        self.change(address, |unit| {
            unit.set_faults(engine);
            Ok(())
        })
    }

    /// Says what goes wrong on every logical unit, behind the barrier of each: those that are absent or plugged
    /// later too. Each counts for itself.
    ///
    /// # Errors
    /// If a rule makes no sense; nothing has changed then. If a request that runs does not end; the units before
    /// it have changed then.
    pub fn set_standing_faults(&self, faults: &Faults) -> Result<(), ChangeError> {
        // Where a unit is makes no difference to what is wrong with a rule.
        self.engine(faults, LunAddress { target: 0, lun: 0 })?;
        let known: Vec<_> = {
            let mut standing = self.standing();
            *standing = (!faults.rules.is_empty()).then(|| Arc::new(faults.clone()));
            self.units.load().keys().copied().collect()
        };
        known.into_iter().try_for_each(|address| self.set_faults(address, faults))
    }

    /// Adds a logical unit, and tells the drivers.
    ///
    /// # Errors
    /// If there is one already or it cannot be made; nothing has changed then.
    pub fn plug(
        &self,
        address: LunAddress,
        config: LuConfig,
        silent: bool,
    ) -> Result<(), ChangeError> {
        if self.unit(address).is_none()
            && self.units.load().len() >= self.units_at_start + PLUGGED_MAX
        {
            return Err(ChangeError::TooMany);
        }
        // Whoever finds the unit finds what is kept for it.
        let kept_as = config.clone();
        self.device.add_lu(address, config, || self.keep(address).configure(&kept_as))?;
        self.report_unless(silent, address, Happening::Added);
        Ok(())
    }

    /// Removes a logical unit behind the barrier, and tells the drivers. What waits on it ends as aborted.
    ///
    /// # Errors
    /// If there is none or a request that runs does not end; nothing has changed then.
    pub fn unplug(&self, address: LunAddress, silent: bool) -> Result<(), ChangeError> {
        self.change(address, |unit| {
            self.device.remove_lu(address)?;
            self.end_held(unit);
            Ok(())
        })?;
        self.report_unless(silent, address, Happening::Removed);
        Ok(())
    }

    /// Gives a logical unit another number of blocks behind the barrier, and tells the drivers.
    ///
    /// # Errors
    /// If it cannot have so many or a request that runs does not end; nothing has changed then.
    pub fn resize(
        &self,
        address: LunAddress,
        blocks: u64,
        silent: bool,
    ) -> Result<(), ChangeError> {
        self.change(address, |_| self.device.resize_lu(address, blocks))?;
        let (_, asc, ascq) = Sense::CAPACITY_DATA_HAS_CHANGED.triple();
        self.report_unless(silent, address, Happening::ParameterChanged(asc, ascq));
        Ok(())
    }

    /// Establishes a unit attention condition by the text of its sense, behind the barrier.
    ///
    /// # Errors
    /// If the text is unknown or a request that runs does not end; nothing has changed then.
    pub fn unit_attention(
        &self,
        address: LunAddress,
        nexus: Option<NexusId>,
        sense: &str,
    ) -> Result<(), ChangeError> {
        let sense = scsi::sense::table::from_name(sense)
            .filter(|sense| sense.key == SenseKey::UnitAttention)
            .ok_or_else(|| ChangeError::NoAttention(sense.to_owned()))?;
        let nexuses = nexus.map_or(Nexuses::All, Nexuses::One);
        self.change(address, |_| self.device.establish_unit_attention(address, nexuses, sense))
    }

    /// Makes a logical unit ready or not, behind the barrier.
    ///
    /// # Errors
    /// If there is none or a request that runs does not end; nothing has changed then.
    pub fn set_readiness(
        &self,
        address: LunAddress,
        readiness: Readiness,
    ) -> Result<(), ChangeError> {
        self.change(address, |_| self.device.set_readiness(address, readiness))
    }

    /// The barrier of the control socket: when this returns, no request fetched before the change runs
    /// on the unit, and every one fetched later sees it changed.
    fn change(
        &self,
        address: LunAddress,
        change: impl FnOnce(&Arc<Unit>) -> Result<(), ConfigError>,
    ) -> Result<(), ChangeError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        let _changing = Changing::begin(&self.changes);
        let deadline = Instant::now() + self.wait_limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            unit.wait_for(Which::All, left).map_err(|source| ChangeError::Busy {
                address,
                limit: self.wait_limit,
                source,
            })?;
            let nothing_fetched: Vec<_> = self
                .fetch_locks
                .iter()
                .map(|lock| lock.lock().expect("no holder panics"))
                .collect();
            if unit.runs(Which::All) {
                // Something was fetched between the wait and the locks.
                drop(nothing_fetched);
                continue;
            }
            return Ok(change(&unit)?);
        }
    }

    /// Whether somebody waits for a unit on which nothing runs.
    pub(crate) fn is_changing(&self) -> bool {
        self.changes.load(Ordering::Relaxed) > 0
    }
}
