//! Memory tables: those that change under way, and those no front end should send. What is refused ends
//! the session, and the next finds the device as it was.

use control::LunAddress;
use rstest::rstest;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, vhost_user::VhostUserFrontend};

use crate::{
    driver::{
        Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, holding, pattern, read_10, request, write_10,
    },
    guest::{Descriptor, Guest, MEMORY_LEN},
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
const WRITE: u16 = 2;
/// Where the front end sees what it adds.
const ELSEWHERE: u64 = 0x1000_0000_0000;

#[track_caller]
fn assert_alive(guest: &Guest) {
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).response, 0);
}

/// The second half of the guest's memory is described as if it stood behind its end too.
fn mirror(guest: &Guest) -> VhostUserMemoryRegionInfo {
    let whole = guest.region();
    VhostUserMemoryRegionInfo {
        guest_phys_addr: MEMORY_LEN,
        memory_size: MEMORY_LEN / 2,
        userspace_addr: ELSEWHERE,
        mmap_offset: MEMORY_LEN / 2,
        mmap_handle: whole.mmap_handle,
    }
}

/// READ(10) of one block into a guest address; the response, and the block as it lies in memory.
fn read_into(guest: &Guest, address: u64) -> u8 {
    let room = guest.room(108);
    let data = Descriptor { address, len: 512, flags: WRITE, next: 0 };
    guest.submit(REQUEST_QUEUE, &[guest.out(&request(UNIT, 1, &read_10(0, 1))), room, data]);
    let used = guest.used(REQUEST_QUEUE);
    guest.answer(used.len, room, room).response
}

/// ADD_MEM_REG and REM_MEM_REG on running rings, as with memory that is plugged.
#[test]
fn regions_come_and_go_while_rings_run() {
    let daemon = Daemon::start();
    let mut guest = daemon.guest();
    guest.command(UNIT, &write_10(0, 1), &pattern(1, 1), 0);
    assert!(guest.frontend.get_max_mem_slots().expect("a number") >= 32);
    for _ in 0..3 {
        assert_eq!(read_into(&guest, MEMORY_LEN + 4096), 9, "not there");
        let added = mirror(&guest);
        guest.frontend.add_mem_region(&added).expect("room for it");
        assert_eq!(read_into(&guest, MEMORY_LEN + 4096), 0);
        let at = MEMORY_LEN / 2 + 4096;
        assert_eq!(guest.read(at, 512), pattern(1, 1));
        guest.write(at, &[0; 512]);
        // From one region into the next.
        assert_eq!(read_into(&guest, MEMORY_LEN - 100), 0);
        let halves = [guest.read(MEMORY_LEN - 100, 100), guest.read(MEMORY_LEN / 2, 412)];
        assert_eq!(halves.concat(), pattern(1, 1));
        guest.frontend.remove_mem_region(&added).expect("it is there");
    }
}

/// A command that is held keeps the memory it was fetched with; its answer goes into the ring as it is
/// now, and the next command is in the memory as it is now.
#[test]
fn memory_table_changes_under_a_held_command() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let guest = daemon.guest();
    client.faults(ADDRESS, holding(1)).expect("nothing runs");
    let room = guest.room(108);
    let head = guest.submit(REQUEST_QUEUE, &[guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), room]);
    while client.journal(ADDRESS).expect("LUN 0").held.is_empty() {
        std::thread::yield_now();
    }
    for table in [&[guest.region()][..], &[mirror(&guest), guest.region()]] {
        guest.frontend.set_mem_table(table).expect("fine");
        let answer = guest.command_on(REQUEST_QUEUE + 1, UNIT, &TEST_UNIT_READY, &[], 0);
        assert_eq!(answer.response, 0);
    }
    client.release(ADDRESS).expect("one is held");
    let used = guest.used(REQUEST_QUEUE);
    assert_eq!(used.head, head);
    assert_eq!(guest.answer(used.len, room, room).response, 0);
    assert_eq!(read_into(&guest, MEMORY_LEN + 4096), 0);
}

#[rstest]
#[case::overlap_in_the_guest(MEMORY_LEN - 4096, ELSEWHERE, 8192, 0)]
#[case::beyond_the_end_of_the_file(1 << 40, ELSEWHERE, MEMORY_LEN, 4096)]
#[case::far_beyond_the_end(1 << 40, ELSEWHERE, 4096, 1 << 50)]
#[case::no_end_in_the_file(1 << 40, ELSEWHERE, 4096, u64::MAX - 4095)]
#[case::no_end_in_the_guest(u64::MAX - 4095, ELSEWHERE, 8192, 0)]
#[case::no_end_in_the_front_end(1 << 40, u64::MAX - 4095, 8192, 0)]
#[case::within_a_page(1 << 40, ELSEWHERE, 4096, 100)]
fn memory_that_makes_no_sense_is_refused(
    #[case] guest_phys_addr: u64,
    #[case] userspace_addr: u64,
    #[case] memory_size: u64,
    #[case] mmap_offset: u64,
) {
    let daemon = Daemon::start();
    for add in [false, true] {
        let mut guest = daemon.guest();
        assert_alive(&guest);
        let whole = guest.region();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr,
            memory_size,
            userspace_addr,
            mmap_offset,
            ..whole
        };
        if add {
            guest.frontend.add_mem_region(&region).expect_err("refused");
        } else {
            guest.frontend.set_mem_table(&[whole, region]).expect_err("refused");
        }
    }
    assert_alive(&daemon.guest());
}

/// Two regions the front end sees in one place: a ring's address would mean either.
#[test]
fn overlap_in_the_front_end_is_refused() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let whole = guest.region();
    let twin = VhostUserMemoryRegionInfo { guest_phys_addr: 1 << 40, ..whole };
    guest.frontend.set_mem_table(&[whole, twin]).expect_err("refused");
    drop(guest);
    assert_alive(&daemon.guest());
}

/// A table without the rings that run.
#[test]
fn rings_that_run_cannot_lose_their_memory() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let moved = VhostUserMemoryRegionInfo { userspace_addr: ELSEWHERE, ..guest.region() };
    guest.frontend.set_mem_table(&[moved]).expect_err("refused");
    drop(guest);
    assert_alive(&daemon.guest());
}

#[rstest]
#[case::unmapped(ELSEWHERE)]
#[case::odd(1)]
#[case::at_the_end(MEMORY_LEN - 16)]
fn ring_outside_the_memory_is_refused(#[case] offset: u64) {
    let daemon = Daemon::start();
    let mut guest = daemon.guest();
    guest.stop_ring(REQUEST_QUEUE);
    assert!(guest.try_start_ring_at(REQUEST_QUEUE, offset).is_err());
    drop(guest);
    assert_alive(&daemon.guest());
}
