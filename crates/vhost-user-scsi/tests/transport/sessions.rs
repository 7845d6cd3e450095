//! Front ends that come, go and change their mind.

use std::{
    fs,
    time::{Duration, Instant},
};

use vhost::{VhostBackend, vhost_user::Frontend};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    driver::{Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, pattern, read_10, request, write_10},
    guest::Guest,
};

#[test]
fn next_front_end_finds_the_same_medium() {
    let daemon = Daemon::start();
    let first = daemon.guest();
    first.command(UNIT, &write_10(0, 1), &pattern(1, 1), 0);
    drop(first);
    for _ in 0..3 {
        let next = daemon.guest();
        assert_eq!(next.command(UNIT, &read_10(0, 1), &[], 512).data_in, pattern(1, 1));
    }
}

#[test]
fn front_end_that_vanishes_in_mid_command_harms_nobody() {
    let daemon = Daemon::start();
    for _ in 0..20 {
        let guest = daemon.guest();
        for _ in 0..20 {
            let chain =
                [guest.out(&request(UNIT, 1, &read_10(0, 8))), guest.room(108), guest.room(4096)];
            guest.submit(REQUEST_QUEUE, &chain);
        }
    }
    assert_eq!(daemon.guest().command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
}

/// A front end chooses what it is told on: nothing that could be makes the device wait.
#[test]
fn blocking_eventfd_that_is_full_blocks_nobody() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let full = EventFd::new(0).expect("a blocking eventfd");
    full.write(u64::MAX - 1).expect("there is room for so much");
    guest.frontend.set_vring_call(REQUEST_QUEUE, &full).expect("acknowledged");
    guest.submit(REQUEST_QUEUE, &[guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), guest.room(108)]);
    // The ring is stopped when the command has ended.
    let deadline = Instant::now() + Duration::from_secs(20);
    while guest.used_index(REQUEST_QUEUE) == 0 {
        assert!(Instant::now() < deadline, "the command has not ended");
        std::thread::yield_now();
    }
    assert_eq!(guest.stop_ring(REQUEST_QUEUE), 1);
    drop(guest);
    assert_eq!(daemon.guest().command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// Alone in its process would be best; a margin for the other tests has to do, far below what a leak
/// of one descriptor for each worker would add.
#[test]
fn sessions_leave_no_descriptors_behind() {
    const SESSIONS: usize = 200;
    let daemon = Daemon::start();
    drop(daemon.guest());
    let before = open_descriptors();
    for _ in 0..SESSIONS {
        let guest = daemon.guest();
        assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    }
    let after = open_descriptors();
    assert!(after < before + SESSIONS * 2, "{before} descriptors before, {after} after");
}

/// What QEMU does at `stop` and `cont`: no answer and no interrupt is lost, nothing is run twice.
#[test]
fn stopped_ring_goes_on_where_it_was() {
    let daemon = Daemon::start();
    let mut guest = daemon.guest();
    for round in 1..=50_u16 {
        let answer = guest.command(UNIT, &write_10(0, 1), &pattern(1, round.into()), 0);
        assert_eq!(answer.response, 0);
        let base = guest.stop_ring(REQUEST_QUEUE);
        assert_eq!(base, round);
        guest.start_ring(REQUEST_QUEUE, base);
    }
    assert_eq!(guest.command(UNIT, &read_10(0, 1), &[], 512).data_in, pattern(1, 50));
}

/// QEMU 10 hands over the eventfd that reaches the guest when the ring already runs after a reconnect:
/// what was signalled on the one before must not be lost.
#[test]
fn interrupt_is_not_lost_when_the_eventfd_is_replaced() {
    let daemon = Daemon::start();
    let mut guest = daemon.guest();
    let room = guest.room(108);
    guest.submit(REQUEST_QUEUE, &[guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), room]);
    // Starting a ring signals too, so it may take two interrupts until the command is done.
    while guest.used_index(REQUEST_QUEUE) == 0 {
        assert!(guest.interrupted(REQUEST_QUEUE, Duration::from_secs(20)));
    }
    guest.replace_call(REQUEST_QUEUE);
    assert!(guest.interrupted(REQUEST_QUEUE, Duration::from_secs(20)));
    assert!(guest.try_used(REQUEST_QUEUE).is_some());
}

#[test]
fn stopped_ring_is_left_alone() {
    let daemon = Daemon::start();
    let mut guest = daemon.guest();
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    let base = guest.stop_ring(REQUEST_QUEUE);
    let room = guest.room(108);
    let chain = [guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), room];
    guest.submit(REQUEST_QUEUE, &chain);
    guest.kick_anyway(REQUEST_QUEUE);
    // A round trip through another queue: a worker would have run.
    assert_eq!(guest.command_on(REQUEST_QUEUE + 1, UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    assert_eq!(guest.used_index(REQUEST_QUEUE), 1);
    guest.start_ring(REQUEST_QUEUE, base);
    assert_eq!(guest.used(REQUEST_QUEUE).len, 108);
}

/// A busy ring is stopped in the middle: the base says exactly how far it came, everything before is
/// answered and told, nothing is afterwards.
#[test]
fn ring_stopped_under_load_has_answered_all_it_fetched() {
    let daemon = Daemon::start();
    let mut guest = daemon.guest();
    let mut expected = 0_u16;
    for _ in 0..100 {
        for _ in 0..30 {
            let chain =
                [guest.out(&request(UNIT, 1, &read_10(0, 8))), guest.room(108), guest.room(4096)];
            guest.submit(REQUEST_QUEUE, &chain);
        }
        expected = expected.wrapping_add(30);
        let base = guest.stop_ring(REQUEST_QUEUE);
        assert_eq!(guest.used_index(REQUEST_QUEUE), base);
        guest.start_ring(REQUEST_QUEUE, base);
        for _ in 0..30 {
            assert_eq!(guest.used(REQUEST_QUEUE).len, 108 + 4096);
        }
        assert_eq!(guest.used_index(REQUEST_QUEUE), expected);
    }
}

#[test]
fn features_are_the_documented_ones() {
    let daemon = Daemon::start();
    // PROTOCOL_FEATURES, VERSION_1, EVENT_IDX, INDIRECT_DESC, HOTPLUG, CHANGE; neither INOUT nor T10_PI.
    let expected = 1 << 30 | 1 << 32 | 1 << 29 | 1 << 28 | 1 << 1 | 1 << 2;
    assert_eq!(daemon.guest().features, expected);
}

#[test]
fn stop_is_quick_with_a_session_and_without() {
    for connected in [false, true] {
        let mut daemon = Daemon::start();
        let _guest = connected.then(|| daemon.guest());
        let _idle_client = daemon.client();
        let begun = Instant::now();
        daemon.stop();
        assert!(begun.elapsed() < Duration::from_secs(1), "connected: {connected}");
    }
}

/// One session at a time: the second waits until the first has gone.
#[test]
fn second_front_end_waits_for_the_first() {
    let daemon = Daemon::start();
    let first = daemon.guest();
    let socket = daemon.socket.clone();
    let second = std::thread::spawn(move || {
        let frontend = Frontend::connect(&socket, 6).expect("it listens");
        frontend.get_features()
    });
    assert_eq!(first.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    assert!(!second.is_finished());
    drop(first);
    second.join().expect("no panic").expect("its turn");
    drop(Guest::connect(&daemon.socket, 1));
}
