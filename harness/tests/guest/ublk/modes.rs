//! Every way in which data moves between a request and its server gives the application the same.

use std::{borrow::Cow, fs::File, os::unix::fs::FileExt, sync::Arc, thread};

use bsg::Access;
use harness::{BlockDevice, Feature, Needs, declare};
use rstest::rstest;
use rustix::fs::{MemfdFlags, memfd_create};
use ublk::{Config, DataMode, Fallback, Features, FileTarget, NullTarget, Op, Server};

use super::recorder::{Recorder, pattern, unscanned};

pub(crate) const SECTORS: u64 = 2048;

/// Automatic registration is the youngest of them; 7.0 lets us turn off the search for partitions.
pub(crate) const SINCE_7_0: Needs =
    Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 0)]), ..Needs::DEFAULT };

const SINCE_7_3: Needs =
    Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 3)]), ..Needs::DEFAULT };

pub(super) fn recording(config: &Config) -> (Server, Arc<Recorder>, BlockDevice) {
    let target = Arc::new(Recorder::new(SECTORS));
    let server = Server::start(config, target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    (server, target, disk)
}

/// Writes and reads ranges of several lengths, and looks at the medium behind the driver's back.
pub(super) fn check_ranges(disk: &BlockDevice, target: &Recorder) {
    for (mark, (sector, sectors)) in (1..).zip([(0, 1), (7, 9), (SECTORS - 1, 1), (64, 1024)]) {
        let data = pattern(sector, sectors, mark);
        disk.write(sector * 512, &data).expect("written");
        let at = usize::try_from(sector * 512).expect("short");
        assert!(target.bytes()[at..at + data.len()] == data[..], "{sectors} on the medium");
        let neighbour = target.bytes().get(at + data.len()).copied().unwrap_or(0);
        assert_eq!(neighbour, 0, "a byte behind {sectors} sectors at {sector}");
        assert!(disk.read(sector * 512, data.len()).expect("read") == data, "{sectors} read");
    }
}

/// Documentation/block/ublk.rst and include/uapi/linux/ublk_cmd.h, the flags NEED_GET_DATA, USER_COPY,
/// SUPPORT_ZERO_COPY and AUTO_BUF_REG: data arrives whole at its place and comes back whole, in requests from a sector
/// to the longest. Operations without data do as well.
#[rstest]
fn data_arrives_and_comes_back(
    #[values(
        DataMode::Copy,
        DataMode::GetData,
        DataMode::UserCopy,
        DataMode::ZeroCopy,
        DataMode::AutoBuf
    )]
    mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let (server, target, disk) = recording(&unscanned(SECTORS).mode(mode));
    assert_eq!(server.info().flags & mode.features().bits(), mode.features().bits());
    check_ranges(&disk, &target);
    target.take();
    disk.flush().expect("flushed");
    disk.discard(64 * 512, 8 * 512).expect("discarded");
    let seen: Vec<_> = target.take().iter().map(|seen| (seen.0, seen.3)).collect();
    assert_eq!(seen, [(Op::Flush, 0), (Op::Discard, 8)]);
    assert_eq!(disk.read(64 * 512, 8 * 512).expect("read"), [0; 8 * 512]);
    drop(disk);
    server.delete().expect("deleted");
}

/// The same from and to a file, whose data the ring of the queue moves: with registered data it never passes through
/// the server.
#[rstest]
fn data_of_a_file_arrives_and_comes_back(
    #[values(DataMode::Copy, DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    check_file(&unscanned(SECTORS).mode(mode));
}

/// A device of a file: what is written to it is in the file, and what is in the file is read from it.
pub(super) fn check_file(config: &Config) {
    let medium = File::from(memfd_create("medium", MemfdFlags::CLOEXEC).expect("a file"));
    medium.set_len(SECTORS * 512).expect("it has a length");
    let target = FileTarget::new(medium.try_clone().expect("a descriptor"));
    let server = Server::start(config, Arc::new(target)).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    let data = pattern(24, 520, 5);
    disk.write(24 * 512, &data).expect("written");
    let mut stored = vec![0; data.len()];
    medium.read_exact_at(&mut stored, 24 * 512).expect("the file is read");
    assert!(stored == data, "the file differs from what was written");
    let changed = pattern(100, 3, 6);
    medium.write_all_at(&changed, 100 * 512).expect("the file is written");
    assert_eq!(disk.read(100 * 512, changed.len()).expect("read"), changed);
    disk.punch_hole(100 * 512, 512).expect("punched");
    assert_eq!(
        disk.read(100 * 512, 1024).expect("read"),
        [&[0; 512], &changed[512..1024]].concat()
    );
    drop(disk);
    server.delete().expect("deleted");
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_PER_IO_DAEMON: tags of one queue may be with different tasks; each request is
/// answered by the one that fetched its tag.
#[rstest]
fn tasks_share_the_tags_of_a_queue(
    #[values(DataMode::Copy, DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let config = Config { threads: 3, ..unscanned(SECTORS).mode(mode).queues(1, 4) };
    let (server, _, disk) = recording(&config);
    check_clients(&disk);
    drop(disk);
    server.delete().expect("deleted");
}

/// Four clients at once, each of whom finds what it has written.
pub(crate) fn check_clients(disk: &BlockDevice) {
    thread::scope(|scope| {
        for client in 0..4_u8 {
            scope.spawn(move || {
                let first = u64::from(client) * 256;
                for round in 0..8_u64 {
                    let data = pattern(first + round * 16, 16, client + 1);
                    disk.write((first + round * 16) * 512, &data).expect("written");
                    let back = disk.read((first + round * 16) * 512, data.len()).expect("read");
                    assert!(back == data, "client {client}, round {round}");
                }
            });
        }
    });
}

/// include/uapi/linux/ublk_cmd.h, UBLK_AUTO_BUF_REG_FALLBACK: a request whose data could not be registered, here for
/// want of a slot in the table, is delivered with UBLK_IO_F_NEED_REG_BUF, 1 << 17, and the server registers it.
#[rstest]
fn automatic_registration_falls_back_on_the_server() {
    declare!(Contract, SINCE_7_0);
    let config =
        Config { fallback: Fallback::Provoked, ..unscanned(SECTORS).mode(DataMode::AutoBuf) };
    let (server, target, disk) = recording(&config);
    check_ranges(&disk, &target);
    let seen = target.take();
    assert!(seen.iter().all(|seen| seen.1 & 1 << 17 != 0), "{seen:?}");
    drop(disk);
    server.delete().expect("deleted");
}

/// The same flag with registration that works: it is never set.
#[rstest]
fn automatic_registration_that_works_needs_no_server() {
    declare!(Contract, SINCE_7_0);
    let config =
        Config { fallback: Fallback::Register, ..unscanned(SECTORS).mode(DataMode::AutoBuf) };
    let (server, target, disk) = recording(&config);
    check_ranges(&disk, &target);
    let seen = target.take();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.1 & 1 << 17 == 0), "{seen:?}");
    drop(disk);
    server.delete().expect("deleted");
}

/// ublk_drv.c:ublk_ctrl_add_dev and ublk_ch_mmap of 7.3, UBLK_F_IO_DESC_SIZE (1 << 20): descriptors lie as far apart as
/// the server asks, the first 24 bytes of each are what they always were.
#[rstest]
fn descriptors_of_another_size_hold_the_same(#[values(32, 256)] size: u16) {
    declare!(Contract, SINCE_7_3);
    let mut config = unscanned(SECTORS).with(Features::IO_DESC_SIZE).queues(1, 32);
    config.info.io_desc_size = size;
    let (server, target, disk) = recording(&config);
    assert_eq!(server.info().io_desc_size, size);
    check_ranges(&disk, &target);
    drop(disk);
    server.delete().expect("deleted");
}

/// A target that looks at no data answers in each mode; what is read is then not of its making, and not looked at here.
#[rstest]
fn target_without_data_answers(#[values(DataMode::Copy, DataMode::ZeroCopy)] mode: DataMode) {
    declare!(Accident, SINCE_7_0);
    let server =
        Server::start(&unscanned(SECTORS).mode(mode), Arc::new(NullTarget)).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    disk.write(0, &[1; 8192]).expect("written");
    assert_eq!(disk.read(0, 8192).expect("read").len(), 8192);
    drop(disk);
    server.delete().expect("deleted");
}
