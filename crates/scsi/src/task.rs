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
}
