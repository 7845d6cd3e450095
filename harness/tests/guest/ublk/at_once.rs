//! Requests that the block layer hands over at once, those of one plug (block/blk-mq.c:blk_mq_flush_plug_list,
//! drivers/block/ublk_drv.c:ublk_queue_rqs). Those of a device with UBLK_F_BATCH_IO are in `batch.rs`.

use std::{
    borrow::Cow,
    fs,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{BlockDevice, Feature, Needs, UblkDevice, declare, modules::Modules};
use rstest::rstest;
use rustix::{
    io::Errno,
    thread::{CpuSet, gettid, sched_setaffinity},
};
use ublk::{Buffer, Config, DataMode, Features, RamTarget, RawCommand, RawQueue, Server};

use super::{
    modes::SINCE_7_0,
    protocol::{COMMIT, DEADLINE, FETCH, MOMENT},
    recorder::{pattern, unscanned},
};

const SECTORS: u64 = 4096;

const TWO_CPUS: Needs = Needs { cpus: Some(2), ..SINCE_7_0 };

/// Kyber is no disk's scheduler unless somebody asks for it.
const SCHEDULED: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_MQ_IOSCHED_KYBER")),
        Feature::KernelAtLeast(7, 0),
    ]),
    ..Needs::DEFAULT
};

/// More pages than a bio has room for, 256 (BIO_MAX_VECS): only then is there a plug around a direct write
/// (block/fops.c:__blkdev_direct_IO).
const PAGES: u64 = 300;

/// What they come in, of 128 sectors at most: 16 of the first bio and 3 of the second. A longer one would end the plug
/// (BLK_PLUG_FLUSH_SIZE, 128 KiB).
pub(crate) const REQUESTS: u16 = 19;

/// As many tags as there are requests, so that each has one.
fn config() -> Config {
    let mut config = unscanned(SECTORS).mode(DataMode::UserCopy).queues(1, REQUESTS);
    config.params.basic.max_sectors = 128;
    config
}

/// What is written, from sector 0 on.
pub(crate) fn pages() -> Vec<u8> {
    pattern(0, PAGES * 8, 9)
}

/// Writes the pages with one call, on a thread of its own. Backwards in memory, so that none joins the one before it.
/// Nothing between the block layer and the driver holds requests back.
pub(crate) fn write_at_once(path: PathBuf) -> Receiver<io::Result<usize>> {
    write_through("none", path)
}

/// The same through this `queue/scheduler`.
fn write_through(scheduler: &str, path: PathBuf) -> Receiver<io::Result<usize>> {
    schedule(scheduler, &path);
    BlockDevice::beside(move || BlockDevice::open(&path, Access::ReadWrite), write_pages)
}

fn schedule(scheduler: &str, path: &Path) {
    let name = path.file_name().expect("a node has a name").display().to_string();
    let attribute = format!("/sys/class/block/{name}/queue/scheduler");
    fs::write(&attribute, scheduler).unwrap_or_else(|error| panic!("{scheduler}: {error}"));
}

fn write_pages(disk: &BlockDevice) -> io::Result<usize> {
    write_backwards(disk, &backwards())
}

/// The pages, the last first.
fn backwards() -> Buffer {
    let memory: Vec<u8> = pages().chunks(4096).rev().flatten().copied().collect();
    Buffer::copy_of(&memory).expect("memory")
}

fn write_backwards(disk: &BlockDevice, memory: &Buffer) -> io::Result<usize> {
    let pieces: Vec<IoSlice<'_>> = memory.chunks(4096).rev().map(IoSlice::new).collect();
    disk.write_pieces(0, &pieces)
}

/// The application is told that all of it is written.
#[track_caller]
fn assert_written(written: &Receiver<io::Result<usize>>) {
    let written = written.recv_timeout(DEADLINE).expect("it ends").expect("written");
    assert_eq!(written, pages().len());
}

/// A device, and its queue, of which nothing is fetched.
fn device() -> (UblkDevice, RawQueue) {
    let config = config();
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    (device, RawQueue::open(id).expect("the char device opens"))
}

fn fetch(tag: u16) -> RawCommand {
    RawCommand::new(FETCH, 0, tag)
}

/// Waits for the request of a tag, and returns the commit of it. Its data is what was written.
#[track_caller]
fn serve(queue: &mut RawQueue, tag: u16, token: u64) -> RawCommand {
    let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    let request = request.unwrap_or_else(|| panic!("tag {tag} has no request"));
    assert_eq!(request.res, 0);
    let descriptor = queue.descriptor(0, REQUESTS, tag).expect("mapped");
    let at = usize::try_from(descriptor.start_sector * 512).expect("short");
    let mut data = vec![0; descriptor.nr_sectors as usize * 512];
    let place = 0x8000_0000 | u64::from(tag) << 25;
    queue.device().read_exact_at(&mut data, place).expect("its data");
    assert!(data == pages()[at..at + data.len()], "tag {tag}");
    let result = i32::try_from(data.len()).expect("short");
    RawCommand { result, ..RawCommand::new(COMMIT, 0, tag) }
}

/// UBLK_F_PER_IO_DAEMON: a request goes to the task that has fetched its tag, on whatever ring, though another request
/// goes to another task of the same ring with it.
#[rstest]
fn requests_at_once_go_to_the_tasks_of_their_tags() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = device();
    let (order, orders) = channel::<(RawQueue, RawCommand)>();
    let (done, answers) = channel();
    // It stays, because what a thread has fetched is given back at its end.
    let other = thread::spawn(move || {
        for (mut queue, command) in orders {
            let token = queue.begin(command).expect("submitted");
            done.send((queue, token)).expect("the test waits");
        }
    });
    // Every other tag is the other task's.
    let submit = |mut queue: RawQueue, command: RawCommand| {
        if command.tag.is_multiple_of(2) {
            let token = queue.begin(command).expect("submitted");
            return (queue, token);
        }
        order.send((queue, command)).expect("it is there");
        answers.recv_timeout(DEADLINE).expect("it answers")
    };
    let mut tokens = Vec::new();
    for tag in 0..REQUESTS {
        let (back, token) = submit(queue, fetch(tag));
        queue = back;
        tokens.push(token);
    }
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    let written = write_at_once(device.block_path());
    for (tag, token) in (0..).zip(tokens) {
        let commit = serve(&mut queue, tag, token);
        (queue, _) = submit(queue, commit);
    }
    assert_written(&written);
    drop((order, queue));
    other.join().expect("no panic");
    device.delete();
}

/// The same with two rings of one task.
#[rstest]
fn requests_at_once_go_to_the_rings_of_their_tags() {
    declare!(Contract, SINCE_7_0);
    let (mut device, first) = device();
    let second = first.another().expect("a ring");
    let mut rings = [first, second];
    let tokens: Vec<u64> = (0..REQUESTS)
        .map(|tag| rings[usize::from(tag % 2)].begin(fetch(tag)).expect("submitted"))
        .collect();
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    let written = write_at_once(device.block_path());
    for (tag, token) in (0..).zip(tokens) {
        let ring = &mut rings[usize::from(tag % 2)];
        let commit = serve(ring, tag, token);
        ring.begin(commit).expect("submitted");
    }
    assert_written(&written);
    drop(rings);
    device.delete();
}

/// A scheduler has more requests than the disk has tags. It hands over as many as there are tags, of which none is the
/// last for all it knows (block/blk-mq.c:blk_mq_dispatch_rq_list). A batch device tells nobody of them before the last, and
/// is then told that there are no more for now (ublk_drv.c:ublk_commit_rqs).
#[rstest]
fn requests_beyond_the_tags_of_a_scheduled_disk_are_done(
    #[values(Features::empty(), Features::BATCH_IO)] features: Features,
) {
    declare!(Contract, SCHEDULED);
    Modules::of_image().and_then(|modules| modules.load("kyber-iosched", "")).expect("it loads");
    const TAGS: u16 = 4;
    let (config, target) =
        (config().queues(1, TAGS).with(features), Arc::new(RamTarget::new(SECTORS)));
    let server = Server::start(&config, target.clone()).expect("started");
    assert_written(&write_through("kyber", server.block_path()));
    assert!(target.bytes()[..pages().len()] == pages()[..], "the medium differs");
    server.delete().expect("deleted");
}

/// A writer that comes to another CPU before it has handed over its requests has those of two queues: each goes to the
/// queue it is of (ublk_drv.c:ublk_batch_queue_rqs; without batches the task of its tag decides). Whether it comes there
/// in time is luck, so it is moved to and fro while it writes again and again.
#[rstest]
fn requests_at_once_of_two_queues_go_to_their_own() {
    declare!(Contract, TWO_CPUS);
    const WRITES: usize = 50;
    let config = config().queues(2, REQUESTS).with(Features::BATCH_IO);
    let target = Arc::new(RamTarget::new(SECTORS));
    let server = Server::start(&config, target.clone()).expect("started");
    let path = server.block_path();
    schedule("none", &path);
    let (say, said) = channel();
    let write = move |disk: &BlockDevice| {
        say.send(gettid()).expect("the test waits");
        let memory = backwards();
        let mut written = (0..WRITES).map(|_| write_backwards(disk, &memory));
        written.find(|written| !matches!(written, Ok(len) if *len == memory.len()))
    };
    let ended = BlockDevice::beside(move || BlockDevice::open(&path, Access::ReadWrite), write);
    let writer = said.recv_timeout(DEADLINE).expect("it begins");
    let begin = Instant::now();
    let ended = (0..2).cycle().find_map(|cpu| {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        // It may be over.
        let _: Result<(), Errno> = sched_setaffinity(Some(writer), &cpus);
        assert!(begin.elapsed() < DEADLINE, "it does not end");
        let ended = ended.recv_timeout(Duration::from_micros(300));
        Some(ended).filter(|ended| !matches!(ended, Err(RecvTimeoutError::Timeout)))
    });
    let failed = ended.expect("sooner or later").expect("no panic");
    assert!(failed.is_none(), "{failed:?}");
    assert!(target.bytes()[..pages().len()] == pages()[..], "the medium differs");
    server.delete().expect("deleted");
}

/// Documentation/block/ublk.rst: requests that come while there is no server wait for the next, or fail (EREMOTEIO,
/// 121), those that come at once too.
#[rstest]
#[case::wait(Features::USER_RECOVERY, 2)]
#[case::fail(Features::USER_RECOVERY | Features::USER_RECOVERY_FAIL_IO, 3)]
fn requests_at_once_without_a_server_have_its_fate(
    #[case] fate: Features,
    #[case] state: u16,
    #[values(Features::empty(), Features::BATCH_IO)] features: Features,
) {
    declare!(Contract, SINCE_7_0);
    let (config, target) = (config().with(fate | features), Arc::new(RamTarget::new(SECTORS)));
    let server = Server::start(&config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    server.leave();
    device.await_state(state);
    let written = write_at_once(device.block_path());
    let early = match state {
        2 => written.recv_timeout(MOMENT),
        _ => written.recv_timeout(DEADLINE),
    };
    match (state, early) {
        (2, early) => assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{early:?}"),
        (_, early) => {
            let failed = early.expect("it ends").expect_err("nobody serves");
            assert_eq!(failed.raw_os_error(), Some(121), "EREMOTEIO");
        }
    }
    let server = Server::recover(device.id(), &config, target.clone()).expect("recovered");
    if state == 2 {
        assert_written(&written);
        assert!(target.bytes()[..pages().len()] == pages()[..], "the medium differs");
    }
    server.delete().expect("deleted");
}
