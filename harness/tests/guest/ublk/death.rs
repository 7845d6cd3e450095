//! The server dies: no request may hang, and the device must go.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use bsg::Access;
use harness::{
    BlockDevice, Child, UblkDevice,
    child::{self, Parent},
    declare, sysfs,
};
use rstest::rstest;
use ublk::{Config, Errno, Faults, Features, Hold, Op, RamTarget, Server};
use ublk_fault::{DiePoint, Effect, OpName, Rule, When};

use super::modes::SINCE_7_0;

/// How long a request of a dead server may take to fail.
const DEADLINE: Duration = Duration::from_secs(30);

const SECTORS: u64 = 64;

/// The sector whose requests the server keeps.
const HELD: u64 = 8;

/// The child: a server that keeps requests for one sector for ever. Tells its device's number, then
/// `held` when it has such a request.
fn serve(flags: u64) -> ! {
    let mut parent = Parent::connect();
    let target = Arc::new(Hold::new(RamTarget::new(SECTORS), |request| {
        matches!(request.op, Op::Read | Op::Write) && request.start_sector == HELD
    }));
    let mut config = Config::disk(SECTORS);
    config.info.flags = flags;
    let server = Server::start(&config, target.clone()).expect("started");
    parent.tell(&server.dev_id().to_string());
    if target.wait_held(1, DEADLINE).is_ok() {
        parent.tell("held");
    }
    parent.until_killed();
}

/// Starts the server in a process of its own and takes over its device. The server comes last, so
/// that it is dropped first: a device whose server keeps a request cannot be deleted.
#[track_caller]
fn start() -> (UblkDevice, Child) {
    let mut server = Child::start("server");
    let id = server.hear().parse().expect("the number of a device");
    (UblkDevice::adopt(id), server)
}

/// Documentation/block/ublk.rst, without recovery: requests of a dead server fail, the disk goes away,
/// the state becomes DEAD, 0, and the device can be deleted.
#[rstest]
#[case::read(Op::Read)]
#[case::write(Op::Write)]
fn server_killed_in_mid_io_fails_it_with_eio(#[case] op: Op) {
    declare!(Contract);
    if child::role().is_some() {
        serve(0);
    }
    let (mut device, mut server) = start();
    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    let (send, result) = mpsc::channel();
    let client = thread::spawn(move || {
        let outcome = match op {
            Op::Read => disk.read(HELD * 512, 512).map(drop),
            _ => disk.write(HELD * 512, &[0xa5; 512]),
        };
        send.send(outcome).expect("the test waits");
    });
    assert_eq!(server.hear(), "held");
    server.kill();
    let outcome = result.recv_timeout(DEADLINE).expect("the request ends");
    let failed = outcome.expect_err("nobody did it");
    assert_eq!(Errno::from_io_error(&failed), Some(Errno::IO), "{failed}");
    client.join().expect("the client's thread ended well");

    device.await_state(0);
    sysfs::vanish(&device.block_path());
    device.delete();
}

/// The child: a server that dies at a point in the life of a write to the sector. Tells its device's number.
fn serve_and_die(die: DiePoint, features: Features) -> ! {
    let mut parent = Parent::connect();
    let rule = Rule::new("die", Effect::die(die)).when(When::op(OpName::Write).sectors(HELD, HELD));
    let faults = Faults::new(vec![rule], 0).expect("sound");
    let target = Arc::new(RamTarget::new(SECTORS));
    let config = Config::disk(SECTORS).with(features).faults(&faults);
    let server = Server::start(&config, target).expect("started");
    parent.tell(&server.dev_id().to_string());
    parent.until_killed();
}

/// The server dies of itself at a named point: before it has done anything, when it has and has not said so, when it has
/// said so. Only the last is success for the application; the others are EIO.
#[rstest]
#[case::fetched(DiePoint::Fetched)]
#[case::executed(DiePoint::Executed)]
#[case::committed(DiePoint::Committed)]
fn write_is_done_if_the_server_has_said_so(#[case] die: DiePoint) {
    declare!(Contract);
    dies_at(die, Features::empty());
}

/// The same of a server of batches.
#[rstest]
#[case::fetched(DiePoint::Fetched)]
#[case::executed(DiePoint::Executed)]
#[case::committed(DiePoint::Committed)]
fn write_in_a_batch_is_done_if_the_server_has_said_so(#[case] die: DiePoint) {
    declare!(Contract, SINCE_7_0);
    dies_at(die, Features::BATCH_IO);
}

fn dies_at(die: DiePoint, features: Features) {
    if child::role().is_some() {
        serve_and_die(die, features);
    }
    let (mut device, server) = start();
    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    let (send, result) = mpsc::channel();
    let client = thread::spawn(move || {
        send.send(disk.write(HELD * 512, &[0xa5; 512])).expect("the test waits");
    });
    let outcome = result.recv_timeout(DEADLINE).expect("the request ends");
    match die {
        DiePoint::Committed => outcome.expect("it was done, and that was said"),
        DiePoint::Fetched | DiePoint::Executed => {
            let failed = outcome.expect_err("nobody has said that it was done");
            assert_eq!(Errno::from_io_error(&failed), Some(Errno::IO), "{failed}");
        }
    }
    client.join().expect("the client's thread ended well");
    // The fault has fired: nobody else ends the server, and without it the device stays alive.
    device.await_state(0);
    drop(server);
    device.delete();
}

/// The same with nothing under way.
#[rstest]
fn idle_server_killed_takes_the_disk_away() {
    declare!(Contract);
    if child::role().is_some() {
        serve(0);
    }
    let (mut device, server) = start();
    assert!(device.block_path().exists());
    assert_eq!(device.state(), 1);
    server.kill();
    device.await_state(0);
    sysfs::vanish(&device.block_path());
    device.delete();
}

/// Documentation/block/ublk.rst, UBLK_F_USER_RECOVERY (1 << 3): the disk stays and waits for another
/// server, in state QUIESCED, 2. Deleting the device ends that too.
#[rstest]
fn killed_server_of_a_recoverable_device_leaves_it_quiesced() {
    declare!(Contract);
    if child::role().is_some() {
        serve(1 << 3);
    }
    let (mut device, server) = start();
    server.kill();
    device.await_state(2);
    assert!(device.block_path().exists(), "the disk stays");
    let block = device.block_path();
    device.delete();
    sysfs::vanish(&block);
}
