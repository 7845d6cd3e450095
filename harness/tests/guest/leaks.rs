//! Memory that is still there and that nobody refers to any more, after what is tested has come and gone
//! (Documentation/dev-tools/kmemleak.rst). No test sees it in what the kernel does.

use std::{borrow::Cow, sync::Arc, thread, time::Duration};

use bsg::{Access, Buffer, Errno, Passthrough, Pointer, Request, UringFrame, V4Frame};
use harness::{
    BlockDevice, Feature, HostShape, Lun, Needs, ScsiHost, UblkDevice, declare, kmemleak, slab,
    wait,
};
use rstest::rstest;
use ublk::{Config, DataMode, Features, RamTarget, RawCommand, RawQueue, Region, Server};

use crate::{
    bsg::{
        node::again,
        ways::{complete, sg_io_v4, uring_cmd},
    },
    ublk::{
        modes::SINCE_7_0,
        protocol::{FETCH, MOMENT, REGISTER},
        recorder::unscanned,
    },
};

/// A machine that keeps account of its memory, which makes it slow.
const ACCOUNTED: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    kernel_args: Cow::Borrowed(&[Cow::Borrowed("kmemleak=on")]),
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_DEBUG_KMEMLEAK")),
        Feature::KernelAtLeast(7, 1),
    ]),
    deadline_s: Some(60),
    ..Needs::DEFAULT
};

/// How often each thing is done: one object alone may be found by an address left on some stack.
const ROUNDS: usize = 4;

const SECTORS: u64 = 4096;

#[track_caller]
fn assert_nothing_is_lost() {
    let lost = kmemleak::lost().unwrap_or_else(|error| panic!("{error}"));
    assert!(lost.is_empty(), "{} lost, the first:\n{}", lost.len(), lost[0]);
}

/// Units come and go; commands succeed, fail, and are refused by both paths of a bsg node before and after they have taken
/// memory.
#[rstest]
fn bsg_loses_no_memory() {
    declare!(Contract, ACCOUNTED);
    let lun = Lun::disk_unit();
    let device = lun.device();
    for _ in 0..ROUNDS {
        again(device);
        let ioctl = sg_io_v4(device, Access::ReadWrite);
        let mut ring = uring_cmd(device, Access::ReadWrite);
        let read = || Request::new(&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]).data_in(4096);
        for request in [read(), Request::new(&[0xff; 6])] {
            let mut frame = V4Frame::from(request);
            frame.response = Buffer::zeroed(96).expect("memory").into();
            ioctl.sg_io(&mut frame).expect("executed");
        }
        ring.execute(read()).expect("executed");
        for bend in [
            (|f: &mut V4Frame| f.header.guard = 0) as fn(&mut V4Frame),
            |f| f.header.request_len = 33,
            |f| f.request = Pointer::Unmapped,
            |f| f.din = Pointer::Unmapped,
            |f| f.header.din_xfer_len = u32::MAX,
            |f| {
                *f = V4Frame::from(Request::new(&[0xff; 6]));
                (f.header.max_response_len, f.response) = (96, Pointer::Unmapped);
            },
        ] {
            let mut frame = V4Frame::from(read());
            bend(&mut frame);
            frame.place();
            // Whether and how it is refused is told elsewhere.
            let _: Result<(), Errno> = ioctl.sg_io(&mut frame).map(|_| ());
        }
        for bend in [
            (|f: &mut UringFrame| f.command.request_len = 33) as fn(&mut UringFrame),
            |f| f.request = Pointer::Unmapped,
            |f| f.din = Pointer::Unmapped,
            |f| f.command.din_xfer_len = u32::MAX,
            |f| {
                *f = UringFrame::from(Request::new(&[0xff; 6]));
                (f.command.max_response_len, f.response) = (96, Pointer::Unmapped);
            },
        ] {
            let mut frame = UringFrame::from(read());
            bend(&mut frame);
            complete(&mut ring, frame);
        }
    }
    assert_nothing_is_lost();
}

/// A device is added, served, used and deleted; one that lasts is served twice.
fn serve(config: &Config) {
    let target = Arc::new(RamTarget::new(SECTORS));
    let server = Server::start(config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    use_disk(&server);
    let server = if config.info.flags & Features::USER_RECOVERY.bits() == 0 {
        server
    } else {
        server.leave();
        device.await_state(2);
        Server::recover(device.id(), config, target).expect("recovered")
    };
    use_disk(&server);
    server.delete().expect("deleted");
}

fn use_disk(server: &Server) {
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    disk.write(0, &[1; 8192]).expect("written");
    assert_eq!(disk.read(0, 8192).expect("read"), [1; 8192]);
}

/// Devices come and go with their servers, successors and registered memory, and without ever being started.
#[rstest]
fn ublk_loses_no_memory() {
    declare!(Contract, ACCOUNTED);
    for _ in 0..ROUNDS {
        for mode in [DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf] {
            for features in [Features::empty(), Features::BATCH_IO, Features::USER_RECOVERY] {
                serve(&unscanned(SECTORS).mode(mode).with(features).queues(1, 8));
            }
        }
        never_started();
        shared();
    }
    assert_nothing_is_lost();
}

/// What is fetched, and by whom, is forgotten with a device that never began.
fn never_started() {
    let config = unscanned(SECTORS).mode(DataMode::ZeroCopy).queues(1, 2);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let server = thread::spawn(move || {
        let mut queue = RawQueue::open(id).expect("the char device opens");
        queue.make_table(1).expect("a table");
        for op in [FETCH, REGISTER] {
            drop(queue.exchange(RawCommand::new(op, 0, 0), MOMENT).expect("submitted"));
        }
    });
    server.join().expect("no panic");
    device.delete();
}

/// A task that has fetched is held by its tag, and let go when its server leaves the device to the next, or with a device
/// that never began.
#[rstest]
#[case::left(|| serve(&unscanned(SECTORS).with(Features::USER_RECOVERY).queues(1, 2)))]
#[case::never_started(never_started)]
fn ublk_keeps_no_task(#[case] round: fn()) {
    declare!(Contract, SINCE_7_0);
    const ROUNDS: u64 = 32;
    let before = slab::objects("task_struct");
    (0..ROUNDS).for_each(|_| round());
    let freed = wait::until(Duration::from_secs(10), "the tasks to be freed", || {
        (slab::objects("task_struct") < before + ROUNDS / 2).then_some(())
    });
    freed.unwrap_or_else(|error| panic!("{error}: {before} before, {ROUNDS} have fetched"));
}

/// Memory that is shared, and unshared by a command or with its device.
fn shared() {
    let config = unscanned(SECTORS).with(Features::SHMEM_ZC);
    let mut device = UblkDevice::add(&config.info);
    let (id, region) = (device.id(), Region::zeroed(64 << 10).expect("memory"));
    for range in [0..4096, 8192..16384] {
        device.control().register_shared(id, &region, range, false).expect("REG_BUF");
    }
    device.control().unregister_shared(id, 0).expect("UNREG_BUF");
    device.delete();
}
