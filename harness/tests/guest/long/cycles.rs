//! A device made and deleted again and again leaves nothing behind.

use std::{fs, sync::Arc};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare};
use rstest::rstest;
use ublk::{Config, DataMode, RamTarget, Server};

use crate::ublk::{modes::SINCE_7_0, recorder::unscanned};

/// The most that the kernel may have kept: a device of the greatest depth has 512 KiB of state for its tags alone
/// (drivers/block/ublk_drv.c:struct ublk_io, 128 bytes each).
const NOISE_KIB: u64 = 8 << 10;

/// Memory the kernel has no use for, in KiB (Documentation/filesystems/proc.rst, meminfo).
fn free() -> u64 {
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may do this");
    let text = fs::read_to_string("/proc/meminfo").expect("it is there");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a number of KiB")
}

#[track_caller]
fn leaks_nothing(rounds: u32, round: impl Fn()) {
    // What is made once and kept is made now.
    for _ in 0..rounds / 10 {
        round();
    }
    let before = free();
    for _ in 0..rounds {
        round();
    }
    let after = free();
    assert!(after + NOISE_KIB > before, "{before} KiB before {rounds} rounds, {after} KiB after");
}

/// ADD_DEV and DEL_DEV, a thousand times.
#[rstest]
fn device_added_and_deleted_a_thousand_times_leaves_nothing() {
    declare!(Contract, SINCE_7_0);
    let info = Config::disk(64).queues(1, 4096).info;
    leaks_nothing(1000, || UblkDevice::add(&info).delete());
}

/// The same with a server, a read and a stop in between, in each way in which data moves.
#[rstest]
fn device_served_and_deleted_over_and_over_leaves_nothing(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf)]
    mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let mut config = unscanned(64).mode(mode).queues(1, 64);
    config.info.max_io_buf_bytes = 64 << 10;
    config.params.basic.max_sectors = 128;
    leaks_nothing(100, || {
        let server = Server::start(&config, Arc::new(RamTarget::new(64))).expect("started");
        let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
        disk.write(0, &[1; 4096]).expect("written");
        assert_eq!(disk.read(0, 4096).expect("read"), [1; 4096]);
        drop(disk);
        server.delete().expect("deleted");
    });
}
