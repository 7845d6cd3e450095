//! What a server does wrong, said by rules, and what the application is told of it, in each way in which data moves: it
//! must never be told that more was done than was (drivers/block/ublk_drv.c:__ublk_complete_rq).

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{BlockDevice, declare};
use rstest::rstest;
use ublk::{Config, DataMode, Errno, Faults, Op, Server};
use ublk_fault::{Effect, ErrorName, OpName, Rule, Scenario, When, WrongBuffer};

use super::{
    modes::SINCE_7_0,
    recorder::{Recorder, pattern, unscanned},
};

const SECTORS: u64 = 64;
const DEADLINE: Duration = Duration::from_secs(20);

/// A device on which one thing goes wrong, once, with requests of this kind.
pub(super) struct Faulty {
    /// Closed before the device is deleted, however the test ends.
    pub(super) disk: BlockDevice,
    server: Server,
    pub(super) target: Arc<Recorder>,
    pub(super) faults: Arc<Faults>,
}

impl Faulty {
    fn start(mode: DataMode, op: OpName, effect: Effect) -> Self {
        Self::on(unscanned(SECTORS).mode(mode), op, effect)
    }

    pub(super) fn on(config: Config, op: OpName, effect: Effect) -> Self {
        let rule = Rule::new("fault", effect).when(When::op(op).sectors(8, 15));
        Self::with(config, Faults::new(vec![rule], 0).expect("sound"))
    }

    fn with(config: Config, faults: Arc<Faults>) -> Self {
        let target = Arc::new(Recorder::new(SECTORS));
        let server = Server::start(&config.faults(&faults), target.clone()).expect("started");
        let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
        target.take();
        Faulty { disk, server, target, faults }
    }

    /// First sectors and lengths of the requests that the target has seen.
    pub(super) fn seen(&self) -> Vec<(Op, u64, u32)> {
        self.target.take().iter().map(|seen| (seen.0, seen.2, seen.3)).collect()
    }

    /// Ends the device. The fault must have happened, and the device must have gone on.
    pub(super) fn end(self) {
        assert_eq!(self.faults.counts()[0].fired, 1, "{:?}", self.faults);
        self.disk.write(0, &pattern(0, 1, 9)).expect("the device goes on");
        assert_eq!(self.disk.read(0, 512).expect("read"), pattern(0, 1, 9));
        drop(self.disk);
        self.server.delete().expect("deleted");
    }
}

/// A negative result is what the application gets, and of a write nothing is on the medium.
#[rstest]
fn error_of_a_request_is_the_application_s(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::AutoBuf)] mode: DataMode,
    #[values(OpName::Read, OpName::Write)] op: OpName,
) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::start(mode, op, Effect::errno(ErrorName::Enospc));
    let failed = match op {
        OpName::Read => device.disk.read(8 * 512, 4096).expect_err("failed"),
        _ => device.disk.write(8 * 512, &pattern(8, 8, 1)).expect_err("failed"),
    };
    assert_eq!(failed.raw_os_error(), Some(28), "ENOSPC");
    assert_eq!(device.target.bytes()[8 * 512..16 * 512], [0; 4096]);
    device.end();
}

/// A short read delivers the rest again, starting where the first part ended; all of it reaches the application.
#[rstest]
fn short_read_delivers_the_rest(
    #[values(
        DataMode::Copy,
        DataMode::GetData,
        DataMode::UserCopy,
        DataMode::ZeroCopy,
        DataMode::AutoBuf
    )]
    mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::start(mode, OpName::Read, Effect::short(3 * 512));
    let data = pattern(8, 8, 2);
    device.target.bytes()[8 * 512..16 * 512].copy_from_slice(&data);
    assert!(device.disk.read(8 * 512, 4096).expect("read") == data, "the data differs");
    assert_eq!(device.seen(), [(Op::Read, 8, 3), (Op::Read, 11, 5)]);
    device.end();
}

/// A short write delivers the rest again; all of it is on the medium.
#[rstest]
fn short_write_delivers_the_rest(
    #[values(
        DataMode::Copy,
        DataMode::GetData,
        DataMode::UserCopy,
        DataMode::ZeroCopy,
        DataMode::AutoBuf
    )]
    mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::start(mode, OpName::Write, Effect::short(3 * 512));
    let data = pattern(8, 8, 3);
    device.disk.write(8 * 512, &data).expect("written");
    assert!(device.target.bytes()[8 * 512..16 * 512] == data[..], "the medium differs");
    assert_eq!(device.seen(), [(Op::Write, 8, 3), (Op::Write, 11, 5)]);
    device.end();
}

/// A read of which nothing was done is EIO. Whatever a write of which nothing was done is told, it is not success with
/// nothing on the medium.
#[rstest]
fn nothing_done_is_not_success(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::AutoBuf)] mode: DataMode,
    #[values(OpName::Read, OpName::Write)] op: OpName,
) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::start(mode, op, Effect::short(0));
    let data = pattern(8, 8, 4);
    if op == OpName::Read {
        let failed = device.disk.read(8 * 512, 4096).expect_err("failed");
        assert_eq!(Errno::from_io_error(&failed), Some(Errno::IO));
    } else if device.disk.write(8 * 512, &data).is_ok() {
        assert!(device.target.bytes()[8 * 512..16 * 512] == data[..], "acknowledged and lost");
    }
    device.end();
}

/// A result beyond the length of its request counts as that length: what comes after is not touched, and the
/// application is told of no more.
#[rstest]
fn overlong_result_is_the_whole_request(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::AutoBuf)] mode: DataMode,
    #[values(OpName::Read, OpName::Write)] op: OpName,
) {
    declare!(Accident, SINCE_7_0);
    let device = Faulty::start(mode, op, Effect::overlong(1 << 20));
    let data = pattern(8, 8, 5);
    if op == OpName::Read {
        device.target.bytes()[8 * 512..16 * 512].copy_from_slice(&data);
        assert!(device.disk.read(8 * 512, 4096).expect("read") == data, "the data differs");
    } else {
        device.disk.write(8 * 512, &data).expect("written");
        assert!(device.target.bytes()[8 * 512..16 * 512] == data[..], "the medium differs");
        assert_eq!(device.target.bytes()[16 * 512], 0);
    }
    assert_eq!(device.seen().len(), 1);
    device.end();
}

/// A request that waits in its server holds up neither its application's others nor those of other applications.
#[rstest]
fn held_request_holds_up_no_other(#[values(DataMode::Copy, DataMode::ZeroCopy)] mode: DataMode) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::start(mode, OpName::Write, Effect::hold());
    let data = pattern(8, 8, 6);
    thread::scope(|scope| {
        let writer = scope.spawn(|| device.disk.write(8 * 512, &data));
        device.faults.wait_held(1, DEADLINE).expect("the write is held");
        device.disk.write(0, &pattern(0, 8, 7)).expect("written");
        assert_eq!(device.disk.read(0, 4096).expect("read"), pattern(0, 8, 7));
        assert!(!writer.is_finished(), "nobody has done it");
        assert_eq!(device.target.bytes()[8 * 512], 0);
        device.faults.release();
        writer.join().expect("no panic").expect("written");
    });
    assert!(device.target.bytes()[8 * 512..16 * 512] == data[..], "the medium differs");
    device.end();
}

/// A delay lasts as long as it says, at least.
#[rstest]
fn delayed_request_takes_its_time() {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::start(DataMode::Copy, OpName::Read, Effect::delay_us(50_000));
    let begin = Instant::now();
    assert_eq!(device.disk.read(8 * 512, 512).expect("read"), [0; 512]);
    assert!(begin.elapsed() >= Duration::from_millis(50), "{:?}", begin.elapsed());
    device.end();
}

/// ublk_drv.c:ublk_unmap_io: the data of a READ is copied from the address of its commit. Where nothing is, the
/// application must not be told that it has data.
#[rstest]
fn data_of_a_read_that_is_nowhere_is_not_success() {
    declare!(Contract, SINCE_7_0);
    let effect = Effect::buffer(WrongBuffer::Unmapped);
    let device = Faulty::start(DataMode::Copy, OpName::Read, effect);
    device.target.bytes()[8 * 512..16 * 512].fill(0x77);
    if let Ok(data) = device.disk.read(8 * 512, 4096) {
        assert_eq!(data, [0x77; 4096], "told of data that is nowhere");
    }
    device.end();
}

/// The same: it is copied from there, whatever it was at delivery.
#[rstest]
fn data_of_a_read_is_taken_from_the_address_of_the_commit() {
    declare!(Quirk, SINCE_7_0);
    let effect = Effect::buffer(WrongBuffer::Other);
    let device = Faulty::start(DataMode::Copy, OpName::Read, effect);
    assert_eq!(device.disk.read(8 * 512, 4096).expect("read"), [0xa5; 4096]);
    device.end();
}

/// A scenario file says what a rule says.
#[rstest]
fn scenario_file_makes_a_device_fail() {
    declare!(Contract, SINCE_7_0);
    let text = include_str!("../../../ublk-scenarios/bad-spot.toml");
    let faults = Faults::of(Scenario::parse(text).expect("a scenario")).expect("sound");
    let device = Faulty::with(unscanned(SECTORS), faults);
    device.disk.read(0, 12 * 512).expect("up to the bad sector");
    let failed = device.disk.read(8 * 512, 4096).expect_err("failed");
    assert_eq!(failed.raw_os_error(), Some(61), "ENODATA");
    device.end();
}
