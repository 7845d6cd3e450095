//! The device: its targets and logical units, and the way in for commands.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use arc_swap::{ArcSwap, Guard};
use scsi::{
    LunAddress, Sense, SenseFormat,
    task::{TaskAttribute, TaskManagementFunction},
};
use scsi_fault::WriteFault;

use crate::{
    Aborts, Begun, ConfigError, DataBuffers, DeviceConfig, Health, LuConfig, Outcome, Readiness,
    Wait, admission,
    data::Mover,
    handlers::{self, Execution},
    inventory::{Inventory, Target},
    medium::{FaultyMedium, FileWait, Medium},
    mode_values::ModeValues,
    unit::LogicalUnit,
};

/// An I_T nexus: who sends. The transport chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusId(pub u32);

/// Nexuses that are told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nexuses {
    /// Every one that has sent something.
    All,
    /// This one.
    One(NexusId),
}

/// One command as received.
#[derive(Clone, Copy, Debug)]
pub struct TaskContext<'a> {
    /// Command identifier, unique in the nexus and logical unit.
    pub tag: u64,
    /// Task attribute.
    pub attribute: TaskAttribute,
    /// CDB; may be longer than the command's, as transports pad it.
    pub cdb: &'a [u8],
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There is no such target; the transport refuses the command itself.
    NoTarget,
    /// The target is there, the logical unit is not: the target answers as SPC says.
    AbsentUnit,
    /// The logical unit is there.
    Unit,
}

/// Answer to a task management function (SAM, Task management function procedure calls).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TmfResponse {
    /// FUNCTION COMPLETE.
    FunctionComplete,
    /// FUNCTION SUCCEEDED: the queried task exists.
    FunctionSucceeded,
    /// FUNCTION REJECTED: not supported.
    FunctionRejected,
    /// INCORRECT LOGICAL UNIT NUMBER.
    IncorrectLogicalUnitNumber,
}

/// A SCSI device with its targets and logical units.
#[derive(Debug)]
pub struct Device {
    identifier: u32,
    inventory: ArcSwap<Inventory>,
    /// Held from seeing that an address is free until it is taken.
    adding: Mutex<()>,
    /// Every nexus that has sent something.
    nexuses: ArcSwap<BTreeSet<NexusId>>,
}

impl Device {
    /// Makes a device.
    ///
    /// # Errors
    /// The first unit whose configuration is refused.
    pub fn new(config: DeviceConfig) -> Result<Device, ConfigError> {
        let identifier = config.identifier;
        let mut inventory = Inventory::default();
        for (address, lu_config) in config.units {
            inventory.check_free(address)?;
            inventory.add(address, LogicalUnit::new(identifier, address, lu_config)?);
        }
        let inventory = ArcSwap::from_pointee(inventory);
        Ok(Device { identifier, inventory, adding: Mutex::default(), nexuses: ArcSwap::default() })
    }

    /// Where an address leads.
    #[must_use]
    pub fn lookup(&self, target: u8, lun: u16) -> Lookup {
        match self.inventory.load().target(target) {
            None => Lookup::NoTarget,
            Some(target) if target.unit(lun).is_some() => Lookup::Unit,
            Some(_) => Lookup::AbsentUnit,
        }
    }

    /// Executes one command to its end. A target that is not there answers as an absent logical unit
    /// of a target without any; the transport had better look first.
    pub fn execute(
        &self,
        nexus: NexusId,
        address: LunAddress,
        task: &TaskContext<'_>,
        data: &mut DataBuffers<'_>,
    ) -> Outcome {
        self.execute_faulty(nexus, address, task, data, None)
    }

    /// As [`Self::execute`], and this becomes of what the command writes.
    pub fn execute_faulty(
        &self,
        nexus: NexusId,
        address: LunAddress,
        task: &TaskContext<'_>,
        data: &mut DataBuffers<'_>,
        write: Option<WriteFault>,
    ) -> Outcome {
        self.run(nexus, address, task, data, write, None)
    }

    /// Executes one command, but for what somebody else may wait for.
    pub fn begin(
        &self,
        nexus: NexusId,
        address: LunAddress,
        task: &TaskContext<'_>,
        data: &mut DataBuffers<'_>,
    ) -> Begun {
        let mut wait = None;
        let outcome = self.run(nexus, address, task, data, None, Some(&mut wait));
        match wait {
            None => Begun::Ended(outcome),
            Some((unit, file)) => Begun::Waits(Wait::new(unit, file, outcome)),
        }
    }

    /// Runs a command. With a place for what it has to wait for, that is left there and not done; the outcome is
    /// then the one it has if all goes well.
    fn run(
        &self,
        nexus: NexusId,
        address: LunAddress,
        task: &TaskContext<'_>,
        data: &mut DataBuffers<'_>,
        write: Option<WriteFault>,
        wait: Option<&mut Option<(Arc<LogicalUnit>, FileWait)>>,
    ) -> Outcome {
        let mut mover = Mover::new(data);
        let nexuses = self.nexuses_with(nexus);
        let inventory = self.inventory.load();
        let target = inventory.target(address.target);
        let luns = target.map_or(&[][..], |target| target.luns());
        match target.and_then(|target| target.unit(address.lun)) {
            Some(slot) => {
                // The guard keeps the unit alive although a reset may replace it meanwhile.
                let unit = slot.load();
                let faulty = FaultyMedium::of(&unit, write);
                let medium: &dyn Medium = if faulty.is_sound() { &*unit.medium } else { &faulty };
                let mut execution =
                    Execution::new(nexus, &nexuses, &unit, medium, luns, task.cdb, &mut mover);
                execution.may_wait = wait.is_some();
                let result = admission::execute(&mut execution, task);
                if let (Some(wait), Some(file)) = (wait, execution.wait.take()) {
                    *wait = Some((Arc::clone(&unit), file));
                }
                let (aborts, reported_luns) = (execution.aborts, execution.reported_luns);
                if reported_luns {
                    self.forget_luns_changed(nexus, address.target);
                }
                Outcome::new(result, mover.moved(), aborts, unit.mode.get())
            }
            None => {
                let result = handlers::execute_absent(task.cdb, &mut mover, luns);
                let mode = ModeValues::default_for(false);
                Outcome::new(result, mover.moved(), Aborts::Nothing, mode)
            }
        }
    }

    /// Format of the sense data of the logical unit at an address: D_SENSE of its Control mode page.
    #[must_use]
    pub fn sense_format(&self, address: LunAddress) -> SenseFormat {
        self.unit(address).map_or(SenseFormat::Fixed, |unit| unit.mode.get().sense_format())
    }

    /// What a task management function does to the state of the logical unit: LOGICAL UNIT RESET and
    /// I_T NEXUS RESET change it. Tasks in flight are the transport's: it knows tags and holds answers,
    /// so it is the transport that finds a queried task and waits for an aborted one; here every task
    /// has ended. Whose commands CLEAR TASK SET has aborted only the transport knows, and tells with
    /// [`Self::commands_cleared`].
    pub fn task_management(
        &self,
        nexus: NexusId,
        address: LunAddress,
        function: TaskManagementFunction,
    ) -> TmfResponse {
        let nexuses = self.nexuses_with(nexus);
        match (function, self.lookup(address.target, address.lun)) {
            // Of the nexus, not of a logical unit.
            (TaskManagementFunction::ITNexusReset, _) => {
                if let Some(target) = self.inventory.load().target(address.target) {
                    target.lose_nexus(nexus);
                }
                TmfResponse::FunctionComplete
            }
            (_, Lookup::NoTarget | Lookup::AbsentUnit) => TmfResponse::IncorrectLogicalUnitNumber,
            (function, Lookup::Unit) if !handlers::is_supported(function) => {
                TmfResponse::FunctionRejected
            }
            (TaskManagementFunction::LogicalUnitReset, Lookup::Unit) => {
                if let Some(unit) = self.unit(address) {
                    unit.reset();
                    for nexus in nexuses.iter() {
                        let sense = Sense::BUS_DEVICE_RESET_FUNCTION_OCCURRED;
                        unit.attentions.establish(*nexus, sense);
                    }
                }
                TmfResponse::FunctionComplete
            }
            (
                TaskManagementFunction::AbortTask
                | TaskManagementFunction::AbortTaskSet
                | TaskManagementFunction::ClearAca
                | TaskManagementFunction::ClearTaskSet
                | TaskManagementFunction::QueryTask
                | TaskManagementFunction::QueryTaskSet,
                Lookup::Unit,
            ) => TmfResponse::FunctionComplete,
        }
    }

    /// A nexus was lost: its initiator may come back, and learns of it from every unit (SAM, I_T nexus
    /// loss).
    pub fn nexus_lost(&self, nexus: NexusId) {
        self.nexuses_with(nexus);
        for (_, target) in self.inventory.load().targets() {
            target.lose_nexus(nexus);
        }
    }

    /// A nexus will never be seen again: nothing is kept for it but a persistent reservation.
    pub fn forget_nexus(&self, nexus: NexusId) {
        self.nexuses.rcu(|known| {
            let mut known = BTreeSet::clone(known);
            known.remove(&nexus);
            known
        });
        for (_, unit) in self.inventory.load().units() {
            unit.reservations.nexus_lost(nexus);
            unit.attentions.forget(nexus);
            unit.echo.forget(nexus);
        }
    }

    /// Commands of these nexuses on a logical unit were aborted by another one: each of them learns of
    /// it, the one that aborted them does not.
    pub fn commands_cleared(&self, address: LunAddress, by: NexusId, of: &[NexusId]) {
        let Some(unit) = self.unit(address) else { return };
        for nexus in of.iter().filter(|nexus| **nexus != by) {
            unit.attentions.establish(*nexus, Sense::COMMANDS_CLEARED_BY_ANOTHER_INITIATOR);
        }
    }

    /// Establishes a unit attention condition. Of all nexuses those learn of it that have sent
    /// something before. A condition that is pending already is not repeated.
    ///
    /// # Errors
    /// There is no such unit.
    pub fn establish_unit_attention(
        &self,
        address: LunAddress,
        nexuses: Nexuses,
        sense: Sense,
    ) -> Result<(), ConfigError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        match nexuses {
            Nexuses::One(nexus) => unit.attentions.establish(nexus, sense),
            Nexuses::All => {
                for nexus in self.nexuses.load().iter() {
                    unit.attentions.establish(*nexus, sense);
                }
            }
        }
        Ok(())
    }

    /// Makes a unit ready or not.
    ///
    /// # Errors
    /// There is no such unit.
    pub fn set_readiness(
        &self,
        address: LunAddress,
        readiness: Readiness,
    ) -> Result<(), ConfigError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        unit.readiness.set(readiness);
        Ok(())
    }

    /// Says what a unit reports of its health.
    ///
    /// # Errors
    /// There is no such unit.
    pub fn set_health(&self, address: LunAddress, health: Health) -> Result<(), ConfigError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        unit.health.set(health);
        Ok(())
    }

    fn unit(&self, address: LunAddress) -> Option<Arc<LogicalUnit>> {
        let inventory = self.inventory.load();
        Some(inventory.target(address.target)?.unit(address.lun)?.load_full())
    }

    /// Every nexus there is, this one among them: from now on it is told what others do.
    fn nexuses_with(&self, nexus: NexusId) -> Guard<Arc<BTreeSet<NexusId>>> {
        let known = self.nexuses.load();
        if known.contains(&nexus) {
            return known;
        }
        self.nexuses.rcu(|known| {
            let mut known = BTreeSet::clone(known);
            known.insert(nexus);
            known
        });
        self.nexuses.load()
    }

    /// The initiator knows the list of logical units now, whichever unit has told it.
    fn forget_luns_changed(&self, nexus: NexusId, target: u8) {
        let inventory = self.inventory.load();
        for (_, unit) in inventory.target(target).into_iter().flat_map(Target::units) {
            unit.attentions.clear(nexus, Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
        }
    }

    /// Makes a logical unit as new. Commands already running on the old unit finish on the old one.
    ///
    /// # Errors
    /// Nothing has changed then, but a file may have been created or extended.
    pub fn reset_lu(&self, address: LunAddress, config: LuConfig) -> Result<(), ConfigError> {
        let inventory = self.inventory.load();
        let slot = inventory
            .target(address.target)
            .and_then(|target| target.unit(address.lun))
            .ok_or(ConfigError::NoSuchUnit(address))?;
        slot.store(Arc::new(LogicalUnit::new(self.identifier, address, config)?));
        Ok(())
    }

    /// Gives a logical unit another number of blocks. What it holds stays, behind the new end too, and so
    /// does its state; every initiator learns of it.
    ///
    /// # Errors
    /// There is no such unit, or it cannot have so many. Nothing has changed then.
    pub fn resize_lu(&self, address: LunAddress, blocks: u64) -> Result<(), ConfigError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        if unit.resize(blocks)? {
            let sense = Sense::CAPACITY_DATA_HAS_CHANGED;
            self.establish_unit_attention(address, Nexuses::All, sense)?;
        }
        Ok(())
    }

    /// Adds a logical unit, and its target if that is new. Every initiator learns from the other units of the
    /// target that the list has changed (SPC, REPORT LUNS). `first` is called when nothing can be refused any
    /// more and no command finds the unit yet.
    ///
    /// # Errors
    /// The address is taken or the unit cannot be made. Nothing has changed then, but a file may have been
    /// created or extended.
    pub fn add_lu(
        &self,
        address: LunAddress,
        config: LuConfig,
        first: impl FnOnce(),
    ) -> Result<(), ConfigError> {
        self.inventory.load().check_free(address)?;
        let unit = Arc::new(LogicalUnit::new(self.identifier, address, config)?);
        let _adding = self.adding.lock().expect("no holder panics");
        self.inventory.load().check_free(address)?;
        first();
        self.change_inventory(address, |inventory| {
            inventory.add(address, Arc::clone(&unit));
            Ok(())
        })
    }

    /// Removes a logical unit. Commands already running on it finish; its target stays, even without any.
    ///
    /// # Errors
    /// There is no such unit.
    pub fn remove_lu(&self, address: LunAddress) -> Result<(), ConfigError> {
        self.change_inventory(address, |inventory| {
            inventory.remove(address).then_some(()).ok_or(ConfigError::NoSuchUnit(address))
        })
    }

    fn change_inventory(
        &self,
        address: LunAddress,
        change: impl Fn(&mut Inventory) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        let mut result = Ok(());
        self.inventory.rcu(|inventory| {
            let mut inventory = Inventory::clone(inventory);
            result = change(&mut inventory);
            inventory
        });
        result?;
        let inventory = self.inventory.load();
        let others = inventory.target(address.target).into_iter().flat_map(Target::units);
        for (_, unit) in others.filter(|(lun, _)| *lun != address.lun) {
            for nexus in self.nexuses.load().iter() {
                unit.attentions.establish(*nexus, Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
            }
        }
        Ok(())
    }

    /// Every logical unit as it is now, in order of target and LUN.
    #[must_use]
    pub fn addresses(&self) -> Vec<(LunAddress, LuConfig)> {
        let inventory = self.inventory.load();
        inventory.units().map(|(address, unit)| (address, unit.current_config())).collect()
    }
}
