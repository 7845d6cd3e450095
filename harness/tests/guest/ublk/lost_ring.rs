//! A server with several rings loses one of them, and another keeps the char device open.

use std::{
    fs, mem, process,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{BlockDevice, Needs, UblkDevice, declare};
use rstest::rstest;
use ublk::{
    Control, Features, Pointer, RawCommand, RawQueue,
    uapi::{CtrlCmd, ctrl},
};

use super::{
    modes::SINCE_7_0,
    protocol::{COMMIT, DEADLINE, MOMENT, close, fetch, say},
    recorder::unscanned,
};

/// How long the driver may think about a command of which it has all it needs.
const PATIENCE: Duration = Duration::from_millis(500);
const OWN_MACHINE: Needs = Needs { own_vm: true, ..SINCE_7_0 };

/// A device of two tags that can be recovered.
fn device() -> UblkDevice {
    let config = unscanned(64).queues(1, 2).with(Features::USER_RECOVERY);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    device
}

/// A command the driver keeps.
#[track_caller]
fn kept(queue: &mut RawQueue, command: RawCommand) -> u64 {
    let token = queue.begin(command).expect("submitted");
    let early = queue.finish(token, Instant::now() + MOMENT).expect("no error");
    assert!(early.is_none(), "{early:?}");
    token
}

/// One tag is fetched by a ring that is closed, then the other by a ring that stays: that ring, and its command.
#[track_caller]
fn fetch_and_lose_one(id: u32) -> (RawQueue, u64) {
    let mut lost = RawQueue::open(id).expect("opened");
    let mut queue = lost.another().expect("another ring");
    assert_eq!(say(&mut lost, fetch(0)), None);
    close(lost);
    let fetched = kept(&mut queue, fetch(1));
    (queue, fetched)
}

/// TAINT_DIE, Documentation/admin-guide/tainted-kernels.rst.
fn kernel_has_died() -> bool {
    let taints = fs::read_to_string("/proc/sys/kernel/tainted").expect("it is there");
    taints.trim().parse::<u64>().expect("a number") & 1 << 7 != 0
}

/// If a command that needs every tag is answered with success, the disk is served by the command there is. That it is
/// refused, or waits for the other tag, would do as well.
fn assert_serves_if_answered(device: UblkDevice, op: u32, (mut queue, fetched): (RawQueue, u64)) {
    let mut control = Control::open().expect("opened");
    let command = CtrlCmd { data: process::id().into(), ..CtrlCmd::for_device(device.id()) };
    let token = control.begin(op, command, Pointer::Null).expect("submitted");
    match control.finish(token, Instant::now() + PATIENCE) {
        Ok(reply) if reply.res == 0 => {}
        _ => return,
    }
    let path = device.block_path();
    let (send, read) = channel();
    thread::spawn(move || {
        let outcome = BlockDevice::open(&path, Access::ReadOnly).read(0, 512);
        let _over = send.send(outcome);
    });
    let request = queue.finish(fetched, Instant::now() + PATIENCE).expect("no error");
    let Some(request) = request else {
        let outcome = read.recv_timeout(PATIENCE);
        if kernel_has_died() {
            // Its deletion would wait for a request whose task is no more; without that, it ends the request.
            mem::forget(device);
        }
        panic!("the server that is there gets no request; the application has {outcome:?}");
    };
    let commit = RawCommand::new(COMMIT, 0, 1).memory(request.memory);
    kept(&mut queue, RawCommand { result: 512, ..commit });
    assert_eq!(read.recv_timeout(DEADLINE).expect("answered").expect("read"), [0; 512]);
}

/// START_DEV, Documentation/block/ublk.rst: after a success the disk is there to be used.
#[rstest]
fn disk_started_after_a_ring_was_lost_is_served() {
    declare!(Contract, OWN_MACHINE);
    let device = device();
    let server = fetch_and_lose_one(device.id());
    assert_serves_if_answered(device, ctrl::START_DEV, server);
}

/// END_USER_RECOVERY, Documentation/block/ublk.rst: after a success the next server has taken over.
#[rstest]
fn disk_recovered_after_a_ring_was_lost_is_served() {
    declare!(Contract, OWN_MACHINE);
    let mut device = device();
    let id = device.id();
    let mut queue = RawQueue::open(id).expect("opened");
    for tag in 0..2 {
        kept(&mut queue, fetch(tag));
    }
    device.control().start(id).expect("START_DEV");
    drop(queue);
    device.await_state(2);
    device.start_recovery();
    let server = fetch_and_lose_one(id);
    assert_serves_if_answered(device, ctrl::END_USER_RECOVERY, server);
}
