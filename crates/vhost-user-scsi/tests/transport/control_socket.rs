//! The control socket: reset with its barrier, journal, statistics, and clients that misbehave.

use std::{
    io::{BufRead, BufReader, Write},
    num::NonZeroU32,
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use control::{ClientError, Command, DeviceType, LunAddress, LunSpec, Medium, Reply};
use device_server::NexusId;

use crate::{
    driver::{
        DISK, Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding, inquiry, pattern, read_10,
        request, write_10,
    },
    guest::Guest,
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
const SERVER_ADDRESS: device_server::LunAddress = device_server::LunAddress { target: 0, lun: 0 };

#[test]
fn hello_tells_version_process_and_units() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let hello = client.hello();
    assert_eq!((hello.version, hello.pid), (5, std::process::id()));
    let units: Vec<_> = hello
        .luns
        .iter()
        .map(|unit| (unit.address.target, unit.address.lun, unit.spec.device_type))
        .collect();
    let (processor, disk) = (DeviceType::Processor, DeviceType::Disk);
    assert_eq!(units, [(0, 0, processor), (0, 1, disk), (3, 300, processor)]);
}

#[test]
fn reset_makes_the_unit_as_new() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let mut client = daemon.client();
    guest.command(UNIT, &write_10(0, 1), &pattern(1, 1), 0);
    guest.command(DISK, &write_10(0, 1), &pattern(1, 2), 0);
    let spec = LunSpec {
        device_type: DeviceType::Disk,
        block_len: 4096,
        blocks: 16,
        ..LunSpec::default()
    };
    client.reset_lun(ADDRESS, spec.clone()).expect("nothing is in flight");

    assert_eq!(client.journal(ADDRESS).expect("LUN 0").entries, []);
    assert_eq!(guest.command(UNIT, &inquiry(36), &[], 36).data_in[0], 0x00);
    let read = guest.command(UNIT, &read_10(0, 1), &[], 4096);
    assert_eq!(read.data_in, [0; 4096]);
    // READ CAPACITY(10): last LBA and block length.
    let capacity = guest.command(UNIT, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8);
    assert_eq!(capacity.data_in, [0, 0, 0, 15, 0, 0, 0x10, 0]);
    let other = guest.command(DISK, &read_10(0, 1), &[], 512);
    assert_eq!(other.data_in, pattern(1, 2), "the neighbour is untouched");
    assert_eq!(daemon.client().hello().luns[0].spec, spec);
}

#[test]
fn reset_of_a_file_medium_keeps_the_file() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("medium");
    let spec =
        LunSpec { medium: Medium::File { path: path.clone() }, blocks: 8, ..LunSpec::default() };
    daemon.client().reset_lun(ADDRESS, spec).expect("nothing is in flight");
    let written = guest.command(UNIT, &write_10(2, 3), &pattern(3, 9), 0);
    assert_eq!((written.response, written.status, written.residual), (0, 0, 0));
    assert_eq!(guest.command(UNIT, &read_10(2, 3), &[], 1536).data_in, pattern(3, 9));
    let bytes = std::fs::read(path).expect("the medium");
    assert_eq!(bytes.len(), 8 * 512);
    assert_eq!(bytes[1024..2560], pattern(3, 9));
}

#[test]
fn reset_waits_for_requests_in_flight() {
    let daemon = Daemon::start();
    let unit = daemon.target.unit(SERVER_ADDRESS).expect("LUN 0");
    let task = unit.begin(NexusId(0), Some(1));
    let mut client = daemon.client();
    let reset = thread::spawn(move || client.reset_lun(ADDRESS, LunSpec::default()));
    // Commands on this and other units go on, and other clients are answered.
    let guest = daemon.guest();
    assert_eq!(guest.command(DISK, &TEST_UNIT_READY, &[], 0).response, 0);
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    assert_eq!(daemon.client().journal(ADDRESS).expect("LUN 0").entries.len(), 1);
    assert!(!reset.is_finished());
    drop(task);
    reset.join().expect("no panic").expect("the task has ended");
    assert_eq!(daemon.client().journal(ADDRESS).expect("LUN 0").entries.len(), 0);
}

#[test]
fn reset_is_refused_if_a_request_stays_in_flight() {
    let daemon = Daemon::start_with_limit(Duration::from_millis(50));
    let guest = daemon.guest();
    guest.command(UNIT, &write_10(0, 1), &pattern(1, 1), 0);
    let _task = daemon.target.unit(SERVER_ADDRESS).expect("LUN 0").begin(NexusId(0), Some(1));
    let error = daemon.client().reset_lun(ADDRESS, LunSpec::default()).expect_err("it is stuck");
    let ClientError::Refused { reason, .. } = error else { panic!("{error}") };
    assert_eq!(reason, "1 request(s) still in flight on target 0 LUN 0 after 50 ms");
    let read = guest.command(UNIT, &read_10(0, 1), &[], 512);
    assert_eq!(read.data_in, pattern(1, 1), "a refused reset changes nothing");
    assert_eq!(daemon.client().journal(ADDRESS).expect("LUN 0").entries.len(), 2);
}

/// While one thread resets the unit again and again, a guest writes and reads back at once: what it
/// reads is what it wrote, or zeros of a reset in between; never a mixture or an older write.
#[test]
fn reset_under_load_never_shows_old_data() {
    const ROUNDS: u32 = 2000;
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let mut client = daemon.client();
    let resetting = thread::spawn(move || {
        let mut resets = 0;
        for _ in 0..300 {
            match client.reset_lun(ADDRESS, LunSpec::default()) {
                Ok(()) => resets += 1,
                Err(ClientError::Refused { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        resets
    });
    let mut zeros = 0;
    for round in 1..=ROUNDS {
        let queue = REQUEST_QUEUE + (round % 4) as usize;
        let written = guest.command_on(queue, UNIT, &write_10(0, 8), &pattern(8, round), 0);
        assert_eq!((written.response, written.status), (0, 0));
        let read = guest.command_on(REQUEST_QUEUE, UNIT, &read_10(0, 8), &[], 4096);
        if read.data_in == [0; 4096] {
            zeros += 1;
        } else {
            assert!(read.data_in == pattern(8, round), "round {round} reads something else");
        }
    }
    let resets: u32 = resetting.join().expect("no panic");
    assert!(resets > 0, "no reset went through");
    assert!(zeros <= resets, "{zeros} rounds read zeros, with {resets} resets");
}

#[test]
fn journal_tells_what_was_answered() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let mut client = daemon.client();
    client.reset_lun(ADDRESS, LunSpec::default()).expect("nothing is in flight");
    guest.command(UNIT, &write_10(1, 1), &pattern(1, 1), 0);
    guest.command(UNIT, &read_10(32_768, 1), &[], 600);
    guest.command(UNIT, &read_10(0, 2), &[], 512);
    guest.command(DISK, &TEST_UNIT_READY, &[], 0);
    let page = client.journal(ADDRESS).expect("LUN 0");
    assert_eq!(page.dropped, 0);
    let [write, failed, overrun] = &page.entries[..] else { panic!("{page:?}") };
    assert_eq!((write.command.as_str(), write.cdb.as_str()), ("WRITE(10)", "2a000000000100000100"));
    assert_eq!((write.data_out_len, write.data_in_len, write.residual), (512, 0, 0));
    assert_eq!((write.status, write.response, write.sense.as_str()), (0, 0, ""));
    assert!(write.fetched_us <= write.completed_us && write.completed_us <= failed.fetched_us);
    assert_eq!((failed.status, failed.response, failed.residual), (2, 0, 600));
    assert!(failed.sense.starts_with("70") || failed.sense.starts_with("f0"), "{}", failed.sense);
    assert_eq!((overrun.response, overrun.residual), (1, 0));
}

#[test]
fn journal_is_bounded() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    for _ in 0..4100 {
        guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    }
    let page = daemon.client().journal(ADDRESS).expect("LUN 0");
    assert_eq!((page.entries.len(), page.dropped), (4096, 4));
}

#[test]
fn statistics_count_commands_and_control_requests() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    guest.command([1, 9, 0x40, 0, 0, 0, 0, 0], &TEST_UNIT_READY, &[], 0);
    guest.task_management(UNIT, 5, 0);
    guest.control(&[], 1);
    let reply = daemon.client().call(Command::Statistics).expect("answered");
    let Reply::Statistics(statistics) = reply else { panic!("{reply:?}") };
    let counted = (statistics.commands, statistics.control_requests, statistics.malformed);
    assert_eq!(counted, (2, 1, 1));
}

#[test]
fn refusals_name_the_reason() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let absent = LunAddress { target: 0, lun: 7 };
    let odd = LunSpec { block_len: 513, ..LunSpec::default() };
    for (command, words) in [
        (Command::Journal { address: absent }, "target 0 has no logical unit 7"),
        (
            Command::ResetLun { address: absent, spec: LunSpec::default() },
            "target 0 has no logical unit 7",
        ),
        (Command::ResetLun { address: ADDRESS, spec: odd }, "block length 513"),
        (Command::Hello { version: 1 }, "version 1 is not spoken here, only 5"),
    ] {
        match client.call(command).expect_err(words) {
            ClientError::Refused { reason, .. } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other}"),
        }
    }
}

/// There are 1024 addresses that units can be plugged at; those that are refused take none.
#[test]
fn refused_plug_takes_no_address() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let at = |lun| LunAddress { target: 5, lun };
    let plug = |lun, spec| Command::Plug { address: at(lun), spec, silent: true };
    let odd = LunSpec { block_len: 7, ..LunSpec::default() };
    for lun in 0..1100 {
        let refusal = client.done(plug(lun, odd.clone())).expect_err("an odd block length");
        assert!(refusal.to_string().contains("block length 7"), "{refusal}");
    }
    let refusal = client.journal(at(0)).expect_err("no unit has been there");
    assert!(refusal.to_string().contains("target 5 has no logical unit 0"), "{refusal}");
    client.done(plug(0, LunSpec::default())).expect("there is room");
    assert_eq!(client.journal(at(0)).expect("it is there").entries, []);
}

/// SAM-5, Status codes: TASK SET FULL is 28h.
#[test]
fn plug_where_a_unit_is_leaves_it_its_task_set() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let one = LunSpec { task_set_max: NonZeroU32::new(1), ..LunSpec::default() };
    client.reset_lun(ADDRESS, one).expect("nothing is in flight");
    client.faults(ADDRESS, holding(1)).expect("LUN 0");
    let (head, response) = (guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), guest.room(108));
    guest.submit(REQUEST_QUEUE, &[head, response]);
    while client.journal(ADDRESS).expect("LUN 0").held.is_empty() {
        thread::yield_now();
    }
    let full = |guest: &Guest| guest.command_on(REQUEST_QUEUE + 1, UNIT, &TEST_UNIT_READY, &[], 0);
    assert_eq!(full(&guest).status, 0x28);
    let plug = Command::Plug { address: ADDRESS, spec: LunSpec::default(), silent: true };
    client.done(plug).expect_err("a unit is there");
    assert_eq!(full(&guest).status, 0x28);
}

/// Sends lines and returns the answers until the daemon hangs up or all are answered.
fn converse(daemon: &Daemon, lines: &[&[u8]]) -> Vec<String> {
    let mut stream = UnixStream::connect(&daemon.control).expect("it listens");
    let mut answers = BufReader::new(stream.try_clone().expect("descriptors"));
    let mut got = Vec::new();
    for line in lines {
        // The daemon may hang up within a line that is too long.
        let _ = stream.write_all(line).and_then(|()| stream.write_all(b"\n"));
        let mut answer = String::new();
        match answers.read_line(&mut answer) {
            Ok(len) if len > 0 => got.push(answer),
            _ => break,
        }
    }
    got
}

#[test]
fn bad_lines_are_refused_and_change_nothing() {
    let daemon = Daemon::start();
    let reset = br#"{"id":5,"command":{"reset-lun":{"address":{"target":0,"lun":0},"spec":{"device-type":"disk","block-len":512,"blocks":1,"medium":"ram","write-protect":false}}}}"#;
    let hello = br#"{"id":1,"command":{"hello":{"version":5}}}"#;
    let extra = br#"{"id":2,"command":"statistics","comand":1}"#;
    let answers = converse(
        &daemon,
        &[reset, b"", b"{", b"\xff\xfe", &b"[".repeat(100_000), extra, hello, extra, b"null"],
    );
    assert_eq!(answers.len(), 9, "{answers:?}");
    assert_eq!(answers[0], "{\"id\":5,\"result\":{\"Err\":\"the first request must be hello\"}}\n");
    for bad in [1, 2, 3, 4, 5, 7, 8] {
        assert!(
            answers[bad].starts_with(r#"{"id":0,"result":{"Err":"not understood"#),
            "{}",
            answers[bad]
        );
    }
    assert!(answers[7].contains("unknown field `comand`"), "{}", answers[7]);
    assert!(answers[6].starts_with(r#"{"id":1,"result":{"Ok":{"hello""#), "{}", answers[6]);
    assert_eq!(daemon.client().hello().luns[0].spec, LunSpec::default());
}

#[test]
fn endless_line_is_refused_and_the_client_hung_up_on() {
    let daemon = Daemon::start();
    let answers = converse(&daemon, &[&vec![b' '; (1 << 20) + 10], b"{}"]);
    assert_eq!(
        answers,
        ["{\"id\":0,\"result\":{\"Err\":\"line is longer than 1048576 bytes\"}}\n"]
    );
    assert_eq!(daemon.client().hello().version, 5);
}

#[test]
fn many_clients_are_served_and_one_too_many_is_turned_away() {
    let daemon = Daemon::start();
    let mut clients: Vec<_> = (0..64).map(|_| daemon.client()).collect();
    let one_more = control::Client::connect(&daemon.control, Duration::from_secs(20));
    assert!(one_more.is_err());
    for client in &mut clients {
        client.journal(ADDRESS).expect("still served");
    }
}
