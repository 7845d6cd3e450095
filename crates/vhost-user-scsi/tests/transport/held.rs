//! Commands and task management functions that are held, and answers that are chosen. Response numbers
//! are those of virtio 1.2, 5.6.6.1 and 5.6.6.2.

use std::time::{Duration, Instant};

use control::{Client, ClientError, Faults, JournalPage, LunAddress, LunSpec};
use device_server::NexusId;
use rstest::rstest;
use scsi_fault::{Effect, Rule, When};

use crate::{
    driver::{
        Answer, CONTROL_QUEUE, DISK, Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding,
        pattern, read_10, request, task_management_request, write_10,
    },
    guest::{Descriptor, Guest},
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
const SERVER_ADDRESS: device_server::LunAddress = device_server::LunAddress { target: 0, lun: 0 };

const COMPLETE: u8 = 0;
const ABORTED: u8 = 2;
const RESET: u8 = 4;
const FAILURE: u8 = 9;
const SUCCEEDED: u8 = 10;
const REJECTED: u8 = 11;

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const CLEAR_TASK_SET: u32 = 3;
const I_T_NEXUS_RESET: u32 = 4;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
const QUERY_TASK_SET: u32 = 7;

/// A command on its way.
#[derive(Clone, Copy)]
struct Sent {
    head: u16,
    response: Descriptor,
    data_in: Descriptor,
}

impl Guest {
    /// Sends a command without waiting for its answer.
    fn send(&self, queue: usize, tag: u64, cdb: &[u8], data_out: &[u8], room_in: u32) -> Sent {
        let mut chain = vec![self.out(&request(UNIT, tag, cdb))];
        if !data_out.is_empty() {
            chain.push(self.out(data_out));
        }
        let (response, data_in) = (self.room(108), self.room(room_in));
        chain.push(response);
        if room_in > 0 {
            chain.push(data_in);
        }
        let head = self.submit(queue, &[self.indirect(&chain)]);
        Sent { head, response, data_in }
    }

    /// The answer to the command that is answered next.
    #[track_caller]
    fn answered(&self, queue: usize, sent: Sent) -> Answer {
        let used = self.used(queue);
        assert_eq!(used.head, sent.head);
        self.answer(used.len, sent.response, sent.data_in)
    }

    /// Sends a task management function without waiting for its answer.
    fn send_function(&self, function: u32, tag: u64) -> Descriptor {
        let answer = self.room(1);
        let request = self.out(&task_management_request(UNIT, function, tag));
        self.submit(CONTROL_QUEUE, &[request, answer]);
        answer
    }
}

fn hold(client: &mut Client, count: u64) {
    client.faults(ADDRESS, holding(count)).expect("nothing runs");
}

/// Has so many commands held, and each of these befall the next task management function.
fn spoil(client: &mut Client, hold: u64, functions: &[Effect]) {
    let Faults { mut rules, .. } = if hold > 0 { holding(hold) } else { Faults::default() };
    let of_function = |(nth, effect): (u64, &Effect)| {
        Rule::new(format!("function {nth}"), effect.clone())
            .when(When::task_management("any"))
            .nth(nth)
    };
    rules.extend((1..).zip(functions).map(of_function));
    client.faults(ADDRESS, Faults { seed: 0, rules }).expect("nothing runs");
}

/// The journal once the unit holds so much.
#[track_caller]
fn held(client: &mut Client, count: usize) -> JournalPage {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let page = client.journal(ADDRESS).expect("LUN 0");
        if page.held.len() == count {
            return page;
        }
        assert!(Instant::now() < deadline, "{count} held: {page:?}");
        std::thread::yield_now();
    }
}

#[test]
fn held_command_is_carried_out_when_it_is_released() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, 1);
    let write = guest.send(REQUEST_QUEUE, 77, &write_10(3, 1), &pattern(1, 9), 0);
    let page = held(&mut client, 1);
    assert_eq!((page.held[0].name.as_str(), page.held[0].tag), ("WRITE(10)", 77));
    assert_eq!(page.entries, []);

    // The unit goes on, on the same queue, and the write has not begun.
    let read = guest.command(UNIT, &read_10(3, 1), &[], 512);
    assert_eq!((read.response, read.status, read.data_in), (0, 0, vec![0; 512]));

    client.release(ADDRESS).expect("one is held");
    let page = client.journal(ADDRESS).expect("LUN 0");
    assert_eq!(page.held, []);
    let seen: Vec<_> =
        page.entries.iter().map(|entry| (entry.command.as_str(), entry.held)).collect();
    assert_eq!(seen, [("READ(10)", false), ("WRITE(10)", true)]);
    assert!(page.entries[1].fetched_us <= page.entries[0].completed_us);
    let written = guest.answered(REQUEST_QUEUE, write);
    assert_eq!((written.response, written.status, written.residual), (0, 0, 0));
    assert_eq!(guest.command(UNIT, &read_10(3, 1), &[], 512).data_in, pattern(1, 9));
}

fn started() -> (Daemon, Client) {
    let daemon = Daemon::start();
    let client = daemon.client();
    (daemon, client)
}

#[test]
fn as_many_are_held_as_were_asked_for_and_no_neighbour() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, 2);
    assert_eq!(guest.command(DISK, &TEST_UNIT_READY, &[], 0).response, 0);
    let first = guest.send(REQUEST_QUEUE, 1, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 1);
    let second = guest.send(REQUEST_QUEUE + 1, 2, &TEST_UNIT_READY, &[], 0);
    let page = held(&mut client, 2);
    assert_eq!([page.held[0].tag, page.held[1].tag], [1, 2]);
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    client.release(ADDRESS).expect("two are held");
    assert_eq!(guest.answered(REQUEST_QUEUE, first).response, 0);
    assert_eq!(guest.answered(REQUEST_QUEUE + 1, second).response, 0);
}

#[test]
fn many_held_commands_keep_none_from_running() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, 60);
    let held_ones: Vec<_> = (0..60)
        .map(|tag| guest.send(REQUEST_QUEUE, tag, &write_10(0, 1), &pattern(1, 1), 0))
        .collect();
    held(&mut client, 60);
    for _ in 0..60 {
        let ready = guest.send(REQUEST_QUEUE, 100, &TEST_UNIT_READY, &[], 0);
        assert_eq!(guest.answered(REQUEST_QUEUE, ready).response, 0);
    }
    for _ in 0..1000 {
        let answer = guest.command_on(REQUEST_QUEUE + 1, UNIT, &TEST_UNIT_READY, &[], 0);
        assert_eq!(answer.response, 0);
    }
    held(&mut client, 60);
    client.release(ADDRESS).expect("60 are held");
    for sent in held_ones {
        assert_eq!(guest.answered(REQUEST_QUEUE, sent).response, 0, "in order of arrival");
    }
}

#[rstest]
#[case(ABORT_TASK, ABORTED)]
#[case(ABORT_TASK_SET, ABORTED)]
#[case(CLEAR_TASK_SET, ABORTED)]
#[case(LOGICAL_UNIT_RESET, RESET)]
#[case(I_T_NEXUS_RESET, RESET)]
fn function_ends_a_held_command_before_it_is_answered(#[case] function: u32, #[case] response: u8) {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, 1);
    let write = guest.send(REQUEST_QUEUE, 77, &write_10(0, 1), &pattern(1, 1), 0);
    held(&mut client, 1);
    assert_eq!(guest.task_management(UNIT, function, 77), COMPLETE);
    // Not waited for: it is there when the function has been answered.
    let used = guest.try_used(REQUEST_QUEUE).expect("completed first");
    let answer = guest.answer(used.len, write.response, write.data_in);
    assert_eq!(
        (used.len, answer.response, answer.status, answer.residual),
        (108, response, 0, 512)
    );
    if response == RESET {
        // CHECK CONDITION: the unit attention condition of the reset.
        assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).status, 2);
    }
    assert_eq!(guest.command(UNIT, &read_10(0, 1), &[], 512).data_in, [0; 512], "never written");

    let page = client.journal(ADDRESS).expect("LUN 0");
    let (ended, managed) = (&page.entries[0], &page.task_management[0]);
    assert_eq!((ended.tag, ended.held, ended.response, ended.residual), (77, true, response, 512));
    assert_eq!((managed.tag, managed.response, managed.held), (77, COMPLETE, false));
    assert!(ended.completed_us <= managed.completed_us);
    client.release(ADDRESS).expect("nothing is held");
    assert_eq!(guest.try_used(REQUEST_QUEUE), None, "completed twice");
}

#[test]
fn abort_task_leaves_other_held_commands() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, 2);
    let first = guest.send(REQUEST_QUEUE, 1, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 1);
    let second = guest.send(REQUEST_QUEUE, 2, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 2);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 2), SUCCEEDED);
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 2), COMPLETE);
    assert_eq!(guest.answered(REQUEST_QUEUE, second).response, ABORTED);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 2), COMPLETE);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK_SET, 0), SUCCEEDED);
    assert_eq!(held(&mut client, 1).held[0].tag, 1);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(guest.answered(REQUEST_QUEUE, first).response, 0);
}

#[test]
fn functions_are_answered_as_asked_for_and_refused_ones_not_carried_out() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    let answers = [
        Effect::response("FUNCTION REJECTED"),
        Effect::response("FAILURE"),
        Effect::response("FUNCTION SUCCEEDED").executed(),
        Effect::response("OK").executed(),
    ];
    spoil(&mut client, 1, &answers);
    let sent = guest.send(REQUEST_QUEUE, 77, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 1);
    // A neighbour has its own plan.
    assert_eq!(guest.task_management(DISK, LOGICAL_UNIT_RESET, 0), COMPLETE);
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 77), REJECTED);
    assert_eq!(guest.task_management(UNIT, LOGICAL_UNIT_RESET, 0), FAILURE);
    held(&mut client, 1);
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 77), SUCCEEDED);
    assert_eq!(guest.answered(REQUEST_QUEUE, sent).response, ABORTED);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK_SET, 0), COMPLETE);
    assert_eq!(guest.task_management(UNIT, 2, 0), REJECTED, "CLEAR ACA, no fault left");
    let page = client.journal(ADDRESS).expect("LUN 0");
    let seen: Vec<_> = page
        .task_management
        .iter()
        .map(|entry| (entry.function.as_str(), entry.tag, entry.response))
        .collect();
    let expected = [
        ("ABORT TASK", 77, REJECTED),
        ("LOGICAL UNIT RESET", 0, FAILURE),
        ("ABORT TASK", 77, SUCCEEDED),
        ("QUERY TASK SET", 0, COMPLETE),
        ("CLEAR ACA", 0, REJECTED),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn held_function_is_carried_out_when_it_is_released() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    spoil(&mut client, 0, &[Effect::hold()]);
    let abort = guest.send_function(ABORT_TASK, 78);
    let page = held(&mut client, 1);
    assert_eq!((page.held[0].name.as_str(), page.held[0].tag), ("ABORT TASK", 78));
    // Others are answered meanwhile.
    assert_eq!(guest.task_management(UNIT, LOGICAL_UNIT_RESET, 0), COMPLETE);
    assert_eq!(guest.read(abort.address, 1), [0xee]);
    // Now the tag is another command's, which the function finds.
    hold(&mut client, 1);
    let late = guest.send(REQUEST_QUEUE, 78, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 2);
    client.release(ADDRESS).expect("two are held");
    assert_eq!(guest.used(CONTROL_QUEUE).len, 1);
    assert_eq!(guest.read(abort.address, 1), [COMPLETE]);
    assert_eq!(guest.answered(REQUEST_QUEUE, late).response, ABORTED);
    let page = client.journal(ADDRESS).expect("LUN 0");
    let seen: Vec<_> =
        page.task_management.iter().map(|entry| (entry.tag, entry.held, entry.response)).collect();
    assert_eq!(seen, [(0, false, COMPLETE), (78, true, COMPLETE)]);
}

#[test]
fn reset_by_the_control_socket_ends_what_is_held_and_clears_faults() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    spoil(&mut client, 5, &[Effect::hold(), Effect::response("FAILURE")]);
    let sent = guest.send(REQUEST_QUEUE, 77, &write_10(0, 1), &pattern(1, 1), 0);
    let reset = guest.send_function(LOGICAL_UNIT_RESET, 0);
    held(&mut client, 2);
    client.reset_lun(ADDRESS, LunSpec::default()).expect("what is held does not run");
    let answer = guest.answered(REQUEST_QUEUE, sent);
    assert_eq!((answer.response, answer.residual), (ABORTED, 512));
    assert_eq!(guest.used(CONTROL_QUEUE).len, 1);
    assert_eq!(guest.read(reset.address, 1), [COMPLETE]);
    assert_eq!(client.journal(ADDRESS).expect("LUN 0"), JournalPage::default());
    assert_eq!(guest.command(UNIT, &read_10(0, 1), &[], 512).data_in, [0; 512]);
    assert_eq!(guest.task_management(UNIT, LOGICAL_UNIT_RESET, 0), COMPLETE);
}

/// A refused reset changes nothing: what is held stays held.
#[test]
fn refused_reset_leaves_what_is_held() {
    let daemon = Daemon::start_with_limit(Duration::from_millis(50));
    let (guest, mut client) = (daemon.guest(), daemon.client());
    hold(&mut client, 2);
    let first = guest.send(REQUEST_QUEUE, 1, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 1);
    let odd = LunSpec { block_len: 513, ..LunSpec::default() };
    for (spec, running) in [(odd, false), (LunSpec::default(), true)] {
        let unit = daemon.target.unit(SERVER_ADDRESS).expect("LUN 0");
        let _running = running.then(|| unit.begin(NexusId(0), Some(9)));
        let error = client.reset_lun(ADDRESS, spec).expect_err("refused");
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
        held(&mut client, 1);
    }
    let second = guest.send(REQUEST_QUEUE, 2, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 2);
    client.release(ADDRESS).expect("two are held");
    assert_eq!(guest.answered(REQUEST_QUEUE, first).response, 0);
    assert_eq!(guest.answered(REQUEST_QUEUE, second).response, 0);
}

/// The barrier: a fault is in force only when no command fetched before runs any more.
#[test]
fn faults_wait_for_commands_that_run() {
    let daemon = Daemon::start_with_limit(Duration::from_millis(50));
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let running = daemon.target.unit(SERVER_ADDRESS).expect("LUN 0").begin(NexusId(0), Some(1));
    let error = client.faults(ADDRESS, holding(1)).expect_err("one runs");
    let ClientError::Refused { reason, .. } = error else { panic!("{error}") };
    assert_eq!(reason, "1 request(s) still in flight on target 0 LUN 0 after 50 ms");
    drop(running);
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0, "not in force");
}

#[test]
fn faults_and_release_of_an_absent_unit_are_refused() {
    let (_daemon, mut client) = started();
    let absent = LunAddress { target: 0, lun: 7 };
    for error in [client.faults(absent, Faults::default()), client.release(absent)] {
        let Err(ClientError::Refused { reason, .. }) = error else { panic!("{error:?}") };
        assert_eq!(reason, "target 0 has no logical unit 7");
    }
}

/// GET_VRING_BASE, and with it a reset of the device, does not wait for what is held, and nothing is
/// ever completed into the ring again.
#[test]
fn stopped_ring_forgets_what_was_held() {
    let (daemon, mut client) = started();
    let mut guest = daemon.guest();
    hold(&mut client, 2);
    guest.send(REQUEST_QUEUE, 1, &TEST_UNIT_READY, &[], 0);
    let other = guest.send(REQUEST_QUEUE + 1, 2, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 2);
    let begun = Instant::now();
    let base = guest.stop_ring(REQUEST_QUEUE);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(held(&mut client, 1).held[0].tag, 2, "the other ring runs on");
    guest.start_ring(REQUEST_QUEUE, base);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(guest.answered(REQUEST_QUEUE + 1, other).response, 0);
    assert_eq!(guest.used_index(REQUEST_QUEUE), 0);
    let ready = guest.send(REQUEST_QUEUE, 3, &TEST_UNIT_READY, &[], 0);
    assert_eq!(guest.answered(REQUEST_QUEUE, ready).response, 0);
    // The ring can be stopped again, with nothing in flight.
    assert_eq!(guest.stop_ring(REQUEST_QUEUE), 2);
}

#[test]
fn next_front_end_inherits_nothing_that_was_held() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    spoil(&mut client, 1, &[Effect::hold()]);
    guest.send(REQUEST_QUEUE, 1, &TEST_UNIT_READY, &[], 0);
    guest.send_function(LOGICAL_UNIT_RESET, 0);
    held(&mut client, 2);
    drop(guest);
    let next = daemon.guest();
    held(&mut client, 0);
    assert_eq!(next.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    client.reset_lun(ADDRESS, LunSpec::default()).expect("nothing is in flight");
}

#[test]
fn stop_is_quick_with_a_command_held() {
    let (mut daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, 1);
    guest.send(REQUEST_QUEUE, 1, &TEST_UNIT_READY, &[], 0);
    held(&mut client, 1);
    let begun = Instant::now();
    daemon.stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
