//! Two ports into one device: what they share, and what they do not (SAM: I_T nexus).

use std::time::Duration;

use control::{Client, LunAddress};
use rstest::rstest;

use crate::{
    driver::{
        Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding, pattern, read_10, request, write_10,
    },
    guest::Guest,
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };

const ABORTED: u8 = 2;
const RESET: u8 = 4;
const COMPLETE: u8 = 0;
const SUCCEEDED: u8 = 10;

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const CLEAR_ACA: u32 = 2;
const CLEAR_TASK_SET: u32 = 3;
const I_T_NEXUS_RESET: u32 = 4;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
const QUERY_TASK_SET: u32 = 7;

/// The tag [`request`] is given here.
const TAG: u64 = 77;

fn hold(client: &mut Client, commands: u64) {
    client.faults(ADDRESS, holding(commands)).expect("LUN 0");
}

#[track_caller]
fn assert_held(client: &mut Client, count: usize) {
    wait_until(|| client.journal(ADDRESS).expect("LUN 0").held.len() == count);
}

#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "in vain");
        std::thread::yield_now();
    }
}

#[test]
fn ports_share_the_units() {
    let daemon = Daemon::start();
    let (one, other) = (daemon.guest(), daemon.other_guest());
    one.command(UNIT, &write_10(0, 1), &pattern(1, 1), 0);
    assert_eq!(other.command(UNIT, &read_10(0, 1), &[], 512).data_in, pattern(1, 1));
    other.command(UNIT, &write_10(0, 1), &pattern(1, 2), 0);
    assert_eq!(one.command(UNIT, &read_10(0, 1), &[], 512).data_in, pattern(1, 2));
}

/// Each session has its own life, and what is held goes with the session it came from.
#[test]
fn sessions_of_two_ports_end_independently() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let other = daemon.other_guest();
    hold(&mut client, 3);
    let room = other.room(108);
    other.submit(REQUEST_QUEUE, &[other.out(&request(UNIT, TAG, &TEST_UNIT_READY)), room]);
    assert_held(&mut client, 1);
    for count in [2, 2] {
        let one = daemon.guest();
        one.submit(REQUEST_QUEUE, &[one.out(&request(UNIT, TAG, &TEST_UNIT_READY)), one.room(108)]);
        assert_held(&mut client, count);
        drop(one);
        assert_held(&mut client, 1);
    }
    client.release(ADDRESS).expect("one is held");
    let used = other.used(REQUEST_QUEUE);
    assert_eq!(other.answer(used.len, room, room).response, 0);
}

/// SAM, task management functions: which concern the commands of one nexus, and which all.
#[test]
fn task_management_keeps_to_its_nexus_where_sam_says_so() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let (one, other) = (daemon.guest(), daemon.other_guest());
    for (function, response) in [(CLEAR_TASK_SET, ABORTED), (LOGICAL_UNIT_RESET, RESET)] {
        hold(&mut client, 1);
        let room = one.room(108);
        one.submit(REQUEST_QUEUE, &[one.out(&request(UNIT, TAG, &TEST_UNIT_READY)), room]);
        assert_held(&mut client, 1);
        for query in [QUERY_TASK, QUERY_TASK_SET] {
            assert_eq!(one.task_management(UNIT, query, TAG), SUCCEEDED);
            assert_eq!(other.task_management(UNIT, query, TAG), COMPLETE, "not its own");
        }
        for own_only in [ABORT_TASK, ABORT_TASK_SET, I_T_NEXUS_RESET] {
            assert_eq!(other.task_management(UNIT, own_only, TAG), COMPLETE);
            assert_held(&mut client, 1);
        }
        assert_eq!(other.task_management(UNIT, function, TAG), COMPLETE);
        let used = one.used(REQUEST_QUEUE);
        assert_eq!(one.answer(used.len, room, room).response, response);
    }
}

/// The additional sense code of TEST UNIT READY, until it is GOOD.
fn conditions(guest: &Guest) -> Vec<[u8; 2]> {
    let next = || {
        let answer = guest.command_on(REQUEST_QUEUE + 1, UNIT, &TEST_UNIT_READY, &[], 0);
        (answer.status != 0).then(|| [answer.sense[12], answer.sense[13]])
    };
    std::iter::from_fn(next).collect()
}

/// SAM, task management functions: which unit attention conditions each establishes, and for whom. Both have
/// a command in the task set.
#[rstest]
#[case::abort_task(ABORT_TASK, &[], &[])]
#[case::abort_task_set(ABORT_TASK_SET, &[], &[])]
#[case::clear_aca(CLEAR_ACA, &[], &[])]
#[case::clear_task_set(CLEAR_TASK_SET, &[], &[[0x2f, 0x00]])]
#[case::i_t_nexus_reset(I_T_NEXUS_RESET, &[[0x29, 0x07]], &[])]
#[case::logical_unit_reset(LOGICAL_UNIT_RESET, &[[0x29, 0x03]], &[[0x29, 0x03]])]
#[case::query_task(QUERY_TASK, &[], &[])]
#[case::query_task_set(QUERY_TASK_SET, &[], &[])]
fn function_establishes_unit_attentions(
    #[case] function: u32,
    #[case] mine: &[[u8; 2]],
    #[case] others: &[[u8; 2]],
) {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let (one, other) = (daemon.guest(), daemon.other_guest());
    // Whoever has sent nothing is told nothing.
    assert_eq!((conditions(&one), conditions(&other)), (vec![], vec![]));
    hold(&mut client, 2);
    for guest in [&one, &other] {
        let held = client.journal(ADDRESS).expect("LUN 0").held.len();
        let chain = [guest.out(&request(UNIT, TAG, &TEST_UNIT_READY)), guest.room(108)];
        guest.submit(REQUEST_QUEUE, &chain);
        assert_held(&mut client, held + 1);
    }
    one.task_management(UNIT, function, TAG);
    assert_eq!((conditions(&one), conditions(&other)), (mine.to_vec(), others.to_vec()));
}

/// PERSISTENT RESERVE OUT, with RESERVATION KEY and SERVICE ACTION RESERVATION KEY.
fn reserve_out(guest: &Guest, action: u8, kind: u8, keys: (u64, u64)) -> u8 {
    let cdb = [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let list = [&keys.0.to_be_bytes()[..], &keys.1.to_be_bytes(), &[0; 8]].concat();
    guest.command_on(REQUEST_QUEUE + 1, UNIT, &cdb, &list, 0).status
}

/// SPC-4, Preempting: with PREEMPT AND ABORT (5h) the commands of the nexus that loses its registration end too,
/// and no others; with PREEMPT (4h) none do. REGISTRATIONS PREEMPTED (2Ah/05h) is told either way.
#[rstest]
#[case::preempt(4, false)]
#[case::preempt_and_abort(5, true)]
fn preempted_commands_end_if_they_are_to_be_aborted(#[case] action: u8, #[case] aborts: bool) {
    const WRITE_EXCLUSIVE: u8 = 1;
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let (one, other) = (daemon.guest(), daemon.other_guest());
    // REGISTER is 0h, RESERVE 1h.
    assert_eq!(reserve_out(&one, 0, 0, (0, 1)), 0);
    assert_eq!(reserve_out(&other, 0, 0, (0, 2)), 0);
    assert_eq!(reserve_out(&other, 1, WRITE_EXCLUSIVE, (2, 0)), 0);
    hold(&mut client, 2);
    let rooms = [&one, &other].map(|guest| guest.room(108));
    for (held, (guest, room)) in [&one, &other].into_iter().zip(rooms).enumerate() {
        guest.submit(REQUEST_QUEUE, &[guest.out(&request(UNIT, TAG, &TEST_UNIT_READY)), room]);
        assert_held(&mut client, held + 1);
    }
    assert_eq!(reserve_out(&one, action, WRITE_EXCLUSIVE, (1, 2)), 0);
    if aborts {
        let used = other.used(REQUEST_QUEUE);
        assert_eq!(other.answer(used.len, rooms[1], rooms[1]).response, ABORTED);
        assert_held(&mut client, 1);
    } else {
        assert_held(&mut client, 2);
    }
    assert_eq!((conditions(&one), conditions(&other)), (vec![], vec![[0x2a, 0x05]]));
    client.release(ADDRESS).expect("the preempting nexus's own waits");
    let used = one.used(REQUEST_QUEUE);
    let own = one.answer(used.len, rooms[0], rooms[0]);
    assert_eq!((own.response, own.status), (0, 0));
}

/// SAM, Unit attention condition precedence: a reset comes before what was said earlier.
#[test]
fn reset_is_reported_before_cleared_commands() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let (one, other) = (daemon.guest(), daemon.other_guest());
    hold(&mut client, 1);
    other.submit(
        REQUEST_QUEUE,
        &[other.out(&request(UNIT, TAG, &TEST_UNIT_READY)), other.room(108)],
    );
    assert_held(&mut client, 1);
    assert_eq!(one.task_management(UNIT, CLEAR_TASK_SET, 0), COMPLETE);
    assert_eq!(other.task_management(UNIT, I_T_NEXUS_RESET, 0), COMPLETE);
    assert_eq!(one.task_management(UNIT, LOGICAL_UNIT_RESET, 0), COMPLETE);
    assert_eq!(conditions(&other), [[0x29, 0x03], [0x29, 0x07], [0x2f, 0x00]]);
}
