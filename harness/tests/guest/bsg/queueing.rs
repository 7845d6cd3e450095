//! At which end of its queue a command waits for a device that takes no more.

use std::{borrow::Cow, fs, path::Path, sync::mpsc, thread, time::Duration};

use bsg::{Access, BsgIoctl, Request, UringFrame, V4Frame};
use harness::{
    Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost, assert::assert_good, declare, wait,
};
use rstest::rstest;

use super::ways::{sg_io_v4, soon, uring_cmd};

const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// include/uapi/linux/bsg.h: BSG_FLAG_Q_AT_TAIL, BSG_FLAG_Q_AT_HEAD.
const AT_TAIL: u32 = 0x10;
const AT_HEAD: u32 = 0x20;

/// INQUIRY that says by its allocation length which one it is.
fn marked(mark: u8) -> Request {
    Request::new(&[0x12, 0, 0, 0, mark, 0]).data_in(mark.into())
}

/// A unit to which the midlayer gives one command at a time.
#[track_caller]
fn one_at_a_time() -> Lun {
    let lun = Lun::fresh();
    let depth = lun.device().dir().join("queue_depth");
    fs::write(depth, "1").expect("a depth that is possible");
    lun
}

/// The marks of what the unit was asked, in that order.
fn marks(lun: &Lun) -> Vec<u8> {
    let entries = lun.journal().entries;
    let inquiries = entries.iter().filter(|entry| entry.cdb.starts_with("12"));
    let mark = |cdb: &str| u8::from_str_radix(&cdb[8..10], 16).expect("hexadecimal");
    inquiries.map(|entry| mark(&entry.cdb)).collect()
}

/// Sends it, from a thread of its own that has begun to wait when this returns.
#[track_caller]
fn sent<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    device: &ScsiDevice,
    mark: u8,
    flags: u32,
) {
    let bsg: BsgIoctl = sg_io_v4(device, Access::ReadWrite);
    let (sender, thread) = mpsc::channel();
    scope.spawn(move || {
        sender.send(rustix::thread::gettid()).expect("the test listens");
        let mut frame = V4Frame::from(marked(mark));
        frame.header.flags = flags;
        bsg.sg_io(&mut frame).expect("executed");
        assert_eq!((frame.header.info, frame.header.din_resid), (0, 0), "command {mark}");
    });
    let thread = thread.recv().expect("it has begun");
    let stat = Path::new("/proc/self/task").join(thread.as_raw_nonzero().to_string()).join("stat");
    // SG_IO waits uninterruptibly (block/blk-mq.c:blk_execute_rq).
    let waits = wait::until(Duration::from_secs(20), "SG_IO that waits", || {
        let stat = fs::read_to_string(&stat).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('D').then_some(())
    });
    waits.unwrap_or_else(|error| panic!("{error}"));
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn: BSG_FLAG_Q_AT_TAIL puts a command behind those that wait, without
/// it one goes before them; BSG_FLAG_Q_AT_HEAD is not looked at.
#[rstest]
#[case::neither(0, [3, 2, 1])]
#[case::head(AT_HEAD, [3, 2, 1])]
#[case::tail(AT_TAIL, [1, 2, 3])]
#[case::both(AT_TAIL | AT_HEAD, [1, 2, 3])]
fn sg_io_waits_at_the_end_its_flag_names(#[case] flags: u32, #[case] order: [u8; 3]) {
    declare!(Quirk, OWN_HOST);
    let lun = one_at_a_time();
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    lun.hold(1);
    ring.submit(Request::new(&[0; 6]).into()).expect("submitted");
    lun.held(1);
    thread::scope(|scope| {
        for mark in 1..=3 {
            sent(scope, lun.device(), mark, flags);
        }
        assert_eq!(marks(&lun), [0; 0], "the device has one command already");
        lun.release();
    });
    assert_good(&ring.wait(soon()).expect("completed").completion().expect("executed"));
    assert_eq!(marks(&lun), order);
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd: in the order they were submitted in.
#[test]
fn uring_cmd_waits_at_the_tail() {
    declare!(Quirk, OWN_HOST);
    let lun = one_at_a_time();
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    lun.hold(1);
    ring.submit(Request::new(&[0; 6]).into()).expect("submitted");
    lun.held(1);
    for mark in 1..=8 {
        ring.submit(UringFrame::from(marked(mark))).expect("submitted");
    }
    lun.release();
    while ring.in_flight() > 0 {
        let done = ring.wait(soon()).expect("completed");
        assert_good(&done.completion().expect("executed"));
    }
    assert_eq!(marks(&lun), [1, 2, 3, 4, 5, 6, 7, 8]);
}
