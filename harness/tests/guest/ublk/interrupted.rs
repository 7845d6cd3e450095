//! Control commands that are interrupted while they wait, as by a signal, and what the device then is: a worker of the ring
//! waits for its caller, and is told by IORING_OP_ASYNC_CANCEL (io_uring/io-wq.c:io_wq_worker_cancel).

use std::{fs::File, process, sync::Arc, thread, time::Instant};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare, wait};
use rstest::rstest;
use ublk::{
    Cancel, Control, DataMode, Errno, Features, Pointer, RawCommand, RawQueue, Server,
    uapi::{CtrlCmd, DevInfo, ctrl},
};

use super::{
    modes::SINCE_7_0,
    protocol::{COMMIT, DEADLINE, MOMENT, device, fetch, say},
    recorder::{Recorder, unscanned},
};

/// Sends a command on behalf of this process, which the driver keeps.
#[track_caller]
fn waiting(control: &mut Control, op: u32, id: u32) -> u64 {
    let command = CtrlCmd { data: process::id().into(), ..CtrlCmd::for_device(id) };
    let token = control.begin(op, command, Pointer::Null).expect("submitted");
    let early = control.finish(token, Instant::now() + MOMENT);
    assert!(early.is_err(), "{early:?}");
    token
}

/// Sends such a command and interrupts it: EINTR, 4. One that no worker has begun with is taken back by that (ECANCELED,
/// 125), and sent again.
#[track_caller]
fn interrupt(control: &mut Control, op: u32, id: u32) {
    let ended = wait::until(DEADLINE, "a command that has begun", || {
        let token = waiting(control, op, id);
        let told = control.cancel(token, Instant::now() + DEADLINE).expect("the kernel looks");
        let reply = control.finish(token, Instant::now() + DEADLINE).expect("answered");
        let has_begun = (told, reply.res) != (Cancel::Cancelled, -125);
        has_begun.then_some(reply.res)
    });
    assert_eq!(ended.unwrap_or_else(|error| panic!("{error}")), -4, "EINTR");
}

/// Serves one read with a tag that was fetched.
#[track_caller]
fn serve_one_read(device: &UblkDevice, queue: &mut RawQueue, token: u64) {
    let path = device.block_path();
    let client = thread::spawn(move || BlockDevice::open(&path, Access::ReadOnly).read(0, 512));
    let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    let memory = request.expect("delivered").memory;
    let commit = RawCommand { result: 512, ..RawCommand::new(COMMIT, 0, 0).memory(memory) };
    assert_eq!(say(queue, commit), None);
    assert_eq!(client.join().expect("no panic").expect("read"), [0; 512]);
}

/// Documentation/block/ublk.rst, DEL_DEV: a device that somebody has open is deleted when that ends, though DEL_DEV does not
/// wait for it any more. Until then it has no node, its number is taken, and DEL_DEV waits again.
#[rstest]
fn deletion_that_was_interrupted_goes_on() {
    declare!(Contract, SINCE_7_0);
    let info = DevInfo { dev_id: 0x5_3000, ..unscanned(64).info };
    let mut device = UblkDevice::add(&info);
    let id = device.id();
    let node = format!("/dev/ublkc{id}");
    let open = File::open(&node).expect("the char device opens");
    let mut control = Control::open().expect("opened");
    interrupt(&mut control, ctrl::DEL_DEV, id);
    let gone = File::open(&node).expect_err("no node");
    assert_eq!(gone.raw_os_error(), Some(2), "ENOENT");
    assert_eq!(device.control().info(id).expect("GET_DEV_INFO").state, 0);
    let taken = control.add(&info).expect_err("refused");
    assert_eq!(taken.errno(), Some(Errno::EXIST));
    let again = waiting(&mut control, ctrl::DEL_DEV, id);
    drop(open);
    let reply = control.finish(again, Instant::now() + DEADLINE).expect("answered");
    assert_eq!(reply.res, 0);
    assert!(UblkDevice::find(id).is_none(), "the number is free");
}

/// START_DEV waits for the tags to be fetched. Interrupted, it has done nothing, and can be sent again.
#[rstest]
fn start_that_was_interrupted_has_done_nothing() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = device(DataMode::Copy, 1);
    let id = device.id();
    let mut control = Control::open().expect("opened");
    interrupt(&mut control, ctrl::START_DEV, id);
    assert_eq!(device.state(), 0);
    assert!(!device.block_path().exists());
    let token = queue.begin(fetch(0)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    serve_one_read(&device, &mut queue, token);
    drop(queue);
}

/// The same of END_USER_RECOVERY.
#[rstest]
fn end_of_a_recovery_that_was_interrupted_can_be_sent_again() {
    declare!(Contract, SINCE_7_0);
    let config = unscanned(64).with(Features::USER_RECOVERY).queues(1, 1);
    let server = Server::start(&config, Arc::new(Recorder::new(64))).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    server.leave();
    device.await_state(2);
    let id = device.id();
    device.start_recovery();
    let mut queue = RawQueue::open(id).expect("opened");
    let mut control = Control::open().expect("opened");
    interrupt(&mut control, ctrl::END_USER_RECOVERY, id);
    assert_eq!(device.state(), 2);
    let token = queue.begin(fetch(0)).expect("submitted");
    device.control().end_recovery(id).expect("END_USER_RECOVERY");
    assert_eq!(device.state(), 1);
    serve_one_read(&device, &mut queue, token);
    drop(queue);
}
