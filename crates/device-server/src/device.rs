//! The device: its targets and logical units, and the way in for commands.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use scsi::{
    Command, LunAddress, SenseFormat,
    command::UnknownCommand,
    lun::LUN_MAX,
    task::{TaskAttribute, TaskManagementFunction},
};

use crate::{
    ConfigError, DataBuffers, DeviceConfig, LuConfig, Outcome,
    data::Mover,
    error::CommandError,
    handlers::{self, Execution},
    medium::{Medium, MediumLayer},
    unit::LogicalUnit,
};

/// An I_T nexus: who sends. The transport chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusId(pub u32);

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

/// A target: its logical units by LUN, in two forms because most commands want one unit and few the
/// whole list.
#[derive(Debug, Default)]
struct Target {
    units: BTreeMap<u16, ArcSwap<LogicalUnit>>,
    luns: Vec<u16>,
}

/// A SCSI device with its targets and logical units.
#[derive(Debug)]
pub struct Device {
    identifier: u32,
    targets: BTreeMap<u8, Target>,
}

impl Device {
    /// Makes a device.
    ///
    /// # Errors
    /// The first unit whose configuration is refused.
    pub fn new(config: DeviceConfig) -> Result<Device, ConfigError> {
        let identifier = config.identifier;
        let mut targets = BTreeMap::<u8, Target>::new();
        for (address, lu_config) in config.units {
            if address.lun > LUN_MAX {
                return Err(ConfigError::LunTooHigh(address));
            }
            let target = targets.entry(address.target).or_default();
            if target.units.contains_key(&address.lun) {
                return Err(ConfigError::DuplicateAddress(address));
            }
            let unit = LogicalUnit::new(identifier, address, lu_config)?;
            target.units.insert(address.lun, ArcSwap::from_pointee(unit));
        }
        for target in targets.values_mut() {
            target.luns = target.units.keys().copied().collect();
        }
        Ok(Device { identifier, targets })
    }

    /// Where an address leads.
    #[must_use]
    pub fn lookup(&self, target: u8, lun: u16) -> Lookup {
        match self.targets.get(&target) {
            None => Lookup::NoTarget,
            Some(target) if target.units.contains_key(&lun) => Lookup::Unit,
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
        self.execute_through(nexus, address, task, data, None)
    }

    /// As [`Self::execute`], with a layer between this one command and the medium of its unit.
    pub fn execute_through(
        &self,
        nexus: NexusId,
        address: LunAddress,
        task: &TaskContext<'_>,
        data: &mut DataBuffers<'_>,
        layer: Option<&dyn MediumLayer>,
    ) -> Outcome {
        let mut mover = Mover::new(data);
        let target = self.targets.get(&address.target);
        let luns = target.map_or(&[][..], |target| &target.luns);
        match target.and_then(|target| target.units.get(&address.lun)) {
            Some(slot) => {
                // The guard keeps the unit alive although a reset may replace it meanwhile.
                let unit = slot.load();
                let layered = layer.map(|layer| layer.over(&*unit.medium));
                let medium = layered.as_deref().unwrap_or(&*unit.medium);
                let result = execute_on(nexus, &unit, medium, luns, task, &mut mover);
                Outcome::new(result, mover.moved(), unit.sense_format())
            }
            None => {
                let result = handlers::execute_absent(task.cdb, &mut mover, luns);
                Outcome::new(result, mover.moved(), SenseFormat::Fixed)
            }
        }
    }

    /// What a task management function does to the state of the logical unit. Tasks in flight are the
    /// transport's: it knows tags and holds answers, so it is the transport that finds a queried task
    /// and waits for an aborted one; here every task has ended.
    pub fn task_management(
        &self,
        _nexus: NexusId,
        address: LunAddress,
        function: TaskManagementFunction,
    ) -> TmfResponse {
        match (function, self.lookup(address.target, address.lun)) {
            // Of the nexus, not of a logical unit.
            (TaskManagementFunction::ITNexusReset, _) => TmfResponse::FunctionComplete,
            (_, Lookup::NoTarget | Lookup::AbsentUnit) => TmfResponse::IncorrectLogicalUnitNumber,
            // NORMACA is zero.
            (TaskManagementFunction::ClearAca, Lookup::Unit) => TmfResponse::FunctionRejected,
            (
                TaskManagementFunction::AbortTask
                | TaskManagementFunction::AbortTaskSet
                | TaskManagementFunction::ClearTaskSet
                | TaskManagementFunction::LogicalUnitReset
                | TaskManagementFunction::QueryTask
                | TaskManagementFunction::QueryTaskSet,
                Lookup::Unit,
            ) => TmfResponse::FunctionComplete,
        }
    }

    /// Makes a logical unit as new. Commands already running on the old unit finish on the old one.
    ///
    /// # Errors
    /// Nothing has changed then, but a file may have been created or extended.
    pub fn reset_lu(&self, address: LunAddress, config: LuConfig) -> Result<(), ConfigError> {
        let slot = self
            .targets
            .get(&address.target)
            .and_then(|target| target.units.get(&address.lun))
            .ok_or(ConfigError::NoSuchUnit(address))?;
        slot.store(Arc::new(LogicalUnit::new(self.identifier, address, config)?));
        Ok(())
    }

    /// Every logical unit as it is now, in order of target and LUN.
    #[must_use]
    pub fn addresses(&self) -> Vec<(LunAddress, LuConfig)> {
        let units = self.targets.iter().flat_map(|(target, each)| {
            each.units.iter().map(|(lun, slot)| {
                (LunAddress { target: *target, lun: *lun }, slot.load().config.clone())
            })
        });
        units.collect()
    }
}

/// Finds the row, checks the CDB against it, runs its handler.
pub(crate) fn execute_on(
    nexus: NexusId,
    unit: &LogicalUnit,
    medium: &dyn Medium,
    luns: &[u16],
    task: &TaskContext<'_>,
    data: &mut Mover<'_, '_>,
) -> Result<(), CommandError> {
    if task.attribute == TaskAttribute::Aca {
        return Err(CommandError::AcaWithoutCondition);
    }
    let command = Command::identify(task.cdb).map_err(|unknown| match unknown {
        UnknownCommand::Opcode => CommandError::UnknownOpcode,
        // SERVICE ACTION: bits 4 to 0 of byte 1.
        UnknownCommand::ServiceAction => CommandError::field_bit(1, 4),
    })?;
    command.spec().check(task.cdb).map_err(CommandError::InvalidField)?;
    handlers::handler(command)(&mut Execution { nexus, unit, medium, luns, cdb: task.cdb, data })
}
