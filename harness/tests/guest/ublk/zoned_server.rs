//! A server of zones (UBLK_F_ZONED): what is written to a zone and what is reported of it, and appends, whose sector the
//! server chooses (Documentation/block/ublk.rst; drivers/block/ublk_drv.c:ublk_report_zones, ublk_setup_iod_zoned).

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bsg::Access;
use harness::{
    BlockDevice, Feature, Needs, ZoneCommand, declare,
    nvme::{Answer, NvmeLoop},
};
use rstest::rstest;
use ublk::{Config, DataMode, Errno, Features, Op, Request, Server, Target, ZonedTarget};

use super::recorder::pattern;

const ZONES: u64 = 4;
const ZONE_SECTORS: u32 = 64;

pub(super) const ZONED: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 0),
        Feature::Config(Cow::Borrowed("CONFIG_BLK_DEV_ZONED")),
    ]),
    ..Needs::DEFAULT
};

const APPENDS: Needs = Needs {
    programs: Some(Cow::Borrowed("storage")),
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 0),
        Feature::Config(Cow::Borrowed("CONFIG_BLK_DEV_ZONED")),
        Feature::Config(Cow::Borrowed("CONFIG_NVME_TARGET_LOOP")),
    ]),
    ..Needs::DEFAULT
};

/// Zones, requests of which are remembered: operation, first sector, sectors or zones, and the sector the target left.
struct Remembering {
    zones: ZonedTarget,
    /// So many reports tell of nothing.
    silent: AtomicU32,
    seen: Mutex<Vec<(Op, u64, u32, u64)>>,
}

impl Remembering {
    fn new(zones: ZonedTarget) -> Arc<Self> {
        Arc::new(Remembering { zones, silent: AtomicU32::new(0), seen: Mutex::default() })
    }

    fn take(&self) -> Vec<(Op, u64, u32, u64)> {
        std::mem::take(&mut *self.seen.lock().expect("no thread panics with the list"))
    }

    /// First zone and number of zones of each report that was asked for.
    fn reports(&self) -> Vec<(u64, u32)> {
        let reports = self.take().into_iter().filter(|seen| seen.0 == Op::ReportZones);
        reports.map(|seen| (seen.1 / u64::from(ZONE_SECTORS), seen.2)).collect()
    }
}

impl Target for Remembering {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        let (op, first, count) = (request.op, request.start_sector, request.sectors);
        let silent = op == Op::ReportZones
            && self
                .silent
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok();
        let result = match silent {
            true => u32::try_from(request.data.len()).map_err(|_| Errno::IO),
            false => self.zones.handle(request),
        };
        let seen = (op, first, count, request.start_sector);
        self.seen.lock().expect("no thread panics with the list").push(seen);
        result
    }
}

fn config(mode: DataMode, features: Features) -> Config {
    let config = Config::zoned(ZONES, ZONE_SECTORS).mode(mode).with(features);
    config.with(Features::NO_AUTO_PART_SCAN)
}

fn sector(zone: u64) -> u64 {
    zone * u64::from(ZONE_SECTORS)
}

/// Data goes to the write pointer and nowhere else; what the disk reports of its zones is what became of them
/// (include/uapi/linux/blkzoned.h: conditions 1 empty, 2 implicitly open, 3 explicitly open, 4 closed, 14 full).
#[rstest]
#[case::user_copy(DataMode::UserCopy, Features::empty())]
#[case::zero_copy(DataMode::ZeroCopy, Features::empty())]
#[case::auto_buf(DataMode::AutoBuf, Features::empty())]
#[case::user_copy_in_batches(DataMode::UserCopy, Features::BATCH_IO)]
#[case::auto_buf_in_batches(DataMode::AutoBuf, Features::BATCH_IO)]
fn zones_hold_what_was_written_in_sequence(#[case] mode: DataMode, #[case] features: Features) {
    declare!(Contract, ZONED);
    let target = Remembering::new(ZonedTarget::new(ZONES, ZONE_SECTORS));
    let server = Server::start(&config(mode, features), target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    assert_eq!(disk.attribute("queue/nr_zones"), "4");
    assert_eq!(disk.attribute("queue/zone_append_max_bytes"), "32768");
    disk.write(sector(1) * 512, &pattern(sector(1), 8, 1)).expect("written");
    disk.write((sector(1) + 8) * 512, &pattern(sector(1) + 8, 8, 2)).expect("written");
    disk.write(sector(2) * 512, &pattern(sector(2), 64, 3)).expect("a whole zone");
    disk.write(sector(3) * 512, &pattern(sector(3), 1, 4)).expect("written");
    disk.zones(ZoneCommand::Close, sector(3), u64::from(ZONE_SECTORS)).expect("closed");
    disk.zones(ZoneCommand::Open, 0, u64::from(ZONE_SECTORS)).expect("opened");
    assert_eq!(target.zones.write_pointers(), [0, 80, 192, 193]);
    let both = disk.read(sector(1) * 512, 24 * 512).expect("read");
    let written = [pattern(sector(1), 8, 1), pattern(sector(1) + 8, 8, 2), vec![0; 8 * 512]];
    assert!(both == written.concat(), "what was read differs");
    let told: Vec<_> = disk.report(0).expect("BLKREPORTZONE");
    let told: Vec<_> = told.iter().map(|zone| (zone.start, zone.wp, zone.cond)).collect();
    assert_eq!(told, [(0, 0, 3), (64, 80, 2), (128, 192, 14), (192, 193, 4)]);
    disk.zones(ZoneCommand::Reset, sector(1), u64::from(ZONE_SECTORS)).expect("reset");
    assert_eq!(disk.read(sector(1) * 512, 4096).expect("read"), [0; 4096]);
    assert_eq!(target.zones.write_pointers(), [0, 64, 192, 193]);
    drop(disk);
    server.delete().expect("deleted");
}

/// ublk_drv.c:ublk_report_zones: an entry without a length ends a report. What is left is asked for, from the zone behind
/// the last one told of.
#[rstest]
#[case::one_zone_at_a_time(1, &[(0, 4), (1, 3), (2, 2), (3, 1)])]
#[case::three_and_one(3, &[(0, 4), (3, 1)])]
fn report_of_fewer_zones_is_gone_on_with(#[case] at_most: usize, #[case] asked: &[(u64, u32)]) {
    declare!(Contract, ZONED);
    let target = Remembering::new(ZonedTarget::new(ZONES, ZONE_SECTORS).reports_at_most(at_most));
    let server = Server::start(&config(DataMode::UserCopy, Features::empty()), target.clone());
    let server = server.expect("started");
    target.take();
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    let told = disk.report(0).expect("BLKREPORTZONE");
    assert_eq!(told.iter().map(|zone| zone.start).collect::<Vec<_>>(), [0, 64, 128, 192]);
    assert_eq!(target.reports(), asked);
    drop(disk);
    server.delete().expect("deleted");
}

/// The same for a disk with more zones than one request has room for, here 64 in 4 KiB.
#[rstest]
fn report_longer_than_a_request_is_told_in_order() {
    declare!(Contract, ZONED);
    let target = Remembering::new(ZonedTarget::new(80, 8));
    let mut config = Config::zoned(80, 8).mode(DataMode::UserCopy);
    config = config.with(Features::NO_AUTO_PART_SCAN);
    config.info.max_io_buf_bytes = 4096;
    config.params.basic.max_sectors = 8;
    let server = Server::start(&config, target.clone()).expect("started");
    target.take();
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    let told: Vec<u64> = disk.report(0).expect("BLKREPORTZONE").iter().map(|z| z.start).collect();
    let asked: Vec<_> = target.take().iter().map(|seen| (seen.1 / 8, seen.2)).collect();
    assert_eq!(asked, [(0, 64), (64, 16)]);
    assert_eq!(told, (0..80).map(|zone| zone * 8).collect::<Vec<_>>());
    drop(disk);
    server.delete().expect("deleted");
}

/// The same: a report that tells of no zone is asked for again, as often as that happens; nobody gives up.
#[rstest]
fn report_of_no_zone_is_asked_for_again() {
    declare!(Accident, ZONED);
    let target = Remembering::new(ZonedTarget::new(ZONES, ZONE_SECTORS));
    let server = Server::start(&config(DataMode::UserCopy, Features::empty()), target.clone());
    let server = server.expect("started");
    target.take();
    target.silent.store(20, Ordering::Relaxed);
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    assert_eq!(disk.report(0).expect("BLKREPORTZONE").len(), 4);
    assert_eq!(target.reports(), [(0, 4); 21]);
    drop(disk);
    server.delete().expect("deleted");
}

/// include/uapi/linux/ublk_cmd.h, `zone_append_lba` of `struct ublksrv_io_cmd` and UBLK_BATCH_F_HAS_ZONE_LBA: whoever
/// appends is told the sector that the server says. An append is no system call's, but the NVMe target makes one of its
/// command.
#[rstest]
#[case::auto_buf(DataMode::AutoBuf, Features::empty())]
#[case::user_copy_in_batches(DataMode::UserCopy, Features::BATCH_IO)]
#[case::auto_buf_in_batches(DataMode::AutoBuf, Features::BATCH_IO)]
fn append_goes_where_the_server_says(#[case] mode: DataMode, #[case] features: Features) {
    declare!(Contract, APPENDS);
    let target = Remembering::new(ZonedTarget::new(ZONES, ZONE_SECTORS));
    let server = Server::start(&config(mode, features), target.clone()).expect("started");
    let nvme = NvmeLoop::over(&server.block_path());
    target.take();
    for (zone, sectors, landed) in [(2, 3, 128_u32), (2, 5, 131), (1, 1, 64), (2, 56, 136)] {
        let data = pattern(landed.into(), sectors, 9);
        let first = u32::try_from(sector(zone)).expect("small");
        assert_eq!(nvme.append(first, &data).expect("it is sent"), Answer::Done(landed));
        let count = u32::try_from(sectors).expect("small");
        // The host looks at its zones when it likes.
        let mut seen = target.take();
        seen.retain(|seen| seen.0 != Op::ReportZones);
        assert_eq!(seen, [(Op::ZoneAppend, sector(zone), count, u64::from(landed))]);
    }
    let full = nvme.append(128, &pattern(0, 1, 9)).expect("it is sent");
    assert!(matches!(full, Answer::Status(_)), "a full zone: {full:?}");
    assert_eq!(target.zones.write_pointers(), [0, 65, 192, 192]);
    drop(nvme);
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    let all = [(128, 3), (131, 5), (136, 56)].map(|(at, sectors)| pattern(at, sectors, 9)).concat();
    assert!(disk.read(128 * 512, 64 * 512).expect("read") == all, "the data differs");
    drop(disk);
    server.delete().expect("deleted");
}
