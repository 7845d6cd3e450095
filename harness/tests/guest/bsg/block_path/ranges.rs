//! Ranges without data: discard and write zeroes, their limits and their failures.

use std::fs;

use bsg::Errno;
use control::{DeviceType, LunSpec, Provisioning};
use harness::{BlockDevice, Lun, declare};
use scsi_fault::{Effect, Sense};

use super::{ForgottenDisk, always, asked, disk, errno, names};

#[track_caller]
fn thin() -> ForgottenDisk {
    ForgottenDisk(Lun::with(LunSpec {
        device_type: DeviceType::Disk,
        blocks: 4096,
        provisioning: Provisioning::Thin,
        ..LunSpec::default()
    }))
}

fn limit(disk: &BlockDevice, name: &str) -> u64 {
    disk.attribute(name).parse().expect("a number")
}

/// drivers/scsi/sd.c:sd_config_discard: MAXIMUM UNMAP LBA COUNT of FFFFFFFFh, no limit, is cut to 7FFFFFh blocks
/// (SD_MAX_WS16_BLOCKS). block/blk-lib.c:bio_discard_limit splits at what `discard_max_bytes` is set to.
#[test]
fn discard_is_split_at_its_limit() {
    declare!(Contract);
    let lun = thin();
    let disk = disk(&lun);
    assert_eq!(limit(&disk, "queue/discard_max_hw_bytes"), 0x7f_ffff * 512);
    let node = lun.device().disk();
    let name = node.file_name().expect("a name").to_string_lossy();
    let path = format!("/sys/block/{name}/queue/discard_max_bytes");
    fs::write(&path, "65536").unwrap_or_else(|error| panic!("{path}: {error}"));
    disk.write(0, &[7; 512 << 10]).expect("written");
    let (result, entries) = asked(&lun, || disk.discard(4096, 200 << 10));
    assert_eq!((errno(result), names(&entries)), (None, vec!["UNMAP"; 4]));
    let expected = [vec![7; 4096], vec![0; 200 << 10], vec![7; 4096]].concat();
    assert_eq!(disk.read(0, expected.len()).expect("read"), expected);
}

/// drivers/scsi/sd.c:sd_done: a failed discard has discarded nothing as far as anybody knows, and its errno is that
/// of any command.
#[test]
fn failed_discard_has_the_errno_of_its_sense_data() {
    declare!(Contract);
    let lun = thin();
    let disk = disk(&lun);
    for (sense, expected, attempts) in [
        // INVALID FIELD IN PARAMETER LIST, WRITE PROTECTED, WRITE ERROR.
        (Sense::codes(5, 0x26, 0), Errno::REMOTEIO, 1),
        (Sense::codes(7, 0x27, 0), Errno::REMOTEIO, 1),
        (Sense::codes(3, 0x0c, 0), Errno::IO, 6),
    ] {
        let what = format!("{sense:?}");
        always(&lun, "UNMAP", Effect::sense(sense));
        let (result, entries) = asked(&lun, || disk.discard(0, 4096));
        assert_eq!((errno(result), entries.len()), (Some(expected), attempts), "{what}");
        assert_ne!(limit(&disk, "queue/discard_max_hw_bytes"), 0);
    }
}

/// drivers/scsi/sd.c:sd_done, sd_disable_discard: a unit that does not know UNMAP after all is not asked again.
#[test]
fn unknown_unmap_is_eremoteio_and_then_eopnotsupp() {
    declare!(Quirk);
    let lun = thin();
    let disk = disk(&lun);
    always(&lun, "UNMAP", Effect::sense(Sense::codes(5, 0x20, 0)));
    let (result, entries) = asked(&lun, || disk.discard(0, 4096));
    assert_eq!((errno(result), names(&entries)), (Some(Errno::REMOTEIO), vec!["UNMAP"]));
    let (result, entries) = asked(&lun, || disk.discard(0, 4096));
    assert_eq!((errno(result), names(&entries)), (Some(Errno::OPNOTSUPP), vec![]));
}

/// SBC-3, WRITE SAME(16): LOGICAL BLOCK ADDRESS from byte 2, NUMBER OF LOGICAL BLOCKS from byte 10; UNMAP is bit 3 of
/// byte 1. drivers/scsi/sd.c:sd_setup_write_zeroes_cmnd; MAXIMUM WRITE SAME LENGTH is FFFFh.
#[test]
fn zeroes_are_written_by_write_same_in_pieces() {
    declare!(Contract);
    let spec = LunSpec { device_type: DeviceType::Disk, blocks: 0x2_0000, ..LunSpec::default() };
    let lun = Lun::with(spec);
    let disk = disk(&lun);
    assert_eq!(limit(&disk, "queue/write_zeroes_max_bytes"), 0xffff * 512);
    disk.write(0x1_0000 * 512, &[7; 4096]).expect("written");
    let (result, entries) = asked(&lun, || disk.zero_out(0, 0x2_0000 * 512));
    assert_eq!(errno(result), None);
    let cdbs: Vec<&str> = entries.iter().map(|entry| &entry.cdb[..28]).collect();
    let expected = [
        "93000000000000000000 0000ffff",
        "9300000000000000ffff 0000ffff",
        "9300000000000001fffe 00000002",
    ]
    .map(|cdb| cdb.replace(' ', ""));
    assert_eq!(cdbs, expected);
    assert_eq!(disk.read(0x1_0000 * 512, 4096).expect("read"), [0; 4096]);
}

/// drivers/scsi/sd.c:sd_disable_write_same, block/blk-lib.c:blkdev_issue_zeroout: a unit that does not know WRITE SAME
/// after all is sent zeroes, and not asked again; who wants no zeroes sent gets EOPNOTSUPP.
#[test]
fn unknown_write_same_becomes_write() {
    declare!(Contract);
    let lun = ForgottenDisk(Lun::disk_unit());
    let disk = disk(&lun);
    disk.write(0, &[7; 8192]).expect("written");
    let (_, entries) = asked(&lun, || disk.zero_out(0, 512).expect("zeroed"));
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    always(&lun, &entry.command, Effect::sense(Sense::codes(5, 0x20, 0)));
    let (result, entries) = asked(&lun, || disk.zero_out(0, 4096));
    assert_eq!((errno(result), names(&entries)), (None, vec![&*entry.command, "WRITE(10)"]));
    let (result, entries) = asked(&lun, || disk.zero_out(0, 4096));
    assert_eq!((errno(result), names(&entries)), (None, vec!["WRITE(10)"]));
    assert_eq!(disk.read(0, 8192).expect("read"), [vec![0; 4096], vec![7; 4096]].concat());
    assert_eq!(errno(disk.punch_hole(0, 4096)), Some(Errno::OPNOTSUPP));
}

/// block/blk-lib.c:blkdev_issue_write_zeroes: any other failure is the caller's, and nothing is sent in its place.
#[test]
fn failed_write_same_has_the_errno_of_its_sense_data() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let (_, entries) = asked(&lun, || disk.zero_out(0, 512).expect("zeroed"));
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    for (sense, expected, attempts) in [
        (Sense::codes(7, 0x27, 7), Errno::NOSPC, 1),
        (Sense::codes(3, 0x0c, 0), Errno::IO, 6),
        (Sense::codes(5, 0x21, 0), Errno::REMOTEIO, 1),
    ] {
        let what = format!("{sense:?}");
        always(&lun, &entry.command, Effect::sense(sense));
        let (result, entries) = asked(&lun, || disk.zero_out(0, 4096));
        assert_eq!((errno(result), entries.len()), (Some(expected), attempts), "{what}");
    }
}
