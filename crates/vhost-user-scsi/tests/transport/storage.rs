//! Media in files that are slow: what is not cached is waited for by an io_uring, or by the queue itself, and
//! nobody can tell which by the answers.

use std::{fs::File, num::NonZeroU64, path::PathBuf};

use control::{LunAddress, LunSpec, Medium};
use rstest::rstest;
use rustix::fs::{Advice, fadvise, fstatfs};
use tempfile::TempDir;
use vhost_user_scsi::target::Settings;

use crate::{
    driver::{Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, pattern, read_10, request, write_10},
    guest::{Descriptor, Guest},
};

const SYNCHRONIZE_CACHE_10: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LEN_BLOCKS: u32 = 2048;
/// linux/magic.h: TMPFS_MAGIC. What it holds is never waited for.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A device whose first unit is in a file of a directory of its own.
struct Disk {
    daemon: Daemon,
    path: PathBuf,
    _directory: TempDir,
}

impl Disk {
    fn new(io_uring: bool) -> Disk {
        let daemon = Daemon::start_with(Settings { io_uring, ..Settings::new(2, 4) });
        // Not where temporary files are kept, which may be memory.
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let path = directory.path().join("medium");
        let medium = Medium::File { path: path.clone() };
        let spec = LunSpec { medium, blocks: LEN_BLOCKS.into(), ..LunSpec::default() };
        daemon.client().reset_lun(LunAddress { target: 0, lun: 0 }, spec).expect("nothing runs");
        Disk { daemon, path, _directory: directory }
    }

    /// Nothing of the file is in the page cache afterwards, but where that is all there is; whether that is so.
    fn evict(&self) -> bool {
        let file = File::open(&self.path).expect("the medium");
        file.sync_data().expect("flushed");
        fadvise(&file, 0, NonZeroU64::new(1 << 40), Advice::DontNeed).expect("evicted");
        fstatfs(&file).expect("a file system").f_type != TMPFS_MAGIC
    }

    fn waits(&self) -> u64 {
        self.daemon.target.statistics().storage_waits
    }
}

/// Makes many reads of eight blocks available at once, spread over four queues, and gives their places.
fn read_all(guest: &Guest) -> Vec<(usize, u16, [Descriptor; 2])> {
    let submitted = (0..LEN_BLOCKS / 8).map(|at| {
        let queue = REQUEST_QUEUE + (at % 4) as usize;
        let (response, data) = (guest.room(108), guest.room(4096));
        let command = guest.out(&request(UNIT, at.into(), &read_10(at * 8, 8)));
        let chain = guest.indirect(&[command, response, data]);
        let head = guest.place(queue, &[chain]);
        guest.make_available(queue, head);
        (queue, head, [response, data])
    });
    let submitted = submitted.collect();
    (0..4).for_each(|queue| guest.kick(REQUEST_QUEUE + queue));
    submitted
}

fn fill(guest: &Guest) -> Vec<u8> {
    let bytes = pattern(LEN_BLOCKS, 7);
    for (at, piece) in (0..).zip(bytes.chunks(128 << 10)) {
        let written = guest.command(UNIT, &write_10(at * 256, 256), piece, 0);
        assert_eq!((written.response, written.status), (0, 0));
    }
    bytes
}

/// Each answer is the one that belongs to its command, in whatever order they come.
#[rstest]
#[case::by_the_queue(false)]
#[case::on_an_io_uring(true)]
fn what_is_not_cached_is_read_all_the_same(#[case] io_uring: bool) {
    let disk = Disk::new(io_uring);
    let guest = disk.daemon.guest();
    let bytes = fill(&guest);
    let can_wait = disk.evict() && io_uring;
    let submitted = read_all(&guest);
    for queue in (0..4).map(|queue| REQUEST_QUEUE + queue) {
        let of_queue = submitted.iter().filter(|(of, ..)| *of == queue).count();
        let used: Vec<_> = (0..of_queue).map(|_| guest.used(queue)).collect();
        for (_, head, _) in submitted.iter().filter(|(of, ..)| *of == queue) {
            assert_eq!(used.iter().filter(|used| used.head == *head).count(), 1);
        }
    }
    for ((.., [response, data]), expected) in submitted.into_iter().zip(bytes.chunks(4096)) {
        let answer = guest.answer(0, response, data);
        assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0));
        assert!(answer.data_in == expected);
    }
    assert_eq!(disk.waits() > 0, can_wait, "{} waited", disk.waits());
}

#[rstest]
#[case::by_the_queue(false)]
#[case::on_an_io_uring(true)]
fn flush_is_answered_once_it_has_been_waited_for(#[case] io_uring: bool) {
    let disk = Disk::new(io_uring);
    let guest = disk.daemon.guest();
    let bytes = fill(&guest);
    let flushed = guest.command(UNIT, &SYNCHRONIZE_CACHE_10, &[], 0);
    assert_eq!((flushed.response, flushed.status, flushed.residual), (0, 0, 0));
    assert_eq!(disk.waits(), u64::from(io_uring));
    assert!(std::fs::read(&disk.path).expect("the medium") == bytes);
    let page = disk.daemon.client().journal(LunAddress { target: 0, lun: 0 }).expect("the unit");
    assert_eq!(page.entries.last().expect("the flush").command, "SYNCHRONIZE CACHE(10)");
}

/// Medium error, unrecovered read error (SBC-3, 4.18.1), INFORMATION the first block that is not there.
#[rstest]
#[case::by_the_queue(false)]
#[case::on_an_io_uring(true)]
fn file_that_was_cut_is_a_medium_error_with_its_block(#[case] io_uring: bool) {
    let disk = Disk::new(io_uring);
    let guest = disk.daemon.guest();
    let bytes = fill(&guest);
    let can_wait = disk.evict() && io_uring;
    let file = File::options().write(true).open(&disk.path).expect("the medium");
    file.set_len(20 * 512).expect("cut");
    let read = guest.command(UNIT, &read_10(16, 8), &[], 4096);
    assert_eq!((read.response, read.status, read.residual), (0, 2, 2048));
    assert!(read.data_in[..2048] == bytes[16 * 512..20 * 512]);
    assert_eq!((read.sense[0], read.sense[2], read.sense[12], read.sense[13]), (0xf0, 3, 0x11, 0));
    assert_eq!(read.sense[3..7], [0, 0, 0, 20]);
    assert_eq!(disk.waits() > 0, can_wait);
}

/// ORDERED (1) comes after everything before it (SAM, Task attributes), whoever waits.
#[test]
fn ordered_command_comes_after_what_waits_for_storage() {
    let disk = Disk::new(true);
    let guest = disk.daemon.guest();
    fill(&guest);
    let can_wait = disk.evict();
    let send = |tag, attribute, cdb: &[u8], room| {
        let mut bytes = request(UNIT, tag, cdb);
        bytes[16] = attribute;
        let mut chain = vec![guest.out(&bytes), guest.room(108)];
        chain.extend((room > 0).then(|| guest.room(room)));
        let head = guest.place(REQUEST_QUEUE, &[guest.indirect(&chain)]);
        guest.make_available(REQUEST_QUEUE, head);
        head
    };
    let before: Vec<_> = (0..32).map(|at| send(at.into(), 0, &read_10(at * 64, 8), 4096)).collect();
    let ordered = send(100, 1, &TEST_UNIT_READY, 0);
    let behind: Vec<_> =
        (0..8).map(|at| send(200 + u64::from(at), 0, &read_10(at * 64 + 8, 8), 4096)).collect();
    guest.kick(REQUEST_QUEUE);
    let heads: Vec<_> = (0..41).map(|_| guest.used(REQUEST_QUEUE).head).collect();
    assert_eq!(heads[32], ordered);
    assert!(before.iter().all(|head| heads[..32].contains(head)));
    assert!(behind.iter().all(|head| heads[33..].contains(head)));
    assert_eq!(disk.waits() > 0, can_wait);
}

/// A ring is given back when everything popped from it has come back, and nothing comes later.
#[test]
fn stopped_ring_hears_nothing_of_what_waited() {
    let disk = Disk::new(true);
    let guest = disk.daemon.guest();
    fill(&guest);
    let mut can_wait = false;
    for _ in 0..20 {
        can_wait = disk.evict();
        let mut guest = disk.daemon.other_guest();
        let submitted = read_all(&guest);
        for queue in (0..4).map(|queue| REQUEST_QUEUE + queue) {
            let base = guest.stop_ring(queue);
            let of_queue = submitted.iter().filter(|(of, ..)| *of == queue).count();
            assert!(usize::from(base) <= of_queue);
            assert_eq!(guest.used_index(queue), base, "popped and not given back");
            guest.start_ring(queue, base);
        }
    }
    assert_eq!(disk.waits() > 0, can_wait);
    let after = guest.command(UNIT, &read_10(0, 1), &[], 512);
    assert_eq!((after.response, after.status), (0, 0));
}
