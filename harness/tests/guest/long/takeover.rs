//! Requests that come at any moment of a takeover.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bsg::Access;
use harness::{BlockDevice, Needs, UblkDevice, declare, wait};
use rstest::rstest;
use ublk::{Config, Features, Server};

use crate::ublk::{
    modes::SINCE_7_0,
    recorder::{Recorder, unscanned},
};

const SECTORS: u64 = 64;
const READERS: usize = 3;
const ROUNDS: u32 = 150;
/// Long for a read, and short for a run of as many rounds.
const PATIENCE: Duration = Duration::from_secs(10);
const TWO_CPUS: Needs = Needs { own_vm: true, cpus: Some(2), deadline_s: Some(120), ..SINCE_7_0 };

fn config() -> Config {
    unscanned(SECTORS).with(Features::USER_RECOVERY).queues(2, 64)
}

/// Reads on and on, and counts.
fn reader(disk: &BlockDevice, done: &AtomicU64, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        // What a server had when it left has failed.
        let _fate = disk.read(0, 4096);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// UBLK_F_USER_RECOVERY, Documentation/block/ublk.rst: a request is requeued while nobody serves the device, and done by
/// the next server, whenever it came.
#[rstest]
fn every_request_that_comes_while_a_server_takes_over_is_done() {
    declare!(Contract, TWO_CPUS);
    let target = Arc::new(Recorder::new(SECTORS));
    let mut server = Server::start(&config(), target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let over = Arc::new(AtomicBool::new(false));
    let counts: Vec<Arc<AtomicU64>> = (0..READERS).map(|_| Arc::default()).collect();
    for count in &counts {
        let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
        let (count, over) = (count.clone(), over.clone());
        thread::spawn(move || reader(&disk, &count, &over));
    }
    for round in 0..ROUNDS {
        server.leave();
        let quiesced = wait::until(PATIENCE, "quiesced", || (device.state() == 2).then_some(()));
        quiesced.unwrap_or_else(|error| panic!("round {round}: {error}"));
        server = Server::recover(device.id(), &config(), target.clone()).expect("recovered");
        for (reader, count) in counts.iter().enumerate() {
            let before = count.load(Ordering::Relaxed);
            let what = format!("round {round}: another read of reader {reader}");
            let more = || (count.load(Ordering::Relaxed) > before + 1).then_some(());
            wait::until(PATIENCE, what, more).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    over.store(true, Ordering::Relaxed);
    server.delete().expect("deleted");
}
