//! PERSISTENT RESERVE IN and PERSISTENT RESERVE OUT (SPC, Persistent reservations model; SPC and SBC on
//! the commands each type allows).

use crate::{
    Initiator,
    initiator::{
        CONFLICT,
        Ended::{self, Check, Good},
    },
    laws,
};

laws! { "persistent_reservation"
    DISK One: keys_come_and_go, the_key_has_to_be_right, what_is_not_supported_is_refused,
        capabilities_are_the_types, a_list_of_another_length_is_refused, types_are_six,
        only_the_registered_may_reserve, release_wants_the_right_type, data_is_cut;
    DISK Two: full_status_tells_who_holds, write_exclusive_lets_others_read,
        exclusive_access_lets_nobody_in, registrants_only_lets_the_registered_in,
        all_registrants_hold_together, release_is_told_to_registrants,
        unregistering_releases, clear_is_told_as_preempted, preempt_takes_the_reservation_over,
        preempt_of_another_key_only_unregisters, preempt_of_all_registrants,
        preempt_of_nobody_is_a_conflict, preempt_changes_ones_own_type, reset_changes_nothing,
        a_second_reservation_conflicts, commands_under_write_exclusive,
        commands_under_exclusive_access;
}

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
const ACTIONS: [u8; 7] =
    [REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE];

const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE_ACCESS: u8 = 3;
const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;
const EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: u8 = 6;
const WRITE_EXCLUSIVE_ALL_REGISTRANTS: u8 = 7;
const EXCLUSIVE_ACCESS_ALL_REGISTRANTS: u8 = 8;

const RESERVATIONS_PREEMPTED: Ended = Check(6, 0x2a, 0x03);
const RESERVATIONS_RELEASED: Ended = Check(6, 0x2a, 0x04);
const REGISTRATIONS_PREEMPTED: Ended = Check(6, 0x2a, 0x05);

fn list(key: u64, service_action_key: u64) -> Vec<u8> {
    [&key.to_be_bytes()[..], &service_action_key.to_be_bytes(), &[0; 8]].concat()
}

/// PERSISTENT RESERVE OUT.
#[track_caller]
fn out(initiator: &Initiator<'_>, action: u8, kind: u8, keys: (u64, u64), expected: Ended) {
    let cdb = [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    initiator.send_expecting(&cdb, &list(keys.0, keys.1), expected);
}

#[track_caller]
fn register(initiator: &Initiator<'_>, key: u64) {
    out(initiator, REGISTER_AND_IGNORE, 0, (0, key), Good);
}

/// Both registered, the first with key 1 and a reservation of this type, the second with key 2.
#[track_caller]
fn reserved(first: &Initiator<'_>, second: &Initiator<'_>, kind: u8) {
    register(first, 1);
    register(second, 2);
    out(first, RESERVE, kind, (1, 0), Good);
}

/// READ KEYS: PRGENERATION and keys.
#[track_caller]
fn keys(initiator: &Initiator<'_>) -> (u32, Vec<u64>) {
    let data = initiator.receive(&[0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(u64::from(number(4)), data.len() as u64 - 8, "ADDITIONAL LENGTH");
    let key = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    (number(0), data[8..].chunks(8).map(key).collect())
}

/// READ RESERVATION: key and SCOPE with TYPE.
#[track_caller]
fn reservation(initiator: &Initiator<'_>) -> Option<(u8, u8)> {
    let data = initiator.receive(&[0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    match data.len() {
        8 => {
            assert_eq!(data[4..8], [0; 4]);
            None
        }
        _ => {
            assert_eq!((data.len(), &data[4..8]), (24, &[0, 0, 0, 16][..]));
            assert_eq!(
                (&data[8..15], &data[16..21], &data[22..]),
                (&[0; 7][..], &[0; 5][..], &[0; 2][..])
            );
            Some((data[15], data[21]))
        }
    }
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// What the initiator may do: read, write.
#[track_caller]
fn may(initiator: &Initiator<'_>, read: Ended, write: Ended) {
    initiator.ask_expecting(&READ, read);
    initiator.write_expecting(0, &[1], write);
}

fn keys_come_and_go(initiator: &Initiator<'_>) {
    assert_eq!(keys(initiator), (0, vec![]));
    out(initiator, REGISTER, 0, (0, 0x0102_0304_0506_0708), Good);
    assert_eq!(keys(initiator), (1, vec![0x0102_0304_0506_0708]));
    out(initiator, REGISTER, 0, (0x0102_0304_0506_0708, 9), Good);
    assert_eq!(keys(initiator), (2, vec![9]));
    out(initiator, REGISTER_AND_IGNORE, 0, (77, 10), Good);
    assert_eq!(keys(initiator), (3, vec![10]));
    out(initiator, REGISTER, 0, (10, 0), Good);
    assert_eq!(keys(initiator), (4, vec![]));
    // Neither counts.
    register(initiator, 1);
    out(initiator, RESERVE, WRITE_EXCLUSIVE, (1, 0), Good);
    out(initiator, RELEASE, WRITE_EXCLUSIVE, (1, 0), Good);
    assert_eq!(keys(initiator), (5, vec![1]));
}

fn the_key_has_to_be_right(initiator: &Initiator<'_>) {
    out(initiator, REGISTER, 0, (5, 6), CONFLICT);
    assert_eq!(keys(initiator), (0, vec![]));
    register(initiator, 6);
    out(initiator, REGISTER, 0, (0, 7), CONFLICT);
    for action in [REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        out(initiator, action, WRITE_EXCLUSIVE, (5, 6), CONFLICT);
    }
    assert_eq!(keys(initiator), (1, vec![6]));
    assert_eq!(reservation(initiator), None);
}

fn only_the_registered_may_reserve(initiator: &Initiator<'_>) {
    for action in [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        out(initiator, action, WRITE_EXCLUSIVE, (0, 0), CONFLICT);
    }
    register(initiator, 1);
    out(initiator, RESERVE, WRITE_EXCLUSIVE, (1, 0), Good);
    assert_eq!(reservation(initiator), Some((1, WRITE_EXCLUSIVE)));
    // Again the same is GOOD, another type is not.
    out(initiator, RESERVE, WRITE_EXCLUSIVE, (1, 0), Good);
    out(initiator, RESERVE, EXCLUSIVE_ACCESS, (1, 0), CONFLICT);
    assert_eq!(reservation(initiator), Some((1, WRITE_EXCLUSIVE)));
}

/// APTPL, ALL_TG_PT and SPEC_I_PT are bits 0, 2 and 3 of byte 20; and no service action 7.
fn what_is_not_supported_is_refused(initiator: &Initiator<'_>) {
    for (action, bit) in [REGISTER, REGISTER_AND_IGNORE]
        .into_iter()
        .flat_map(|action| [0u8, 2, 3].map(|bit| (action, bit)))
    {
        let mut list = list(0, 1);
        list[20] = 1 << bit;
        let cdb = [0x5f, action, 0, 0, 0, 0, 0, 0, 24, 0];
        let refused = initiator.send_expecting(&cdb, &list, Check(5, 0x26, 0));
        assert_eq!(refused.specific(), [0x88 | bit, 0, 20]);
    }
    out(initiator, 7, 0, (0, 1), Check(5, 0x24, 0));
    assert_eq!(keys(initiator), (0, vec![]));
}

fn types_are_six(initiator: &Initiator<'_>) {
    register(initiator, 1);
    // A scope that is not 0h is refused as a type that is none.
    for kind in [0, 2, 4, 9, 0xf, 0x11, 0x21] {
        let cdb = [0x5f, RESERVE, kind, 0, 0, 0, 0, 0, 24, 0];
        let refused = initiator.send_expecting(&cdb, &list(1, 0), Check(5, 0x24, 0));
        assert_eq!(refused.specific(), [0xc0, 0, 2]);
    }
    assert_eq!(reservation(initiator), None);
    for kind in [1, 3, 5, 6, 7, 8] {
        out(initiator, RESERVE, kind, (1, 0), Good);
        let key = if kind > 6 { 0 } else { 1 };
        assert_eq!(reservation(initiator), Some((key, kind)));
        out(initiator, RELEASE, kind, (1, 0), Good);
        assert_eq!(reservation(initiator), None);
    }
}

fn release_wants_the_right_type(initiator: &Initiator<'_>) {
    register(initiator, 1);
    out(initiator, RELEASE, WRITE_EXCLUSIVE, (1, 0), Good);
    out(initiator, RESERVE, WRITE_EXCLUSIVE, (1, 0), Good);
    // INVALID RELEASE OF PERSISTENT RESERVATION.
    out(initiator, RELEASE, EXCLUSIVE_ACCESS, (1, 0), Check(5, 0x26, 4));
    out(initiator, RELEASE, 0x11, (1, 0), Check(5, 0x26, 4));
    assert_eq!(reservation(initiator), Some((1, WRITE_EXCLUSIVE)));
}

fn capabilities_are_the_types(initiator: &Initiator<'_>) {
    let data = initiator.receive(&[0x5e, 2, 0, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(data, [0, 8, 0, 0x80, 0xea, 0x01, 0, 0], "TMV; all types; no PTPL_C");
}

fn a_list_of_another_length_is_refused(initiator: &Initiator<'_>) {
    for action in ACTIONS {
        for len in [0u8, 23, 25] {
            let cdb = [0x5f, action, WRITE_EXCLUSIVE, 0, 0, 0, 0, 0, len, 0];
            let list = vec![1; len.into()];
            initiator.send_expecting(&cdb, &list, Check(5, 0x1a, 0));
        }
    }
    assert_eq!(keys(initiator), (0, vec![]));
}

fn data_is_cut(initiator: &Initiator<'_>) {
    register(initiator, 1);
    for action in 0..4 {
        let ask = |len: u8| initiator.receive(&[0x5e, action, 0, 0, 0, 0, 0, 0, len, 0]);
        let whole = ask(255);
        assert_eq!(ask(5), whole[..5]);
        assert_eq!(ask(0), []);
    }
    initiator.ask_expecting(&[0x5e, 4, 0, 0, 0, 0, 0, 0, 255, 0], Check(5, 0x24, 0));
}

fn full_status_tells_who_holds(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, EXCLUSIVE_ACCESS_REGISTRANTS_ONLY);
    let data = second.receive(&[0x5e, 3, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(data[..8], [0, 0, 0, 2, 0, 0, 0, 96]);
    let mut descriptors: Vec<&[u8]> = data[8..].chunks(48).collect();
    descriptors.sort_by_key(|descriptor| descriptor[7]);
    for (descriptor, (key, flags, kind)) in descriptors.iter().zip([(1, 1, 6), (2, 0, 0)]) {
        assert_eq!(descriptor[..8], [0, 0, 0, 0, 0, 0, 0, key]);
        assert_eq!(descriptor[12..14], [flags, kind], "R_HOLDER, SCOPE and TYPE");
        assert_eq!(descriptor[18..20], [0, 1], "RELATIVE TARGET PORT IDENTIFIER");
        assert_eq!(descriptor[20..24], [0, 0, 0, 24], "ADDITIONAL DESCRIPTOR LENGTH");
    }
    assert_ne!(descriptors[0][24..], descriptors[1][24..], "two initiator ports");
}

fn write_exclusive_lets_others_read(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, WRITE_EXCLUSIVE);
    may(first, Good, Good);
    may(second, Good, CONFLICT);
    out(second, REGISTER, 0, (2, 0), Good);
    may(second, Good, CONFLICT);
}

fn exclusive_access_lets_nobody_in(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, EXCLUSIVE_ACCESS);
    may(first, Good, Good);
    may(second, CONFLICT, CONFLICT);
    out(second, REGISTER, 0, (2, 0), Good);
    may(second, CONFLICT, CONFLICT);
}

fn registrants_only_lets_the_registered_in(first: &Initiator<'_>, second: &Initiator<'_>) {
    for (kind, read) in
        [(WRITE_EXCLUSIVE_REGISTRANTS_ONLY, Good), (EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, CONFLICT)]
    {
        reserved(first, second, kind);
        may(first, Good, Good);
        may(second, Good, Good);
        out(second, REGISTER, 0, (2, 0), Good);
        may(second, read, CONFLICT);
        out(first, RELEASE, kind, (1, 0), Good);
        may(second, Good, Good);
    }
}

/// The reservation stays until the last registrant goes.
fn all_registrants_hold_together(first: &Initiator<'_>, second: &Initiator<'_>) {
    for (kind, read) in
        [(WRITE_EXCLUSIVE_ALL_REGISTRANTS, Good), (EXCLUSIVE_ACCESS_ALL_REGISTRANTS, CONFLICT)]
    {
        reserved(first, second, kind);
        may(second, Good, Good);
        out(second, RESERVE, kind, (2, 0), Good);
        out(first, REGISTER, 0, (1, 0), Good);
        assert_eq!(reservation(second), Some((0, kind)));
        may(second, Good, Good);
        may(first, read, CONFLICT);
        out(second, REGISTER, 0, (2, 0), Good);
        assert_eq!(reservation(second), None);
        may(first, Good, Good);
    }
}

/// Types that admit registrants, because to them it makes a difference.
fn release_is_told_to_registrants(first: &Initiator<'_>, second: &Initiator<'_>) {
    for kind in [
        WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
        WRITE_EXCLUSIVE_ALL_REGISTRANTS,
        EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
    ] {
        reserved(first, second, kind);
        out(first, RELEASE, kind, (1, 0), Good);
        first.test_unit_ready(Good);
        second.test_unit_ready(RESERVATIONS_RELEASED);
        second.test_unit_ready(Good);
    }
    for kind in [WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS] {
        reserved(first, second, kind);
        out(first, RELEASE, kind, (1, 0), Good);
        second.test_unit_ready(Good);
        // Another's is released by nobody else, and that is no error.
        out(first, RESERVE, kind, (1, 0), Good);
        out(second, RELEASE, kind, (2, 0), Good);
        assert_eq!(reservation(second), Some((1, kind)));
        out(first, RELEASE, kind, (1, 0), Good);
    }
}

fn unregistering_releases(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, EXCLUSIVE_ACCESS);
    out(first, REGISTER, 0, (1, 0), Good);
    assert_eq!(reservation(second), None);
    may(second, Good, Good);
    reserved(first, second, WRITE_EXCLUSIVE_REGISTRANTS_ONLY);
    out(first, REGISTER_AND_IGNORE, 0, (0, 0), Good);
    second.test_unit_ready(RESERVATIONS_RELEASED);
    assert_eq!(keys(second).1, [2]);
}

fn clear_is_told_as_preempted(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, EXCLUSIVE_ACCESS);
    out(second, CLEAR, 0, (2, 0), Good);
    second.test_unit_ready(Good);
    first.test_unit_ready(RESERVATIONS_PREEMPTED);
    first.test_unit_ready(Good);
    assert_eq!((keys(second), reservation(second)), ((3, vec![]), None));
}

fn preempt_takes_the_reservation_over(first: &Initiator<'_>, second: &Initiator<'_>) {
    for action in [PREEMPT, PREEMPT_AND_ABORT] {
        reserved(first, second, EXCLUSIVE_ACCESS);
        may(second, CONFLICT, CONFLICT);
        out(second, action, WRITE_EXCLUSIVE, (2, 1), Good);
        assert_eq!(reservation(second), Some((2, WRITE_EXCLUSIVE)));
        assert_eq!(keys(second).1, [2]);
        may(second, Good, Good);
        first.test_unit_ready(REGISTRATIONS_PREEMPTED);
        first.test_unit_ready(Good);
        may(first, Good, CONFLICT);
        out(second, CLEAR, 0, (2, 0), Good);
    }
}

fn preempt_of_another_key_only_unregisters(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, EXCLUSIVE_ACCESS);
    out(first, PREEMPT, WRITE_EXCLUSIVE, (1, 2), Good);
    assert_eq!((reservation(first), keys(first).1), (Some((1, EXCLUSIVE_ACCESS)), vec![1]));
    // The condition waits until the conflict is gone.
    second.ask_expecting(&READ, CONFLICT);
    out(first, RELEASE, EXCLUSIVE_ACCESS, (1, 0), Good);
    second.test_unit_ready(REGISTRATIONS_PREEMPTED);
    // Without any reservation, too.
    register(second, 2);
    out(first, PREEMPT, WRITE_EXCLUSIVE, (1, 2), Good);
    assert_eq!((reservation(first), keys(first).1), (None, vec![1]));
    second.test_unit_ready(REGISTRATIONS_PREEMPTED);
}

/// SERVICE ACTION RESERVATION KEY zero means all others.
fn preempt_of_all_registrants(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, WRITE_EXCLUSIVE_ALL_REGISTRANTS);
    // A key only unregisters.
    out(second, PREEMPT, EXCLUSIVE_ACCESS, (2, 1), Good);
    assert_eq!(reservation(second), Some((0, WRITE_EXCLUSIVE_ALL_REGISTRANTS)));
    assert_eq!(keys(second).1, [2]);
    first.test_unit_ready(REGISTRATIONS_PREEMPTED);
    register(first, 1);
    out(second, PREEMPT, EXCLUSIVE_ACCESS, (2, 0), Good);
    assert_eq!(reservation(second), Some((2, EXCLUSIVE_ACCESS)));
    first.test_unit_ready(REGISTRATIONS_PREEMPTED);
    may(first, CONFLICT, CONFLICT);
}

/// And of key zero without all registrants INVALID FIELD IN PARAMETER LIST.
fn preempt_of_nobody_is_a_conflict(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, WRITE_EXCLUSIVE);
    out(second, PREEMPT, WRITE_EXCLUSIVE, (2, 99), CONFLICT);
    let cdb = [0x5f, PREEMPT, WRITE_EXCLUSIVE, 0, 0, 0, 0, 0, 24, 0];
    let refused = second.send_expecting(&cdb, &list(2, 0), Check(5, 0x26, 0));
    assert_eq!(refused.specific(), [0x80, 0, 8]);
    out(second, PREEMPT, 2, (2, 1), Check(5, 0x24, 0));
    assert_eq!((reservation(first), keys(first).1.len()), (Some((1, WRITE_EXCLUSIVE)), 2));
    first.test_unit_ready(Good);
}

fn preempt_changes_ones_own_type(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, WRITE_EXCLUSIVE_REGISTRANTS_ONLY);
    out(first, PREEMPT, EXCLUSIVE_ACCESS, (1, 1), Good);
    assert_eq!(reservation(first), Some((1, EXCLUSIVE_ACCESS)));
    assert_eq!(keys(first).1.len(), 2);
    second.test_unit_ready(RESERVATIONS_RELEASED);
    may(second, CONFLICT, CONFLICT);
}

/// Persistent reservations outlive a reset.
fn reset_changes_nothing(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, EXCLUSIVE_ACCESS);
    second.reset();
    second.test_unit_ready(Check(6, 0x29, 0x03));
    may(second, CONFLICT, CONFLICT);
    first.test_unit_ready(Check(6, 0x29, 0x03));
    assert_eq!((reservation(first), keys(first).1.len()), (Some((1, EXCLUSIVE_ACCESS)), 2));
}

fn a_second_reservation_conflicts(first: &Initiator<'_>, second: &Initiator<'_>) {
    reserved(first, second, WRITE_EXCLUSIVE_REGISTRANTS_ONLY);
    out(second, RESERVE, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, (2, 0), CONFLICT);
    out(second, RESERVE, EXCLUSIVE_ACCESS, (2, 0), CONFLICT);
    assert_eq!(reservation(second), Some((1, WRITE_EXCLUSIVE_REGISTRANTS_ONLY)));
}

/// Commands that are allowed whatever the reservation, from an initiator that is not registered: TEST
/// UNIT READY, INQUIRY, REQUEST SENSE, REPORT LUNS, READ CAPACITY, PERSISTENT RESERVE IN, START STOP UNIT
/// that starts.
const ALWAYS: &[&[u8]] = &[
    &[0, 0, 0, 0, 0, 0],
    &[0x12, 0, 0, 0, 36, 0],
    &[0x03, 0, 0, 0, 252, 0],
    &[0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0],
    &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
    &[0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0],
    &[0x1b, 0, 0, 0, 1, 0],
];

/// Commands that read: READ, MODE SENSE, VERIFY, GET LBA STATUS, REPORT SUPPORTED OPERATION CODES.
const READING: &[&[u8]] = &[
    &[0x08, 0, 0, 0, 1, 0],
    &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x1a, 0, 0x3f, 0, 255, 0],
    &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255, 0],
    &[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
    &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
];

/// Commands that change something, none of which has to move data to be refused: WRITE, WRITE SAME,
/// COMPARE AND WRITE, UNMAP, SYNCHRONIZE CACHE, MODE SELECT, START STOP UNIT that stops.
const CHANGING: &[&[u8]] = &[
    &[0x0a, 0, 0, 0, 1, 0],
    &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x15, 0x10, 0, 0, 0, 0],
    &[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x1b, 0, 0, 0, 0, 0],
];

/// SPC and SBC, Commands that are allowed in the presence of various reservations.
fn commands_under(first: &Initiator<'_>, second: &Initiator<'_>, kind: u8, reading: Ended) {
    register(first, 1);
    out(first, RESERVE, kind, (1, 0), Good);
    for cdb in ALWAYS {
        second.ask_expecting(cdb, Good);
    }
    for cdb in READING {
        second.ask_expecting(cdb, reading);
    }
    for cdb in CHANGING {
        second.run_expecting(cdb, CONFLICT);
    }
    first.test_unit_ready(Good);
    out(first, RELEASE, kind, (1, 0), Good);
    for cdb in READING {
        second.ask_expecting(cdb, Good);
    }
}

fn commands_under_write_exclusive(first: &Initiator<'_>, second: &Initiator<'_>) {
    for kind in [WRITE_EXCLUSIVE, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, WRITE_EXCLUSIVE_ALL_REGISTRANTS]
    {
        commands_under(first, second, kind, Good);
    }
}

fn commands_under_exclusive_access(first: &Initiator<'_>, second: &Initiator<'_>) {
    for kind in
        [EXCLUSIVE_ACCESS, EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, EXCLUSIVE_ACCESS_ALL_REGISTRANTS]
    {
        commands_under(first, second, kind, CONFLICT);
    }
}
