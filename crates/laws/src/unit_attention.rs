//! Unit attention conditions (SAM, Unit attention conditions; SPC on single commands).

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "unit_attention"
    DISK One: reset_is_reported_once, inquiry_and_report_luns_leave_the_condition,
        request_sense_reports_the_condition_and_clears_it, the_command_is_not_processed;
    DISK Two: reset_is_reported_to_every_nexus, a_condition_is_reported_before_an_invalid_cdb;
}

/// BUS DEVICE RESET FUNCTION OCCURRED.
const RESET: crate::Ended = Check(6, 0x29, 0x03);

/// SAM, Logical unit reset.
fn reset_is_reported_once(initiator: &Initiator<'_>) {
    initiator.test_unit_ready(Good);
    initiator.reset();
    initiator.test_unit_ready(RESET);
    initiator.test_unit_ready(Good);
}

/// Every initiator learns of it for itself.
fn reset_is_reported_to_every_nexus(first: &Initiator<'_>, second: &Initiator<'_>) {
    first.test_unit_ready(Good);
    second.test_unit_ready(Good);
    first.reset();
    second.test_unit_ready(RESET);
    second.test_unit_ready(Good);
    first.test_unit_ready(RESET);
    first.test_unit_ready(Good);
}

/// SPC, INQUIRY and REPORT LUNS: processed, and the condition stays.
fn inquiry_and_report_luns_leave_the_condition(initiator: &Initiator<'_>) {
    initiator.reset();
    assert_eq!(initiator.receive(&[0x12, 0, 0, 0, 36, 0])[4], 91);
    initiator.receive(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    initiator.test_unit_ready(RESET);
    initiator.test_unit_ready(Good);
}

/// SPC, REQUEST SENSE: the condition is its parameter data, and is reported with that.
fn request_sense_reports_the_condition_and_clears_it(initiator: &Initiator<'_>) {
    initiator.reset();
    let sense = initiator.receive(&[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((sense[0], sense[2] & 0xf, sense[12], sense[13]), (0x70, 6, 0x29, 0x03));
    let sense = initiator.receive(&[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((sense[2] & 0xf, sense[12], sense[13]), (0, 0, 0));
    initiator.test_unit_ready(Good);
}

/// SAM: the command that reports the condition has no other effect.
fn the_command_is_not_processed(initiator: &Initiator<'_>) {
    initiator.write(8, &[1]);
    initiator.reset();
    initiator.write_expecting(8, &[2], RESET);
    assert_eq!(initiator.read(8, 1), [1]);
    initiator.write(8, &[2]);
    assert_eq!(initiator.read(8, 1), [2]);
}

/// SAM, Status precedence.
fn a_condition_is_reported_before_an_invalid_cdb(first: &Initiator<'_>, second: &Initiator<'_>) {
    second.test_unit_ready(Good);
    first.reset();
    // READ(10) of a block that is not there, and an operation code of no command.
    first.ask_expecting(&[0x28, 0, 0x7f, 0, 0, 0, 0, 0, 1, 0], RESET);
    first.ask_expecting(&[0x28, 0, 0x7f, 0, 0, 0, 0, 0, 1, 0], Check(5, 0x21, 0));
    second.run_expecting(&[0x02, 0, 0, 0, 0, 0], RESET);
    second.run_expecting(&[0x02, 0, 0, 0, 0, 0], Check(5, 0x20, 0));
}
