//! The control queue: every function answered, with the right response and after the commands it
//! concerns. Response numbers are those of virtio 1.2, 5.6.6.2.

use std::time::Duration;

use device_server::{LunAddress, NexusId};
use rstest::rstest;

use crate::driver::{
    Daemon, EVENT_QUEUE, TEST_UNIT_READY, UNIT, notification_request, task_management_request,
};

const COMPLETE: u8 = 0;
const BAD_TARGET: u8 = 3;
const FAILURE: u8 = 9;
const SUCCEEDED: u8 = 10;
const REJECTED: u8 = 11;
const INCORRECT_LUN: u8 = 12;

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const CLEAR_ACA: u32 = 2;
const CLEAR_TASK_SET: u32 = 3;
const I_T_NEXUS_RESET: u32 = 4;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
const QUERY_TASK_SET: u32 = 7;

const ABSENT_TARGET: [u8; 8] = [1, 9, 0x40, 0, 0, 0, 0, 0];
const ABSENT_UNIT: [u8; 8] = [1, 0, 0x40, 9, 0, 0, 0, 0];

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };

#[rstest]
#[case(ABORT_TASK, COMPLETE)]
#[case(ABORT_TASK_SET, COMPLETE)]
#[case(CLEAR_ACA, REJECTED)] // NORMACA is 0
#[case(CLEAR_TASK_SET, COMPLETE)]
#[case(I_T_NEXUS_RESET, COMPLETE)]
#[case(LOGICAL_UNIT_RESET, COMPLETE)]
#[case(QUERY_TASK, COMPLETE)]
#[case(QUERY_TASK_SET, COMPLETE)]
#[case(8, REJECTED)]
#[case(u32::MAX, REJECTED)]
fn function_on_an_idle_unit_is_answered(#[case] function: u32, #[case] response: u8) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    assert_eq!(guest.task_management(UNIT, function, 7), response);
    assert_eq!(daemon.target.statistics().control_requests, 1);
}

#[test]
fn absent_target_and_unit_are_told_apart() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    for function in 0..=7 {
        assert_eq!(guest.task_management(ABSENT_TARGET, function, 7), BAD_TARGET, "{function}");
        assert_eq!(guest.task_management([2; 8], function, 7), BAD_TARGET, "{function}");
        // The logical unit means nothing to I_T NEXUS RESET.
        let expected = if function == I_T_NEXUS_RESET { COMPLETE } else { INCORRECT_LUN };
        assert_eq!(guest.task_management(ABSENT_UNIT, function, 7), expected, "{function}");
    }
}

#[test]
fn queries_find_tasks_in_flight() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let unit = daemon.target.unit(ADDRESS).expect("LUN 0");
    let task = unit.begin(NexusId(0), Some(77));
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 77), SUCCEEDED);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 78), COMPLETE);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK_SET, 0), SUCCEEDED);
    drop(task);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 77), COMPLETE);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK_SET, 0), COMPLETE);
}

#[rstest]
#[case(ABORT_TASK)]
#[case(ABORT_TASK_SET)]
#[case(CLEAR_TASK_SET)]
#[case(LOGICAL_UNIT_RESET)]
#[case(I_T_NEXUS_RESET)]
fn function_is_answered_after_the_commands_it_concerns(#[case] function: u32) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let unit = daemon.target.unit(ADDRESS).expect("LUN 0");
    let task = unit.begin(NexusId(0), Some(77));
    let room = guest.room(1);
    let request = guest.out(&task_management_request(UNIT, function, 77));
    guest.submit(0, &[request, room]);
    // Request queues go on meanwhile.
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    assert_eq!(guest.try_used(0), None);
    drop(task);
    assert_eq!(guest.used(0).len, 1);
    assert_eq!(guest.read(room.address, 1), [COMPLETE]);
}

#[test]
fn abort_task_does_not_wait_for_other_tasks() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let _task = daemon.target.unit(ADDRESS).expect("LUN 0").begin(NexusId(0), Some(77));
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 78), COMPLETE);
}

/// Linux waits for the answer for ever, so one comes even if a command is stuck.
#[test]
fn function_on_a_stuck_command_is_failure() {
    let daemon = Daemon::start_with_limit(Duration::from_millis(50));
    let guest = daemon.guest();
    let _task = daemon.target.unit(ADDRESS).expect("LUN 0").begin(NexusId(0), Some(77));
    assert_eq!(guest.task_management(UNIT, LOGICAL_UNIT_RESET, 0), FAILURE);
}

#[rstest]
#[case::query(1)]
#[case::subscribe(2)]
fn asynchronous_notifications_are_answered_with_none(#[case] kind: u32) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let asked = |lun| guest.control(&notification_request(kind, lun, 0x7e), 5);
    assert_eq!(asked(UNIT), (5, vec![0, 0, 0, 0, 0]));
    assert_eq!(asked(ABSENT_TARGET), (5, vec![0, 0, 0, 0, BAD_TARGET]));
    assert_eq!(asked(ABSENT_UNIT), (5, vec![0, 0, 0, 0, INCORRECT_LUN]));
}

#[test]
fn event_buffers_are_kept() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    for _ in 0..8 {
        guest.submit(EVENT_QUEUE, &[guest.room(16)]);
    }
    assert_eq!(guest.task_management(UNIT, LOGICAL_UNIT_RESET, 0), COMPLETE);
    assert_eq!(guest.used_index(EVENT_QUEUE), 0);
}
