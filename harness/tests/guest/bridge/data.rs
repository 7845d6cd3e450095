//! Each kind of request, from one end to the other.

use std::{
    fs::OpenOptions,
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use bsg::Buffer;
use control::{LunSpec, Medium};
use harness::{Lun, declare};
use rstest::rstest;
use rustix::fs::OFlags;
use ublk::DataMode;

use super::{BRIDGE, Bridged, asked, thin};
use crate::bsg::{
    block,
    block_path::ForgottenDisk,
    cdb::{self, Size},
    ways::Way,
};

/// CDBs of what the unit was asked, in hex.
fn cdbs(entries: &[control::JournalEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.cdb.as_str()).collect()
}

/// Every block says where it belongs: what an application writes is where it belongs on the unit, and what the unit has
/// comes back, in requests from a block to more than a command can carry. A request is a command.
#[rstest]
fn blocks_arrive_and_come_back(
    #[values(
        DataMode::Copy,
        DataMode::GetData,
        DataMode::UserCopy,
        DataMode::ZeroCopy,
        DataMode::AutoBuf
    )]
    mode: DataMode,
) {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), mode);
    let disk = bridged.open();
    let mut behind = Way::SgIoV4.open(lun.device());
    for (mark, (lba, blocks)) in (1..).zip([(0, 1), (7, 9), (4096, 250), (32_767, 1)]) {
        let data = cdb::pattern(lba, blocks, mark);
        let at = u64::from(lba) * 512;
        let (written, entries) = asked(&lun, || disk.write(at, &data));
        written.expect("written");
        let [write] = &entries[..] else { panic!("{entries:?}") };
        // SBC-3, WRITE(10) and READ(10): LOGICAL BLOCK ADDRESS from byte 2, TRANSFER LENGTH from byte 7.
        assert_eq!(write.cdb, format!("2a00{lba:08x}00{blocks:04x}00"));
        assert_eq!(block::read(&mut *behind, Size::Ten, lba, blocks), data, "on the unit");
        let (read, entries) = asked(&lun, || disk.read(at, data.len()));
        assert!(read.expect("read") == data, "{blocks} blocks at {lba}");
        assert_eq!(cdbs(&entries), [format!("2800{lba:08x}00{blocks:04x}00")]);
    }
    // Longer than a request: in several, each whole.
    let whole: Vec<u8> = (0..9).flat_map(|part| cdb::pattern(8192 + part * 250, 250, 9)).collect();
    disk.write(8192 * 512, &whole).expect("written");
    assert!(disk.read(8192 * 512, whole.len()).expect("read") == whole, "{} bytes", whole.len());
    drop(disk);
    bridged.delete();
}

/// include/uapi/linux/ublk_cmd.h, UBLK_IO_OP_DISCARD and WRITE_ZEROES; SBC-3, UNMAP: descriptor from byte 8 of the list;
/// WRITE SAME(16): UNMAP in bit 3 of byte 1, LOGICAL BLOCK ADDRESS from byte 2, NUMBER OF LOGICAL BLOCKS from byte 10.
#[rstest]
fn discards_and_zeroes_are_unmap_and_write_same(
    #[values(DataMode::Copy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), mode);
    let disk = bridged.open();
    disk.write(0, &[7; 32_768]).expect("written");
    let (discarded, entries) = asked(&lun, || disk.discard(4096, 8192));
    discarded.expect("discarded");
    assert_eq!(cdbs(&entries), ["42000000000000001800"]);
    let (punched, entries) = asked(&lun, || disk.punch_hole(16_384, 4096));
    punched.expect("punched");
    assert_eq!(cdbs(&entries), ["93080000000000000020000000080000"]);
    let (zeroed, entries) = asked(&lun, || disk.zero_out(24_576, 512));
    zeroed.expect("zeroed");
    assert_eq!(cdbs(&entries), ["93000000000000000030000000010000"]);
    let seven = |len| vec![7; len];
    let expected = [
        seven(4096),
        vec![0; 8192],
        seven(4096),
        vec![0; 4096],
        seven(4096),
        vec![0; 512],
        seven(7680),
    ];
    assert!(disk.read(0, 32_768).expect("read") == expected.concat(), "what is left");
    drop(disk);
    bridged.delete();
}

/// SBC-3, SYNCHRONIZE CACHE(10) and FUA (bit 3 of byte 1 of WRITE(10)), of a unit with a volatile cache: a flush is one,
/// and a write that has to be durable has the other (block/fops.c:dio_bio_write_op), before the flush that
/// fs/read_write.c:generic_write_sync has for it all the same.
#[test]
fn flush_and_fua_reach_the_unit() {
    declare!(Contract, BRIDGE);
    let medium = Medium::File { path: "bridge-flush".into() };
    let lun = ForgottenDisk(Lun::with(LunSpec { medium, ..thin() }));
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let disk = bridged.open();
    assert_eq!(disk.attribute("queue/write_cache"), "write back");
    let (flushed, entries) = asked(&lun, || {
        disk.write(0, &[1; 512])?;
        disk.flush()
    });
    flushed.expect("flushed");
    assert_eq!(cdbs(&entries), ["2a000000000000000100", "35000000000000000000"]);
    let mut options = OpenOptions::new();
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    options.write(true).custom_flags(flags.bits().cast_signed());
    let durable = options.open(bridged.server.block_path()).expect("opened");
    let data = Buffer::copy_of(&[2; 512]).expect("memory");
    let (written, entries) = asked(&lun, || durable.write_all_at(&data, 512));
    written.expect("written");
    assert_eq!(cdbs(&entries), ["2a080000000100000100", "35000000000000000000"]);
    drop((disk, durable));
    bridged.delete();
}

/// LBAs count blocks, sectors 512 bytes.
#[test]
fn blocks_of_4096_bytes_are_addressed_as_such() {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(LunSpec { block_len: 4096, blocks: 4096, ..thin() });
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let disk = bridged.open();
    assert_eq!(disk.attribute("queue/logical_block_size"), "4096");
    let data = cdb::pattern_of(4096, 4094, 2, 1);
    let (written, entries) = asked(&lun, || disk.write(4094 * 4096, &data));
    written.expect("written");
    assert_eq!(cdbs(&entries), ["2a0000000ffe00000200"]);
    let mut behind = Way::SgIoV4.open(lun.device());
    assert_eq!(block::read_of(4096, &mut *behind, Size::Ten, 4094, 2), data);
    let (punched, entries) = asked(&lun, || disk.punch_hole(4095 * 4096, 4096));
    punched.expect("punched");
    assert_eq!(cdbs(&entries), ["93080000000000000fff000000010000"]);
    assert_eq!(disk.read(4095 * 4096, 4096).expect("read"), [0; 4096]);
    drop(disk);
    bridged.delete();
}
