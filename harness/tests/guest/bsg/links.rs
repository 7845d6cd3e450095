//! Links between commands, cancelling, and commands nobody waits for any more.

use std::{borrow::Cow, fs, path::Path, thread, time::Duration};

use bsg::{Access, BsgUring, Cancel, Errno, Link, Pointer, Request, Shape, UringFrame, keeper};
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare, wait};
use rstest::rstest;

use super::ways::{MANY_TAGS, URING_CMD, execute, soon, uring_cmd};

#[path = "../../../../crates/bsg/examples/in_flight.rs"]
#[expect(dead_code, reason = "main runs outside the guest")]
mod in_flight;
#[path = "../../../../crates/bsg/examples/inquiry.rs"]
#[expect(dead_code, reason = "main runs outside the guest")]
mod inquiry;

const fn own_host(shape: HostShape) -> Needs {
    Needs {
        host: ScsiHost::Own(shape),
        features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
        ..Needs::DEFAULT
    }
}

const HOLDS: Needs = own_host(HostShape::DEFAULT);

fn test_unit_ready() -> UringFrame {
    Request::new(&[0; 6]).into()
}

/// An operation code the device does not know.
fn check_condition() -> UringFrame {
    Request::new(&[0xff, 0, 0, 0, 0, 0]).into()
}

/// A CDB of 33 bytes, which bsg refuses.
fn refused() -> UringFrame {
    let mut frame = test_unit_ready();
    frame.command.request_len = 33;
    frame
}

/// Sense data that cannot be written: executed, and EFAULT.
fn sense_nowhere() -> UringFrame {
    let mut frame = check_condition();
    frame.response = Pointer::Unmapped;
    frame
}

/// Results in the order of submission.
#[track_caller]
fn results(bsg: &mut BsgUring, frames: impl IntoIterator<Item = UringFrame>) -> Vec<i32> {
    let count = frames.into_iter().map(|frame| bsg.push(frame).expect("room")).count();
    assert_eq!(bsg.flush().expect("submitted"), count);
    let mut done: Vec<_> = (0..count)
        .map(|_| bsg.wait(soon()).expect("completed"))
        .map(|done| (done.token, done.res))
        .collect();
    done.sort_unstable();
    done.into_iter().map(|(_, res)| res).collect()
}

/// include/uapi/linux/io_uring.h, IOSQE_IO_LINK and IOSQE_IO_HARDLINK: a failed entry cancels what is linked to it
/// (ECANCELED, 125), behind a hard link nothing. drivers/scsi/scsi_bsg.c:scsi_bsg_uring_task_cb: CHECK CONDITION is
/// result 0 and no failure; EFAULT after the command was executed is one.
#[rstest]
#[case::check_condition(check_condition, Link::Soft, [0, 0, 0], 3)]
#[case::refused(refused, Link::Soft, [-22, -125, -125], 0)]
#[case::refused_hard(refused, Link::Hard, [-22, 0, 0], 2)]
#[case::sense_nowhere(sense_nowhere, Link::Soft, [-14, -125, -125], 1)]
#[case::sense_nowhere_hard(sense_nowhere, Link::Hard, [-14, 0, 0], 3)]
fn link_is_cut_by_a_result_and_not_by_a_status(
    #[case] first: fn() -> UringFrame,
    #[case] link: Link,
    #[case] expected: [i32; 3],
    #[case] executed: usize,
) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let chain = [first().link(link), test_unit_ready().link(link), test_unit_ready()];
    assert_eq!(results(&mut bsg, chain), expected);
    assert_eq!(lun.journal().entries.len(), executed);
}

/// As above, on a mixed ring, where the chain goes round the end of the queue and what fills it must not cut it.
#[rstest]
fn link_goes_round_the_end_of_a_mixed_queue() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let node = lun.device().bsg();
    let mut bsg = BsgUring::with_shape(node, Access::ReadWrite, &Shape::mixed(4)).expect("a ring");
    for round in 0..8 {
        // One entry of one slot, refused by bsg, moves the chain by half a command each round.
        let mut small = test_unit_ready();
        small.sqe.opcode = bsg::sqe::OP_URING_CMD;
        let chain = [small, test_unit_ready().link(Link::Soft), test_unit_ready()];
        assert_eq!(results(&mut bsg, chain), [-95, 0, 0], "round {round}");
        let cut = [refused().link(Link::Soft), test_unit_ready()];
        assert_eq!(results(&mut bsg, cut), [-22, -125], "round {round}");
    }
}

/// A linked command begins when the one before it is complete: while that is held the device sees nothing of it.
#[test]
fn linked_command_begins_when_the_one_before_is_complete() {
    declare!(Contract, HOLDS);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    lun.hold(1);
    bsg.push(test_unit_ready().link(Link::Soft)).expect("room");
    let second = bsg.push(check_condition()).expect("room");
    let beside = bsg.push(test_unit_ready()).expect("room");
    bsg.flush().expect("submitted");
    lun.held(1);
    assert_eq!(bsg.wait(soon()).expect("completed").token, beside);
    assert_eq!(lun.journal().entries.len(), 1, "what is behind the link was sent");
    lun.release();
    assert_eq!(bsg.wait_for(second, soon()).expect("completed").res2, Some(0x1200_0802));
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd does not mark its commands as ones that can be cancelled
/// (io_uring/uring_cmd.c:io_uring_cmd_mark_cancelable): one that the device has is not found, and completes in its
/// own time. One behind a link is not found either (io_uring/cancel.c:io_try_cancel).
#[test]
fn command_the_device_has_cannot_be_cancelled() {
    declare!(Contract, HOLDS);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    lun.hold(1);
    let held = bsg.push(test_unit_ready().link(Link::Soft)).expect("room");
    let linked = bsg.push(test_unit_ready()).expect("room");
    bsg.flush().expect("submitted");
    lun.held(1);
    assert_eq!(bsg.cancel(held, soon()).expect("answered"), Cancel::NotFound);
    assert_eq!(bsg.cancel(linked, soon()).expect("answered"), Cancel::NotFound);
    assert_eq!(bsg.cancel(77, soon()).expect("answered"), Cancel::NotFound);
    assert_eq!(bsg.in_flight(), 2);
    lun.release();
    for token in [held, linked] {
        let done = bsg.wait_for(token, soon()).expect("completed");
        assert_good(&done.completion().expect("executed"));
    }
    assert_eq!(bsg.cancel(held, soon()).expect("answered"), Cancel::NotFound);
}

/// Workers of this process that cannot be interrupted: they wait for a tag.
pub(super) fn waiting_workers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("proc is mounted");
    let waits = |task: &Path| {
        // A worker may have ended since.
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.contains("(iou-wrk-") && stat.contains(") D ")
    };
    tasks.filter(|task| waits(&task.as_ref().expect("a directory").path())).count()
}

/// Tags of the smallest ring QEMU takes.
const TAGS: u16 = 4;

/// block/blk-mq.c:blk_mq_alloc_request: without a tag a command goes to a worker, which waits for one and does not let
/// itself be cancelled (EALREADY); behind as many workers as there may be (io_uring/io-wq.c:io_wq_create: four for
/// each CPU, at most as many as the ring has entries) commands wait that can be (result ECANCELED).
#[test]
fn command_without_a_tag_can_be_cancelled_until_a_worker_has_it() {
    declare!(Quirk, own_host(HostShape { tags: Some(TAGS), ..HostShape::DEFAULT }));
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    lun.hold(TAGS.into());
    for _ in 0..TAGS {
        bsg.submit(test_unit_ready()).expect("submitted");
    }
    lun.held(TAGS.into());
    let workers = 4 * thread::available_parallelism().expect("CPUs are counted").get();
    let waiting: Vec<_> =
        (0..=workers).map(|_| bsg.submit(test_unit_ready()).expect("submitted")).collect();
    let what = format!("{workers} workers that wait for tags");
    let all =
        wait::until(Duration::from_secs(30), what, || (waiting_workers() == workers).then_some(()));
    all.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bsg.cancel(waiting[0], soon()).expect("answered"), Cancel::Running);
    assert_eq!(bsg.cancel(waiting[workers], soon()).expect("answered"), Cancel::Cancelled);
    let cancelled = bsg.wait_for(waiting[workers], soon()).expect("completed").completion();
    assert_eq!(cancelled.expect_err("cancelled").errno(), Some(Errno::CANCELED));
    lun.release();
    while bsg.in_flight() > 0 {
        let done = bsg.wait(soon()).expect("completed");
        assert_good(&done.completion().expect("executed"));
    }
    assert_eq!(lun.journal().entries.len(), usize::from(TAGS) + workers);
}

/// A command nobody waits for keeps its memory until it is complete, with its ring or without.
#[test]
fn dropped_commands_stay_with_the_keeper_until_they_complete() {
    declare!(Contract, HOLDS);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let mut other = uring_cmd(lun.device(), Access::ReadWrite);
    let read = || Request::new(&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]).data_in(4096);
    lun.hold(3);
    let discarded = other.submit(read().into()).expect("submitted");
    for _ in 0..2 {
        bsg.submit(read().into()).expect("submitted");
    }
    lun.held(3);
    drop(bsg);
    assert_eq!(keeper::reap(), 2, "memory of commands in flight was let go");
    other.discard(discarded);
    assert_eq!(other.in_flight(), 1);
    lun.release();
    assert_good(&execute(&mut other, Request::new(&[0; 6])));
    let freed = wait::until(Duration::from_secs(30), "the keeper to free both", || {
        (keeper::reap() == 0).then_some(())
    });
    freed.unwrap_or_else(|error| panic!("{error}"));
    let idle = wait::until(Duration::from_secs(30), "the discarded read", || {
        // Its completion is thrown away by whatever waits next.
        assert_good(&execute(&mut other, Request::new(&[0; 6])));
        (other.in_flight() == 0).then_some(())
    });
    idle.unwrap_or_else(|error| panic!("{error}"));
}

/// The first example of the client's documentation: who is there, in 28 characters (SPC-4, standard INQUIRY data).
#[test]
fn example_inquiry_names_the_device() {
    declare!(Contract, URING_CMD);
    let name = inquiry::who_is(&Lun::fresh().device().bsg()).expect("the device answers");
    assert!(name.len() == 28 && name.is_ascii(), "{name:?}");
    let unknown = inquiry::who_is(Path::new("/dev/bsg/none")).expect_err("no such node");
    assert!(unknown.to_string().contains("/dev/bsg/none"), "{unknown}");
}

/// The second one: 64 commands are with the device at once, and all of a thousand succeed.
#[test]
fn example_in_flight_has_64_commands_with_the_device() {
    declare!(Contract, MANY_TAGS);
    let lun = Lun::fresh();
    lun.hold(64);
    let node = lun.device().bsg();
    let example = thread::spawn(move || in_flight::run(&node).map_err(|error| error.to_string()));
    lun.held(64);
    lun.release();
    assert_eq!(example.join().expect("no panic"), Ok(1000));
    assert_eq!(in_flight::COMMANDS, 1000);
}
