//! Chains no driver would send: answered if there is room, returned empty if not, never fatal.

use rstest::rstest;

use crate::{
    driver::{
        Answer, CONTROL_QUEUE, Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, inquiry,
        notification_request, request, task_management_request,
    },
    guest::{Descriptor, Guest, MEMORY_LEN, RING_LEN, Used},
};

const WRITE: u16 = 2;
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

fn malformed(daemon: &Daemon) -> u64 {
    daemon.target.statistics().malformed
}

/// Whatever happened before, the queue works.
#[track_caller]
fn assert_alive(guest: &Guest) {
    let answer = guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    assert_eq!((answer.response, answer.status), (0, 0));
}

#[track_caller]
fn assert_failure(answer: &Answer, residual: u32) {
    let found = (answer.response, answer.status, answer.residual, answer.used_len);
    assert_eq!(found, (9, 0, residual, 108));
    assert!(answer.sense.is_empty());
}

#[test]
fn short_header_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(108);
    guest.submit(REQUEST_QUEUE, &[guest.out(&request(UNIT, 1, &TEST_UNIT_READY)[..50]), room]);
    let used = guest.used(REQUEST_QUEUE);
    assert_failure(&guest.answer(used.len, room, room), 0);
    assert_eq!(malformed(&daemon), 1);
    assert_alive(&guest);
}

#[test]
fn no_header_at_all_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(208);
    guest.submit(REQUEST_QUEUE, &[room]);
    let used = guest.used(REQUEST_QUEUE);
    assert_failure(&guest.answer(used.len, room, room), 100);
    assert_alive(&guest);
}

#[rstest]
#[case::none(0)]
#[case::one_byte_short(107)]
fn no_room_for_a_response_is_returned_empty(#[case] room: u32) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(room);
    let request = guest.out(&request(UNIT, 1, &TEST_UNIT_READY));
    let chain = [request, room];
    let head = guest.submit(REQUEST_QUEUE, if room.len == 0 { &chain[..1] } else { &chain });
    assert_eq!(guest.used(REQUEST_QUEUE), Used { head, len: 0 });
    assert_eq!(malformed(&daemon), 1);
    assert_alive(&guest);
}

/// VIRTIO_SCSI_F_INOUT is not offered; virtio 1.2, 5.6.6.1 asks for FAILURE.
#[test]
fn data_in_both_directions_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let answer = guest.command(UNIT, &inquiry(36), &[1; 10], 36);
    assert_failure(&answer, 46);
    assert_eq!(malformed(&daemon), 1);
}

#[test]
fn readable_after_writable_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(108);
    let request = guest.out(&request(UNIT, 1, &TEST_UNIT_READY));
    guest.submit(REQUEST_QUEUE, &[request, room, guest.out(&[0; 8])]);
    let used = guest.used(REQUEST_QUEUE);
    assert_failure(&guest.answer(used.len, room, room), 0);
    guest.submit(REQUEST_QUEUE, &[room, request]);
    let used = guest.used(REQUEST_QUEUE);
    assert_failure(&guest.answer(used.len, room, room), 0);
    assert_eq!(malformed(&daemon), 2);
    assert_alive(&guest);
}

#[rstest]
#[case::beyond_the_end(MEMORY_LEN)]
#[case::across_the_end(MEMORY_LEN - 256)]
#[case::far(0xffff_ffff_ffff_0000)]
#[case::overflowing(u64::MAX - 4)]
fn wild_data_address_is_failure(#[case] address: u64) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(108);
    let request = guest.out(&request(UNIT, 1, &inquiry(36)));
    let wild = Descriptor { address, len: 512, flags: WRITE, next: 0 };
    guest.submit(REQUEST_QUEUE, &[request, room, wild]);
    let used = guest.used(REQUEST_QUEUE);
    assert_failure(&guest.answer(used.len, room, room), 0);
    let wild = Descriptor { flags: 0, ..wild };
    let head = guest.submit(REQUEST_QUEUE, &[request, wild, room]);
    assert_eq!(
        guest.used(REQUEST_QUEUE),
        Used { head, len: 0 },
        "the response is behind the fault"
    );
    assert_eq!(malformed(&daemon), 2);
    assert_alive(&guest);
}

#[test]
fn wild_response_address_is_returned_empty() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let request = guest.out(&request(UNIT, 1, &TEST_UNIT_READY));
    let wild = Descriptor { address: MEMORY_LEN - 1, len: 108, flags: WRITE, next: 0 };
    let head = guest.submit(REQUEST_QUEUE, &[request, wild]);
    assert_eq!(guest.used(REQUEST_QUEUE), Used { head, len: 0 });
    assert_alive(&guest);
}

#[test]
fn looping_chain_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(108);
    let request = guest.out(&request(UNIT, 1, &TEST_UNIT_READY));
    guest.put_raw(REQUEST_QUEUE, 100, Descriptor { flags: NEXT, next: 101, ..request });
    guest.put_raw(REQUEST_QUEUE, 101, Descriptor { flags: NEXT | WRITE, next: 101, ..room });
    guest.make_available(REQUEST_QUEUE, 100);
    guest.kick(REQUEST_QUEUE);
    let used = guest.used(REQUEST_QUEUE);
    let answer = guest.answer(used.len, room, room);
    assert_eq!((used.head, answer.response, used.len), (100, 9, 108));
    assert_eq!(malformed(&daemon), 1);
    assert_alive(&guest);
}

#[rstest]
#[case::next_out_of_range(Descriptor { address: 0x1000, len: 51, flags: NEXT, next: RING_LEN })]
#[case::nested_indirect(Descriptor { address: 0, len: 16, flags: INDIRECT, next: 0 })]
#[case::ragged_table(Descriptor { address: 0x1000, len: 17, flags: INDIRECT, next: 0 })]
#[case::empty_table(Descriptor { address: 0x1000, len: 0, flags: INDIRECT, next: 0 })]
#[case::huge_table(Descriptor { address: 0, len: 0xffff_fff0, flags: INDIRECT, next: 0 })]
#[case::wild_table(Descriptor { address: MEMORY_LEN, len: 64, flags: INDIRECT, next: 0 })]
fn broken_chain_without_response_is_returned_empty(#[case] mut descriptor: Descriptor) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    if descriptor.flags == INDIRECT && descriptor.address == 0 {
        // A table whose only entry is a table again.
        descriptor.address =
            guest.indirect(&[Descriptor { flags: INDIRECT, ..descriptor }]).address;
    }
    guest.put_raw(REQUEST_QUEUE, 50, descriptor);
    guest.make_available(REQUEST_QUEUE, 50);
    guest.kick(REQUEST_QUEUE);
    assert_eq!(guest.used(REQUEST_QUEUE), Used { head: 50, len: 0 });
    assert_eq!(malformed(&daemon), 1);
    assert_alive(&guest);
}

/// More than 2^32 bytes in a chain, though each descriptor is inside the memory.
#[test]
fn chain_beyond_32_bits_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(108);
    let mut chain = vec![guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), room];
    let all = Descriptor {
        address: 0,
        len: u32::try_from(MEMORY_LEN).expect("16 MiB"),
        flags: WRITE,
        next: 0,
    };
    chain.extend([all; 257]);
    guest.submit(REQUEST_QUEUE, &[guest.indirect(&chain)]);
    let used = guest.used(REQUEST_QUEUE);
    assert_eq!(guest.answer(used.len, room, room).response, 9);
    assert_alive(&guest);
}

/// A head beyond the ring cannot be given back; the next chain is served.
#[test]
fn wild_head_is_skipped() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    guest.make_available(REQUEST_QUEUE, RING_LEN);
    guest.make_available(REQUEST_QUEUE, u16::MAX);
    assert_alive(&guest);
    assert_eq!(malformed(&daemon), 2);
}

/// The index of the available ring jumps: nothing can be fetched, but nothing spins or dies, and the
/// ring works again when the driver has repaired it.
#[test]
fn wild_available_index_stops_the_queue_until_repaired() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    assert_alive(&guest);
    guest.set_available_index(REQUEST_QUEUE, 1 + RING_LEN + 1);
    guest.kick_anyway(REQUEST_QUEUE);
    // Other queues go on, the control queue among them.
    assert_eq!(guest.command_on(REQUEST_QUEUE + 1, UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
    // QUERY TASK.
    assert_eq!(guest.task_management(UNIT, 6, 0), 0);
    assert_eq!(guest.try_used(REQUEST_QUEUE), None);
    guest.set_available_index(REQUEST_QUEUE, 1);
    guest.kick_anyway(REQUEST_QUEUE);
    assert_alive(&guest);
}

#[rstest]
#[case::nothing(vec![], 5, 1)]
#[case::half_a_type(vec![0, 0], 5, 1)]
#[case::unknown_type(vec![3, 0, 0, 0, 0, 0, 0, 0], 5, 1)]
#[case::short_task_management(task_management_request(UNIT, 5, 0)[..23].to_vec(), 1, 1)]
#[case::short_notification(notification_request(1, UNIT, 0)[..15].to_vec(), 5, 5)]
#[case::no_room_for_task_management(task_management_request(UNIT, 5, 0), 0, 0)]
#[case::no_room_for_notification(notification_request(1, UNIT, 0), 4, 0)]
fn malformed_control_request_is_failure(
    #[case] bytes: Vec<u8>,
    #[case] room: u32,
    #[case] used_len: u32,
) {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let (used, answer) = guest.control(&bytes, room);
    assert_eq!(used, used_len);
    if used > 0 {
        assert_eq!(answer[used as usize - 1], 9);
    }
    let statistics = daemon.target.statistics();
    assert_eq!((statistics.malformed, statistics.control_requests), (1, 0));
    assert_eq!(guest.task_management(UNIT, 5, 0), 0);
}

#[test]
fn looping_control_chain_is_failure() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let room = guest.room(1);
    let request = guest.out(&task_management_request(UNIT, 5, 0));
    guest.put_raw(CONTROL_QUEUE, 100, Descriptor { flags: NEXT, next: 101, ..request });
    guest.put_raw(CONTROL_QUEUE, 101, Descriptor { flags: NEXT | WRITE, next: 101, ..room });
    guest.make_available(CONTROL_QUEUE, 100);
    guest.kick(CONTROL_QUEUE);
    assert_eq!(guest.used(CONTROL_QUEUE), Used { head: 100, len: 1 });
    assert_eq!(guest.read(room.address, 1), [9]);
}
