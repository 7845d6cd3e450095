//! Commands on request queues: data, residual, status, sense, response and used length, exactly.

use control::{LunAddress, LunSpec, Medium};
use rstest::rstest;

use crate::{
    driver::{
        DISK, Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, inquiry, pattern, read_10, request,
        write_10,
    },
    guest::{Descriptor, Guest},
};

#[rstest]
#[case::with_event_idx(true)]
#[case::without_event_idx(false)]
fn inquiry_answers_36_bytes(#[case] event_idx: bool) {
    let daemon = Daemon::start();
    let guest = Guest::connect_with(&daemon.socket, 4, event_idx, false);
    let answer = guest.command(UNIT, &inquiry(36), &[], 36);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0));
    assert_eq!(answer.used_len, 108 + 36);
    assert_eq!(answer.data_in[0], 0x03);
    assert_eq!(&answer.data_in[8..16], b"SENSECHK");
    let disk = guest.command(DISK, &inquiry(36), &[], 36);
    assert_eq!(disk.data_in[0], 0x00);
}

#[test]
fn short_answer_leaves_a_residual_and_the_rest_of_the_buffer() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let answer = guest.command(UNIT, &inquiry(5), &[], 36);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 31));
    assert_eq!(answer.used_len, 108 + 5);
    assert_eq!(answer.data_in[5..], [0xee; 31]);
}

#[test]
fn write_and_read_move_the_data() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let data = pattern(8, 1);
    let written = guest.command(UNIT, &write_10(16, 8), &data, 0);
    assert_eq!((written.response, written.status, written.residual), (0, 0, 0));
    assert_eq!(written.used_len, 108);
    let read = guest.command(UNIT, &read_10(15, 10), &[], 5120);
    assert_eq!((read.response, read.status, read.residual), (0, 0, 0));
    assert_eq!(read.used_len, 108 + 5120);
    assert_eq!(read.data_in[..512], [0; 512]);
    assert_eq!(read.data_in[512..4608], data);
    assert_eq!(read.data_in[4608..], [0; 512]);
}

/// Residual both ways: the buffer is longer than what the CDB asks for.
#[test]
fn longer_buffer_than_the_command_needs_is_residual() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let written = guest.command(UNIT, &write_10(0, 1), &pattern(2, 2), 0);
    assert_eq!((written.response, written.status, written.residual), (0, 0, 512));
    assert_eq!(written.used_len, 108);
    let read = guest.command(UNIT, &read_10(0, 1), &[], 1300);
    assert_eq!((read.response, read.status, read.residual), (0, 0, 788));
    assert_eq!(read.used_len, 108 + 512);
    assert_eq!(read.data_in[..512], pattern(2, 2)[..512]);
    assert_eq!(read.data_in[512..], [0xee; 788]);
    let next = guest.command(UNIT, &read_10(1, 1), &[], 512);
    assert_eq!(next.data_in, [0; 512], "the second block was not asked for");
}

/// virtio 1.2, 5.6.6.1: OVERRUN if the CDB requires more data than the buffers hold.
#[test]
fn shorter_buffer_than_the_command_needs_is_overrun() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    guest.command(UNIT, &write_10(0, 2), &pattern(2, 3), 0);
    let read = guest.command(UNIT, &read_10(0, 2), &[], 700);
    assert_eq!((read.response, read.residual), (1, 0));
    assert_eq!(read.used_len, 108 + 700);
    assert_eq!(read.data_in, pattern(2, 3)[..700]);
    let written = guest.command(UNIT, &write_10(0, 2), &pattern(1, 4), 0);
    assert_eq!((written.response, written.residual), (1, 512), "nothing is taken");
    let read = guest.command(UNIT, &read_10(0, 2), &[], 1024);
    assert_eq!(read.data_in, pattern(2, 3), "nothing is written");
}

#[test]
fn check_condition_carries_sense_and_full_residual() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let answer = guest.command(UNIT, &read_10(32_768, 1), &[], 512);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 2, 512));
    assert_eq!(answer.used_len, 108);
    assert_eq!(answer.sense[0] & 0x7f, 0x70);
    assert_eq!(answer.sense.len(), 8 + usize::from(answer.sense[7]));
    // ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE
    assert_eq!((answer.sense[2] & 0x0f, answer.sense[12], answer.sense[13]), (5, 0x21, 0));
    assert_eq!(answer.data_in, [0xee; 512]);
}

#[rstest]
#[case::absent_target([1, 1, 0x40, 0, 0, 0, 0, 0])]
#[case::not_the_virtio_form([0, 0, 0x40, 0, 0, 0, 0, 0])]
#[case::two_levels([1, 0, 0x40, 0, 0x40, 0, 0, 0])]
#[case::report_luns_well_known([0xc1, 1, 0, 0, 0, 0, 0, 0])]
fn unknown_address_is_bad_target(#[case] lun: [u8; 8]) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let answer = guest.command(lun, &inquiry(36), &[], 36);
    assert_eq!((answer.response, answer.status, answer.residual), (3, 0, 36));
    assert_eq!(answer.used_len, 108);
    assert!(answer.sense.is_empty());
}

#[rstest]
#[case::flat_space([1, 3, 0x41, 0x2c, 0, 0, 0, 0], 0x03)]
#[case::peripheral([1, 0, 0x00, 0x01, 0, 0, 0, 0], 0x00)]
#[case::absent_unit([1, 0, 0x40, 9, 0, 0, 0, 0], 0x7f)]
fn inquiry_finds_the_addressed_unit(#[case] lun: [u8; 8], #[case] peripheral: u8) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let answer = guest.command(lun, &inquiry(36), &[], 36);
    assert_eq!((answer.response, answer.status), (0, 0));
    assert_eq!(answer.data_in[0], peripheral);
}

/// Headers and data cut at odd places, through an indirect table.
#[test]
fn layout_of_a_request_is_arbitrary() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let data = pattern(2, 5);
    let mut sent = request(UNIT, 9, &write_10(3, 2));
    sent.extend(&data);
    let mut descriptors: Vec<Descriptor> =
        [&sent[..1], &sent[1..50], &sent[50..600], &[], &sent[600..]]
            .map(|piece| guest.out(piece))
            .to_vec();
    descriptors.extend([guest.room(10), guest.room(98)]);
    let table = guest.indirect(&descriptors);
    let head = guest.submit(REQUEST_QUEUE, &[table]);
    let used = guest.used(REQUEST_QUEUE);
    assert_eq!((used.head, used.len), (head, 108));

    let rooms = [guest.room(107), guest.room(2), guest.room(511), guest.room(512)];
    let request = guest.out(&request(UNIT, 10, &read_10(3, 2)));
    guest.submit(REQUEST_QUEUE, &[request, rooms[0], rooms[1], rooms[2], rooms[3]]);
    assert_eq!(guest.used(REQUEST_QUEUE).len, 108 + 1024);
    let read: Vec<u8> = rooms
        .iter()
        .flat_map(|room| guest.read(room.address, room.len as usize))
        .skip(108)
        .collect();
    assert_eq!(read, data);
}

#[test]
fn every_queue_serves_every_unit_at_once() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    // All in flight before the first answer is looked at.
    let queues = REQUEST_QUEUE..REQUEST_QUEUE + 4;
    let mut rooms = Vec::new();
    for round in 0..20_u32 {
        for queue in queues.clone() {
            let number = round * 4 + u32::try_from(queue).expect("small");
            let cdb = write_10(number, 1);
            let sent =
                [guest.out(&request(UNIT, number.into(), &cdb)), guest.out(&pattern(1, number))];
            let room = guest.room(108);
            guest.submit(queue, &[sent[0], sent[1], room]);
            rooms.push(room);
        }
    }
    for queue in queues.clone() {
        for _ in 0..20 {
            assert_eq!(guest.used(queue).len, 108);
        }
    }
    for room in rooms {
        assert_eq!(guest.answer(108, room, room).response, 0);
    }
    for number in 2..82 {
        let read = guest.command(UNIT, &read_10(number, 1), &[], 512);
        assert_eq!(read.data_in, pattern(1, number), "block {number}");
    }
}

/// Enough of them for the rings' 16-bit indices to wrap.
#[rstest]
#[case::with_event_idx(true)]
#[case::without_event_idx(false)]
fn indices_wrap(#[case] event_idx: bool) {
    let daemon = Daemon::start();
    let guest = Guest::connect_with(&daemon.socket, 1, event_idx, false);
    for number in 0..70_000 {
        let answer = guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
        assert_eq!((answer.response, answer.status, answer.used_len), (0, 0, 108), "{number}");
    }
}

/// So many interrupts for a batch of 32 commands made available at once, without EVENT_IDX, when every
/// one that is sent arrives.
fn interrupts_for_a_batch(guest: &Guest) -> u64 {
    guest.take_interrupts(REQUEST_QUEUE);
    let first = guest.used_index(REQUEST_QUEUE);
    for _ in 0..32 {
        let chain =
            [guest.out(&request(UNIT, 1, &read_10(0, 8))), guest.room(108), guest.room(4096)];
        let head = guest.place(REQUEST_QUEUE, &[guest.indirect(&chain)]);
        guest.make_available(REQUEST_QUEUE, head);
    }
    guest.kick(REQUEST_QUEUE);
    while guest.used_index(REQUEST_QUEUE) != first.wrapping_add(32) {
        std::thread::yield_now();
    }
    // A round trip: whatever is told of the batch is told before the ring is left alone.
    assert_eq!(guest.stop_ring(REQUEST_QUEUE), first.wrapping_add(32));
    guest.take_interrupts(REQUEST_QUEUE)
}

/// Small commands share interrupts; but none waits while another may wait for the host's storage.
#[test]
fn interrupts_are_shared_unless_a_command_may_block() {
    let daemon = Daemon::start();
    let guest = Guest::connect_with(&daemon.socket, 1, false, false);
    let count = interrupts_for_a_batch(&guest);
    assert!((1..=3).contains(&count), "{count} interrupts");

    let directory = tempfile::tempdir().expect("a directory");
    let medium = Medium::File { path: directory.path().join("medium") };
    let spec = LunSpec { medium, ..LunSpec::default() };
    daemon.client().reset_lun(LunAddress { target: 0, lun: 0 }, spec).expect("nothing runs");
    let guest = {
        drop(guest);
        Guest::connect_with(&daemon.socket, 1, false, false)
    };
    let count = interrupts_for_a_batch(&guest);
    assert!((32..=34).contains(&count), "{count} interrupts");
}
