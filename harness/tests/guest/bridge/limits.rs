//! The device is what its disk is.

use std::{borrow::Cow, fs};

use bridge::Disk;
use bsg::Access;
use control::{LunSpec, Medium, PhysicalBlocks, Provisioning};
use harness::{BlockDevice, Feature, HostShape, Lun, Needs, ScsiHost, declare};
use rstest::rstest;
use ublk::DataMode;

use super::{BRIDGE, Bridged, asked, errno, thin};
use crate::bsg::block_path::ForgottenDisk;

/// Attributes of a disk (Documentation/ABI/stable/sysfs-block) that the bridge has to have as `sd` has them.
const SAME: [&str; 15] = [
    "size",
    "ro",
    "queue/logical_block_size",
    "queue/physical_block_size",
    "queue/minimum_io_size",
    "queue/max_segments",
    "queue/max_segment_size",
    "queue/virt_boundary_mask",
    "queue/dma_alignment",
    "queue/discard_granularity",
    "queue/discard_max_hw_bytes",
    "queue/write_zeroes_max_bytes",
    "queue/write_cache",
    "queue/fua",
    "queue/rotational",
];

/// A bridge and its disk, if it is as the kernel's.
#[track_caller]
fn assert_same(lun: &Lun) -> (Bridged, BlockDevice) {
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let ours = BlockDevice::open(&bridged.server.block_path(), Access::ReadOnly);
    let theirs = BlockDevice::open(&lun.device().disk(), Access::ReadOnly);
    let differ = |name: &&str| ours.attribute(name) != theirs.attribute(name);
    let told = |name| format!("{name}: {}, of sd {}", ours.attribute(name), theirs.attribute(name));
    let different: Vec<String> = SAME.into_iter().filter(|name| differ(name)).map(told).collect();
    assert_eq!(different, [""; 0]);
    let max = |disk: &BlockDevice| -> u32 {
        disk.attribute("queue/max_hw_sectors_kb").parse().expect("a number")
    };
    assert!(max(&ours) <= max(&theirs), "{} KiB, of sd {}", max(&ours), max(&theirs));
    (bridged, ours)
}

/// drivers/scsi/sd.c reads the same pages of the same unit.
#[rstest]
#[case::thin(thin())]
#[case::full(LunSpec { provisioning: Provisioning::Full, ..thin() })]
#[case::large_blocks(LunSpec { block_len: 4096, blocks: 4096, ..thin() })]
#[case::write_protected(LunSpec { write_protect: true, ..thin() })]
#[case::physical_blocks(LunSpec {
    physical_blocks: PhysicalBlocks { exponent: 5, lowest_aligned: 0 },
    ..thin()
})]
#[case::cache(LunSpec { medium: Medium::File { path: "bridge-limits".into() }, ..thin() })]
fn device_has_the_limits_the_kernel_finds(#[case] spec: LunSpec) {
    declare!(Contract, BRIDGE);
    let lun = ForgottenDisk(Lun::with(spec));
    // sd may know the unit from a test before, when it had another medium (scsi_scan.c:scsi_rescan_device).
    fs::write(lun.device().dir().join("rescan"), "1").expect("sd looks again");
    let (bridged, disk) = assert_same(&lun);
    drop(disk);
    bridged.delete();
}

/// The way has limits too: of the host, whatever the disk says.
#[test]
fn device_keeps_to_a_host_with_short_transfers_and_few_commands() {
    const SMALL: Needs = Needs {
        host: ScsiHost::Own(HostShape {
            max_sectors: Some(256),
            cmd_per_lun: Some(4),
            ..HostShape::DEFAULT
        }),
        features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
        ..Needs::DEFAULT
    };
    declare!(Contract, SMALL);
    let lun = Lun::with(thin());
    let (bridged, disk) = assert_same(&lun);
    assert_eq!(disk.attribute("queue/max_hw_sectors_kb"), "128");
    let (_, config) = super::config(lun.device(), DataMode::AutoBuf);
    assert_eq!(config.info.queue_depth, 4, "as many tags as the unit takes commands");
    drop(disk);
    bridged.delete();
}

/// A write-protected disk is a read-only device: EPERM, without a command (block/fops.c:blkdev_write_iter).
#[test]
fn write_to_a_write_protected_disk_is_eperm() {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(LunSpec { write_protect: true, ..thin() });
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let (result, entries) = asked(&lun, || {
        let disk = fs::File::options().write(true).open(bridged.server.block_path())?;
        std::os::unix::fs::FileExt::write_all_at(&disk, &[1; 512], 0)
    });
    let errno = errno(result).expect("refused");
    assert!([bsg::Errno::PERM, bsg::Errno::ACCESS].contains(&errno), "{errno}");
    assert!(entries.iter().all(|entry| entry.command != "WRITE(10)"), "{entries:?}");
    bridged.delete();
}

/// What is no disk, or is not ready, is told before there is a device.
#[test]
fn unit_that_does_not_answer_is_told() {
    declare!(Contract, BRIDGE);
    use scsi_fault::{Effect, Rule, Sense, When};
    let lun = Lun::fresh();
    let failing = Rule::new("silent", Effect::sense(Sense::codes(2, 0x3a, 0)));
    lun.faults([failing.when(When::command("READ CAPACITY(16)"))]);
    let error = Disk::ask(&lun.device().bsg()).expect_err("no medium");
    assert_eq!(error.to_string(), "READ CAPACITY(16) failed: 2/3A/00 MEDIUM NOT PRESENT");
    let error = Disk::ask("/dev/null".as_ref()).expect_err("no bsg node");
    assert_eq!(error.to_string(), "/dev/null is not a bsg node");
}
