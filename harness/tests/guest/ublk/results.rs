//! What a server commits, and what the application gets
//! (drivers/block/ublk_drv.c:__ublk_complete_rq).

use std::sync::Arc;

use bsg::Access;
use harness::{BlockDevice, declare};
use rstest::rstest;
use ublk::{Errno, Op, Server};

use super::recorder::{Answer, Answering, Recorder, unscanned};

const SECTORS: u64 = 64;

/// A device whose requests of one kind are answered so.
fn answering(op: Op, answer: Answer) -> (Server, Arc<Answering>, BlockDevice) {
    let target = Arc::new(Answering { recorder: Recorder::new(SECTORS), op, answer });
    let server = Server::start(&unscanned(SECTORS), target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    target.recorder.take();
    (server, target, disk)
}

/// A negative result is the errno the application gets, as far as the block layer has a status for it
/// (block/blk-core.c:blk_errors), and EIO otherwise.
#[rstest]
#[case::eio(|_, _| Err(Errno::IO), Errno::IO)]
#[case::enospc(|_, _| Err(Errno::NOSPC), Errno::NOSPC)]
#[case::etimedout(|_, _| Err(Errno::TIMEDOUT), Errno::TIMEDOUT)]
#[case::without_a_status(|_, _| Err(Errno::XDEV), Errno::IO)]
fn negative_result_is_the_errno_of_the_write(#[case] answer: Answer, #[case] errno: Errno) {
    declare!(Contract);
    let (server, target, disk) = answering(Op::Write, answer);
    let failed = disk.write(0, &[0xa5; 4096]).expect_err("failed");
    assert_eq!(Errno::from_io_error(&failed), Some(errno));
    assert_eq!(target.recorder.take().len(), 1, "the driver does not retry");
    assert_eq!(disk.read(8192, 512).expect("the device goes on"), [0; 512]);
    drop(disk);
    server.delete().expect("deleted");
}

/// A result below the request's length completes that part; the remainder is delivered again, starting
/// where the first part ended.
#[rstest]
#[case::read(Op::Read)]
#[case::write(Op::Write)]
fn short_result_delivers_the_remainder_again(#[case] op: Op) {
    declare!(Contract);
    let (server, target, disk) = answering(op, |(_, _, _, sectors), done| match sectors {
        8.. => done.map(|_| 3 * 512),
        _ => done,
    });
    let data: Vec<u8> = (0..8 * 512).map(|at| u8::try_from(at / 512).expect("small") + 1).collect();
    if op == Op::Read {
        target.recorder.bytes()[8 * 512..16 * 512].copy_from_slice(&data);
        assert_eq!(disk.read(8 * 512, data.len()).expect("read"), data);
    } else {
        disk.write(8 * 512, &data).expect("written");
        assert_eq!(target.recorder.bytes()[8 * 512..16 * 512], data);
    }
    let seen: Vec<_> = target.recorder.take().iter().map(|seen| (seen.0, seen.2, seen.3)).collect();
    assert_eq!(seen, [(op, 8, 8), (op, 11, 5)]);
    drop(disk);
    server.delete().expect("deleted");
}

/// A read of which nothing was done is EIO: there is no remainder that could ever end.
#[rstest]
fn read_with_result_0_is_eio() {
    declare!(Contract);
    let (server, _, disk) = answering(Op::Read, |_, _| Ok(0));
    let failed = disk.read(8 * 512, 512).expect_err("failed");
    assert_eq!(Errno::from_io_error(&failed), Some(Errno::IO));
    drop(disk);
    server.delete().expect("deleted");
}

/// A result beyond the request's length counts as that length.
#[rstest]
fn overlong_result_is_the_whole_request() {
    declare!(Accident);
    let (server, target, disk) = answering(Op::Write, |_, done| done.map(|len| len + 4096));
    disk.write(0, &[0xa5; 512]).expect("written");
    assert_eq!(target.recorder.take().len(), 1);
    assert_eq!(target.recorder.bytes()[..513], [&[0xa5; 512][..], &[0]].concat());
    drop(disk);
    server.delete().expect("deleted");
}
