//! Kinds of rings: what each does to a command, and that a batch is one.

use std::thread;

use bsg::{
    Access, BsgUring, Completion, CqeSize, Errno, Error, Feature, Passthrough, Request, Shape,
    SqeSize, UringFrame,
    sqe::{OP_URING_CMD, OP_URING_CMD128},
};
use harness::{Lun, assert::assert_good, declare, privilege};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{URING_CMD, Unit, complete, soon},
};

#[track_caller]
fn open(lun: &Lun, shape: &Shape) -> BsgUring {
    let opened = BsgUring::with_shape(lun.device().bsg(), Access::ReadWrite, shape);
    opened.unwrap_or_else(|error| panic!("a ring of shape {shape:?}: {error}"))
}

/// A write and a read of what it wrote, and a command that fails.
#[track_caller]
fn assert_it_works(bsg: &mut BsgUring) {
    let mut run = |request| -> Completion { bsg.execute(request).expect("executed") };
    let data = cdb::pattern(3, 2, 5);
    assert_good(&run(Request::new(&cdb::write(Size::Ten, 3, 2)).data_out(&data)));
    let read = run(Request::new(&cdb::read(Size::Ten, 3, 2)).data_in(1024));
    assert_good(&read);
    assert_eq!(read.data, data);
    let failed = run(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    assert_eq!((failed.device_status, failed.sense.len()), (2, 18), "{failed:?}");
}

/// include/uapi/linux/io_uring.h: a kernel whose bsg takes commands from rings (7.1) has every kind of ring. Asked, it
/// says so (`IORING_REGISTER_PROBE`, and rings of each kind).
#[rstest]
fn kernel_with_uring_cmd_on_bsg_has_every_kind_of_ring() {
    declare!(Contract, URING_CMD);
    let missing: Vec<_> = Feature::ALL.into_iter().filter(|kind| !kind.is_supported()).collect();
    assert_eq!(missing, []);
}

/// block/bsg.c:bsg_check_uring_features looks at the sizes of the entries and at nothing else of a ring
/// (include/uapi/linux/io_uring.h, IORING_SETUP_*).
#[rstest]
#[case::single_issuer(Shape { single_issuer: true, ..Shape::big(8) })]
#[case::defer_taskrun(Shape { single_issuer: true, defer_taskrun: true, ..Shape::big(8) })]
#[case::sqpoll(Shape { sqpoll_idle_ms: Some(1000), ..Shape::big(8) })]
#[case::sqpoll_that_sleeps(Shape { sqpoll_idle_ms: Some(1), ..Shape::big(8) })]
#[case::submit_all(Shape { submit_all: true, ..Shape::big(8) })]
#[case::mixed(Shape::mixed(8))]
#[case::mixed_submissions(Shape { sqe: SqeSize::Mixed, ..Shape::big(16) })]
#[case::mixed_completions(Shape { cqe: CqeSize::Mixed, ..Shape::big(8) })]
fn commands_go_through_a_ring_of_this_kind(#[case] shape: Shape) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    assert_it_works(&mut open(&lun, &shape));
    assert_eq!(lun.journal().entries.len(), 3);
}

/// io_uring/uring_cmd.c:io_uring_cmd: a file without `uring_cmd_iopoll`, as a bsg node is (block/bsg.c:bsg_fops),
/// completes on a ring with IOPOLL as on any other. Nothing is on the list that the kernel polls.
#[rstest]
fn commands_on_a_ring_with_iopoll_are_not_polled() {
    declare!(Quirk, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = open(&lun, &Shape { iopoll: true, ..Shape::big(8) });
    assert_it_works(&mut bsg);
    // io_uring.c:io_init_req: an operation that has nothing to poll is refused on such a ring.
    let token = bsg.submit(UringFrame::from(Request::new(&[0; 6]))).expect("submitted");
    let refused =
        bsg.cancel(token, soon()).expect_err("ASYNC_CANCEL is no operation of such a ring");
    assert!(matches!(refused, bsg::CancelError::Refused(_)), "{refused}");
    assert_eq!(bsg.wait_for(token, soon()).expect("completed").res, 0);
}

/// io_uring/io_uring.c:__do_sys_io_uring_enter (via uring_lock and submitter_task): a ring with a single issuer takes
/// entries from the task that made it, and EEXIST from every other.
#[rstest]
fn single_issuer_refuses_another_task() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = open(&lun, &Shape { single_issuer: true, ..Shape::big(8) });
    assert_it_works(&mut bsg);
    let other = thread::scope(|scope| {
        let submit = || bsg.submit(UringFrame::from(Request::new(&[0; 6])));
        scope.spawn(submit).join().expect("no panic")
    });
    let refused = other.expect_err("another task");
    assert!(matches!(refused, Error::Submit(_)), "{refused}");
    assert_eq!(refused.errno(), Some(Errno::EXIST));
    // What was pushed there goes with the next submission of the owner.
    assert_eq!(bsg.wait(soon()).expect("completed").res, 0);
}

/// io_uring/sqpoll.c:io_sq_thread takes the credentials of whoever made the ring, and the opcode filter asks those:
/// SYNCHRONIZE CACHE(16), 91h, is on no list (drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed).
#[rstest]
fn sqpoll_sends_with_the_credentials_of_the_rings_maker() {
    declare!(Quirk, URING_CMD);
    let lun = Lun::fresh();
    let shape = Shape { sqpoll_idle_ms: Some(1000), ..Shape::big(8) };
    let (mut polled, mut plain) = (open(&lun, &shape), open(&lun, &Shape::big(8)));
    privilege::drop_sys_rawio();
    let synchronize_cache = || Request::new(&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_good(&polled.execute(synchronize_cache()).expect("sent by the ring's maker"));
    let refused = plain.execute(synchronize_cache()).expect_err("sent by this task");
    assert_eq!(refused.errno(), Some(Errno::PERM));
}

/// include/uapi/linux/io_uring.h, personality: a command with registered credentials is filtered by those.
#[rstest]
fn personality_decides_what_the_filter_lets_through() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = open(&lun, &Shape::big(8));
    let root = bsg.register_personality().expect("credentials are registered");
    privilege::drop_sys_rawio();
    let mut send = |personality| {
        let cdb = [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut frame = UringFrame::from(Request::new(&cdb));
        frame.sqe.personality = personality;
        complete(&mut bsg, frame).res
    };
    assert_eq!([send(0), send(root), send(root + 1)], [-1, 0, -22]);
}

/// include/uapi/linux/io_uring.h, IORING_CQE_F_32 (8000h): on a mixed ring a command that was executed has a completion
/// of 32 bytes, and one that was refused (here for a CDB of 33 bytes) one of 16.
#[rstest]
#[case::mixed(Shape::mixed(4))]
#[case::only_completions(Shape { cqe: CqeSize::Mixed, ..Shape::big(4) })]
fn mixed_completions_are_large_where_there_is_something_to_say(#[case] shape: Shape) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = open(&lun, &shape);
    // More than the completion queue is long, so that large ones meet its end.
    for round in 0..40 {
        let mut frame = UringFrame::from(Request::new(&[0xff, 0, 0, 0, 0, 0]));
        let refused = round % 3 == 1;
        if refused {
            frame.command.request_len = 33;
        }
        let done = complete(&mut bsg, frame);
        let seen = (done.res, done.flags, done.res2, done.extra2);
        let expected = match refused {
            true => (-22, 0, None, None),
            false => (0, 0x8000, Some(0x1200_0802), Some(0)),
        };
        assert_eq!(seen, expected, "round {round}");
    }
}

/// io_uring/io_uring.c:io_init_req and io_uring/uring_cmd.c:io_uring_cmd: a command of 128 bytes is URING_CMD128, or
/// any on a ring of large entries; where neither holds, EOPNOTSUPP by bsg, or EINVAL by io_uring.
#[rstest]
#[case::small_operation_on_mixed(Shape::mixed(4), OP_URING_CMD, -95)]
#[case::large_operation_on_large(Shape::big(4), OP_URING_CMD128, 0)]
#[case::large_operation_on_small(Shape { sqe: SqeSize::Bytes64, ..Shape::big(4) }, OP_URING_CMD128, -22)]
fn operation_and_ring_together_decide_the_size(
    #[case] shape: Shape,
    #[case] opcode: u8,
    #[case] res: i32,
) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut frame = UringFrame::from(Request::new(&[0; 6]));
    frame.sqe.opcode = opcode;
    assert_eq!(complete(&mut open(&lun, &shape), frame).res, res);
    assert_eq!(lun.journal().entries.len(), usize::from(res == 0));
}

/// include/uapi/linux/io_uring.h, IORING_SETUP_SUBMIT_ALL: an entry that io_uring refuses (here for `ioprio`) ends its
/// batch, or does not; either way all of them complete.
#[rstest]
fn refused_entry_in_a_batch_is_one_completion(#[values(false, true)] submit_all: bool) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = open(&lun, &Shape { submit_all, ..Shape::big(16) });
    for at in 0..9 {
        let mut frame = UringFrame::from(Request::new(&[0; 6]));
        frame.sqe.ioprio = u16::from(at == 4);
        bsg.push(frame).expect("room");
    }
    assert_eq!(bsg.flush().expect("submitted"), 9);
    let mut results: Vec<_> = (0..9)
        .map(|_| bsg.wait(soon()).expect("completed"))
        .map(|done| (done.token, done.res))
        .collect();
    results.sort_unstable();
    let expected: Vec<_> = (1..=9).map(|token| (token, if token == 5 { -22 } else { 0 })).collect();
    assert_eq!(results, expected);
    assert_eq!(lun.journal().entries.len(), 8);
}

/// include/uapi/linux/io_uring.h, `struct io_uring_sqe`, as io_uring/io_uring.c:io_init_req and
/// io_uring/uring_cmd.c:io_uring_cmd_prep read it for a command.
#[rstest]
#[case::unknown_flag(|f: &mut UringFrame| f.sqe.flags = 0x80, -22)]
#[case::fixed_file_without_a_table(|f: &mut UringFrame| f.sqe.flags = 1, -9)]
#[case::buffer_select_alone(|f: &mut UringFrame| f.sqe.flags = 0x20, -22)]
#[case::multishot_alone(|f: &mut UringFrame| f.sqe.uring_cmd_flags = 2, -22)]
#[case::fixed_and_multishot(|f: &mut UringFrame| f.sqe.uring_cmd_flags = 3, -22)]
#[case::highest_flag(|f: &mut UringFrame| f.sqe.uring_cmd_flags = 1 << 31, -22)]
#[case::highest_bit_of_ioprio(|f: &mut UringFrame| f.sqe.ioprio = 0x8000, -22)]
#[case::unknown_personality(|f: &mut UringFrame| f.sqe.personality = 0xffff, -22)]
fn odd_entry_is_refused(#[case] bend: fn(&mut UringFrame), #[case] res: i32) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut frame = UringFrame::from(Request::new(&[0; 6]));
    bend(&mut frame);
    let done = complete(&mut open(&lun, &Shape::big(4)), frame);
    assert_eq!((done.res, done.res2, done.extra2), (res, Some(0), Some(0)));
    assert_eq!(lun.journal().entries.len(), 0);
}

/// As above: what neither io_uring nor bsg reads of the entry of a command.
#[rstest]
#[case::addr(|f: &mut UringFrame| f.sqe.addr = u64::MAX)]
#[case::len(|f: &mut UringFrame| f.sqe.len = u32::MAX)]
#[case::file_index(|f: &mut UringFrame| f.sqe.file_index = u32::MAX)]
#[case::buf_index(|f: &mut UringFrame| f.sqe.buf_index = u16::MAX)]
#[case::fixed_without_data(|f: &mut UringFrame| { f.sqe.uring_cmd_flags = 1; f.sqe.buf_index = 7 })]
#[case::issued_by_a_worker(|f: &mut UringFrame| f.sqe.flags = 0x10)]
#[case::drain(|f: &mut UringFrame| f.sqe.flags = 2)]
fn odd_entry_is_executed_all_the_same(#[case] bend: fn(&mut UringFrame)) {
    declare!(Accident, URING_CMD);
    let mut frame = UringFrame::from(Request::new(&[0; 6]));
    bend(&mut frame);
    let lun = Lun::fresh();
    let done = complete(&mut open(&lun, &Shape::big(4)), frame);
    assert_eq!((done.res, done.res2), (0, Some(0)));
    assert_eq!(lun.journal().entries.len(), 1);
}

/// A ring of another's making takes the largest frames of the interface from 64 commands at once.
#[rstest]
fn a_batch_of_64_is_one_submission(#[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit) {
    declare!(Contract, URING_CMD);
    let node = unit.device().bsg();
    let mut bsg = BsgUring::with_shape(node, Access::ReadWrite, &Shape::big(64)).expect("a ring");
    for _ in 0..64 {
        bsg.push(Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36).into()).expect("room for 64");
    }
    assert!(matches!(bsg.push(Request::new(&[0; 6]).into()), Err(Error::Push(_))), "one too many");
    assert_eq!(bsg.flush().expect("submitted"), 64);
    for _ in 0..64 {
        assert_good(&bsg.wait(soon()).expect("completed").completion().expect("executed"));
    }
}
