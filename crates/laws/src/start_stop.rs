//! START STOP UNIT (SBC).

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "start_stop"
    DISK One: a_stopped_unit_is_not_ready_until_it_is_started,
        a_stopped_unit_answers_what_needs_no_medium, stopping_loses_nothing,
        there_is_nothing_to_eject_and_no_power_condition, reset_starts_the_unit;
    DISK Two: it_is_stopped_for_all;
}

const START: [u8; 6] = [0x1b, 0, 0, 0, 1, 0];
const STOP: [u8; 6] = [0x1b, 0, 0, 0, 0, 0];
/// LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED.
const STOPPED: crate::Ended = Check(2, 0x04, 0x02);

fn a_stopped_unit_is_not_ready_until_it_is_started(initiator: &Initiator<'_>) {
    initiator.good(&STOP);
    initiator.test_unit_ready(STOPPED);
    initiator.ask_expecting(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], STOPPED);
    initiator.write_expecting(0, &[1], STOPPED);
    initiator.run_expecting(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], STOPPED);
    initiator.good(&STOP);
    initiator.good(&START);
    initiator.test_unit_ready(Good);
    assert_eq!(initiator.read(0, 1), [0]);
    // IMMED and NO_FLUSH.
    initiator.good(&[0x1b, 1, 0, 0, 4, 0]);
    initiator.test_unit_ready(STOPPED);
}

fn a_stopped_unit_answers_what_needs_no_medium(initiator: &Initiator<'_>) {
    initiator.good(&STOP);
    assert_eq!(initiator.receive(&[0x12, 0, 0, 0, 36, 0])[0], 0);
    assert_eq!(initiator.receive(&[0x1a, 8, 0x0a, 0, 255, 0])[4], 0x0a);
    // SPC, REQUEST SENSE: why the unit is not ready.
    let sense = initiator.receive(&[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((sense[2] & 0xf, sense[12], sense[13]), (2, 0x04, 0x02));
    let sense = initiator.receive(&[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((sense[2] & 0xf, sense[12], sense[13]), (2, 0x04, 0x02), "it stays so");
}

fn stopping_loses_nothing(initiator: &Initiator<'_>) {
    initiator.write(3, &[7, 8]);
    initiator.good(&STOP);
    initiator.good(&START);
    assert_eq!(initiator.read(2, 4), [0, 7, 8, 0]);
}

/// LOEJ, and POWER CONDITION 1h (ACTIVE).
fn there_is_nothing_to_eject_and_no_power_condition(initiator: &Initiator<'_>) {
    let refused = initiator.run_expecting(&[0x1b, 0, 0, 0, 2, 0], Check(5, 0x24, 0));
    assert_eq!(refused.specific(), [0xc9, 0, 4], "bit 1 of byte 4");
    let refused = initiator.run_expecting(&[0x1b, 0, 0, 0, 0x11, 0], Check(5, 0x24, 0));
    assert_eq!(refused.specific(), [0xcf, 0, 4], "the field that begins at bit 7 of byte 4");
    initiator.test_unit_ready(Good);
}

fn reset_starts_the_unit(initiator: &Initiator<'_>) {
    initiator.good(&STOP);
    initiator.reset();
    initiator.test_unit_ready(Check(6, 0x29, 0x03));
    initiator.test_unit_ready(Good);
}

fn it_is_stopped_for_all(first: &Initiator<'_>, second: &Initiator<'_>) {
    second.test_unit_ready(Good);
    first.good(&STOP);
    second.test_unit_ready(STOPPED);
    second.good(&START);
    first.test_unit_ready(Good);
}
