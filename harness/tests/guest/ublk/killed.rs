//! The server is killed in each state that a tag can be in, and while control commands run: what becomes of requests by
//! what the device was told of recovery, and what the next server finds.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{
    BlockDevice, Child, UblkDevice,
    child::{self, Parent},
    declare, sysfs, wait,
};
use rstest::rstest;
use ublk::{
    Config, Control, DataMode, Features, Pointer, RawCommand, RawQueue, Server,
    uapi::{CtrlCmd, ctrl},
};

use super::{
    modes::SINCE_7_0,
    protocol::{
        COMMIT, DEADLINE, FETCH, MOMENT, NEED_GET_DATA, REGISTER, buffer, close, fetch, say,
    },
    recorder::{Recorder, pattern, unscanned},
};

const SECTORS: u64 = 64;

/// Where the server dies. A write of 8 sectors to sector 8 is under way, but for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The driver has every tag.
    Idle,
    /// The server has the request.
    Delivered,
    /// The server has it without its data.
    WithoutData,
    /// The server has asked for the data, and has it.
    WithData,
    /// The data is registered.
    Registered,
    /// The request is committed, and its data is registered still.
    Committed,
}

impl Point {
    const ALL: [Point; 6] = [
        Point::Idle,
        Point::Delivered,
        Point::WithoutData,
        Point::WithData,
        Point::Registered,
        Point::Committed,
    ];

    fn mode(self) -> DataMode {
        match self {
            Point::Idle | Point::Delivered => DataMode::Copy,
            Point::WithoutData | Point::WithData => DataMode::GetData,
            Point::Registered | Point::Committed => DataMode::ZeroCopy,
        }
    }
}

/// What the device was told of a server that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: the disk goes.
    Gone,
    /// It waits for the next.
    Waits,
    /// The next gets what it had.
    Reissued,
    /// Everything fails until the next.
    Fails,
}

impl Fate {
    const ALL: [Fate; 4] = [Fate::Gone, Fate::Waits, Fate::Reissued, Fate::Fails];

    fn features(self) -> Features {
        match self {
            Fate::Gone => Features::empty(),
            Fate::Waits => Features::USER_RECOVERY,
            Fate::Reissued => Features::USER_RECOVERY | Features::USER_RECOVERY_REISSUE,
            Fate::Fails => Features::USER_RECOVERY | Features::USER_RECOVERY_FAIL_IO,
        }
    }

    /// State of the device without a server.
    fn state(self) -> u16 {
        match self {
            Fate::Gone => 0,
            Fate::Waits | Fate::Reissued => 2,
            Fate::Fails => 3,
        }
    }
}

fn config(point: Point, fate: Fate) -> Config {
    unscanned(SECTORS).mode(point.mode()).with(fate.features()).queues(1, 1)
}

/// The child: serves one tag by hand up to the point. Tells the device's number, and `there`.
pub(crate) fn serve_to_the_point() -> ! {
    let mut parent = Parent::connect();
    let role = child::role().expect("a role");
    let (point, fate) = role.split_once(' ').expect("two words");
    let point = Point::ALL.into_iter().find(|p| format!("{p:?}") == point).expect("a point");
    let fate = Fate::ALL.into_iter().find(|f| format!("{f:?}") == fate).expect("a fate");
    let config = config(point, fate);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("opened");
    queue.make_table(1).expect("a table");
    let memory = if point.mode() == DataMode::Copy { buffer() } else { Pointer::Null };
    let token = queue.begin(RawCommand::new(FETCH, 0, 0).memory(memory)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    parent.tell(&id.to_string());
    if point != Point::Idle {
        let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        let wanted = i32::from(point.mode() == DataMode::GetData);
        assert_eq!(request.expect("delivered").res, wanted);
    }
    match point {
        Point::Idle | Point::Delivered | Point::WithoutData => {}
        Point::WithData => {
            let ask = RawCommand::new(NEED_GET_DATA, 0, 0).memory(buffer());
            assert_eq!(say(&mut queue, ask), Some(Ok(0)));
        }
        Point::Registered | Point::Committed => {
            assert_eq!(say(&mut queue, RawCommand::new(REGISTER, 0, 0)), Some(Ok(0)));
        }
    }
    if point == Point::Committed {
        let commit = RawCommand { result: 4096, ..RawCommand::new(COMMIT, 0, 0) };
        assert_eq!(say(&mut queue, commit), None);
    }
    parent.tell("there");
    parent.until_killed();
}

/// Does something with a disk on a thread of its own, so that a request that never ends fails the test alone.
fn beside<T: Send + 'static>(
    device: &UblkDevice,
    act: impl FnOnce(&BlockDevice) -> T + Send + 'static,
) -> Receiver<T> {
    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    BlockDevice::beside(move || disk, act)
}

/// Documentation/block/ublk.rst: what a server had fails with EIO, or is the next server's, who finds the disk as it was.
#[rstest]
fn request_of_a_killed_server_ends_as_the_device_was_told(
    #[values(
        Point::Idle,
        Point::Delivered,
        Point::WithoutData,
        Point::WithData,
        Point::Registered
    )]
    point: Point,
    #[values(Fate::Gone, Fate::Waits, Fate::Reissued, Fate::Fails)] fate: Fate,
) {
    declare!(Contract, SINCE_7_0);
    if child::role().is_some() {
        serve_to_the_point();
    }
    kill_at(point, fate);
}

/// Kills a server at a point, and holds what becomes of its request and its device against the fate.
#[track_caller]
pub(crate) fn kill_at(point: Point, fate: Fate) {
    let mut server = Child::start(&format!("{point:?} {fate:?}"));
    let mut device = UblkDevice::adopt(server.hear().parse().expect("a number"));
    let written = (point != Point::Idle)
        .then(|| beside(&device, |disk| disk.write(8 * 512, &pattern(8, 8, 1))));
    assert_eq!(server.hear(), "there");
    server.kill();
    device.await_state(fate.state());
    let is_reissued = fate == Fate::Reissued && point != Point::Idle && point != Point::Committed;
    let outcome = written.as_ref().filter(|_| !is_reissued).map(|written| {
        let outcome = written.recv_timeout(DEADLINE).expect("it ends");
        outcome.map_err(|error| error.raw_os_error())
    });
    match (point, outcome) {
        (Point::Committed, Some(outcome)) => assert_eq!(outcome, Ok(())),
        (_, Some(outcome)) => assert_eq!(outcome, Err(Some(5)), "EIO"),
        (_, None) => {}
    }
    if fate == Fate::Gone {
        sysfs::vanish(&device.block_path());
        device.delete();
        return;
    }
    let target = Arc::new(Recorder::new(SECTORS));
    let id = device.id();
    let next = Server::recover(id, &config(point, fate), target.clone());
    let next = next.expect("recovered");
    let info = device.control().info(id).expect("GET_DEV_INFO");
    assert_eq!(u32::try_from(info.ublksrv_pid), Ok(std::process::id()), "who serves it");
    if let Some(written) = written.filter(|_| is_reissued) {
        written.recv_timeout(DEADLINE).expect("it ends").expect("written");
        assert!(target.bytes()[8 * 512..16 * 512] == pattern(8, 8, 1)[..], "the medium differs");
    }
    let read = beside(&device, |disk| {
        disk.write(0, &pattern(0, 8, 2))?;
        disk.read(0, 4096)
    });
    assert_eq!(read.recv_timeout(DEADLINE).expect("it ends").expect("read"), pattern(0, 8, 2));
    next.delete().expect("deleted");
}

/// The child: serves as many tags as its role says by hand, and keeps what it gets. Tells the device's number, and `full`
/// when it has a request for each.
fn keep_everything() -> ! {
    let mut parent = Parent::connect();
    let role = child::role().expect("a role");
    let flags: u64 = role.parse().expect("a number");
    let mut config = unscanned(SECTORS).queues(1, 4);
    config.info.flags |= flags;
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("opened");
    let tokens: Vec<u64> = (0..4).map(|tag| queue.begin(fetch(tag)).expect("submitted")).collect();
    device.control().start(id).expect("START_DEV");
    parent.tell(&id.to_string());
    for token in tokens {
        let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(request.expect("delivered").res, 0);
    }
    parent.tell("full");
    parent.until_killed();
}

/// A device whose server has every tag, and the writers it keeps waiting.
fn full(features: Features) -> (Child, UblkDevice, Vec<Receiver<std::io::Result<()>>>) {
    let mut server = Child::start(&features.bits().to_string());
    let device = UblkDevice::adopt(server.hear().parse().expect("a number"));
    let writers = (0..4_u64)
        .map(|at| beside(&device, move |disk| disk.write(at * 8 * 512, &pattern(at * 8, 8, 3))));
    let writers = writers.collect();
    assert_eq!(server.hear(), "full");
    (server, device, writers)
}

/// STOP_DEV, or UPDATE_SIZE and TRY_STOP_DEV and QUIESCE_DEV as far as they wait, while the server has every tag, which
/// then is killed: the command ends, the requests end, and the device can be deleted.
#[rstest]
#[case::stop(ctrl::STOP_DEV, 0)]
#[case::resize(ctrl::UPDATE_SIZE, 32)]
#[case::delete(ctrl::DEL_DEV, 0)]
#[case::quiesce(ctrl::QUIESCE_DEV, 60_000)]
fn command_ends_when_the_server_is_killed(
    #[case] op: u32,
    #[case] data: u64,
    #[values(Fate::Gone, Fate::Waits, Fate::Reissued)] fate: Fate,
) {
    declare!(Contract, SINCE_7_0);
    if child::role().is_some() {
        keep_everything();
    }
    let quiesce = if fate == Fate::Gone { Features::empty() } else { Features::QUIESCE };
    let (server, mut device, writers) = full(fate.features() | quiesce);
    let command = CtrlCmd { data, ..CtrlCmd::for_device(device.id()) };
    let mut control = Control::open().expect("opened");
    let token = control.begin(op, command, Pointer::Null).expect("submitted");
    let waits = control.finish(token, Instant::now() + MOMENT).is_err();
    let expected = matches!(op, ctrl::STOP_DEV | ctrl::DEL_DEV);
    assert_eq!(waits, expected, "whether it waits for the requests");
    server.kill();
    if waits {
        let reply = control.finish(token, Instant::now() + DEADLINE).expect("answered");
        assert_eq!(reply.res, 0);
        assert!(UblkDevice::find(device.id()).is_none_or(|info| info.state == 0));
    } else {
        device.await_state(fate.state());
    }
    if fate == Fate::Reissued && !waits {
        let target = Arc::new(Recorder::new(SECTORS));
        let next = Server::recover(device.id(), &unscanned(SECTORS), target).expect("recovered");
        for written in writers {
            let outcome = written.recv_timeout(DEADLINE).expect("it ends");
            outcome.unwrap_or_else(|error| panic!("the next server did it: {error}"));
        }
        next.delete().expect("deleted");
        return;
    }
    for written in writers {
        let failed = written.recv_timeout(DEADLINE).expect("it ends").expect_err("nobody did it");
        assert_eq!(failed.raw_os_error(), Some(5), "EIO");
    }
}

/// The child: takes a device over up to the last step, END_USER_RECOVERY, with so many of its two tags fetched, and says
/// `there`.
fn recover_halfway() -> ! {
    let mut parent = Parent::connect();
    let role = child::role().expect("a role");
    let (id, tags) = role.split_once(' ').expect("two words");
    let (id, tags): (u32, u16) = (id.parse().expect("a number"), tags.parse().expect("a number"));
    let mut control = Control::open().expect("opened");
    control.start_recovery(id).expect("START_USER_RECOVERY");
    let mut queue = RawQueue::open(id).expect("opened");
    queue.descriptor(0, 2, 0).expect("mapped");
    for tag in 0..tags {
        assert_eq!(say(&mut queue, fetch(tag)), None);
    }
    let end = CtrlCmd { data: std::process::id().into(), ..CtrlCmd::for_device(id) };
    if tags == 1 {
        let token = control.begin(ctrl::END_USER_RECOVERY, end, Pointer::Null).expect("submitted");
        assert!(control.finish(token, Instant::now() + MOMENT).is_err(), "a tag is left");
    }
    parent.tell("there");
    parent.until_killed();
}

/// A server that dies in the middle of a recovery, before its fetches, with END_USER_RECOVERY waiting for the last of
/// them, or after: the next one recovers the device, and gets what the first had.
#[rstest]
fn server_killed_in_the_middle_of_a_recovery_leaves_it_to_the_next(#[values(0, 1, 2)] tags: u16) {
    declare!(Contract, SINCE_7_0);
    if child::role().is_some() {
        recover_halfway();
    }
    let target = Arc::new(Recorder::new(SECTORS));
    let config = unscanned(SECTORS).with(Fate::Reissued.features()).queues(1, 2);
    let server = Server::start(&config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    disk.write(0, &pattern(0, 8, 4)).expect("written");
    server.leave();
    device.await_state(2);
    device.start_recovery();
    let mut second = Child::start(&format!("{} {tags}", device.id()));
    assert_eq!(second.hear(), "there");
    second.kill();
    let server = Server::recover(device.id(), &config, target).expect("recovered");
    assert_eq!(disk.read(0, 4096).expect("read"), pattern(0, 8, 4));
    drop(disk);
    server.delete().expect("deleted");
}

/// A server that closes its ring and keeps the char device open is one that does not answer any more: requests fail with
/// EIO at once, what it had and what comes, and the device can be deleted.
#[rstest]
fn requests_fail_when_the_ring_is_closed() {
    declare!(Contract, SINCE_7_0);
    let config = unscanned(SECTORS).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("opened");
    let open = queue.another().expect("a ring that keeps the char device open");
    queue.begin(fetch(0)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    close(queue);
    let failed = beside(&device, |disk| disk.read(0, 512));
    let failed = failed.recv_timeout(DEADLINE).expect("it ends").expect_err("nobody did it");
    assert_eq!(failed.raw_os_error(), Some(5), "EIO");
    assert_eq!(device.state(), 1, "somebody has the char device");
    drop(open);
    device.await_state(0);
    device.delete();
}

/// DEL_DEV with writers at work and a server that serves: it ends, their requests end, and what was acknowledged is on
/// the medium.
#[rstest]
fn device_deleted_under_load_goes() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let server = Server::start(&unscanned(SECTORS), target.clone()).expect("started");
    let id = server.dev_id();
    let device = UblkDevice::adopt(id);
    let writers: Vec<_> = (0..3_u64)
        .map(|at| {
            beside(&device, move |disk| {
                let marks = (1..=u8::MAX).cycle();
                let mut last = (0, 0);
                for mark in marks {
                    match disk.write(at * 8 * 512, &pattern(at * 8, 8, mark)) {
                        Ok(()) => last = (mark, mark),
                        Err(_) => return (last.0, mark),
                    }
                }
                last
            })
        })
        .collect();
    let busy = wait::until(DEADLINE, "writes", || (target.count() > 20).then_some(()));
    busy.unwrap_or_else(|error| panic!("{error}"));
    let mut control = Control::open().expect("opened");
    control.set_timeout(Duration::from_secs(20));
    control.delete(id).expect("DEL_DEV");
    for (at, ended) in (0..3_u64).zip(writers) {
        let (acknowledged, last) = ended.recv_timeout(DEADLINE).expect("the writer ends");
        let start = usize::try_from(at * 8 * 512).expect("short");
        let medium = target.bytes()[start..start + 4096].to_vec();
        let acceptable = [acknowledged, last].map(|mark| pattern(at * 8, 8, mark));
        assert!(acceptable.contains(&medium), "{acknowledged} was acknowledged");
    }
    assert!(UblkDevice::find(id).is_none());
    server.leave();
}

/// A server that has recovered a device loses its ring, and the char device stays open: requests wait for the next server
/// as they did the first time.
#[rstest]
fn ring_closed_after_a_recovery_keeps_requests_waiting() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let config = unscanned(SECTORS).with(Fate::Waits.features()).queues(1, 1);
    let server = Server::start(&config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let id = device.id();
    server.leave();
    device.await_state(2);
    device.start_recovery();
    let mut queue = RawQueue::open(id).expect("opened");
    let open = queue.another().expect("a ring that keeps the char device open");
    queue.begin(fetch(0)).expect("submitted");
    device.control().end_recovery(id).expect("END_USER_RECOVERY");
    close(queue);
    let read = beside(&device, |disk| disk.read(0, 512));
    let early = read.recv_timeout(MOMENT);
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "nobody serves: {early:?}");
    assert_eq!(device.state(), 1, "somebody has the char device");
    drop(open);
    device.await_state(2);
    let server = Server::recover(id, &config, target).expect("recovered");
    assert_eq!(read.recv_timeout(DEADLINE).expect("it ends").expect("read"), [0; 512]);
    server.delete().expect("deleted");
}
