//! Zoned devices (UBLK_F_ZONED): the report of zones a start asks for, and operations on zones.

use std::{
    borrow::Cow,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{BlockDevice, Feature, Needs, UblkDevice, ZoneCommand, declare};
use rstest::rstest;
use ublk::{DataMode, Errno, Features, RawCommand, RawQueue, uapi::IoDesc};

use super::{
    protocol::{COMMIT, DEADLINE, FETCH},
    recorder::unscanned,
};

/// Four zones.
const ZONE_SECTORS: u64 = 16;
const SECTORS: u64 = 64;

/// UBLK_IO_OP_* of zones.
const OPEN: u32 = 10;
const CLOSE: u32 = 11;
const FINISH: u32 = 12;
const RESET_ALL: u32 = 14;
const RESET: u32 = 15;
const REPORT: u32 = 18;

const ZONES: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 0),
        Feature::Config(Cow::Borrowed("CONFIG_BLK_DEV_ZONED")),
    ]),
    ..Needs::DEFAULT
};

/// `struct blk_zone` (include/uapi/linux/blkzoned.h): an empty zone that is written in sequence.
fn zone(start: u64) -> [u8; 64] {
    let mut zone = [0; 64];
    zone[0..8].copy_from_slice(&start.to_le_bytes());
    zone[8..16].copy_from_slice(&ZONE_SECTORS.to_le_bytes());
    zone[16..24].copy_from_slice(&start.to_le_bytes());
    // BLK_ZONE_TYPE_SEQWRITE_REQ, BLK_ZONE_COND_EMPTY.
    (zone[24], zone[25]) = (2, 1);
    zone[32..40].copy_from_slice(&ZONE_SECTORS.to_le_bytes());
    zone
}

/// A request: operation, first sector, sectors or zones.
type Seen = (u32, u64, u32);

/// Answers every request until its device is stopped; reports fail if `broken`.
fn serve(queue: &mut RawQueue, broken: &AtomicBool, seen: impl Fn(Seen)) {
    const DATA: u64 = 0x8000_0000;
    let mut token = queue.begin(RawCommand::new(FETCH, 0, 0)).expect("submitted");
    loop {
        let Some(reply) = queue.finish(token, Instant::now() + DEADLINE).expect("no error") else {
            continue;
        };
        if reply.res != 0 {
            return;
        }
        let IoDesc { op_flags, nr_sectors, start_sector, .. } =
            queue.descriptor(0, 1, 0).expect("mapped");
        let op = op_flags & 0xff;
        seen((op, start_sector, nr_sectors));
        let result = match op {
            REPORT if broken.load(Ordering::Relaxed) => -5,
            REPORT => {
                let zones =
                    (0..u64::from(nr_sectors)).map(|at| zone(start_sector + at * ZONE_SECTORS));
                let report = zones.collect::<Vec<_>>().concat();
                let len = queue.device().write_at(&report, DATA).expect("the report");
                i32::try_from(len).expect("short")
            }
            0 | 1 => i32::try_from(nr_sectors * 512).expect("short"),
            _ => 0,
        };
        let commit = RawCommand { result, ..RawCommand::new(COMMIT, 0, 0) };
        token = queue.begin(commit).expect("submitted");
    }
}

struct Zoned {
    device: UblkDevice,
    seen: Receiver<Seen>,
    broken: Arc<AtomicBool>,
}

impl Zoned {
    /// A device that is served, and not started.
    fn new() -> Self {
        Zoned::of(SECTORS, 1024)
    }

    /// The same, with so many sectors, in requests of no more than so many.
    fn of(sectors: u64, max_sectors: u32) -> Self {
        let mut config =
            unscanned(sectors).mode(DataMode::UserCopy).with(Features::ZONED).queues(1, 1);
        // Basic and zoned.
        config.params.types = 0x9;
        config.params.basic.chunk_sectors = u32::try_from(ZONE_SECTORS).expect("small");
        config.params.basic.max_sectors = max_sectors;
        config.params.zoned.max_zone_append_sectors = 8;
        (config.params.zoned.max_open_zones, config.params.zoned.max_active_zones) = (2, 3);
        let mut device = UblkDevice::add(&config.info);
        let id = device.id();
        device.control().set_params(id, &config.params).expect("SET_PARAMS");
        let (send, seen) = channel();
        let broken = Arc::<AtomicBool>::default();
        let state = broken.clone();
        thread::spawn(move || {
            let mut queue = RawQueue::open(id).expect("opened");
            // Nobody may be interested any more.
            serve(&mut queue, &state, |request| {
                let _over = send.send(request);
            });
        });
        Zoned { device, seen, broken }
    }

    fn start(&mut self) -> Result<(), ublk::Error> {
        let id = self.device.id();
        self.device.control().start(id)
    }

    /// The requests since the last look.
    fn seen(&self) -> Vec<Seen> {
        let first = self.seen.recv_timeout(Duration::from_secs(5)).ok();
        first.into_iter().chain(self.seen.try_iter()).collect()
    }
}

/// Documentation/block/ublk.rst, UBLK_F_ZONED: START_DEV asks for a report of all zones, and the disk is host-managed, with
/// so many zones. Each operation on a zone is one request.
#[rstest]
fn operations_on_zones_come_as_they_are() {
    declare!(Contract, ZONES);
    let mut zoned = Zoned::new();
    zoned.start().expect("START_DEV");
    let reported: u32 =
        zoned.seen().iter().map(|(op, _, zones)| if *op == REPORT { *zones } else { 0 }).sum();
    assert!(reported >= 4, "{reported} zones");
    let disk = BlockDevice::open(&zoned.device.block_path(), Access::ReadWrite);
    assert_eq!(disk.attribute("queue/zoned"), "host-managed");
    assert_eq!(disk.attribute("queue/nr_zones"), "4");
    assert_eq!(disk.attribute("queue/chunk_sectors"), "16");
    assert_eq!(disk.attribute("queue/max_open_zones"), "2");
    assert_eq!(disk.attribute("queue/max_active_zones"), "3");
    assert_eq!(disk.attribute("queue/zone_append_max_bytes"), "4096");
    while zoned.seen.try_recv().is_ok() {}
    for (command, op) in [
        (ZoneCommand::Open, OPEN),
        (ZoneCommand::Close, CLOSE),
        (ZoneCommand::Finish, FINISH),
        (ZoneCommand::Reset, RESET),
    ] {
        disk.zones(command, 16, 16).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let seen: Vec<_> = zoned.seen().iter().map(|(op, first, _)| (*op, *first)).collect();
        assert_eq!(seen, [(op, 16)], "{command:?}");
    }
    disk.zones(ZoneCommand::Reset, 0, SECTORS).expect("reset");
    let ops: Vec<u32> = zoned.seen().iter().map(|seen| seen.0).collect();
    assert!(ops == [RESET_ALL] || ops == [RESET; 4], "{ops:?}");
    disk.write(16 * 512, &[1; 4096]).expect("written at the write pointer");
    assert_eq!(zoned.seen(), [(1, 16, 8)]);
    assert!(disk.write(20 * 512, &[1; 512]).is_err(), "behind the write pointer");
    drop(disk);
    let id = zoned.device.id();
    zoned.device.control().stop(id).expect("STOP_DEV");
}

/// A report that fails is the failure of START_DEV, without a disk; the next attempt may succeed.
#[rstest]
fn start_fails_with_its_report_of_zones() {
    declare!(Contract, ZONES);
    let mut zoned = Zoned::new();
    zoned.broken.store(true, Ordering::Relaxed);
    let refused = zoned.start().expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::IO));
    assert!(!zoned.device.block_path().exists());
    assert_eq!(zoned.device.state(), 0);
    zoned.broken.store(false, Ordering::Relaxed);
    zoned.start().expect("START_DEV");
    assert_eq!(zoned.device.state(), 1);
    let id = zoned.device.id();
    zoned.device.control().stop(id).expect("STOP_DEV");
}

/// include/uapi/linux/ublk_cmd.h, UBLK_IO_OP_REPORT_ZONES: each request asks for no more zones than its buffer has room
/// for, 64 in a page, and the next one for those that follow; an application is told of those there are.
#[rstest]
fn long_report_comes_in_parts() {
    declare!(Contract, ZONES);
    let mut zoned = Zoned::of(100 * ZONE_SECTORS, 8);
    zoned.start().expect("START_DEV");
    let seen = zoned.seen();
    assert_eq!(seen[..2], [(REPORT, 0, 64), (REPORT, 64 * ZONE_SECTORS, 36)], "{seen:?}");
    let disk = BlockDevice::open(&zoned.device.block_path(), Access::ReadOnly);
    assert_eq!(disk.attribute("queue/nr_zones"), "100");
    while zoned.seen.try_recv().is_ok() {}
    let report = disk.report(98 * ZONE_SECTORS).expect("reported");
    assert_eq!(zoned.seen(), [(REPORT, 98 * ZONE_SECTORS, 2)]);
    let starts: Vec<u64> = report.iter().map(|zone| zone.start).collect();
    assert_eq!(starts, [98 * ZONE_SECTORS, 99 * ZONE_SECTORS]);
    drop(disk);
    let id = zoned.device.id();
    zoned.device.control().stop(id).expect("STOP_DEV");
}
