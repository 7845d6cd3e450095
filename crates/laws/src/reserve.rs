//! RESERVE and RELEASE (SPC-2, where the commands conflict with an annex of SBC's commands).

use crate::{
    Initiator,
    initiator::{
        CONFLICT,
        Ended::{Check, Good},
    },
    laws,
};

laws! { "reserve"
    DISK One: third_parties_and_extents_are_refused, the_holder_may_reserve_again;
    DISK Two: the_holder_has_the_unit_to_itself, only_the_holder_releases, ten_is_six,
        some_commands_are_allowed_under_a_reservation, reset_releases,
        reset_is_reported_before_a_conflict_and_other_conditions_are_not,
        persistent_commands_conflict_with_it, it_conflicts_with_registrations;
}

const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE: [u8; 6] = [0x17, 0, 0, 0, 0, 0];
const RESERVE_10: [u8; 10] = [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const RELEASE_10: [u8; 10] = [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn the_holder_has_the_unit_to_itself(holder: &Initiator<'_>, other: &Initiator<'_>) {
    holder.good(&RESERVE);
    other.test_unit_ready(CONFLICT);
    other.write_expecting(0, &[1], CONFLICT);
    other.ask_expecting(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], CONFLICT);
    other.run_expecting(&RESERVE, CONFLICT);
    other.run_expecting(&[0x1b, 0, 0, 0, 0, 0], CONFLICT);
    holder.test_unit_ready(Good);
    holder.write(0, &[2]);
    holder.good(&RELEASE);
    assert_eq!(other.read(0, 1), [2]);
    other.good(&RESERVE);
    holder.test_unit_ready(CONFLICT);
}

/// RELEASE by another is GOOD and changes nothing.
fn only_the_holder_releases(holder: &Initiator<'_>, other: &Initiator<'_>) {
    holder.good(&RESERVE);
    other.good(&RELEASE);
    other.test_unit_ready(CONFLICT);
    holder.good(&RELEASE);
    holder.good(&RELEASE);
    other.test_unit_ready(Good);
}

fn the_holder_may_reserve_again(holder: &Initiator<'_>) {
    holder.good(&RESERVE);
    holder.good(&RESERVE_10);
    holder.good(&RELEASE);
}

fn ten_is_six(holder: &Initiator<'_>, other: &Initiator<'_>) {
    holder.good(&RESERVE_10);
    other.run_expecting(&RESERVE_10, CONFLICT);
    other.good(&RELEASE_10);
    other.test_unit_ready(CONFLICT);
    holder.good(&RELEASE);
    other.good(&RESERVE_10);
    holder.run_expecting(&RESERVE, CONFLICT);
    other.good(&RELEASE_10);
    holder.test_unit_ready(Good);
}

/// SPC-2, and its annex for SBC: INQUIRY, REQUEST SENSE, REPORT LUNS, READ CAPACITY, and START STOP UNIT
/// if it starts.
fn some_commands_are_allowed_under_a_reservation(holder: &Initiator<'_>, other: &Initiator<'_>) {
    holder.good(&RESERVE);
    other.receive(&[0x12, 0, 0, 0, 36, 0]);
    other.receive(&[0x03, 0, 0, 0, 252, 0]);
    other.receive(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    other.receive(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    other.good(&[0x1b, 0, 0, 0, 1, 0]);
    other.ask_expecting(&[0x1a, 0, 0x3f, 0, 255, 0], CONFLICT);
    other.ask_expecting(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0], CONFLICT);
}

fn reset_releases(holder: &Initiator<'_>, other: &Initiator<'_>) {
    holder.good(&RESERVE);
    other.test_unit_ready(CONFLICT);
    other.reset();
    other.test_unit_ready(Check(6, 0x29, 0x03));
    other.test_unit_ready(Good);
    holder.test_unit_ready(Check(6, 0x29, 0x03));
}

/// SAM, Status precedence.
fn reset_is_reported_before_a_conflict_and_other_conditions_are_not(
    holder: &Initiator<'_>,
    other: &Initiator<'_>,
) {
    other.test_unit_ready(Good);
    holder.good(&RESERVE);
    // SWP.
    let page = [0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    holder.good_send(&[0x15, 0x10, 0, 0, 16, 0], &page);
    other.test_unit_ready(CONFLICT);
    holder.good(&RELEASE);
    other.test_unit_ready(Check(6, 0x2a, 0x01));
    other.reset();
    holder.test_unit_ready(Check(6, 0x29, 0x03));
    holder.good(&RESERVE);
    other.test_unit_ready(Check(6, 0x29, 0x03));
    other.test_unit_ready(CONFLICT);
}

/// 3RDPTY and EXTENT of RESERVE(6), LONGID and a parameter list of RESERVE(10).
fn third_parties_and_extents_are_refused(initiator: &Initiator<'_>) {
    for flags in [0x10, 0x01] {
        initiator.run_expecting(&[0x16, flags, 0, 0, 0, 0], Check(5, 0x24, 0));
        initiator.run_expecting(&[0x56, flags, 0, 0, 0, 0, 0, 0, 0, 0], Check(5, 0x24, 0));
    }
    initiator.run_expecting(&[0x56, 0, 0, 0, 0, 0, 0, 0, 8, 0], Check(5, 0x24, 0));
}

/// SPC-2: even those of the initiator that has reserved the unit. Every service action of PERSISTENT RESERVE
/// OUT (0h to 6h) and of PERSISTENT RESERVE IN (0h to 3h).
fn persistent_commands_conflict_with_it(holder: &Initiator<'_>, other: &Initiator<'_>) {
    let register = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    let list = [&[0; 15][..], &[1], &[0; 8]].concat();
    holder.good(&RESERVE);
    for initiator in [holder, other] {
        for action in 0..7 {
            initiator.send_expecting(&[0x5f, action, 1, 0, 0, 0, 0, 0, 24, 0], &list, CONFLICT);
        }
        for action in 0..4 {
            initiator.ask_expecting(&[0x5e, action, 0, 0, 0, 0, 0, 0, 255, 0], CONFLICT);
        }
    }
    holder.good(&RELEASE);
    other.good_send(&register, &list);
}

fn it_conflicts_with_registrations(registered: &Initiator<'_>, other: &Initiator<'_>) {
    let list = [&[0; 15][..], &[1], &[0; 8]].concat();
    registered.good_send(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list);
    for initiator in [registered, other] {
        initiator.run_expecting(&RESERVE, CONFLICT);
        initiator.run_expecting(&RELEASE, CONFLICT);
        initiator.test_unit_ready(Good);
    }
}
