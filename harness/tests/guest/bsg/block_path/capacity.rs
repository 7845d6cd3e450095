//! Disks that shrink, are write protected, or go offline under their users.

use std::{borrow::Cow, fs, fs::OpenOptions};

use bsg::Errno;
use control::{Command, DeviceType, LunSpec};
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, bench, declare};

use super::{asked, disk, errno};

const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// drivers/scsi/scsi_lib.c:scsi_io_completion_action tries again after CAPACITY DATA HAS CHANGED (6/2A/09), and the
/// unit answers LOGICAL BLOCK ADDRESS OUT OF RANGE (5/21/00). The kernel keeps the size it knows.
#[test]
fn blocks_that_are_gone_are_eremoteio() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    bench::control(Command::Resize { address: lun.address(), blocks: 1024, silent: true });
    let (result, entries) = asked(&lun, || disk.read(1020 * 512, 4096));
    assert_eq!(errno(result), Some(Errno::REMOTEIO));
    // Fixed format sense data: key in byte 2, codes in bytes 12 and 13.
    let codes: Vec<_> = entries.iter().map(|e| (&e.sense[4..6], &e.sense[24..28])).collect();
    assert_eq!(codes, [("06", "2a09"), ("05", "2100")]);
    assert_eq!(disk.sectors(), 32_768);
    assert_eq!(disk.read(1016 * 512, 4096).expect("read"), [0; 4096]);
}

/// drivers/scsi/sd.c:sd_open: a write protected disk cannot be opened for writing.
#[test]
fn write_protected_disk_is_opened_for_reading_alone() {
    declare!(Contract);
    let spec = LunSpec { device_type: DeviceType::Disk, write_protect: true, ..LunSpec::default() };
    let lun = Lun::with(spec);
    let node = lun.device().disk();
    let opened = OpenOptions::new().read(true).write(true).open(&node);
    assert_eq!(errno(opened), Some(Errno::ROFS));
    assert_eq!(errno(OpenOptions::new().read(true).open(&node)), None);
}

/// drivers/scsi/scsi_lib.c:scsi_device_state_check: nothing reaches a unit that is offline, until it is running
/// again; drivers/scsi/sd.c:sd_open: nor is its disk opened.
#[test]
fn disk_that_is_offline_is_eio() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let state = lun.device().dir().join("state");
    // drivers/scsi/scsi_sysfs.c:store_state_field knows a state by its newline.
    fs::write(&state, "offline\n").expect("written");
    let (result, entries) = asked(&lun, || disk.read(0, 4096));
    assert_eq!((errno(result), entries), (Some(Errno::IO), vec![]));
    let opened = OpenOptions::new().read(true).open(sysfs_node(&lun));
    assert_eq!(errno(opened), Some(Errno::NXIO));
    fs::write(&state, "running\n").expect("written");
    assert_eq!(disk.read(0, 4096).expect("read"), [0; 4096]);
}

/// The disk's node, which cannot be opened now.
fn sysfs_node(lun: &Lun) -> std::path::PathBuf {
    let name = harness::sysfs::entry_with_prefix(&lun.device().dir().join("block"), "sd");
    harness::sysfs::node(&name)
}
