//! Task attributes and task management functions (SAM).

/// How a task is ordered among the others of its task set (SAM, Task attributes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TaskAttribute {
    /// SIMPLE: no order asked for.
    #[default]
    Simple,
    /// ORDERED: after all older tasks, before all younger ones.
    Ordered,
    /// HEAD OF QUEUE: before everything that has not started.
    HeadOfQueue,
    /// ACA: allowed while an auto contingent allegiance condition exists.
    Aca,
}

/// What a task manager can be asked to do (SAM, Task management functions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskManagementFunction {
    /// ABORT TASK: one task of the nexus.
    AbortTask,
    /// ABORT TASK SET: all tasks of the nexus on the logical unit.
    AbortTaskSet,
    /// CLEAR ACA: ends an auto contingent allegiance condition.
    ClearAca,
    /// CLEAR TASK SET: all tasks on the logical unit, whoever sent them.
    ClearTaskSet,
    /// I_T NEXUS RESET: the nexus is as if lost and established again.
    ITNexusReset,
    /// LOGICAL UNIT RESET: all tasks aborted, the unit's state back to its defaults.
    LogicalUnitReset,
    /// QUERY TASK: is this task in the task set?
    QueryTask,
    /// QUERY TASK SET: is any task of the nexus in the task set?
    QueryTaskSet,
}

impl TaskManagementFunction {
    /// The name exactly as the standard writes it, for example `ABORT TASK`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TaskManagementFunction::AbortTask => "ABORT TASK",
            TaskManagementFunction::AbortTaskSet => "ABORT TASK SET",
            TaskManagementFunction::ClearAca => "CLEAR ACA",
            TaskManagementFunction::ClearTaskSet => "CLEAR TASK SET",
            TaskManagementFunction::ITNexusReset => "I_T NEXUS RESET",
            TaskManagementFunction::LogicalUnitReset => "LOGICAL UNIT RESET",
            TaskManagementFunction::QueryTask => "QUERY TASK",
            TaskManagementFunction::QueryTaskSet => "QUERY TASK SET",
        }
    }

    /// Every function.
    pub const ALL: [TaskManagementFunction; 8] = [
        TaskManagementFunction::AbortTask,
        TaskManagementFunction::AbortTaskSet,
        TaskManagementFunction::ClearAca,
        TaskManagementFunction::ClearTaskSet,
        TaskManagementFunction::ITNexusReset,
        TaskManagementFunction::LogicalUnitReset,
        TaskManagementFunction::QueryTask,
        TaskManagementFunction::QueryTaskSet,
    ];

    /// Its bit in bytes 0 and 1 of the parameter data of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    const fn bit(self) -> u16 {
        match self {
            TaskManagementFunction::AbortTask => 0x8000,
            TaskManagementFunction::AbortTaskSet => 0x4000,
            TaskManagementFunction::ClearAca => 0x2000,
            TaskManagementFunction::ClearTaskSet => 0x1000,
            TaskManagementFunction::LogicalUnitReset => 0x0800,
            TaskManagementFunction::QueryTask => 0x0400,
            TaskManagementFunction::QueryTaskSet => 0x0002,
            TaskManagementFunction::ITNexusReset => 0x0001,
        }
    }
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data (SPC), basic, or extended without timeouts.
#[must_use]
pub fn supported_functions_data(
    functions: impl IntoIterator<Item = TaskManagementFunction>,
    extended: bool,
) -> Vec<u8> {
    let bits = functions.into_iter().fold(0, |bits, function| bits | function.bit());
    let [first, second] = bits.to_be_bytes();
    let additional: u8 = if extended { 12 } else { 0 };
    let mut data = vec![first, second, 0, additional];
    data.resize(4 + usize::from(additional), 0);
    data
}
