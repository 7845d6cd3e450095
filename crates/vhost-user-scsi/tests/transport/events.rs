//! Events, and units that come, go and change. Numbers are those of virtio 1.2, 5.6.6.3; senses of SPC-4.

use control::{
    Client, ClientError, Command, DeviceType, Event, LunAddress, LunSpec, Readiness, Reply,
};

use crate::{
    driver::{
        CONTROL_QUEUE, Daemon, EVENT_QUEUE, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding, pattern,
        read_10, request, write_10,
    },
    guest::{Descriptor, Guest, RING_LEN},
};

const HERE: LunAddress = LunAddress { target: 0, lun: 0 };
const NEW: LunAddress = LunAddress { target: 0, lun: 9 };
/// LUN 9 of target 0, in a command.
const NEW_FIELD: [u8; 8] = [1, 0, 0x40, 9, 0, 0, 0, 0];
/// The same and LUN 0 in an event, without address method as in REPORT LUNS.
const NEW_IN_EVENT: [u8; 8] = [1, 0, 0, 9, 0, 0, 0, 0];
const HERE_IN_EVENT: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

const TRANSPORT_RESET: u32 = 1;
const PARAM_CHANGE: u32 = 3;
const MISSED: u32 = 0x8000_0000;
const HARD: u32 = 0;
const RESCAN: u32 = 1;
const REMOVED: u32 = 2;

fn offer(guest: &Guest, count: usize) -> Vec<Descriptor> {
    let room: Vec<_> = (0..count).map(|_| guest.room(16)).collect();
    for buffer in &room {
        guest.submit(EVENT_QUEUE, &[*buffer]);
    }
    // The control queue has the same worker: when it has answered, the buffers are known.
    guest.task_management(UNIT, 7, 0);
    room
}

/// Event, LUN field and reason.
fn event(guest: &Guest, buffer: Descriptor) -> (u32, [u8; 8], u32) {
    assert_eq!(guest.used(EVENT_QUEUE).len, 16);
    let bytes = guest.read(buffer.address, 16);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    (word(0), bytes[4..12].try_into().expect("eight"), word(12))
}

fn plug(client: &mut Client, address: LunAddress, silent: bool) -> Result<(), ClientError> {
    let spec = LunSpec { device_type: DeviceType::Disk, ..LunSpec::default() };
    client.done(Command::Plug { address, spec, silent })
}

fn unplug(client: &mut Client, address: LunAddress) -> Result<(), ClientError> {
    client.done(Command::Unplug { address, silent: false })
}

fn luns(guest: &Guest) -> Vec<u8> {
    let data = guest.command(UNIT, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256).data_in;
    // LUN LIST LENGTH (SPC-4, REPORT LUNS); LUN 0 is always there.
    let len = usize::from(data[3]);
    data[8..8 + len].chunks(8).map(|lun| lun[1]).filter(|lun| *lun != 0).collect()
}

#[test]
fn unit_is_plugged_and_unplugged_with_events() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let buffers = offer(&guest, 2);
    assert_eq!(luns(&guest), [1]);
    plug(&mut client, NEW, false).expect("free");
    assert_eq!(event(&guest, buffers[0]), (TRANSPORT_RESET, NEW_IN_EVENT, RESCAN));
    // REPORTED LUNS DATA HAS CHANGED on the others, which REPORT LUNS clears.
    assert_eq!(luns(&guest), [1, 9]);
    let data = pattern(1, 3);
    assert_eq!(guest.command(NEW_FIELD, &write_10(0, 1), &data, 0).status, 0);
    assert_eq!(guest.command(NEW_FIELD, &read_10(0, 1), &[], 512).data_in, data);

    unplug(&mut client, NEW).expect("there");
    assert_eq!(event(&guest, buffers[1]), (TRANSPORT_RESET, NEW_IN_EVENT, REMOVED));
    assert_eq!(luns(&guest), [1]);
    let refused = guest.command(NEW_FIELD, &TEST_UNIT_READY, &[], 0);
    assert_eq!((refused.status, refused.sense[2], refused.sense[12]), (2, 5, 0x25));
    // What it was asked, and is asked still, can be read.
    let journal = client.journal(NEW).expect("known");
    let commands: Vec<_> = journal.entries.iter().map(|entry| entry.command.as_str()).collect();
    assert_eq!(commands, ["WRITE(10)", "READ(10)", "TEST UNIT READY"]);

    plug(&mut client, NEW, true).expect("free again");
    assert_eq!(guest.command(NEW_FIELD, &read_10(0, 1), &[], 512).data_in, [0; 512]);
    assert_eq!(guest.try_used(EVENT_QUEUE), None, "silent");
}

#[test]
fn refused_changes_change_nothing() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    let refusal = |result: Result<(), ClientError>| result.expect_err("refused").to_string();
    assert!(refusal(plug(&mut client, HERE, false)).contains("target 0 has two logical units 0"));
    assert!(refusal(unplug(&mut client, NEW)).contains("target 0 has no logical unit 9"));
    let resize = Command::Resize { address: NEW, blocks: 8, silent: false };
    assert!(refusal(client.done(resize)).contains("no logical unit 9"));
    let sense = || "WRITE ERROR".to_owned();
    let attention = Command::UnitAttention { address: HERE, nexus: None, sense: sense() };
    assert!(refusal(client.done(attention)).contains("no unit attention condition"));
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).status, 0);
}

/// What waits on a unit that goes ends as aborted.
#[test]
fn unplugging_ends_what_is_held() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    client.faults(HERE, holding(1)).expect("LUN 0");
    let response = guest.room(108);
    let head = guest.out(&request(UNIT, 5, &TEST_UNIT_READY));
    guest.submit(REQUEST_QUEUE, &[head, response]);
    while client.journal(HERE).expect("LUN 0").held.is_empty() {
        std::thread::yield_now();
    }
    unplug(&mut client, HERE).expect("there");
    guest.used(REQUEST_QUEUE);
    assert_eq!(guest.read(response.address, 12)[11], 2, "ABORTED");
}

/// SBC-3, READ CAPACITY(10): the last LBA. CAPACITY DATA HAS CHANGED is 6/2A/09.
#[test]
fn resize_is_an_event_and_a_unit_attention_condition() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let buffers = offer(&guest, 1);
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    client.done(Command::Resize { address: HERE, blocks: 100, silent: false }).expect("smaller");
    assert_eq!(event(&guest, buffers[0]), (PARAM_CHANGE, HERE_IN_EVENT, 0x092a));
    let attention = guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    assert_eq!((attention.sense[2], attention.sense[12], attention.sense[13]), (6, 0x2a, 0x09));
    let capacity = guest.command(UNIT, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8);
    assert_eq!(capacity.data_in, [0, 0, 0, 99, 0, 0, 2, 0]);
}

/// What finds no buffer is lost, and the next event says so; without another, a buffer alone brings it.
#[test]
fn events_without_a_buffer_are_missed_and_that_is_said() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let reset = || Command::Event { address: HERE, event: Event::Reset };
    let first = offer(&guest, 1);
    for _ in 0..3 {
        client.done(reset()).expect("sent or lost");
    }
    assert_eq!(event(&guest, first[0]), (TRANSPORT_RESET, HERE_IN_EVENT, HARD));
    let second = offer(&guest, 2);
    assert_eq!(event(&guest, second[0]), (MISSED, [0; 8], 0));
    let changed = Event::ParameterChanged { asc: 0x2a, ascq: 0x01 };
    client.done(Command::Event { address: HERE, event: changed }).expect("sent");
    assert_eq!(event(&guest, second[1]), (PARAM_CHANGE, HERE_IN_EVENT, 0x012a));
}

/// SPC-4: NOT READY, LOGICAL UNIT IS IN PROCESS OF BECOMING READY is 2/04/01; INITIALIZING COMMAND REQUIRED
/// 2/04/02.
#[test]
fn readiness_and_attention_are_set_from_outside() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let sense = |guest: &Guest| {
        let sense = guest.command(UNIT, &TEST_UNIT_READY, &[], 0).sense;
        sense.get(12).map(|asc| (sense[2], *asc, sense[13]))
    };
    assert_eq!(sense(&guest), None);
    for (readiness, expected) in [
        (Readiness::BecomingReady { progress: Some(0x4000) }, Some((2, 0x04, 0x01))),
        (Readiness::Stopped, Some((2, 0x04, 0x02))),
        (Readiness::Ready, None),
    ] {
        client.done(Command::Readiness { address: HERE, readiness }).expect("LUN 0");
        assert_eq!(sense(&guest), expected);
    }
    let name = "MODE PARAMETERS CHANGED".to_owned();
    let attention = Command::UnitAttention { address: HERE, nexus: Some(0), sense: name };
    client.done(attention).expect("LUN 0");
    let other = daemon.other_guest();
    assert_eq!(sense(&other), None, "another nexus");
    assert_eq!(sense(&guest), Some((6, 0x2a, 0x01)));
    assert_eq!(sense(&guest), None);
}

/// A session that ends takes its event buffers along.
#[test]
fn events_do_not_reach_a_session_that_has_ended() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let guest = daemon.guest();
    offer(&guest, 1);
    drop(guest);
    let next = daemon.guest();
    client.done(Command::Event { address: HERE, event: Event::Added }).expect("lost");
    let buffers = offer(&next, 2);
    assert_eq!(next.used_index(CONTROL_QUEUE), 1);
    assert_eq!(event(&next, buffers[0]), (MISSED, [0; 8], 0));
    client.done(Command::Event { address: HERE, event: Event::Added }).expect("sent");
    assert_eq!(event(&next, buffers[1]), (TRANSPORT_RESET, HERE_IN_EVENT, RESCAN));
    assert!(matches!(client.call(Command::Statistics), Ok(Reply::Statistics(_))));
}

/// The search for a buffer once went on for as long as the ring was broken.
#[test]
fn broken_event_ring_loses_events_and_nothing_else() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let buffers = offer(&guest, 1);
    guest.set_available_index(EVENT_QUEUE, 1 + RING_LEN + 1);
    let told = client.done(Command::Event { address: HERE, event: Event::Reset });
    // Whatever became of that, so that the test ends too if the search does not.
    guest.set_available_index(EVENT_QUEUE, 1);
    told.expect("an event that is lost is no mistake of the client's");
    guest.kick_anyway(EVENT_QUEUE);
    assert_eq!(event(&guest, buffers[0]), (MISSED, [0; 8], 0));
}

/// The daemon keeps the journals of units that are gone, but not without end.
#[test]
fn plugging_everywhere_comes_to_an_end() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let addresses = (4..=255_u8).flat_map(|target| (0..=255_u16).map(move |lun| (target, lun)));
    let mut refused = None;
    for (count, (target, lun)) in addresses.enumerate() {
        let address = LunAddress { target, lun };
        if let Err(error) = plug(&mut client, address, true) {
            refused = Some((count, error.to_string()));
            break;
        }
        client.done(Command::Unplug { address, silent: true }).expect("there");
    }
    let (count, reason) = refused.expect("an end");
    assert_eq!(count, 1024);
    assert!(reason.contains("plugged at 1024 addresses"), "{reason}");
    let known = LunAddress { target: 4, lun: 0 };
    plug(&mut client, known, true).expect("an address that is known");
}
