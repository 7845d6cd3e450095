//! Commands that fail: errno and number of attempts.

use std::borrow::Cow;

use bsg::{Buffer, Errno, Request};
use fault::Times;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare};
use scsi_fault::{Effect, Sense};

use super::{ForgottenDisk, always, asked, disk, errno, first, names, statuses};
use crate::bsg::{
    cdb,
    ways::{Way, execute},
};

const LEN: usize = 8 * 512;

/// drivers/scsi/sd.h: SD_MAX_RETRIES is 5, on top of the first attempt.
const ALL: usize = 6;

fn sense(key: u8, asc: u8, ascq: u8) -> Effect {
    Effect::sense(Sense::codes(key, asc, ascq))
}

/// drivers/scsi/scsi_error.c:scsi_check_sense, scsi_decide_disposition: what may pass is tried again until the
/// budget is spent, what may not is told at once. drivers/scsi/scsi_lib.c:scsi_io_completion_action: ILLEGAL
/// REQUEST 20h and 24h, and guard errors.
#[test]
fn failed_read_has_the_errno_of_its_sense_data() {
    declare!(Contract);
    let rows = [
        // UNRECOVERED READ ERROR, AMNF, RECORDED ENTITY NOT FOUND; another medium error.
        (sense(3, 0x11, 0x00), Errno::NODATA, 1),
        (sense(3, 0x13, 0x00), Errno::NODATA, 1),
        (sense(3, 0x14, 0x00), Errno::NODATA, 1),
        (sense(3, 0x31, 0x00), Errno::IO, ALL),
        (sense(4, 0x44, 0x00), Errno::REMOTEIO, 1),
        // INVALID FIELD IN CDB, LBA OUT OF RANGE, LOGICAL UNIT NOT SUPPORTED.
        (sense(5, 0x24, 0x00), Errno::REMOTEIO, 1),
        (sense(5, 0x21, 0x00), Errno::REMOTEIO, 1),
        (sense(5, 0x25, 0x00), Errno::IO, 1),
        (sense(7, 0x20, 0x02), Errno::REMOTEIO, 1),
        (sense(0x0b, 0x08, 0x00), Errno::IO, ALL),
        // LOGICAL BLOCK GUARD CHECK FAILED, as the device and the host see it.
        (sense(0x0b, 0x10, 0x01), Errno::ILSEQ, 1),
        (sense(5, 0x10, 0x01), Errno::ILSEQ, 1),
        (sense(0x0e, 0x1d, 0x00), Errno::REMOTEIO, 1),
        // NOT READY, MEDIUM NOT PRESENT and INITIALIZING COMMAND REQUIRED.
        (sense(2, 0x3a, 0x00), Errno::IO, 1),
        (sense(2, 0x04, 0x03), Errno::IO, 1),
    ];
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    for (effect, expected, attempts) in rows {
        let what = format!("{:?}", effect.sense);
        always(&lun, "READ(10)", effect);
        let (result, entries) = asked(&lun, || disk.read(0, LEN));
        assert_eq!((errno(result), entries.len()), (Some(expected), attempts), "{what}");
    }
}

/// As above. SPACE ALLOCATION FAILED WRITE PROTECT (7/27/07) is ENOSPC, WRITE PROTECTED (7/27/00) no EROFS.
#[test]
fn failed_write_has_the_errno_of_its_sense_data() {
    declare!(Contract);
    let rows = [
        (sense(7, 0x27, 0x07), Errno::NOSPC, 1),
        (sense(7, 0x27, 0x00), Errno::REMOTEIO, 1),
        (sense(3, 0x0c, 0x00), Errno::IO, ALL),
        (sense(3, 0x0c, 0x02), Errno::IO, ALL),
        (sense(4, 0x03, 0x00), Errno::REMOTEIO, 1),
    ];
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    for (effect, expected, attempts) in rows {
        let what = format!("{:?}", effect.sense);
        always(&lun, "WRITE(10)", effect);
        let (result, entries) = asked(&lun, || disk.write(0, &[1; LEN]));
        assert_eq!((errno(result), entries.len()), (Some(expected), attempts), "{what}");
        assert_eq!(disk.read(0, LEN).expect("read"), [0; LEN], "{what}");
    }
}

/// drivers/scsi/scsi_error.c:scsi_decide_disposition, by status and by host status; the latter for responses of
/// virtio 1.2, 5.6.6.1 (drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd).
#[test]
fn failed_read_has_the_errno_of_its_status_or_response() {
    declare!(Contract);
    let rows = [
        (Effect::status("RESERVATION CONFLICT"), Errno::BADE, 1),
        (Effect::status("TASK ABORTED"), Errno::IO, ALL),
        (Effect::status("ACA ACTIVE"), Errno::IO, 1),
        (Effect::response("OVERRUN"), Errno::IO, ALL),
        (Effect::response("ABORTED"), Errno::IO, 1),
        (Effect::response("BAD TARGET"), Errno::IO, 1),
        (Effect::response("BUSY"), Errno::IO, ALL),
        (Effect::response("TRANSPORT FAILURE"), Errno::IO, ALL),
        (Effect::response("TARGET FAILURE"), Errno::IO, 1),
        (Effect::response("NEXUS FAILURE"), Errno::BADE, 1),
        (Effect::response("FAILURE"), Errno::IO, ALL),
    ];
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    for (effect, expected, attempts) in rows {
        let what = format!("{:?} {:?}", effect.status, effect.response);
        always(&lun, "READ(10)", effect);
        let (result, entries) = asked(&lun, || disk.read(0, LEN));
        assert_eq!((errno(result), entries.len()), (Some(expected), attempts), "{what}");
    }
}

/// What passes is never told: BUSY and TASK SET FULL (scsi_error.c:scsi_decide_disposition), a reset and a
/// unit attention condition (scsi_lib.c:scsi_io_completion_action), each as often as it comes.
#[test]
fn what_passes_is_tried_again_and_not_told() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let data = cdb::pattern(0, 8, 4);
    disk.write(0, &data).expect("written");
    for (effect, times) in [
        (Effect::status("BUSY"), 8),
        (Effect::status("TASK SET FULL"), 8),
        (Effect::response("RESET"), 8),
        (sense(6, 0x29, 0x00), 8),
        (sense(0x0b, 0x08, 0x00), 5),
        (Effect::response("TRANSPORT FAILURE"), 5),
    ] {
        let what = format!("{effect:?}");
        first(&lun, "READ(10)", effect, Times::First(times));
        let (result, entries) = asked(&lun, || disk.read(0, LEN));
        assert_eq!(result.expect("read"), data, "{what}");
        assert_eq!(entries.len(), usize::try_from(times).expect("few") + 1, "{what}");
        assert_eq!(lun.fired("fault"), times, "{what}");
    }
}

/// drivers/scsi/sd.c:max_retries_store: the budget is an attribute of the disk.
#[test]
fn retries_are_as_many_as_max_retries_says() {
    declare!(Contract);
    let lun = ForgottenDisk(Lun::disk_unit());
    let disk = disk(&lun);
    let path = format!("/sys/class/scsi_disk/{}/max_retries", lun.device().hctl);
    always(&lun, "READ(10)", sense(0x0b, 0x08, 0x00));
    for (retries, attempts) in [("0", 1), ("2", 3)] {
        std::fs::write(&path, retries).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (result, entries) = asked(&lun, || disk.read(0, LEN));
        assert_eq!((errno(result), entries.len()), (Some(Errno::IO), attempts));
    }
}

/// drivers/scsi/scsi_lib.c:scsi_io_completion_action takes INVALID COMMAND OPERATION CODE to READ(10) for a unit
/// that knows READ(6) alone, and asks in six bytes from then on.
#[test]
fn read_10_that_is_unknown_becomes_read_6() {
    declare!(Quirk);
    let lun = ForgottenDisk(Lun::disk_unit());
    let disk = disk(&lun);
    first(&lun, "READ(10)", sense(5, 0x20, 0x00), Times::Once);
    let (result, entries) = asked(&lun, || (disk.read(0, LEN), disk.read(LEN as u64, LEN)));
    assert_eq!((errno(result.0), errno(result.1)), (None, None));
    assert_eq!(names(&entries), ["READ(10)", "READ(6)", "READ(6)"]);
}

/// SPC-4, RECOVERED ERROR: the command has completed. drivers/scsi/sd.c:sd_done: all of it is good.
#[test]
fn recovered_error_is_success() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let data = cdb::pattern(0, 8, 5);
    disk.write(0, &data).expect("written");
    always(&lun, "READ(10)", sense(1, 0x17, 0x01).executed());
    let (result, entries) = asked(&lun, || disk.read(0, LEN));
    assert_eq!((result.expect("read"), statuses(&entries)), (data, vec![0x02]));
}

/// drivers/scsi/sd.c:sd_done: CHECK CONDITION with NO SENSE is no failure, but nobody knows what has moved: all of
/// it is asked for again.
#[test]
fn check_condition_without_a_reason_is_asked_again() {
    declare!(Quirk);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    first(&lun, "READ(10)", sense(0, 0x00, 0x00), Times::First(7));
    let (result, entries) = asked(&lun, || disk.read(0, LEN));
    assert_eq!((errno(result), entries.len()), (None, 8));
}

/// SPC-4, VALID and INFORMATION: the block in error. drivers/scsi/sd.c:sd_completed_bytes: what lies before it has
/// arrived, if the device has sent it. The caller is told of the failure alone.
#[test]
fn blocks_before_the_bad_one_have_arrived() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let data = cdb::pattern(96, 8, 6);
    disk.write(96 * 512, &data).expect("written");
    let bad = |lba| Sense::codes(3, 0x11, 0).information(lba);
    // Of a read that is answered by nothing nothing arrives, wherever the block is.
    for (effect, arrived) in [
        (
            Effect {
                data_in: Some(scsi_fault::DataIn::Limit(3 * 512)),
                ..Effect::sense(bad(99)).executed()
            },
            3,
        ),
        (Effect::sense(bad(99)), 0),
    ] {
        always(&lun, "READ(10)", effect);
        let mut buffer = Buffer::zeroed(LEN).expect("memory");
        let (result, entries) = asked(&lun, || disk.read_into(96 * 512, &mut buffer));
        assert_eq!((errno(result), entries.len()), (Some(Errno::NODATA), 1));
        assert_eq!(buffer[..arrived * 512], data[..arrived * 512]);
        assert_eq!(buffer[arrived * 512..], vec![0; LEN - arrived * 512]);
    }
}

/// SPC-4, PERSISTENT RESERVE OUT: REGISTER (0) of a key and RESERVE (1) with WRITE EXCLUSIVE (1h) by one nexus.
/// The disk of the other writes no more, and reads.
#[test]
fn reservation_of_another_nexus_is_ebade() {
    const TWO: Needs = Needs {
        host: ScsiHost::Own(HostShape { nexuses: Some(2), ..HostShape::DEFAULT }),
        features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
        ..Needs::DEFAULT
    };
    declare!(Contract, TWO);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let mut other = Way::UringCmd.open(&lun.devices()[1]);
    let (mut register, mut reserve) = ([0; 24], [0; 24]);
    register[8..16].copy_from_slice(b"a key 01");
    reserve[..8].copy_from_slice(b"a key 01");
    for (cdb, list) in [
        ([0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], register),
        ([0x5f, 1, 1, 0, 0, 0, 0, 0, 24, 0], reserve),
    ] {
        assert_good(&execute(&mut *other, Request::new(&cdb).data_out(&list)));
    }
    let (result, entries) = asked(&lun, || disk.write(0, &[1; LEN]));
    assert_eq!((errno(result), statuses(&entries)), (Some(Errno::BADE), vec![0x18]));
    assert_eq!(disk.read(0, LEN).expect("read"), [0; LEN]);
}
