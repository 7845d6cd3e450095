//! Several commands in flight at once.

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroU32, time::Duration};

use bsg::{Access, BsgUring, Request, UringFrame};
use control::LunSpec;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare, wait};
use rstest::rstest;

use super::{
    block,
    cdb::{self, Size},
    ways::{URING_CMD, Unit, soon, uring_cmd},
};

/// include/uapi/linux/io_uring.h: `user_data` is returned with the completion it belongs to, in
/// whatever order they come. Each of 32 reads, all submitted by one system call, brings its own block.
#[rstest]
fn commands_in_flight_complete_with_their_own_user_data(
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract, URING_CMD);
    const LBA: u32 = 0x2000;
    const COUNT: u8 = 32;
    let mut bsg = uring_cmd(&unit.device(), Access::ReadWrite);
    block::write(&mut bsg, Size::Ten, LBA, COUNT, &cdb::pattern(LBA, COUNT, 7));

    let mut blocks = BTreeMap::new();
    for lba in LBA..LBA + u32::from(COUNT) {
        let request = Request::new(&cdb::read(Size::Ten, lba, 1)).data_in(512);
        let token = bsg.push(UringFrame::from(request)).expect("room in the queue");
        assert_eq!(blocks.insert(token, lba), None);
    }
    assert_eq!(bsg.flush().expect("submitted"), usize::from(COUNT));
    while !blocks.is_empty() {
        let done = bsg.wait(soon()).expect("completed");
        let lba = blocks.remove(&done.token).expect("a command that was in flight");
        let completion = done.completion().expect("executed");
        assert_good(&completion);
        assert_eq!(completion.data, cdb::pattern(lba, 1, 7), "block {lba:#x}");
    }
    assert_eq!(bsg.in_flight(), 0);
}

/// Refused commands complete beside executed ones, each with its own result: nothing of one submission
/// reaches another.
#[rstest]
fn refused_commands_complete_beside_executed_ones() {
    declare!(Contract, URING_CMD);
    let mut bsg = uring_cmd(&Unit::Ours.device(), Access::ReadWrite);
    let mut expected = BTreeMap::new();
    for round in 0..8 {
        let mut frame = UringFrame::from(Request::new(&[0; 6]));
        let res = match round % 2 {
            0 => 0,
            _ => {
                frame.command.request_len = 33;
                -22
            }
        };
        expected.insert(bsg.push(frame).expect("room in the queue"), res);
    }
    assert_eq!(bsg.flush().expect("submitted"), 8);
    let mut seen = BTreeMap::new();
    while seen.len() < expected.len() {
        let done = bsg.wait(soon()).expect("completed");
        assert_eq!(seen.insert(done.token, done.res), None, "completed twice");
    }
    assert_eq!(seen, expected);
}

/// A host of the test's own.
const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// With two I_T nexuses.
const TWO_NEXUSES: Needs =
    Needs { host: ScsiHost::Own(HostShape { nexuses: Some(2), ..HostShape::DEFAULT }), ..OWN_HOST };

/// SAM, Status codes.
const BUSY: u32 = 0x08;
const TASK_SET_FULL: u32 = 0x28;

/// A unit whose task set has room for one command, which is there: a read of block 0, held.
#[track_caller]
fn full_unit() -> (Lun, BsgUring, u64) {
    let spec = LunSpec { task_set_max: NonZeroU32::new(1), ..LunSpec::default() };
    let lun = Lun::with(spec);
    lun.hold(1);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let read = Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512);
    let held = bsg.submit(UringFrame::from(read)).expect("submitted");
    lun.held(1);
    (lun, bsg, held)
}

/// Statuses of TEST UNIT READY at the target, in order.
fn answers(lun: &Lun) -> Vec<u32> {
    let entries = lun.journal().entries;
    let ready = entries.iter().filter(|entry| entry.command == "TEST UNIT READY");
    ready.map(|entry| entry.status.into()).collect()
}

/// drivers/scsi/scsi_error.c:scsi_decide_disposition: a command the task set has no room for is sent again, and its
/// sender sees nothing of it. Not before another one of the device has ended: while there are some, it counts as
/// blocked (drivers/scsi/scsi_lib.c:scsi_dev_queue_ready).
#[test]
fn command_too_many_is_sent_again_when_one_has_ended() {
    declare!(Contract, OWN_HOST);
    let (lun, mut bsg, held) = full_unit();
    let ready = bsg.submit(UringFrame::from(Request::new(&[0; 6]))).expect("submitted");
    let refused = || (!answers(&lun).is_empty()).then_some(());
    wait::until(Duration::from_secs(30), "the refusal", refused).expect("it is sent");
    lun.release();
    for token in [held, ready] {
        let done = bsg.wait_for(token, soon()).expect("completed").completion().expect("executed");
        assert_good(&done);
    }
    assert_eq!(answers(&lun), [TASK_SET_FULL, 0]);
}

/// The same of a device with no command at the unit, whose task set another one fills: BUSY. Then it is sent
/// again and again until its time is over, and its sender is told (drivers/scsi/scsi_lib.c:scsi_complete).
#[test]
fn command_too_many_is_busy_when_its_time_is_over() {
    declare!(Contract, TWO_NEXUSES);
    let (lun, mut bsg, held) = full_unit();
    let mut other = uring_cmd(&lun.devices()[1], Access::ReadWrite);
    let ready = Request::new(&[0; 6]).timeout_ms(50);
    let ready = other.submit(UringFrame::from(ready)).expect("submitted");
    let done = other.wait_for(ready, soon()).expect("completed").completion().expect("executed");
    assert_eq!((done.device_status, done.host_status, done.sense.len()), (BUSY, 0, 0));
    let answers = answers(&lun);
    assert!(answers.len() > 1 && answers.iter().all(|status| *status == BUSY), "{answers:x?}");
    lun.release();
    let done = bsg.wait_for(held, soon()).expect("completed").completion().expect("executed");
    assert_good(&done);
}
