//! What is in flight when the device dies: the layout and the steps of the vhost-user specification,
//! Inflight I/O tracking, split virtqueue. The test does by hand what a device did until it died.

use std::os::unix::fs::FileExt;

use control::LunAddress;
use rstest::rstest;
use vhost::vhost_user::{VhostUserFrontend, message::VhostUserInflight};

use crate::{
    driver::{
        Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding, pattern, read_10, request, write_10,
    },
    guest::{Guest, Inflight, RING_LEN, Used},
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };

/// `QueueRegionSplit`, in bytes.
const VERSION: u64 = 8;
const DESC_NUM: u64 = 10;
const LAST_BATCH_HEAD: u64 = 12;
const USED_IDX: u64 = 14;

/// The region of a queue.
struct Region<'a> {
    inflight: &'a Inflight,
    start: u64,
}

impl Region<'_> {
    fn of(guest: &Guest, queue: usize) -> Region<'_> {
        let inflight = guest.inflight();
        let len = inflight.description.mmap_size / u64::from(inflight.description.num_queues);
        Region { inflight, start: len * queue as u64 }
    }

    fn put<const N: usize>(&self, offset: u64, bytes: [u8; N]) {
        self.inflight.file.write_all_at(&bytes, self.start + offset).expect("inside the file");
    }

    fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.inflight.file.read_exact_at(&mut bytes, self.start + offset).expect("inside the file");
        bytes
    }

    fn half(&self, offset: u64) -> u16 {
        u16::from_ne_bytes(self.get(offset))
    }

    /// `DescStateSplit` of a head: inflight at 0, next at 6, counter at 8.
    fn desc(head: u16) -> u64 {
        16 + 16 * u64::from(head)
    }

    fn in_flight(&self) -> Vec<u16> {
        (0..RING_LEN).filter(|head| self.get::<1>(Self::desc(*head)) == [1]).collect()
    }

    fn mark(&self, head: u16, counter: u64) {
        self.put(Self::desc(head) + 8, counter.to_ne_bytes());
        self.put(Self::desc(head), [1]);
    }
}

/// Makes a WRITE(10) of one block available, for a device that is lost.
fn make_write_available(guest: &Guest, lba: u32, seed: u32) -> u16 {
    let chain = [
        guest.out(&request(UNIT, 7, &write_10(lba, 1))),
        guest.out(&pattern(1, seed)),
        guest.room(108),
    ];
    let head = guest.place(REQUEST_QUEUE, &[guest.indirect(&chain)]);
    guest.make_available(REQUEST_QUEUE, head);
    head
}

fn block(guest: &Guest, lba: u32) -> Vec<u8> {
    guest.command(UNIT, &read_10(lba, 1), &[], 512).data_in
}

#[test]
fn region_follows_the_commands() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let guest = Guest::connect_with_inflight(&daemon.socket, 1);
    let region = Region::of(&guest, REQUEST_QUEUE);
    assert_eq!((region.half(VERSION), region.half(DESC_NUM)), (1, RING_LEN));
    for used in 1..=3 {
        guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
        assert_eq!((region.half(USED_IDX), region.in_flight()), (used, vec![]));
    }
    client.faults(ADDRESS, holding(2)).expect("LUN 0");
    let heads = [1, 2].map(|seed| {
        let head = make_write_available(&guest, 0, seed);
        guest.kick(REQUEST_QUEUE);
        head
    });
    while client.journal(ADDRESS).expect("LUN 0").held.len() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(region.in_flight(), heads);
    let counters = heads.map(|head| u64::from_ne_bytes(region.get(Region::desc(head) + 8)));
    assert_eq!(counters, [3, 4], "three came before");
    client.release(ADDRESS).expect("two are held");
    guest.used(REQUEST_QUEUE);
    guest.used(REQUEST_QUEUE);
    // The notification of the last one may come before its mark is gone.
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    assert_eq!(region.in_flight(), [0_u16; 0]);
}

/// Death after each step of one command. Once its completion is visible it is not carried out again,
/// before that it is, and it is answered exactly once.
#[rstest]
fn command_survives_death_after_any_step(#[values(0, 1, 2, 3, 4, 5, 6, 7, 8)] steps: usize) {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    guest.command(UNIT, &write_10(0, 1), &pattern(1, 1), 0);
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    guest.lose_device();
    let head = make_write_available(&guest, 0, 2);
    let region = Region::of(&guest, REQUEST_QUEUE);
    let last = region.half(LAST_BATCH_HEAD);
    let done: [&dyn Fn(); 8] = [
        &|| region.put(Region::desc(head) + 8, 2_u64.to_ne_bytes()),
        &|| region.put(Region::desc(head), [1]),
        &|| region.put(Region::desc(head) + 6, last.to_ne_bytes()),
        &|| region.put(LAST_BATCH_HEAD, head.to_ne_bytes()),
        &|| guest.write_used_entry(REQUEST_QUEUE, 2, Used { head, len: 108 }),
        &|| guest.write_used_index(REQUEST_QUEUE, 3),
        &|| region.put(Region::desc(head), [0]),
        &|| region.put(USED_IDX, 3_u16.to_ne_bytes()),
    ];
    for step in &done[..steps] {
        step();
    }
    guest.reconnect(&daemon.socket);
    assert_eq!(guest.used(REQUEST_QUEUE), Used { head, len: 108 });
    let visible = steps >= 6;
    assert_eq!(block(&guest, 0), pattern(1, if visible { 1 } else { 2 }));
    assert_eq!(guest.used_index(REQUEST_QUEUE), 4);
    let region = Region::of(&guest, REQUEST_QUEUE);
    assert_eq!(guest.stop_ring(REQUEST_QUEUE), 4);
    assert_eq!((region.half(USED_IDX), region.in_flight()), (4, vec![]));
}

/// In order of their counters, whatever their heads, and before what came later.
#[test]
fn commands_in_flight_are_carried_out_in_the_order_they_came() {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    guest.lose_device();
    let heads: Vec<u16> = (0..3).map(|seed| make_write_available(&guest, 0, seed)).collect();
    let region = Region::of(&guest, REQUEST_QUEUE);
    for (head, counter) in heads.iter().zip([u64::MAX - 1, 1 << 40, 7]) {
        region.mark(*head, counter);
    }
    let later = make_write_available(&guest, 1, 9);
    guest.reconnect(&daemon.socket);
    let order: Vec<u16> = (0..4).map(|_| guest.used(REQUEST_QUEUE).head).collect();
    assert_eq!(order, [heads[2], heads[1], heads[0], later]);
    assert_eq!(block(&guest, 0), pattern(1, 0));
    assert_eq!(block(&guest, 1), pattern(1, 9));
}

/// A device that gives back several at once: all of the last batch are settled, by its list.
#[test]
fn last_batch_is_settled() {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    guest.lose_device();
    let heads: Vec<u16> = (0..4).map(|lba| make_write_available(&guest, lba, 5)).collect();
    let region = Region::of(&guest, REQUEST_QUEUE);
    for (counter, head) in (0..).zip(&heads) {
        region.mark(*head, counter);
    }
    // 3, 1 and 2 of them, in this order; the last is the head of the list.
    for (index, (head, next)) in
        (0..).zip([(heads[3], 0), (heads[1], heads[3]), (heads[2], heads[1])])
    {
        guest.write_used_entry(REQUEST_QUEUE, index, Used { head, len: 108 });
        region.put(Region::desc(head) + 6, next.to_ne_bytes());
        region.put(LAST_BATCH_HEAD, head.to_ne_bytes());
    }
    guest.write_used_index(REQUEST_QUEUE, 3);
    guest.reconnect(&daemon.socket);
    let order: Vec<u16> = (0..4).map(|_| guest.used(REQUEST_QUEUE).head).collect();
    assert_eq!(order, [heads[3], heads[1], heads[2], heads[0]]);
    for lba in 0..4 {
        let expected = if lba == 0 { pattern(1, 5) } else { vec![0; 512] };
        assert_eq!(block(&guest, lba), expected, "LBA {lba}");
    }
}

/// What was held goes with the session, but is not lost to a guest that comes back.
#[test]
fn held_command_is_carried_out_after_a_reconnect() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    client.faults(ADDRESS, holding(1)).expect("LUN 0");
    let head = make_write_available(&guest, 0, 3);
    guest.kick(REQUEST_QUEUE);
    while client.journal(ADDRESS).expect("LUN 0").held.is_empty() {
        std::thread::yield_now();
    }
    guest.lose_device();
    guest.reconnect(&daemon.socket);
    assert_eq!(guest.used(REQUEST_QUEUE).head, head);
    assert_eq!(block(&guest, 0), pattern(1, 3));
}

/// A stopped ring that goes on where it was still has its commands; one that begins anew has none.
#[rstest]
#[case::goes_on(true)]
#[case::begins_anew(false)]
fn stopped_ring_keeps_what_was_held_unless_it_is_reset(#[case] goes_on: bool) {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    client.faults(ADDRESS, holding(1)).expect("LUN 0");
    let head = make_write_available(&guest, 0, 3);
    guest.kick(REQUEST_QUEUE);
    while client.journal(ADDRESS).expect("LUN 0").held.is_empty() {
        std::thread::yield_now();
    }
    let base = guest.stop_ring(REQUEST_QUEUE);
    assert_eq!(base, 2);
    if goes_on {
        guest.start_ring(REQUEST_QUEUE, base);
        assert_eq!(guest.used(REQUEST_QUEUE).head, head);
        assert_eq!(block(&guest, 0), pattern(1, 3));
    } else {
        guest.clear_ring(REQUEST_QUEUE);
        // There before the ring is started, so that it might be taken for what was in flight.
        let first = make_write_available(&guest, 1, 4);
        assert_ne!(first, head);
        guest.start_ring(REQUEST_QUEUE, 0);
        assert_eq!(guest.used(REQUEST_QUEUE).head, first);
        assert_eq!(block(&guest, 0), [0; 512]);
        assert_eq!(guest.used_index(REQUEST_QUEUE), 2);
    }
}

/// The guest reset its device while there was none.
#[test]
fn marks_from_before_a_reset_mean_nothing() {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    guest.lose_device();
    let head = make_write_available(&guest, 0, 3);
    Region::of(&guest, REQUEST_QUEUE).mark(head, 5);
    guest.clear_ring(REQUEST_QUEUE);
    guest.reconnect(&daemon.socket);
    assert_eq!(block(&guest, 0), [0; 512]);
    assert_eq!(guest.used_index(REQUEST_QUEUE), 1);
    assert_eq!(Region::of(&guest, REQUEST_QUEUE).in_flight(), [0_u16; 0]);
}

/// Whatever stands in it, the device does not fall over it.
#[test]
fn damaged_region_is_survived() {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    for seed in 0..50_u64 {
        guest.lose_device();
        let region = Region::of(&guest, REQUEST_QUEUE);
        for offset in (10..16 + 16 * 128).step_by(2) {
            let [.., one, other] =
                (offset ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            region.put(offset, [one, other]);
        }
        if seed % 2 == 0 {
            region.put(DESC_NUM, RING_LEN.to_ne_bytes());
        }
        guest.reconnect(&daemon.socket);
        assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0, "seed {seed}");
    }
}

#[rstest]
#[case::no_room(6, 128, 4096, 0)]
#[case::beyond_the_file(6, 128, 1 << 20, 1 << 20)]
#[case::no_page(6, 128, 1 << 20, 100)]
#[case::no_end(6, 128, 1 << 20, u64::MAX - 4095)]
#[case::too_many_queues(300, 128, 1 << 20, 0)]
#[case::too_many_entries(6, 2048, 1 << 20, 0)]
fn inflight_memory_that_makes_no_sense_is_refused(
    #[case] queues: u16,
    #[case] entries: u16,
    #[case] len: u64,
    #[case] offset: u64,
) {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    for queue in 0..3 {
        guest.stop_ring(queue);
    }
    let file = tempfile::tempfile().expect("temporary file");
    file.set_len(1 << 20).expect("room");
    let description = VhostUserInflight::new(len, offset, queues, entries);
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    guest.frontend.set_inflight_fd(&description, descriptor).expect_err("refused");
    drop(guest);
    let next = daemon.guest();
    assert_eq!(next.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
}

#[test]
fn running_rings_keep_their_inflight_memory() {
    let daemon = Daemon::start();
    let mut guest = Guest::connect_with_inflight(&daemon.socket, 1);
    let (description, file) = {
        let inflight = guest.inflight();
        (inflight.description, inflight.file.try_clone().expect("a descriptor"))
    };
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    guest.frontend.set_inflight_fd(&description, descriptor).expect_err("they run");
}
