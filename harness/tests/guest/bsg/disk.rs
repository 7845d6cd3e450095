//! A unit as a disk: the block layer's view and passthrough's agree.

use bsg::Access;
use control::{DeviceType, LunSpec, Provisioning};
use harness::{BlockDevice, Lun, declare};
use rstest::rstest;

use super::{
    block,
    cdb::{self, Size},
    ways::Way,
};

/// drivers/scsi/sd.c: capacity, block length and write protection come from READ CAPACITY and MODE
/// SENSE; sysfs counts sectors of 512 bytes whatever the block length.
#[rstest]
#[case::sectors(512, 32_768, false, "32768")]
#[case::blocks_of_4096(4096, 4096, false, "32768")]
#[case::write_protected(512, 1024, true, "1024")]
fn disk_has_the_geometry_of_its_unit(
    #[case] block_len: u32,
    #[case] blocks: u64,
    #[case] write_protect: bool,
    #[case] size: &str,
) {
    declare!(Contract);
    let spec = LunSpec {
        device_type: DeviceType::Disk,
        block_len,
        blocks,
        write_protect,
        ..LunSpec::default()
    };
    let lun = Lun::with(spec);
    let disk = BlockDevice::open(&lun.device().disk(), Access::ReadOnly);
    assert_eq!(disk.attribute("size"), size);
    assert_eq!(disk.attribute("queue/logical_block_size"), block_len.to_string());
    assert_eq!(disk.attribute("ro"), u8::from(write_protect).to_string());
    // Block Device Characteristics VPD page: MEDIUM ROTATION RATE 0001h.
    assert_eq!(disk.attribute("queue/rotational"), "0");
    // Caching mode page: WCE is zero for a medium in RAM.
    assert_eq!(disk.attribute("queue/write_cache"), "write through");
}

/// drivers/scsi/sd.c:sd_read_block_limits, sd_setup_unmap_cmnd: a unit with LBPME and LBPU is discarded with
/// UNMAP, in granules of its OPTIMAL UNMAP GRANULARITY. SBC-3, LBPRZ: what is unmapped reads as zeros.
#[test]
fn thin_disk_is_discarded_with_unmap() {
    declare!(Contract);
    let lun = Lun::with(LunSpec {
        device_type: DeviceType::Disk,
        blocks: 1024,
        provisioning: Provisioning::Thin,
        ..LunSpec::default()
    });
    let disk = BlockDevice::open(&lun.device().disk(), Access::ReadWrite);
    assert_eq!(disk.attribute("queue/discard_granularity"), "4096");
    disk.write(0, &[7; 16_384]).expect("written");
    disk.discard(4096, 8192).expect("discarded");
    let expected = [vec![7; 4096], vec![0; 8192], vec![7; 4096]].concat();
    assert_eq!(disk.read(0, 16_384).expect("read"), expected);
    let page = lun.journal();
    assert!(page.entries.iter().any(|entry| entry.command == "UNMAP" && entry.status == 0));
}

/// The block layer and passthrough are two initiators of one medium: what either writes, the other
/// reads, at the same place.
#[rstest]
#[case::sectors(512)]
#[case::blocks_of_4096(4096)]
fn disk_and_passthrough_agree_on_every_block(#[case] block_len: u32) {
    declare!(Contract);
    let spec =
        LunSpec { device_type: DeviceType::Disk, block_len, blocks: 1024, ..LunSpec::default() };
    let lun = Lun::with(spec);
    let disk = BlockDevice::open(&lun.device().disk(), Access::ReadWrite);
    let mut way = Way::UringCmd.open(lun.device());
    let len = usize::try_from(block_len).expect("short");
    let offset = |lba: u64| lba * u64::from(block_len);

    let written = cdb::pattern_of(len, 10, 4, 1);
    block::write(&mut *way, Size::Ten, 10, 4, &written);
    assert_eq!(disk.read(offset(10), 4 * len).expect("read"), written);

    let overwritten = cdb::pattern_of(len, 11, 2, 2);
    disk.write(offset(11), &overwritten).expect("written");
    disk.flush().expect("flushed");
    let expected =
        [cdb::pattern_of(len, 10, 1, 1), overwritten, cdb::pattern_of(len, 13, 1, 1)].concat();
    assert_eq!(block::read_of(len, &mut *way, Size::Sixteen, 10, 4), expected);

    // The last block is one both can reach.
    block::write(&mut *way, Size::Ten, 1023, 1, &cdb::pattern_of(len, 1023, 1, 3));
    let last = disk.read(offset(1023), len).expect("read");
    assert_eq!(last, cdb::pattern_of(len, 1023, 1, 3));
    assert!(disk.read(offset(1024), len).expect("read at the end").is_empty(), "behind the end");
}
