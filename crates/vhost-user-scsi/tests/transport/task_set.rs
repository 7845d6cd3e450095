//! The order of a task set and its room (SAM, Task attributes; Status codes). Attributes are numbered as in
//! virtio 1.2, 5.6.6.1.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use control::{Client, Faults, JournalPage, LunAddress, LunSpec};
use fault::Times;
use rstest::rstest;
use scsi_fault::{Effect, Hold, Rule, When};

use crate::{
    driver::{
        Answer, DISK, Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding, pattern, read_10,
        request, write_10,
    },
    guest::{Descriptor, Guest},
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
const OTHER_QUEUE: usize = REQUEST_QUEUE + 1;

const SIMPLE: u8 = 0;
const ORDERED: u8 = 1;
const HEAD_OF_QUEUE: u8 = 2;
const ACA: u8 = 3;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

const ABORTED: u8 = 2;

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
const QUERY_TASK_SET: u32 = 7;

/// A command on its way.
#[derive(Clone, Copy)]
struct Sent {
    queue: usize,
    head: u16,
    response: Descriptor,
    data_in: Descriptor,
}

/// Sends a command with a task attribute; the tag is the position in the journal's words.
fn send(guest: &Guest, queue: usize, tag: u64, attribute: u8, cdb: &[u8], out: &[u8]) -> Sent {
    let mut header = request(UNIT, tag, cdb);
    header[16] = attribute;
    let mut chain = vec![guest.out(&header)];
    if !out.is_empty() {
        chain.push(guest.out(out));
    }
    let (response, data_in) = (guest.room(108), guest.room(512));
    chain.push(response);
    if out.is_empty() && cdb[0] != 0 {
        chain.push(data_in);
    }
    Sent { queue, head: guest.submit(queue, &[guest.indirect(&chain)]), response, data_in }
}

/// Sends TEST UNIT READY with a task attribute.
fn ready(guest: &Guest, queue: usize, tag: u64, attribute: u8) -> Sent {
    send(guest, queue, tag, attribute, &TEST_UNIT_READY, &[])
}

/// The answer to the command that is answered next.
#[track_caller]
fn answered(guest: &Guest, sent: Sent) -> Answer {
    let used = guest.used(sent.queue);
    assert_eq!(used.head, sent.head);
    guest.answer(used.len, sent.response, sent.data_in)
}

#[track_caller]
fn page_when(client: &mut Client, condition: impl Fn(&JournalPage) -> bool) -> JournalPage {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let page = client.journal(ADDRESS).expect("LUN 0");
        if condition(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "in vain: {page:?}");
        std::thread::yield_now();
    }
}

/// Waits until these tags wait, in order of arrival.
#[track_caller]
fn wait(client: &mut Client, tags: &[u64]) {
    let waiting =
        |page: &JournalPage| -> Vec<u64> { page.held.iter().map(|held| held.tag).collect() };
    page_when(client, |page| waiting(page) == tags);
}

/// The tags of what has ended, in that order.
fn ended(client: &mut Client) -> Vec<u64> {
    client.journal(ADDRESS).expect("LUN 0").entries.iter().map(|entry| entry.tag).collect()
}

/// Has the commands of this operation code held, until they are released.
fn hold(client: &mut Client, command: &str) {
    let rule = Rule::new("hold", Effect::hold()).when(When::command(command)).times(Times::Always);
    client.faults(ADDRESS, Faults { seed: 0, rules: vec![rule] }).expect("nothing runs");
}

fn started() -> (Daemon, Client) {
    let daemon = Daemon::start();
    let client = daemon.client();
    (daemon, client)
}

/// ORDERED starts when all that is older has ended, and what is younger starts when it has; wherever they
/// were sent, and without keeping a queue from other units.
#[test]
fn ordered_comes_after_what_is_older_and_before_what_is_younger() {
    let (daemon, mut client) = started();
    let (guest, other) = (daemon.guest(), daemon.other_guest());
    hold(&mut client, "WRITE(10)");
    let older = send(&guest, REQUEST_QUEUE, 1, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let ordered = send(&guest, OTHER_QUEUE, 2, ORDERED, &read_10(3, 1), &[]);
    wait(&mut client, &[1, 2]);
    let younger = ready(&other, REQUEST_QUEUE, 3, SIMPLE);
    wait(&mut client, &[1, 2, 3]);
    let youngest = ready(&guest, REQUEST_QUEUE, 4, SIMPLE);
    wait(&mut client, &[1, 2, 3, 4]);
    for queue in [REQUEST_QUEUE, OTHER_QUEUE] {
        assert_eq!(guest.command_on(queue, DISK, &TEST_UNIT_READY, &[], 0).status, GOOD);
    }
    assert!(ended(&mut client).is_empty());

    client.release(ADDRESS).expect("one is held");
    assert_eq!(answered(&guest, older).status, GOOD);
    assert_eq!(answered(&guest, ordered).data_in, pattern(1, 1), "read before it was written");
    assert_eq!(answered(&other, younger).status, GOOD);
    assert_eq!(answered(&guest, youngest).status, GOOD);
    let page = page_when(&mut client, |page| page.entries.len() == 4);
    let order: Vec<_> = page.entries.iter().map(|entry| (entry.tag, entry.held)).collect();
    assert_eq!(order[..2], [(1, true), (2, false)], "only a rule holds");
    assert_eq!(page.held, []);
}

/// An ORDERED command that a rule holds is in the task set, and keeps the younger ones waiting.
#[test]
fn ordered_that_is_held_keeps_what_is_younger_waiting() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, "WRITE(10)");
    let ordered = send(&guest, REQUEST_QUEUE, 1, ORDERED, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let younger = send(&guest, OTHER_QUEUE, 2, SIMPLE, &read_10(3, 1), &[]);
    wait(&mut client, &[1, 2]);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(answered(&guest, ordered).status, GOOD);
    assert_eq!(answered(&guest, younger).data_in, pattern(1, 1));
}

/// A command whose rule lets it go waits on for what comes before it.
#[test]
fn released_ordered_waits_for_what_is_older_and_still_held() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    let order = Effect { hold: Some(Hold::Order(vec![1, 0])), ..Effect::default() };
    let rule =
        Rule::new("order", order).when(When::command("TEST UNIT READY")).times(Times::Always);
    client.faults(ADDRESS, Faults { seed: 0, rules: vec![rule] }).expect("nothing runs");
    let older = ready(&guest, REQUEST_QUEUE, 1, SIMPLE);
    wait(&mut client, &[1]);
    // The rule gives it the first turn; the standard does not.
    let ordered = ready(&guest, OTHER_QUEUE, 2, ORDERED);
    assert_eq!(answered(&guest, older).status, GOOD);
    assert_eq!(answered(&guest, ordered).status, GOOD);
    page_when(&mut client, |page| page.entries.len() == 2);
    assert_eq!(ended(&mut client), [1, 2]);
}

#[test]
fn head_of_queue_goes_before_what_has_not_started() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, "WRITE(10)");
    let older = send(&guest, REQUEST_QUEUE, 1, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let ordered = ready(&guest, REQUEST_QUEUE, 2, ORDERED);
    wait(&mut client, &[1, 2]);
    let head = send(&guest, REQUEST_QUEUE, 3, HEAD_OF_QUEUE, &read_10(3, 1), &[]);
    assert_eq!(answered(&guest, head).data_in, [0; 512]);
    wait(&mut client, &[1, 2]);

    // While it has not ended, nothing else starts.
    let head = send(&guest, OTHER_QUEUE, 4, HEAD_OF_QUEUE, &write_10(5, 1), &pattern(1, 4));
    wait(&mut client, &[1, 2, 4]);
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 1), 0);
    assert_eq!(answered(&guest, older).response, ABORTED);
    let younger = ready(&guest, REQUEST_QUEUE, 5, SIMPLE);
    wait(&mut client, &[2, 4, 5]);
    client.release(ADDRESS).expect("the head is held");
    assert_eq!(answered(&guest, head).status, GOOD);
    assert_eq!(answered(&guest, ordered).status, GOOD);
    assert_eq!(answered(&guest, younger).status, GOOD);
}

/// Without an order asked for there is none: QUEUE ALGORITHM MODIFIER is 1h.
#[test]
fn simple_goes_past_simple_that_is_held() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, "WRITE(10)");
    let held = send(&guest, REQUEST_QUEUE, 1, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    assert_eq!(answered(&guest, ready(&guest, REQUEST_QUEUE, 2, SIMPLE)).status, GOOD);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(answered(&guest, held).status, GOOD);
}

/// SAM, ACA task attribute: without an auto contingent allegiance, INVALID MESSAGE ERROR; at once.
#[test]
fn aca_is_refused_without_waiting() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, "WRITE(10)");
    send(&guest, REQUEST_QUEUE, 1, ORDERED, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let answer = answered(&guest, ready(&guest, OTHER_QUEUE, 2, ACA));
    assert_eq!(answer.status, CHECK_CONDITION);
    assert_eq!((answer.sense[2], answer.sense[12], answer.sense[13]), (0x05, 0x49, 0x00));
}

fn abort(guest: &Guest, function: u32) {
    assert_eq!(guest.task_management(UNIT, function, 1), 0);
}

/// Whatever ends what others wait for, they start: a task management function for one or all of a nexus,
/// a client, the stop of a ring, the end of a session.
#[rstest]
#[case::abort_task(|guest: &mut Guest, _: &mut Client| abort(guest, ABORT_TASK))]
#[case::abort_task_set(|guest: &mut Guest, _: &mut Client| abort(guest, ABORT_TASK_SET))]
#[case::release(|_: &mut Guest, client: &mut Client| client.release(ADDRESS).expect("held"))]
#[case::ring_stops(|guest: &mut Guest, _: &mut Client| assert_eq!(guest.stop_ring(REQUEST_QUEUE), 1))]
#[case::session_ends(|guest: &mut Guest, _: &mut Client| guest.lose_device())]
fn what_waits_starts_however_the_last_before_it_ends(
    #[case] end: fn(&mut Guest, &mut Client),
    #[values(ORDERED, HEAD_OF_QUEUE)] before: u8,
) {
    let (daemon, mut client) = started();
    let (mut guest, other) = (daemon.guest(), daemon.other_guest());
    hold(&mut client, "WRITE(10)");
    send(&guest, REQUEST_QUEUE, 1, before, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let waiting = ready(&other, REQUEST_QUEUE, 2, SIMPLE);
    wait(&mut client, &[1, 2]);
    end(&mut guest, &mut client);
    assert_eq!(answered(&other, waiting).status, GOOD);
    // And the set is in no order any more.
    assert_eq!(other.command(UNIT, &TEST_UNIT_READY, &[], 0).status, GOOD);
}

/// What waits for others is in the task set: it is found, aborted, reset.
#[test]
fn task_management_sees_what_waits_for_others() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    hold(&mut client, "WRITE(10)");
    let write = send(&guest, REQUEST_QUEUE, 1, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let ordered = ready(&guest, OTHER_QUEUE, 2, ORDERED);
    wait(&mut client, &[1, 2]);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 2), 10);
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 2), 0);
    assert_eq!(answered(&guest, ordered).response, ABORTED);
    // Nothing is in order any more: the younger one need not wait.
    assert_eq!(answered(&guest, ready(&guest, OTHER_QUEUE, 3, SIMPLE)).status, GOOD);
    let ordered = ready(&guest, OTHER_QUEUE, 4, ORDERED);
    wait(&mut client, &[1, 4]);
    assert_eq!(guest.task_management(UNIT, LOGICAL_UNIT_RESET, 0), 0);
    assert_eq!(answered(&guest, write).response, 4);
    assert_eq!(answered(&guest, ordered).response, 4);
    client.reset_lun(ADDRESS, LunSpec::default()).expect("nothing is in flight");
}

/// Many that wait for each other start one after the other, whatever the stack of who starts them.
#[test]
fn a_long_row_of_ordered_commands_is_carried_out_in_order() {
    let (daemon, mut client) = started();
    let (guest, other) = (daemon.guest(), daemon.other_guest());
    hold(&mut client, "WRITE(10)");
    let first = send(&guest, OTHER_QUEUE, 1000, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1000]);
    let queues = REQUEST_QUEUE..REQUEST_QUEUE + 4;
    let mut sent = Vec::new();
    for (tag, attribute) in (0..100).zip([ORDERED, ORDERED, SIMPLE, SIMPLE].into_iter().cycle()) {
        for (guest, queue) in [&guest, &other]
            .into_iter()
            .flat_map(|guest| queues.clone().map(move |queue| (guest, queue)))
        {
            sent.push((guest, ready(guest, queue, tag, attribute)));
        }
    }
    page_when(&mut client, |page| page.held.len() == 801);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(answered(&guest, first).status, GOOD);
    for (guest, sent) in sent {
        assert_eq!(answered(guest, sent).status, GOOD, "in order of arrival");
    }
}

/// On four queues at once, commands with all attributes all come back, and what the journal saw of ORDERED
/// commands is an order.
#[test]
fn attributes_on_four_queues_at_once_lose_no_command() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    for round in 0..40 {
        let mut sent = Vec::new();
        for tag in 0..80_u64 {
            let attribute = [SIMPLE, SIMPLE, ORDERED, SIMPLE, HEAD_OF_QUEUE, SIMPLE, ORDERED];
            let attribute = attribute[usize::try_from(tag + round).expect("small") % 7];
            let queue = REQUEST_QUEUE + usize::try_from(tag % 4).expect("small");
            sent.push((ready(&guest, queue, tag, attribute), queue));
        }
        for queue in REQUEST_QUEUE..REQUEST_QUEUE + 4 {
            for _ in sent.iter().filter(|(_, on)| *on == queue) {
                guest.used(queue);
            }
        }
        // The driver sees the end of a command a moment before it is taken off the task set.
        let deadline = Instant::now() + Duration::from_secs(20);
        while guest.task_management(UNIT, QUERY_TASK_SET, 0) != 0 {
            assert!(Instant::now() < deadline, "some are left in the task set");
        }
    }
    client.reset_lun(ADDRESS, LunSpec::default()).expect("nothing is in flight");
}

/// SPC, QERR: with a command that ends in CHECK CONDITION those of the set, or of the same nexus, are aborted.
/// Another initiator is told (SAM, COMMANDS CLEARED BY ANOTHER INITIATOR), the one itself is not.
#[rstest]
#[case::nothing(0x00, &[1, 2], false)]
#[case::task_set(0x02, &[], true)]
#[case::same_nexus(0x06, &[2], false)]
fn qerr_aborts_what_it_says(#[case] qerr: u8, #[case] left: &[u64], #[case] told: bool) {
    let (daemon, mut client) = started();
    let (guest, other) = (daemon.guest(), daemon.other_guest());
    // Byte 3 of the Control mode page: QUEUE ALGORITHM MODIFIER 1h and QERR.
    let list = [0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10 | qerr, 0, 0, 0, 0, 0, 0, 0, 0];
    let mode_select = [0x15, 0x10, 0, 0, 16, 0];
    assert_eq!(guest.command(UNIT, &mode_select, &list, 0).status, GOOD);
    hold(&mut client, "WRITE(10)");
    let mine = send(&guest, REQUEST_QUEUE, 1, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let others = send(&other, REQUEST_QUEUE, 2, SIMPLE, &write_10(4, 1), &pattern(1, 1));
    wait(&mut client, &[1, 2]);
    let lba_out_of_range = guest.command_on(OTHER_QUEUE, UNIT, &read_10(u32::MAX, 1), &[], 512);
    assert_eq!(lba_out_of_range.status, CHECK_CONDITION);
    wait(&mut client, left);
    if !left.contains(&1) {
        assert_eq!(answered(&guest, mine).response, ABORTED);
    }
    if !left.contains(&2) {
        assert_eq!(answered(&other, others).response, ABORTED);
    }
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).status, GOOD);
    let next = other.command_on(OTHER_QUEUE, UNIT, &TEST_UNIT_READY, &[], 0);
    let triple = next.sense.get(12..14).map(<[u8]>::to_vec);
    assert_eq!(triple, told.then_some(vec![0x2f, 0x00]));
}

fn limit(client: &mut Client, max: u32) {
    let spec = LunSpec { task_set_max: NonZeroU32::new(max), ..LunSpec::default() };
    client.reset_lun(ADDRESS, spec).expect("nothing runs");
}

/// SAM, TASK SET FULL: for an initiator that has commands in the set; BUSY for one that has none.
#[test]
fn command_too_many_is_task_set_full_or_busy() {
    let (daemon, mut client) = started();
    let (guest, other) = (daemon.guest(), daemon.other_guest());
    limit(&mut client, 2);
    client.faults(ADDRESS, holding(2)).expect("nothing runs");
    let held: Vec<_> = [1, 2]
        .map(|tag| send(&guest, REQUEST_QUEUE, tag, SIMPLE, &write_10(3, 1), &pattern(1, 1)))
        .into();
    wait(&mut client, &[1, 2]);

    let refused = send(&guest, OTHER_QUEUE, 3, SIMPLE, &write_10(4, 1), &pattern(1, 2));
    let refused = answered(&guest, refused);
    assert_eq!((refused.status, refused.residual, refused.response), (TASK_SET_FULL, 512, 0));
    assert_eq!((refused.sense, refused.status_qualifier), (vec![], 0));
    let head = answered(&guest, ready(&guest, OTHER_QUEUE, 4, HEAD_OF_QUEUE));
    assert_eq!(head.status, TASK_SET_FULL);
    assert_eq!(other.command(UNIT, &TEST_UNIT_READY, &[], 0).status, BUSY);
    // It is the unit's own matter, and no matter of task management.
    assert_eq!(guest.command(DISK, &TEST_UNIT_READY, &[], 0).status, GOOD);
    assert_eq!(guest.task_management(UNIT, QUERY_TASK, 3), 0);
    assert_eq!(guest.task_management(UNIT, ABORT_TASK, 2), 0);
    assert_eq!(other.command(UNIT, &TEST_UNIT_READY, &[], 0).status, GOOD);

    let page = client.journal(ADDRESS).expect("LUN 0");
    let seen: Vec<_> = page.entries.iter().map(|entry| (entry.tag, entry.status)).collect();
    assert_eq!(seen, [(3, 0x28), (4, 0x28), (1, 0x08), (2, 0), (1, 0)]);
    assert_eq!(answered(&guest, held[1]).response, ABORTED);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(answered(&guest, held[0]).status, GOOD);
    assert_eq!(guest.command(UNIT, &read_10(4, 1), &[], 512).data_in, [0; 512], "never written");
}

/// What is refused has no part in the unit's state: its unit attention condition stays, its rules do not
/// count it, and it has no place in the order of the set.
#[test]
fn refused_command_leaves_no_trace() {
    let (daemon, mut client) = started();
    let guest = daemon.guest();
    limit(&mut client, 1);
    let rules = vec![
        Rule::new("hold", Effect::hold()).when(When::command("WRITE(10)")),
        Rule::new("busy", Effect::status(0x08)).when(When::command("READ(10)")),
    ];
    client.faults(ADDRESS, Faults { seed: 0, rules }).expect("nothing runs");
    let write = send(&guest, REQUEST_QUEUE, 1, SIMPLE, &write_10(3, 1), &pattern(1, 1));
    wait(&mut client, &[1]);
    let read = send(&guest, OTHER_QUEUE, 2, ORDERED, &read_10(3, 1), &[]);
    assert_eq!(answered(&guest, read).status, TASK_SET_FULL);
    let counts = client.journal(ADDRESS).expect("LUN 0").rules;
    assert_eq!(counts.iter().map(|rule| rule.seen).collect::<Vec<_>>(), [1, 0]);
    client.release(ADDRESS).expect("one is held");
    assert_eq!(answered(&guest, write).status, GOOD);
    assert_eq!(answered(&guest, ready(&guest, OTHER_QUEUE, 3, SIMPLE)).status, GOOD);
    // A new specification takes the limit away.
    client.reset_lun(ADDRESS, LunSpec::default()).expect("nothing runs");
    client.faults(ADDRESS, holding(2)).expect("nothing runs");
    ready(&guest, REQUEST_QUEUE, 4, SIMPLE);
    ready(&guest, REQUEST_QUEUE, 5, SIMPLE);
    wait(&mut client, &[4, 5]);
}
