//! Media beyond 2 TiB, space that is given back, and units that change their size.

use std::{fs, os::unix::fs::MetadataExt};

use device_server::{
    ConfigError, Device, DeviceConfig, LuConfig, LunAddress, MediumConfig, PhysicalBlocks,
    Provisioning,
};
use rstest::rstest;
use scsi::Status;

use crate::fixture::{Bench, UNIT, disk, invalid_byte, pattern, sense};

/// 3 TiB in blocks of 512 bytes.
const BLOCKS: u64 = 3 << 31;

fn thin(medium: MediumConfig) -> LuConfig {
    LuConfig { provisioning: Provisioning::Thin, medium, blocks: BLOCKS, ..disk() }
}

fn cdb_16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    [&[opcode, flags], &lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0, 0]].concat()
}

/// GET LBA STATUS: first block and PROVISIONING STATUS of each descriptor.
fn status(bench: &Bench, lba: u64) -> Vec<(u64, u8)> {
    let data = bench.receive(&cdb_16(0x9e, 0x12, lba, 4096));
    let descriptor =
        |bytes: &[u8]| (u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")), bytes[12]);
    data[8..].chunks(16).map(descriptor).collect()
}

#[rstest]
fn three_tebibytes_cost_what_is_written(#[values(false, true)] in_a_file: bool) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let medium = match in_a_file {
        true => MediumConfig::File { path: folder.path().join("medium") },
        false => MediumConfig::Ram,
    };
    let bench = Bench::new(thin(medium));
    // READ CAPACITY(10) says that it is not enough.
    let capacity = bench.receive(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(capacity, [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
    let capacity = bench.receive(&cdb_16(0x9e, 0x10, 0, 32));
    assert_eq!(capacity[..8], (BLOCKS - 1).to_be_bytes());

    // The last granule of the unit, far beyond what 32 bits address.
    let last = BLOCKS - 8;
    let written = bench.transfer(&cdb_16(0x8a, 0, last, 8), &mut pattern(1, 8, 512), &mut []);
    assert_eq!(written.status, Status::Good);
    assert_eq!(bench.receive(&cdb_16(0x88, 0, last, 8)), pattern(1, 8, 512));
    assert_eq!(bench.refused(&cdb_16(0x88, 0, last, 9)), sense(5, 0x21, 0));
    // A NUMBER OF LOGICAL BLOCKS has 32 bits.
    let most = u64::from(u32::MAX);
    assert_eq!(status(&bench, 0), [(0, 1), (most, 1), (last, 0)]);
    // What is not mapped is not read: this would take hours otherwise.
    assert_eq!(bench.run(&cdb_16(0x8f, 0, 0, u32::MAX)).status, Status::Good);

    // One block for that many would be read: 65535 is the most.
    let same = |blocks| bench.transfer(&cdb_16(0x8f, 0x06, 0, blocks), &mut [0; 512], &mut []);
    assert_eq!(same(0xffff).status, Status::Good);
    assert_eq!(same(0x1_0000).sense.as_deref(), Some(&invalid_byte(10)[..]));

    let mut list = [0; 24];
    [list[1], list[3]] = [22, 16];
    list[8..16].copy_from_slice(&(BLOCKS - u64::from(u32::MAX)).to_be_bytes());
    list[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    let outcome = bench.transfer(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &mut list, &mut []);
    assert_eq!(outcome.status, Status::Good);
    assert_eq!(bench.receive(&cdb_16(0x88, 0, last, 8)), vec![0; 4096]);
    assert_eq!(status(&bench, last), [(last, 1)]);
}

#[test]
fn unmap_gives_space_in_a_file_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("medium");
    let medium = MediumConfig::File { path: path.clone() };
    let bench = Bench::new(LuConfig { blocks: 64, ..thin(medium) });
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 64, 0];
    assert_eq!(bench.transfer(&write, &mut pattern(1, 64, 512), &mut []).status, Status::Good);
    let before = fs::metadata(&path).expect("there");
    let mut list = [0; 24];
    [list[1], list[3], list[19]] = [22, 16, 64];
    let outcome = bench.transfer(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &mut list, &mut []);
    assert_eq!(outcome.status, Status::Good);
    let after = fs::metadata(&path).expect("there");
    assert_eq!((before.len(), after.len()), (32_768, 32_768));
    assert!(before.blocks() >= 64 && after.blocks() < 64, "{} {}", before.blocks(), after.blocks());
}

/// A number of KiB in /proc/self/status. Other tests run in the same process: what is looked for is larger.
fn kib(name: &str) -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("own status");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line for it");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn unmap_gives_memory_back() {
    let bench = Bench::new(thin(MediumConfig::Ram));
    let before = kib("VmRSS:");
    let mut data = vec![1; 1 << 20];
    for lba in (0..64).map(|index| index * 2048) {
        let outcome = bench.transfer(&cdb_16(0x8a, 0, lba, 2048), &mut data, &mut []);
        assert_eq!(outcome.status, Status::Good);
    }
    let written = kib("VmRSS:");
    assert!(written - before > 48 << 10, "{before} and {written} KiB");
    for lba in (0..4).map(|index| index * 32_768) {
        // WRITE SAME(16) with UNMAP and NDOB.
        assert_eq!(bench.run(&cdb_16(0x93, 0x09, lba, 32_768)).status, Status::Good);
    }
    let unmapped = kib("VmRSS:");
    assert!(written - unmapped > 48 << 10, "{written} and {unmapped} KiB");
}

/// Each page that is touched would cost page tables of 4 KiB here.
#[test]
fn reading_what_is_not_mapped_costs_no_memory() {
    let bench = Bench::new(thin(MediumConfig::Ram));
    let before = kib("VmPTE:");
    for lba in (0..3000).map(|index| index << 20) {
        assert_eq!(bench.receive(&cdb_16(0x88, 0, lba, 1)), [0; 512]);
    }
    let after = kib("VmPTE:");
    assert!(after - before < 4 << 10, "{before} and {after} KiB");
}

#[test]
fn what_no_unit_can_be_is_refused() {
    let refused = |config| {
        let units = vec![(UNIT, config)];
        Device::new(DeviceConfig { units, ..DeviceConfig::default() }).expect_err("refused")
    };
    for (exponent, lowest_aligned) in [(16, 0), (3, 8), (0, 1)] {
        let physical_blocks = PhysicalBlocks { exponent, lowest_aligned };
        let error = refused(LuConfig { physical_blocks, ..disk() });
        assert!(matches!(error, ConfigError::PhysicalBlocks(_)), "{error}");
    }
    let error = refused(LuConfig { blocks: (16 << 31) + 1, ..thin(MediumConfig::Ram) });
    assert!(matches!(error, ConfigError::RamTooLarge { .. }), "{error}");
}

#[test]
fn the_first_physical_block_may_begin_later() {
    let physical_blocks = PhysicalBlocks { exponent: 3, lowest_aligned: 7 };
    let bench = Bench::new(LuConfig { physical_blocks, ..disk() });
    assert_eq!(bench.receive(&cdb_16(0x9e, 0x10, 0, 32))[12..16], [0, 0x03, 0, 7]);
}

/// SBC: CAPACITY DATA HAS CHANGED for those who knew it, and then the new capacity.
#[rstest]
fn a_unit_grows_and_shrinks_and_says_so(#[values(false, true)] in_a_file: bool) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let medium = match in_a_file {
        true => MediumConfig::File { path: folder.path().join("medium") },
        false => MediumConfig::Ram,
    };
    let bench = Bench::new(LuConfig { medium, ..disk() });
    let last = |lba: u64| cdb_16(0x88, 0, lba, 1);
    assert_eq!(
        bench.transfer(&cdb_16(0x8a, 0, 63, 1), &mut [7; 512], &mut []).status,
        Status::Good
    );
    assert_eq!(bench.refused(&last(64)), sense(5, 0x21, 0));

    bench.device.resize_lu(UNIT, 4096).expect("room");
    assert_eq!(bench.refused(&last(64)), sense(6, 0x2a, 9));
    assert_eq!(
        (bench.receive(&last(63)), bench.receive(&last(4095))),
        (vec![7; 512], vec![0; 512])
    );
    assert_eq!(bench.receive(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [0, 0, 0x0f, 0xff, 0, 0, 2, 0]);
    assert_eq!(bench.device.addresses()[0].1.blocks, 4096);

    bench.device.resize_lu(UNIT, 32).expect("less");
    assert_eq!(bench.run(&[0; 6]).sense.as_deref(), Some(&sense(6, 0x2a, 9)[..]));
    assert_eq!(bench.refused(&last(63)), sense(5, 0x21, 0));
    assert_eq!(bench.refused(&cdb_16(0x93, 1, 31, 2)), sense(5, 0x21, 0));
    // The same size is no change.
    bench.device.resize_lu(UNIT, 32).expect("the same");
    assert_eq!(bench.run(&[0; 6]).status, Status::Good);
}

#[test]
fn a_size_that_cannot_be_changes_nothing() {
    let bench = Bench::new(disk());
    let refused = |blocks| bench.device.resize_lu(UNIT, blocks).expect_err("refused");
    assert!(matches!(refused(0), ConfigError::Blocks { .. }));
    assert!(matches!(refused(u64::MAX), ConfigError::Blocks { .. }));
    // Memory has room for 64 MiB, or for as much again.
    bench.device.resize_lu(UNIT, (64 << 20) / 512).expect("room");
    let error = refused((64 << 20) / 512 + 1);
    assert!(matches!(error, ConfigError::NoRoom { .. }), "{error}");
    assert_eq!(bench.device.addresses()[0].1.blocks, (64 << 20) / 512);
    let elsewhere = LunAddress { lun: 9, ..UNIT };
    let error = bench.device.resize_lu(elsewhere, 1).expect_err("refused");
    assert!(matches!(error, ConfigError::NoSuchUnit(_)), "{error}");
}
