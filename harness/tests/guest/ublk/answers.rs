//! Whatever a control command answers, the device must afterwards do what the answer says.

use std::{
    fs::File,
    io::IoSlice,
    os::unix::fs::{FileExt, OpenOptionsExt},
    process,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{
    BlockDevice, Child, Needs, UblkDevice,
    child::{self, Parent},
    declare, privilege, sysfs, wait,
};
use rstest::rstest;
use rustix::fs::OFlags;
use ublk::{
    Buffer, Config, Control, DataMode, Errno, Features, Pointer, RawCommand, RawQueue, Server,
    uapi::{CtrlCmd, DevInfo, ctrl},
};

use super::{
    modes::SINCE_7_0,
    protocol::{
        COMMIT, DEADLINE, FETCH, MOMENT, NEED_GET_DATA, buffer, close, device, fetch, reopen, say,
    },
    recorder::{Recorder, unscanned},
};

/// Submits START_DEV on behalf of this process.
fn begin_start(control: &mut Control, id: u32) -> u64 {
    let start = CtrlCmd { data: process::id().into(), ..CtrlCmd::for_device(id) };
    control.begin(ctrl::START_DEV, start, Pointer::Null).expect("submitted")
}

/// SET_PARAMS while START_DEV waits for fetches: parameters that were accepted are those of the disk.
#[rstest]
fn parameters_accepted_while_start_waits_are_those_of_the_disk() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = device(DataMode::Copy, 1);
    let id = device.id();
    let mut starter = Control::open().expect("opened");
    let token = begin_start(&mut starter, id);
    assert!(starter.finish(token, Instant::now() + MOMENT).is_err(), "no tag is fetched");
    let mut params = unscanned(128).params;
    params.basic.logical_bs_shift = 12;
    let accepted = device.control().set_params(id, &params);
    assert_eq!(say(&mut queue, fetch(0)), None);
    let reply = starter.finish(token, Instant::now() + DEADLINE).expect("answered");
    assert_eq!(reply.res, 0);
    let disk = BlockDevice::open(&device.block_path(), Access::ReadOnly);
    let is = (disk.sectors(), disk.attribute("queue/logical_block_size"));
    drop(disk);
    device.control().stop(id).expect("STOP_DEV");
    drop(queue);
    let expected = match accepted {
        Ok(()) => (128, "4096".to_owned()),
        Err(_) => (64, "512".to_owned()),
    };
    assert_eq!(is, expected, "SET_PARAMS answered {accepted:?}");
}

/// The device has gone, or goes on; but DEL_DEV does not wait for a START_DEV that waits for fetches nobody can send.
#[rstest]
fn deletion_of_a_device_whose_start_waits_ends() {
    declare!(Contract, SINCE_7_0);
    let config = unscanned(64);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut starter = Control::open().expect("opened");
    let token = begin_start(&mut starter, id);
    assert!(starter.finish(token, Instant::now() + MOMENT).is_err(), "no tag is fetched");
    let mut deleter = Control::open().expect("opened");
    deleter.set_timeout(Duration::from_secs(2));
    let deleted = deleter.delete(id);
    // START_DEV ends with its ring, at last.
    drop(starter);
    deleted.unwrap_or_else(|error| panic!("DEL_DEV beside START_DEV: {error}"));
}

/// A signal, here the death of who has sent it, ends a START_DEV that waits; the device can still be started.
#[rstest]
fn start_that_was_interrupted_can_be_sent_again() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = device(DataMode::Copy, 1);
    let id = device.id();
    let starter = thread::spawn(move || {
        let mut control = Control::open().expect("opened");
        let token = begin_start(&mut control, id);
        assert!(control.finish(token, Instant::now() + MOMENT).is_err(), "no tag is fetched");
    });
    // A thread is gone when the kernel's workers for it are (io_uring/tctx.c:io_uring_clean_tctx). A ring that is closed
    // would leave them behind.
    starter.join().expect("no panic");
    assert_eq!(say(&mut queue, fetch(0)), None);
    device.control().start(id).expect("START_DEV");
    assert_eq!(device.state(), 1);
    device.control().stop(id).expect("STOP_DEV");
    drop(queue);
}

/// Serves one tag of a device that is there until its first request, a read of the test's, is answered.
#[track_caller]
fn serve_one_read(device: &mut UblkDevice, mut queue: RawQueue) {
    let id = device.id();
    queue.descriptor(0, 1, 0).expect("the descriptors can be mapped");
    let token = queue.begin(fetch(0)).expect("submitted");
    let early = queue.finish(token, Instant::now() + MOMENT).expect("no error");
    assert!(early.is_none(), "the fetch of a new server: {:?}", early.map(|reply| reply.res));
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let client = thread::spawn(move || BlockDevice::open(&path, Access::ReadOnly).read(0, 512));
    let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    let memory = request.expect("delivered").memory;
    let commit = RawCommand { result: 512, ..RawCommand::new(COMMIT, 0, 0).memory(memory) };
    assert_eq!(say(&mut queue, commit), None);
    assert_eq!(client.join().expect("no panic").expect("read"), [0; 512]);
    device.control().stop(id).expect("STOP_DEV");
}

/// The child: fetches all tags but as many as its role says, and waits to be killed.
fn fetch_some() -> ! {
    let mut parent = Parent::connect();
    let left: u16 = child::role().expect("a role").parse().expect("a number");
    let (device, mut queue) = device(DataMode::Copy, 1);
    queue.descriptor(0, 1, 0).expect("mapped");
    for tag in left..1 {
        assert_eq!(say(&mut queue, fetch(tag)), None);
    }
    parent.tell(&device.id().to_string());
    parent.until_killed();
}

/// A server that dies before the start leaves a device that the next one can start.
#[rstest]
#[case::before_the_fetches("1")]
#[case::after_the_fetches("0")]
fn server_killed_before_the_start_leaves_a_device_to_start(#[case] left: &str) {
    declare!(Contract, SINCE_7_0);
    if child::role().is_some() {
        fetch_some();
    }
    let mut server = Child::start(left);
    let mut device = UblkDevice::adopt(server.hear().parse().expect("a number"));
    server.kill();
    let id = device.id();
    serve_one_read(&mut device, reopen(id));
}

/// Documentation/block/ublk.rst, STOP_DEV: the device stays, and is as it was before the start: the next server starts it.
#[rstest]
fn stopped_device_can_be_started_by_the_next_server() {
    declare!(Contract, SINCE_7_0);
    let mut device = stopped(Control::stop);
    let id = device.id();
    serve_one_read(&mut device, reopen(id));
}

/// A device that was started and stopped.
fn stopped(stop: fn(&mut Control, u32) -> Result<(), ublk::Error>) -> UblkDevice {
    let (mut device, mut queue) = device(DataMode::Copy, 1);
    assert_eq!(say(&mut queue, fetch(0)), None);
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    stop(device.control(), id).expect("stopped");
    drop(queue);
    sysfs::vanish(&device.block_path());
    device
}

/// TRY_STOP_DEV keeps new openers out while it looks for those there are; a disk that is started again is for all who may
/// open it, CAP_SYS_ADMIN or not.
#[rstest]
fn disk_started_again_after_try_stop_opens_for_everybody() {
    declare!(Contract, SINCE_7_0);
    let mut device = stopped(Control::try_stop);
    let id = device.id();
    let mut queue = reopen(id);
    assert_eq!(say(&mut queue, fetch(0)), None, "the fetch of a new server");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let opened = thread::spawn(move || {
        privilege::drop_sys_admin();
        File::open(path).map(drop)
    });
    let opened = opened.join().expect("no panic");
    device.control().stop(id).expect("STOP_DEV");
    drop(queue);
    opened.expect("its node lets root read it");
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_QUIESCE: with no tag to spare it is EBUSY, and then the device goes on. Here the
/// one tag has a WRITE whose data the server asks for in vain, so that the driver tries again and again.
#[rstest]
fn quiesce_beside_a_request_that_is_tried_again_does_what_it_answers() {
    declare!(Contract, SINCE_7_0);
    let features = Features::USER_RECOVERY | Features::QUIESCE | Features::NEED_GET_DATA;
    let config = unscanned(64).with(features).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("opened");
    let mut token = queue.begin(RawCommand::new(FETCH, 0, 0)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let (send, written) = channel();
    thread::spawn(move || {
        let outcome = BlockDevice::open(&path, Access::ReadWrite).write(0, &[0x42; 512]);
        let _over = send.send(outcome);
    });
    let ask = |pointer: Pointer| RawCommand::new(NEED_GET_DATA, 0, 0).memory(pointer);
    let first = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(first.expect("delivered").res, 1);
    token = queue.begin(ask(Pointer::Unmapped)).expect("submitted");
    let quiesce = CtrlCmd { data: 100, ..CtrlCmd::for_device(id) };
    let quiesce = device.control().begin(ctrl::QUIESCE_DEV, quiesce, Pointer::Null);
    let quiesce = quiesce.expect("submitted");
    let mut lost = None;
    let answer = wait::until(DEADLINE, "QUIESCE_DEV", || {
        let soon = Instant::now() + MOMENT / 10;
        // What was lost is not asked for again.
        if lost.is_none()
            && let Some(reply) = queue.finish(token, soon).expect("no error")
        {
            match reply.res {
                1 => token = queue.begin(ask(Pointer::Unmapped)).expect("submitted"),
                other => lost = Some(other),
            }
        }
        device.control().finish(quiesce, Instant::now()).ok()
    });
    let answer = answer.unwrap_or_else(|error| panic!("{error}")).res;
    if answer == 0 {
        let told = lost.or_else(|| {
            let told = queue.finish(token, Instant::now() + Duration::from_secs(1));
            told.expect("no error").map(|reply| reply.res)
        });
        assert_eq!(told, Some(-19), "QUIESCE_DEV has answered success");
        return;
    }
    assert_eq!(answer, -16, "EBUSY");
    // The server's buffer is there now.
    let again = queue.finish(token, Instant::now() + Duration::from_secs(1)).expect("no error");
    assert_eq!(again.map(|reply| reply.res), Some(1), "the write is delivered after EBUSY");
    let got = queue.begin(ask(buffer())).expect("submitted");
    let got = queue.finish(got, Instant::now() + DEADLINE).expect("no error").expect("answered");
    let commit = RawCommand { result: 512, ..RawCommand::new(COMMIT, 0, 0).memory(got.memory) };
    queue.begin(commit).expect("submitted");
    written.recv_timeout(DEADLINE).expect("answered").expect("written");
}

/// ublk_ctrl_add_dev refuses FAIL_IO (1 << 9) and QUIESCE (1 << 12) without USER_RECOVERY (1 << 3); and takes that from
/// an unprivileged device, so it has to take them, too, or to refuse it.
#[rstest]
#[case::fail_io(1 << 9)]
#[case::quiesce(1 << 12)]
fn unprivileged_device_has_no_flag_that_needs_recovery(#[case] flag: u64) {
    declare!(Contract, SINCE_7_0);
    privilege::drop_sys_admin();
    let mut control = Control::open().expect("opened");
    let info = DevInfo { flags: 1 << 5 | 1 << 3 | flag, ..Config::disk(64).queues(1, 4).info };
    match control.add(&info) {
        Err(error) => assert_eq!(error.errno(), Some(Errno::INVAL)),
        Ok(info) => {
            control.say_path();
            control.delete(info.dev_id).expect("deleted");
            let agreed = info.flags & (1 << 3 | flag);
            assert!(agreed != flag, "{flag:#x} without USER_RECOVERY");
        }
    }
}

/// Two CPUs are two queues.
const TWO_CPUS: Needs = Needs { own_vm: true, cpus: Some(2), ..SINCE_7_0 };

/// A server that loses its ring in the middle of a recovery, with one queue ready and the other not: requests wait for the
/// next server, on the first queue as well.
#[rstest]
fn ring_lost_in_the_middle_of_recovery_keeps_requests_waiting() {
    declare!(Contract, TWO_CPUS);
    let target = Arc::new(Recorder::new(64));
    let config = unscanned(64).with(Features::USER_RECOVERY).queues(2, 1);
    let server = Server::start(&config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    assert_eq!(device.info().nr_hw_queues, 2);
    let id = device.id();
    let cpu = device.control().queue_affinity(id, 0).expect("GET_QUEUE_AFFINITY")[0];
    let disk = BlockDevice::open(&device.block_path(), Access::ReadOnly);
    server.leave();
    device.await_state(2);
    device.start_recovery();
    let mut queue = RawQueue::open(id).expect("opened");
    let open = queue.another().expect("a ring that keeps the char device open");
    assert_eq!(say(&mut queue, fetch(0)), None);
    close(queue);
    let on_its_cpu = move |disk: &BlockDevice| {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(usize::try_from(cpu).expect("a small number"));
        rustix::thread::sched_setaffinity(None, &cpus).expect("the CPU is there");
        disk.read(0, 512)
    };
    let read = BlockDevice::beside(move || disk, on_its_cpu);
    let early = read.recv_timeout(Duration::from_millis(500));
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "nobody serves: {early:?}");
    drop(open);
    let server = Server::recover(id, &config, target).expect("recovered");
    assert_eq!(read.recv_timeout(DEADLINE).expect("answered").expect("read"), [0; 512]);
    server.delete().expect("deleted");
}

/// UBLK_F_INTEGRITY: the metadata of a request is all there, however many of the block layer's bios it was made of
/// (drivers/block/ublk_drv.c:ublk_copy_user_integrity): 8 bytes for each sector here.
#[rstest]
fn metadata_of_a_merged_request_is_all_there() {
    declare!(Contract, SINCE_7_0);
    const DATA: u64 = 0x8000_0000;
    const METADATA: u64 = DATA | 1 << 62;
    const PAGES: usize = 300;
    let mut config = unscanned(4096).mode(DataMode::UserCopy).queues(1, 1);
    config.info.max_io_buf_bytes = 4 << 20;
    config.params.basic.max_sectors = 8192;
    config.info.flags |= 1 << 16;
    config.params.types |= 1 << 6;
    config.params.integrity.interval_exp = 9;
    config.params.integrity.metadata_size = 8;
    // LBMD_PI_CSUM_CRC16_T10DIF.
    config.params.integrity.csum_type = 2;
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("opened");
    let mut token = queue.begin(RawCommand::new(FETCH, 0, 0)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let client = thread::spawn(move || {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let disk = File::options().write(true).custom_flags(direct).open(path).expect("opened");
        let memory = Buffer::zeroed(PAGES * 4096).expect("memory");
        // Backwards, so that no page joins the one before it: a bio has room for 256.
        let pages: Vec<IoSlice<'_>> = memory.chunks(4096).rev().map(IoSlice::new).collect();
        rustix::io::pwritev(&disk, &pages, 0)
    });
    let mut seen = Vec::new();
    while seen.iter().map(|(sectors, _)| sectors).sum::<u32>() < 8 * 300 {
        let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(request.expect("delivered").res, 0);
        let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
        let mut result = 0;
        if descriptor.op_flags & 0xff == 1 {
            let mut metadata = vec![0; 64 << 10];
            let len = queue.device().read_at(&mut metadata, METADATA).expect("metadata");
            let behind = METADATA + u64::from(descriptor.nr_sectors) * 8 + 1;
            let error = queue.device().read_at(&mut metadata, behind).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(22), "EINVAL behind the metadata");
            // UBLK_IO_F_INTEGRITY.
            assert_eq!(descriptor.op_flags >> 18 & 1, 1, "{:#x}", descriptor.op_flags);
            seen.push((descriptor.nr_sectors, len));
            result = i32::try_from(descriptor.nr_sectors * 512).expect("short");
        }
        let commit = RawCommand { result, ..RawCommand::new(COMMIT, 0, 0) };
        token = queue.begin(commit).expect("submitted");
    }
    assert_eq!(client.join().expect("no panic").expect("written"), PAGES * 4096);
    drop(queue);
    device.delete();
    let merged = seen.iter().any(|(sectors, _)| *sectors > 256 * 8);
    assert!(merged, "no request has more than one bio: {seen:?}");
    let whole = seen.iter().all(|(sectors, len)| *len == 8 * *sectors as usize);
    assert!(whole, "(sectors, bytes of metadata): {seen:?}");
}
