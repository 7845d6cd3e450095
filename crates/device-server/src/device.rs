//! The device: its targets and logical units, and the way in for commands.

use scsi::{
    LunAddress,
    task::{TaskAttribute, TaskManagementFunction},
};

use crate::{ConfigError, DataBuffers, DeviceConfig, LuConfig, Outcome};

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

/// A SCSI device with its targets and logical units.
#[derive(Debug)]
pub struct Device {
    config: DeviceConfig,
}

impl Device {
    /// Makes a device.
    ///
    /// # Errors
    /// The first unit whose configuration is refused.
    pub fn new(config: DeviceConfig) -> Result<Device, ConfigError> {
        Ok(Device { config })
    }

    /// Where an address leads.
    #[must_use]
    pub fn lookup(&self, target: u8, lun: u16) -> Lookup {
        let _ = (target, lun, &self.config);
        Lookup::NoTarget
    }

    /// Executes one command to its end. A target that is not there answers as an absent logical unit.
    pub fn execute(
        &self,
        nexus: NexusId,
        address: LunAddress,
        task: &TaskContext<'_>,
        data: &mut DataBuffers<'_>,
    ) -> Outcome {
        let _ = (nexus, address, task, data);
        Outcome::good()
    }

    /// What a task management function does to the state of the logical unit. Tasks in flight are the
    /// transport's: it knows tags and holds answers.
    pub fn task_management(
        &self,
        nexus: NexusId,
        address: LunAddress,
        function: TaskManagementFunction,
    ) -> TmfResponse {
        let _ = (nexus, address, function);
        TmfResponse::FunctionComplete
    }

    /// Makes a logical unit as new. Commands already running on the old unit finish on the old one.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn reset_lu(&self, address: LunAddress, config: LuConfig) -> Result<(), ConfigError> {
        let _ = (address, config);
        Ok(())
    }

    /// Every logical unit as it is now, in order of target and LUN.
    #[must_use]
    pub fn addresses(&self) -> Vec<(LunAddress, LuConfig)> {
        self.config.units.clone()
    }
}
