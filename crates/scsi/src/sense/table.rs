//! The table of additional sense codes (SPC, Sense key and additional sense code definitions, and
//! its annex of ASC and ASCQ assignments), each with the sense key it usually comes with.

use super::{Sense, SenseKey};

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct SenseSpec {
    /// The standard's text.
    pub name: &'static str,
    /// The key it usually comes with.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE.
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub ascq: u8,
}

macro_rules! senses {
    ($($constant:ident $key:ident $asc:literal $ascq:literal $name:literal;)+) => {
        impl Sense {
            $(#[doc = $name] pub const $constant: Sense = Sense::new(SenseKey::$key, $asc, $ascq);)+
        }

        /// Every row, in order of ASC and ASCQ.
        pub static TABLE: &[SenseSpec] = &[
            $(SenseSpec { name: $name, key: SenseKey::$key, asc: $asc, ascq: $ascq },)+
        ];

        #[cfg(test)]
        pub(super) static CONSTANTS: &[(&str, Sense)] =
            &[$((stringify!($constant), Sense::$constant)),+];
    };
}

#[rustfmt::skip]
senses! {
//  constant                                        key             ASC  ASCQ  name
    NO_ADDITIONAL_SENSE_INFORMATION                 NoSense         0x00 0x00 "NO ADDITIONAL SENSE INFORMATION";
    OPERATION_IN_PROGRESS                           NoSense         0x00 0x16 "OPERATION IN PROGRESS";
    PERIPHERAL_DEVICE_WRITE_FAULT                   MediumError     0x03 0x00 "PERIPHERAL DEVICE WRITE FAULT";
    LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE     NotReady        0x04 0x00 "LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE";
    LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY    NotReady        0x04 0x01 "LOGICAL UNIT IS IN PROCESS OF BECOMING READY";
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED NotReady   0x04 0x02 "LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED";
    LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED NotReady    0x04 0x03 "LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED";
    LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS       NotReady        0x04 0x04 "LOGICAL UNIT NOT READY, FORMAT IN PROGRESS";
    LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS    NotReady        0x04 0x07 "LOGICAL UNIT NOT READY, OPERATION IN PROGRESS";
    LOGICAL_UNIT_DOES_NOT_RESPOND_TO_SELECTION      NotReady        0x05 0x00 "LOGICAL UNIT DOES NOT RESPOND TO SELECTION";
    LOGICAL_UNIT_COMMUNICATION_FAILURE              AbortedCommand  0x08 0x00 "LOGICAL UNIT COMMUNICATION FAILURE";
    LOGICAL_UNIT_COMMUNICATION_TIME_OUT             AbortedCommand  0x08 0x01 "LOGICAL UNIT COMMUNICATION TIME-OUT";
    WARNING                                         RecoveredError  0x0b 0x00 "WARNING";
    WARNING_SPECIFIED_TEMPERATURE_EXCEEDED          RecoveredError  0x0b 0x01 "WARNING - SPECIFIED TEMPERATURE EXCEEDED";
    WRITE_ERROR                                     MediumError     0x0c 0x00 "WRITE ERROR";
    WRITE_ERROR_AUTO_REALLOCATION_FAILED            MediumError     0x0c 0x02 "WRITE ERROR - AUTO REALLOCATION FAILED";
    INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT       IllegalRequest  0x0e 0x03 "INVALID FIELD IN COMMAND INFORMATION UNIT";
    LOGICAL_BLOCK_GUARD_CHECK_FAILED                AbortedCommand  0x10 0x01 "LOGICAL BLOCK GUARD CHECK FAILED";
    LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED      AbortedCommand  0x10 0x02 "LOGICAL BLOCK APPLICATION TAG CHECK FAILED";
    LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED        AbortedCommand  0x10 0x03 "LOGICAL BLOCK REFERENCE TAG CHECK FAILED";
    UNRECOVERED_READ_ERROR                          MediumError     0x11 0x00 "UNRECOVERED READ ERROR";
    READ_ERROR_FAILED_RETRANSMISSION_REQUEST        MediumError     0x11 0x13 "READ ERROR - FAILED RETRANSMISSION REQUEST";
    READ_ERROR_LBA_MARKED_BAD_BY_APPLICATION_CLIENT MediumError     0x11 0x14 "READ ERROR - LBA MARKED BAD BY APPLICATION CLIENT";
    RECORDED_ENTITY_NOT_FOUND                       MediumError     0x14 0x00 "RECORDED ENTITY NOT FOUND";
    RECOVERED_DATA_WITH_NO_ERROR_CORRECTION_APPLIED RecoveredError  0x17 0x00 "RECOVERED DATA WITH NO ERROR CORRECTION APPLIED";
    RECOVERED_DATA_WITH_RETRIES                     RecoveredError  0x17 0x01 "RECOVERED DATA WITH RETRIES";
    RECOVERED_DATA_WITH_ERROR_CORRECTION_APPLIED    RecoveredError  0x18 0x00 "RECOVERED DATA WITH ERROR CORRECTION APPLIED";
    PARAMETER_LIST_LENGTH_ERROR                     IllegalRequest  0x1a 0x00 "PARAMETER LIST LENGTH ERROR";
    MISCOMPARE_DURING_VERIFY_OPERATION              Miscompare      0x1d 0x00 "MISCOMPARE DURING VERIFY OPERATION";
    INVALID_COMMAND_OPERATION_CODE                  IllegalRequest  0x20 0x00 "INVALID COMMAND OPERATION CODE";
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE              IllegalRequest  0x21 0x00 "LOGICAL BLOCK ADDRESS OUT OF RANGE";
    INVALID_FIELD_IN_CDB                            IllegalRequest  0x24 0x00 "INVALID FIELD IN CDB";
    LOGICAL_UNIT_NOT_SUPPORTED                      IllegalRequest  0x25 0x00 "LOGICAL UNIT NOT SUPPORTED";
    INVALID_FIELD_IN_PARAMETER_LIST                 IllegalRequest  0x26 0x00 "INVALID FIELD IN PARAMETER LIST";
    PARAMETER_NOT_SUPPORTED                         IllegalRequest  0x26 0x01 "PARAMETER NOT SUPPORTED";
    PARAMETER_VALUE_INVALID                         IllegalRequest  0x26 0x02 "PARAMETER VALUE INVALID";
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION       IllegalRequest  0x26 0x04 "INVALID RELEASE OF PERSISTENT RESERVATION";
    WRITE_PROTECTED                                 DataProtect     0x27 0x00 "WRITE PROTECTED";
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT           DataProtect     0x27 0x07 "SPACE ALLOCATION FAILED WRITE PROTECT";
    NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED UnitAttention 0x28 0x00 "NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED";
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED     UnitAttention   0x29 0x00 "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED";
    POWER_ON_OCCURRED                               UnitAttention   0x29 0x01 "POWER ON OCCURRED";
    SCSI_BUS_RESET_OCCURRED                         UnitAttention   0x29 0x02 "SCSI BUS RESET OCCURRED";
    BUS_DEVICE_RESET_FUNCTION_OCCURRED              UnitAttention   0x29 0x03 "BUS DEVICE RESET FUNCTION OCCURRED";
    I_T_NEXUS_LOSS_OCCURRED                         UnitAttention   0x29 0x07 "I_T NEXUS LOSS OCCURRED";
    PARAMETERS_CHANGED                              UnitAttention   0x2a 0x00 "PARAMETERS CHANGED";
    MODE_PARAMETERS_CHANGED                         UnitAttention   0x2a 0x01 "MODE PARAMETERS CHANGED";
    RESERVATIONS_PREEMPTED                          UnitAttention   0x2a 0x03 "RESERVATIONS PREEMPTED";
    RESERVATIONS_RELEASED                           UnitAttention   0x2a 0x04 "RESERVATIONS RELEASED";
    REGISTRATIONS_PREEMPTED                         UnitAttention   0x2a 0x05 "REGISTRATIONS PREEMPTED";
    ASYMMETRIC_ACCESS_STATE_CHANGED                 UnitAttention   0x2a 0x06 "ASYMMETRIC ACCESS STATE CHANGED";
    CAPACITY_DATA_HAS_CHANGED                       UnitAttention   0x2a 0x09 "CAPACITY DATA HAS CHANGED";
    COMMAND_SEQUENCE_ERROR                          IllegalRequest  0x2c 0x00 "COMMAND SEQUENCE ERROR";
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR           UnitAttention   0x2f 0x00 "COMMANDS CLEARED BY ANOTHER INITIATOR";
    SAVING_PARAMETERS_NOT_SUPPORTED                 IllegalRequest  0x39 0x00 "SAVING PARAMETERS NOT SUPPORTED";
    MEDIUM_NOT_PRESENT                              NotReady        0x3a 0x00 "MEDIUM NOT PRESENT";
    MICROCODE_HAS_BEEN_CHANGED                      UnitAttention   0x3f 0x01 "MICROCODE HAS BEEN CHANGED";
    INQUIRY_DATA_HAS_CHANGED                        UnitAttention   0x3f 0x03 "INQUIRY DATA HAS CHANGED";
    REPORTED_LUNS_DATA_HAS_CHANGED                  UnitAttention   0x3f 0x0e "REPORTED LUNS DATA HAS CHANGED";
    ECHO_BUFFER_OVERWRITTEN                         AbortedCommand  0x3f 0x0f "ECHO BUFFER OVERWRITTEN";
    INTERNAL_TARGET_FAILURE                         HardwareError   0x44 0x00 "INTERNAL TARGET FAILURE";
    INVALID_MESSAGE_ERROR                           IllegalRequest  0x49 0x00 "INVALID MESSAGE ERROR";
    DATA_PHASE_ERROR                                AbortedCommand  0x4b 0x00 "DATA PHASE ERROR";
    OVERLAPPED_COMMANDS_ATTEMPTED                   AbortedCommand  0x4e 0x00 "OVERLAPPED COMMANDS ATTEMPTED";
    INSUFFICIENT_RESOURCES                          IllegalRequest  0x55 0x03 "INSUFFICIENT RESOURCES";
    FAILURE_PREDICTION_THRESHOLD_EXCEEDED           RecoveredError  0x5d 0x00 "FAILURE PREDICTION THRESHOLD EXCEEDED";
}

/// The standard's text for an additional sense code; `None` if the table has none.
#[must_use]
pub fn name(asc: u8, ascq: u8) -> Option<&'static str> {
    TABLE.iter().find(|row| (row.asc, row.ascq) == (asc, ascq)).map(|row| row.name)
}

/// The sense with this text, in any case of letters.
#[must_use]
pub fn from_name(name: &str) -> Option<Sense> {
    TABLE
        .iter()
        .find(|row| row.name.eq_ignore_ascii_case(name))
        .map(|row| Sense::new(row.key, row.asc, row.ascq))
}
