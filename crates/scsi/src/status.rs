//! Status codes of a completed command (SAM, Status codes).

/// STATUS byte. Codes a standard has retired (CONDITION MET apart) are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// GOOD: done without error.
    Good = 0x00,
    /// CHECK CONDITION: sense data tells what happened.
    CheckCondition = 0x02,
    /// CONDITION MET: the condition of the command (PRE-FETCH) is satisfied.
    ConditionMet = 0x04,
    /// BUSY: the logical unit cannot accept a command now.
    Busy = 0x08,
    /// RESERVATION CONFLICT.
    ReservationConflict = 0x18,
    /// TASK SET FULL: no resources for one more task.
    TaskSetFull = 0x28,
    /// ACA ACTIVE: an auto contingent allegiance condition exists.
    AcaActive = 0x30,
    /// TASK ABORTED: aborted by a task management function of another nexus (TAS set to one).
    TaskAborted = 0x40,
}

impl Status {
    /// Every status, in order of code.
    pub const ALL: [Status; 8] = [
        Status::Good,
        Status::CheckCondition,
        Status::ConditionMet,
        Status::Busy,
        Status::ReservationConflict,
        Status::TaskSetFull,
        Status::AcaActive,
        Status::TaskAborted,
    ];

    /// The status with this code, if SAM defines one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Status> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The name exactly as the standard writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Status::Good => "GOOD",
            Status::CheckCondition => "CHECK CONDITION",
            Status::ConditionMet => "CONDITION MET",
            Status::Busy => "BUSY",
            Status::ReservationConflict => "RESERVATION CONFLICT",
            Status::TaskSetFull => "TASK SET FULL",
            Status::AcaActive => "ACA ACTIVE",
            Status::TaskAborted => "TASK ABORTED",
        }
    }

    /// The STATUS byte.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}
