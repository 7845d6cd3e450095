//! What goes wrong with the disk, and what the application gets: what the kernel's own driver gives it for the same unit.

use std::time::Duration;

use bridge::{Patience, log::Seen, verdict::Verdict};
use bsg::{Access, Buffer, Errno};
use control::JournalEntry;
use fault::Times;
use harness::{BlockDevice, Lun, declare};
use rstest::rstest;
use scsi_fault::{DataIn, Effect, Rule, Sense, When};
use ublk::DataMode;

use super::{BLOCK, BRIDGE, Bridged, PATIENT, asked, config, errno, thin};
use crate::bsg::cdb;

const LEN: usize = 8 * BLOCK;

/// drivers/scsi/sd.h: SD_MAX_RETRIES is 5, on top of the first attempt.
const ALL: usize = 6;

fn sense(key: u8, asc: u8, ascq: u8) -> Effect {
    Effect::sense(Sense::codes(key, asc, ascq))
}

/// Befalls such commands from now on, so often.
#[track_caller]
fn befall(lun: &Lun, command: &str, effect: &Effect, times: Times) {
    let rule = Rule::new("fault", effect.clone());
    lun.faults([rule.when(When::command(command)).times(times)]);
}

/// A unit as two disks.
struct Both {
    ours: BlockDevice,
    theirs: BlockDevice,
    bridged: Bridged,
    lun: Lun,
}

impl Both {
    #[track_caller]
    fn new(mode: DataMode) -> Self {
        let lun = Lun::with(thin());
        let bridged = Bridged::to(lun.device(), mode);
        let ours = bridged.open();
        let theirs = BlockDevice::open(&lun.device().disk(), Access::ReadWrite);
        Both { ours, theirs, bridged, lun }
    }

    /// Does it to both while this befalls each, and asserts the errno and how often the unit was asked.
    #[track_caller]
    fn fail(
        &self,
        (command, effect): (&str, &Effect),
        what: impl Fn(&BlockDevice) -> std::io::Result<()>,
        expected: (Option<Errno>, usize),
        of_sd: (Option<Errno>, usize),
    ) {
        for (name, disk, expected) in
            [("sd", &self.theirs, of_sd), ("the bridge", &self.ours, expected)]
        {
            befall(&self.lun, command, effect, Times::Always);
            let (result, entries) = asked(&self.lun, || what(disk));
            assert_eq!((errno(result), entries.len()), expected, "{name}, {command}: {effect:?}");
        }
    }

    #[track_caller]
    fn delete(self) {
        drop((self.ours, self.theirs));
        self.bridged.delete();
    }
}

/// The rows of `bsg::block_path::errors`, of both drivers.
#[test]
fn failed_read_has_the_errno_sd_gives_it() {
    declare!(Contract, BRIDGE);
    let rows = [
        (sense(3, 0x11, 0x00), Errno::NODATA, 1),
        (sense(3, 0x14, 0x00), Errno::NODATA, 1),
        (sense(3, 0x31, 0x00), Errno::IO, ALL),
        (sense(4, 0x44, 0x00), Errno::REMOTEIO, 1),
        (sense(5, 0x24, 0x00), Errno::REMOTEIO, 1),
        (sense(5, 0x25, 0x00), Errno::IO, 1),
        (sense(7, 0x20, 0x02), Errno::REMOTEIO, 1),
        (sense(0x0b, 0x08, 0x00), Errno::IO, ALL),
        (sense(0x0b, 0x10, 0x01), Errno::ILSEQ, 1),
        (sense(0x0e, 0x1d, 0x00), Errno::REMOTEIO, 1),
        // MEDIUM NOT PRESENT, and MANUAL INTERVENTION REQUIRED.
        (sense(2, 0x3a, 0x00), Errno::IO, 1),
        (sense(2, 0x04, 0x03), Errno::IO, 1),
        (Effect::status("RESERVATION CONFLICT"), Errno::BADE, 1),
        (Effect::status("TASK ABORTED"), Errno::IO, ALL),
        (Effect::response("ABORTED"), Errno::IO, 1),
        (Effect::response("BUSY"), Errno::IO, ALL),
        (Effect::response("TRANSPORT FAILURE"), Errno::IO, ALL),
        (Effect::response("TARGET FAILURE"), Errno::IO, 1),
        (Effect::response("NEXUS FAILURE"), Errno::BADE, 1),
        (Effect::response("FAILURE"), Errno::IO, ALL),
    ];
    let both = Both::new(DataMode::AutoBuf);
    for (effect, errno, attempts) in rows {
        let same = (Some(errno), attempts);
        both.fail(("READ(10)", &effect), |disk| disk.read(0, LEN).map(drop), same, same);
    }
    both.delete();
}

/// As above: writes, and what moves no data of the application's.
#[test]
fn failed_write_discard_and_zeroing_have_the_errno_sd_gives_them() {
    declare!(Contract, BRIDGE);
    let both = Both::new(DataMode::AutoBuf);
    let fail = |command: &str, what: &dyn Fn(&BlockDevice) -> std::io::Result<()>| {
        for (effect, errno, attempts) in [
            // SPACE ALLOCATION FAILED WRITE PROTECT, and WRITE PROTECTED.
            (sense(7, 0x27, 0x07), Errno::NOSPC, 1),
            (sense(7, 0x27, 0x00), Errno::REMOTEIO, 1),
            (sense(3, 0x0c, 0x02), Errno::IO, ALL),
            (Effect::status("RESERVATION CONFLICT"), Errno::BADE, 1),
        ] {
            let same = (Some(errno), attempts);
            both.fail((command, &effect), what, same, same);
        }
    };
    fail("WRITE(10)", &|disk| disk.write(0, &[1; LEN]));
    fail("UNMAP", &|disk| disk.discard(0, 4096));
    fail("WRITE SAME(16)", &|disk| disk.punch_hole(0, 4096));
    assert_eq!(both.ours.read(0, LEN).expect("read"), [0; LEN], "nothing was written");
    both.delete();
}

/// What passes is never told, each as often as it comes, or as often as there are attempts.
#[test]
fn what_passes_is_tried_again_and_not_told() {
    declare!(Contract, BRIDGE);
    let both = Both::new(DataMode::AutoBuf);
    let data = cdb::pattern(0, 8, 4);
    both.ours.write(0, &data).expect("written");
    for (effect, times) in [
        (Effect::status("BUSY"), 3),
        (Effect::status("TASK SET FULL"), 3),
        (Effect::response("RESET"), 7),
        (sense(6, 0x29, 0x00), 7),
        // LOGICAL UNIT IS IN PROCESS OF BECOMING READY.
        (sense(2, 0x04, 0x01), 3),
        (sense(0, 0x00, 0x00), 7),
        (sense(0x0b, 0x08, 0x00), 5),
        (Effect::response("TRANSPORT FAILURE"), 5),
    ] {
        for disk in [&both.theirs, &both.ours] {
            befall(&both.lun, "READ(10)", &effect, Times::First(times));
            let (result, entries) = asked(&both.lun, || disk.read(0, LEN));
            assert!(result.expect("read") == data, "{effect:?}");
            let expected = usize::try_from(times).expect("few") + 1;
            assert_eq!((entries.len(), both.lun.fired("fault")), (expected, times), "{effect:?}");
        }
    }
    both.delete();
}

/// What does not pass while there is time has failed. scsi_error.c: the kernel asks a unit that is BUSY again until the
/// command's time is over, so what the server sees is one answer of many.
#[test]
fn what_does_not_pass_in_time_is_eio() {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    let (disk, config) = config(lun.device(), DataMode::AutoBuf);
    let short = Duration::from_millis(150);
    let patience = Patience { command: short, request: short, ..PATIENT };
    let bridged = Bridged::with(lun.device(), disk, &config, patience);
    let disk = bridged.open();
    for effect in [Effect::status("BUSY"), sense(2, 0x04, 0x01), sense(6, 0x29, 0x00)] {
        befall(&lun, "READ(10)", &effect, Times::Always);
        let (result, entries) = asked(&lun, || disk.read(0, LEN));
        assert_eq!(errno(result), Some(Errno::IO), "{effect:?}");
        assert!(entries.len() > 2, "{} attempts: {effect:?}", entries.len());
        let told = bridged.log.take().into_iter().last().expect("something was seen").what;
        assert_eq!(told, Seen::Committed(Err(Errno::IO)), "{effect:?}");
    }
    drop(disk);
    bridged.delete();
}

/// LOGICAL BLOCK ADDRESS and TRANSFER LENGTH of READ(10) and WRITE(10) (SBC-3: bytes 2 to 5, 7 and 8).
fn ranges(entries: &[JournalEntry]) -> Vec<(u32, u16)> {
    let number = |hex: &str| u32::from_str_radix(hex, 16).expect("hex");
    let range =
        |cdb: &str| (number(&cdb[4..12]), u16::try_from(number(&cdb[14..18])).expect("16 bits"));
    entries.iter().map(|entry| range(&entry.cdb)).collect()
}

/// SPC-4, INFORMATION: the block in error. What lies before it has arrived, or is written; the application is told of the
/// failure alone, by either driver.
#[test]
fn blocks_before_the_bad_one_have_arrived() {
    declare!(Contract, BRIDGE);
    let both = Both::new(DataMode::AutoBuf);
    let data = cdb::pattern(96, 8, 6);
    both.ours.write(96 * 512, &data).expect("written");
    let bad = Sense::codes(3, 0x11, 0).information(99);
    let limit = DataIn::Limit(3 * 512);
    let effect = Effect { data_in: Some(limit), ..Effect::sense(bad).executed() };
    for disk in [&both.theirs, &both.ours] {
        befall(&both.lun, "READ(10)", &effect, Times::Always);
        let mut buffer = Buffer::zeroed(LEN).expect("memory");
        let (result, entries) = asked(&both.lun, || disk.read_into(96 * 512, &mut buffer));
        assert_eq!((errno(result), ranges(&entries)), (Some(Errno::NODATA), vec![(96, 8)]));
        assert_eq!(buffer[..3 * BLOCK], data[..3 * BLOCK], "before the bad block");
        assert_eq!(buffer[3 * BLOCK..], [0; 5 * BLOCK], "behind it");
    }
    both.delete();
}

/// A rest that fails: what was asked for first is good, and the application is told of the failure alone. In the modes
/// that copy as well, where it then has none of the data (ublk_drv.c:ublk_unmap_io is for what succeeded).
#[rstest]
fn failure_of_the_rest_is_that_of_the_whole(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf)]
    mode: DataMode,
) {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), mode);
    let disk = bridged.open();
    let data = cdb::pattern(16, 8, 1);
    disk.write(16 * 512, &data).expect("written");
    lun.faults([
        Rule::new("short", Effect::data_in(DataIn::Limit(1024))).when(When::command("READ(10)")),
        Rule::new("bad", sense(3, 0x11, 0)).when(When::command("READ(10)")).times(Times::Always),
    ]);
    let mut buffer = Buffer::zeroed(LEN).expect("memory");
    let (result, entries) = asked(&lun, || disk.read_into(16 * 512, &mut buffer));
    assert_eq!(errno(result), Some(Errno::NODATA));
    assert_eq!(ranges(&entries), [(16, 8), (18, 6)]);
    let arrived = match mode {
        DataMode::ZeroCopy | DataMode::AutoBuf => 2 * BLOCK,
        _ => 0,
    };
    assert_eq!(buffer[..arrived], data[..arrived], "before the failure");
    assert_eq!(buffer[arrived..], vec![0; LEN - arrived], "behind it");
    drop(disk);
    bridged.delete();
}

/// A transfer that is short under GOOD: the rest is asked for again, in whole blocks, as sd does
/// (`bsg::block_path::short`).
#[rstest]
fn rest_of_a_short_transfer_is_asked_for(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf)]
    mode: DataMode,
) {
    declare!(Contract, BRIDGE);
    let both = Both::new(mode);
    let data = cdb::pattern(16, 8, 1);
    both.ours.write(16 * 512, &data).expect("written");
    for (moved, good) in [(1024, 2), (700, 1), (0, 0)] {
        let seen = [(16, 8), (16 + u32::from(good), 8 - good)];
        for disk in [&both.theirs, &both.ours] {
            befall(&both.lun, "READ(10)", &Effect::data_in(DataIn::Limit(moved)), Times::Once);
            let (result, entries) = asked(&both.lun, || disk.read(16 * 512, LEN));
            assert!(result.expect("read") == data, "{moved} bytes");
            assert_eq!(ranges(&entries), seen, "{moved} bytes");
        }
        if moved % 512 != 0 {
            continue;
        }
        for (mark, disk) in [(2, &both.theirs), (3, &both.ours)] {
            let effect = Effect { data_out_limit: Some(moved), ..Effect::default() };
            befall(&both.lun, "WRITE(10)", &effect, Times::Once);
            let other = cdb::pattern(64, 8, mark);
            let (result, entries) = asked(&both.lun, || disk.write(64 * 512, &other));
            result.expect("written");
            let seen = [(64, 8), (64 + u32::from(good), 8 - good)];
            assert_eq!(ranges(&entries), seen, "{moved} bytes written");
            assert!(disk.read(64 * 512, LEN).expect("read") == other, "{moved} bytes written");
        }
    }
    both.delete();
}

/// RECOVERED ERROR is success, but a residual is none: scsi_lib.c tells the application of all bytes, the bridge of those
/// that moved, and the rest is asked for again.
#[test]
fn recovered_error_is_as_much_success_as_has_moved() {
    declare!(Contract, BRIDGE);
    let both = Both::new(DataMode::AutoBuf);
    let data = cdb::pattern(0, 8, 5);
    both.ours.write(0, &data).expect("written");
    let recovered = sense(1, 0x17, 0x01).executed();
    for disk in [&both.theirs, &both.ours] {
        befall(&both.lun, "READ(10)", &recovered, Times::Always);
        let (result, entries) = asked(&both.lun, || disk.read(0, LEN));
        assert!(result.expect("read") == data && entries.len() == 1, "{entries:?}");
    }
    let short = Effect { data_in: Some(DataIn::Limit(1024)), ..recovered };
    befall(&both.lun, "READ(10)", &short, Times::Once);
    let (result, entries) = asked(&both.lun, || both.ours.read(0, LEN));
    assert!(result.expect("read") == data, "what was read");
    assert_eq!(ranges(&entries), [(0, 8), (2, 6)]);
    both.delete();
}

/// What the server saw is what the target did: the sense data, the verdict, the commit.
#[test]
fn log_tells_what_the_server_saw() {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let disk = bridged.open();
    let bad = Sense::named("UNRECOVERED READ ERROR").information(3);
    befall(&lun, "READ(10)", &Effect::sense(bad).executed(), Times::Always);
    assert_eq!(errno(disk.read(0, LEN)), Some(Errno::NODATA));
    let events = bridged.log.take();
    assert!(events.is_sorted_by_key(|event| event.at), "{events:?}");
    let told: Vec<String> = events.iter().map(|event| event.what.to_string()).collect();
    assert_eq!(
        told,
        [
            "Read, 8 sectors at 0",
            "sends READ(10)",
            "CHECK CONDITION, 3/11/00 UNRECOVERED READ ERROR: fails with ENODATA behind 1536 good bytes",
            "commits ENODATA",
        ]
    );
    let failed = |seen: &Seen| matches!(seen, Seen::Answered { verdict: Verdict::Failed(_), .. });
    assert_eq!(events.iter().filter(|event| failed(&event.what)).count(), 1);
    drop(disk);
    bridged.delete();
}
