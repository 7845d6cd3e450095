//! Several queues of one device in batches, on a machine with a CPU for each.

use std::sync::Arc;

use bsg::Access;
use harness::{BlockDevice, Needs, declare};
use rstest::rstest;
use ublk::{Config, DataMode, Features, RamTarget, Server};

use crate::ublk::{
    modes::{SECTORS, SINCE_7_0, check_clients},
    recorder::unscanned,
};

/// Each queue has its own tags, threads and fetches, and more tags than one buffer of a fetch has room for
/// (drivers/block/ublk_drv.c:MAX_NR_TAG, 128).
#[rstest]
fn several_queues_work_in_batches(#[values(DataMode::Copy, DataMode::AutoBuf)] mode: DataMode) {
    declare!(Contract, Needs { cpus: Some(2), ..SINCE_7_0 });
    let config = unscanned(SECTORS).mode(mode).with(Features::BATCH_IO).queues(2, 200);
    let config = Config { threads: 2, ..config };
    let server = Server::start(&config, Arc::new(RamTarget::new(SECTORS))).expect("started");
    assert_eq!(server.info().nr_hw_queues, 2);
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    check_clients(&disk);
    drop(disk);
    server.delete().expect("deleted");
}
