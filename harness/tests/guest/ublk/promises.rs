//! What registered data of a request promises: nobody's buffer outlives its request, and no request its buffer's user.
//!
//! The operation that is held open reads from an empty pipe into the data of a READ.

use std::{fs::File, io::Write, os::fd::OwnedFd, sync::Arc, thread, time::Instant};

use bsg::Access;
use harness::{
    BlockDevice, Child, UblkDevice,
    child::{self, Parent},
    declare,
};
use rstest::rstest;
use rustix::fs::{MemfdFlags, memfd_create};
use ublk::{DataMode, Errno, FixedTransfer, RawCommand, RawQueue};

use super::{
    modes::SINCE_7_0,
    protocol::{
        COMMIT, DEADLINE, Delivered, FETCH, MOMENT, REGISTER, UNREGISTER, deliver, device, say,
    },
};

/// A request whose data is buffer 0 of the ring: by command of the server, or by the driver itself.
fn registered(mode: DataMode, write: bool) -> Delivered {
    let mut delivered = deliver(mode, write);
    if mode == DataMode::ZeroCopy {
        assert_eq!(say(&mut delivered.queue, at(REGISTER, 0)), Some(Ok(0)));
    }
    delivered
}

fn at(op: u32, number: u16) -> RawCommand {
    RawCommand { number, ..RawCommand::new(op, 0, 0) }
}

fn commit(result: i32) -> RawCommand {
    RawCommand { result, ..RawCommand::new(COMMIT, 0, 0) }
}

/// A pipe: where it is read, and where it is fed.
fn pipe() -> (Arc<File>, File) {
    let (read, write) = std::io::pipe().expect("a pipe");
    (Arc::new(File::from(OwnedFd::from(read))), File::from(OwnedFd::from(write)))
}

fn file(bytes: &[u8]) -> Arc<File> {
    let mut file = File::from(memfd_create("data", MemfdFlags::CLOEXEC).expect("a file"));
    file.write_all(bytes).expect("memory takes bytes");
    Arc::new(file)
}

/// What becomes of a transfer; `None` if it goes on.
#[track_caller]
fn move_data(queue: &mut RawQueue, transfer: FixedTransfer) -> Option<Result<i32, Errno>> {
    let token = queue.begin_transfer(transfer).expect("submitted");
    queue.finish(token, Instant::now() + MOMENT).expect("no error").map(|reply| reply.result())
}

/// UNREGISTER returns at once though an operation uses the buffer, and so does the commit; the request is complete only
/// when the operation is, with the data that it has brought.
#[rstest]
fn completion_waits_for_the_commit_and_the_last_user(
    #[values(DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
    #[values(true, false)] user_ends_first: bool,
) {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(mode, false);
    let (source, mut feed) = pipe();
    let queue = &mut delivered.queue;
    let read = queue.begin_transfer(FixedTransfer::from(&source, 0, 512)).expect("submitted");
    assert!(queue.finish(read, Instant::now() + MOMENT).expect("no error").is_none(), "it waits");
    assert_eq!(say(queue, at(UNREGISTER, 0)), Some(Ok(0)));
    if user_ends_first {
        feed.write_all(&[0x5a; 512]).expect("fed");
        let ended = queue.finish(read, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(ended.expect("it has data").res, 512);
        assert!(delivered.client.recv_timeout(MOMENT).is_err(), "nobody has committed");
        assert_eq!(say(queue, commit(512)), None);
    } else {
        assert_eq!(say(queue, commit(512)), None);
        assert!(delivered.client.recv_timeout(MOMENT).is_err(), "its buffer is in use");
        feed.write_all(&[0x5a; 512]).expect("fed");
        let ended = queue.finish(read, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(ended.expect("it has data").res, 512);
    }
    let got = delivered.client.recv_timeout(DEADLINE).expect("answered").expect("read");
    assert_eq!(got, [0x5a; 512]);
    drop(delivered.queue);
    delivered.device.delete();
}

/// UBLK_F_AUTO_BUF_REG: the commit unregisters the buffer of the request, which is complete when its last user is.
#[rstest]
fn commit_of_an_automatic_buffer_waits_for_its_user() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(DataMode::AutoBuf, false);
    let (source, mut feed) = pipe();
    let queue = &mut delivered.queue;
    assert_eq!(move_data(queue, FixedTransfer::from(&source, 0, 512)), None);
    assert_eq!(say(queue, commit(512)), None);
    assert_eq!(say(queue, at(UNREGISTER, 0)), Some(Err(Errno::INVAL)), "the slot is empty");
    assert!(delivered.client.recv_timeout(MOMENT).is_err(), "its buffer is in use");
    feed.write_all(&[0x66; 512]).expect("fed");
    let got = delivered.client.recv_timeout(DEADLINE).expect("answered").expect("read");
    assert_eq!(got, [0x66; 512]);
    drop(delivered.queue);
    delivered.device.delete();
}

/// A buffer that is unregistered is no longer there for new operations (EFAULT), committed or not, and in the table of no
/// other ring.
#[rstest]
fn buffer_does_not_outlive_its_request(
    #[values(DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(mode, true);
    let sink = file(&[]);
    let mut other = delivered.queue.another().expect("a ring");
    other.make_table(2).expect("a table");
    let to = |index| FixedTransfer::to(&sink, index, 512);
    assert_eq!(move_data(&mut other, to(0)), Some(Err(Errno::FAULT)), "it is another ring's");
    assert_eq!(say(&mut other, at(UNREGISTER, 0)), Some(Err(Errno::INVAL)));
    let queue = &mut delivered.queue;
    assert_eq!(move_data(queue, to(1)), Some(Err(Errno::FAULT)), "an empty slot");
    assert_eq!(move_data(queue, to(2)), Some(Err(Errno::FAULT)), "behind the table");
    assert_eq!(say(queue, at(UNREGISTER, 2)), Some(Err(Errno::INVAL)), "nothing is there");
    assert_eq!(move_data(queue, to(0)), Some(Ok(512)));
    if mode == DataMode::ZeroCopy {
        assert_eq!(say(queue, at(UNREGISTER, 0)), Some(Ok(0)));
        assert_eq!(move_data(queue, to(0)), Some(Err(Errno::FAULT)), "unregistered");
    }
    assert_eq!(say(queue, commit(512)), None);
    delivered.client.recv_timeout(DEADLINE).expect("answered").expect("written");
    assert_eq!(move_data(queue, to(0)), Some(Err(Errno::FAULT)), "committed");
    drop((other, delivered.queue));
    delivered.device.delete();
}

/// io_uring/rsrc.c:io_import_fixed: data of a READ is brought, that of a WRITE taken; the other way is EFAULT.
#[rstest]
fn buffer_has_a_direction(
    #[values(DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
    #[values(true, false)] write: bool,
) {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(mode, write);
    let file = file(&[0x77; 512]);
    let (wrong, right) = match write {
        true => (FixedTransfer::from(&file, 0, 512), FixedTransfer::to(&file, 0, 512)),
        false => (FixedTransfer::to(&file, 0, 512), FixedTransfer::from(&file, 0, 512)),
    };
    assert_eq!(move_data(&mut delivered.queue, wrong), Some(Err(Errno::FAULT)));
    assert_eq!(move_data(&mut delivered.queue, right), Some(Ok(512)));
    if mode == DataMode::ZeroCopy {
        assert_eq!(say(&mut delivered.queue, at(UNREGISTER, 0)), Some(Ok(0)));
    }
    let got = delivered.end(512).expect("done");
    assert_eq!(got, if write { vec![] } else { vec![0x77; 512] });
}

/// io_uring/rsrc.c:validate_fixed_range: not a byte beyond the request, whatever the offset; its end is within it.
#[rstest]
#[case::one_too_long(0, 513)]
#[case::last_byte_too_many(1, 512)]
#[case::at_the_end(512, 1)]
#[case::behind_the_end(513, 0)]
#[case::overflow(u64::MAX, 512)]
#[case::overflow_to_the_start(u64::MAX - 511, 512)]
#[case::above_32_bits(1 << 32, 512)]
fn nothing_reaches_beyond_the_request(#[case] offset: u64, #[case] len: u32) {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(DataMode::ZeroCopy, true);
    let sink = file(&[]);
    let queue = &mut delivered.queue;
    let beyond = FixedTransfer::to(&sink, 0, len).at(offset);
    assert_eq!(move_data(queue, beyond), Some(Err(Errno::FAULT)));
    let end = FixedTransfer::to(&sink, 0, 0).at(512);
    assert_eq!(move_data(queue, end), Some(Ok(0)), "no byte at the end");
    assert_eq!(sink.metadata().expect("its length").len(), 0);
    assert_eq!(move_data(queue, FixedTransfer::to(&sink, 0, 500).at(12)), Some(Ok(500)));
    assert_eq!(say(queue, at(UNREGISTER, 0)), Some(Ok(0)));
    delivered.end(512).expect("written");
}

/// A part of the data is that part, and no other byte changes.
#[rstest]
fn part_of_the_data_is_moved_to_its_place() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(DataMode::ZeroCopy, false);
    let source = file(&[0x77; 100]);
    let part = FixedTransfer::from(&source, 0, 100).at(12);
    assert_eq!(move_data(&mut delivered.queue, part), Some(Ok(100)));
    assert_eq!(say(&mut delivered.queue, at(UNREGISTER, 0)), Some(Ok(0)));
    let got = delivered.end(512).expect("read");
    assert!(got[12..112] == [0x77; 100], "the part");
    assert!(!got[..12].contains(&0x77) && !got[112..].contains(&0x77), "beside it");
}

/// UBLK_F_BUF_REG_OFF_DAEMON: another task may register and use the data with a ring of its own. The commit is the
/// daemon's, and completion waits for the other.
#[rstest]
fn another_task_holds_up_completion_with_a_buffer_of_its_own() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(DataMode::ZeroCopy, false);
    let mut other = delivered.queue.another().expect("a ring");
    let foreign = thread::spawn(move || {
        other.make_table(1).expect("a table");
        assert_eq!(say(&mut other, at(REGISTER, 0)), Some(Ok(0)));
        let source = file(&[0x42; 512]);
        assert_eq!(move_data(&mut other, FixedTransfer::from(&source, 0, 512)), Some(Ok(512)));
        other
    });
    let mut other = foreign.join().expect("no panic");
    assert_eq!(say(&mut delivered.queue, at(UNREGISTER, 0)), Some(Ok(0)));
    assert_eq!(say(&mut delivered.queue, commit(512)), None);
    assert!(delivered.client.recv_timeout(MOMENT).is_err(), "the other has a buffer");
    assert_eq!(say(&mut other, at(UNREGISTER, 0)), Some(Ok(0)));
    let got = delivered.client.recv_timeout(DEADLINE).expect("answered").expect("read");
    assert_eq!(got, [0x42; 512]);
    drop((other, delivered.queue));
    delivered.device.delete();
}

/// IORING_REGISTER_CLONE_BUFFERS: a ring that has cloned the table has the data too, when the first has given it up, and the
/// request waits for that ring (io_uring/rsrc.c:io_clone_buffers, io_buffer_unmap).
#[rstest]
fn cloned_buffer_holds_up_completion_until_its_ring_is_done(#[values(true, false)] closed: bool) {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(DataMode::ZeroCopy, false);
    let mut other = delivered.queue.another().expect("a ring");
    other.clone_table(&mut delivered.queue).expect("cloned");
    assert_eq!(say(&mut delivered.queue, at(UNREGISTER, 0)), Some(Ok(0)));
    assert_eq!(say(&mut delivered.queue, commit(512)), None);
    assert!(delivered.client.recv_timeout(MOMENT).is_err(), "the other has the buffer");
    let source = file(&[0x24; 512]);
    assert_eq!(move_data(&mut other, FixedTransfer::from(&source, 0, 512)), Some(Ok(512)));
    assert!(delivered.client.recv_timeout(MOMENT).is_err(), "it has it still");
    if !closed {
        assert_eq!(say(&mut other, at(UNREGISTER, 0)), Some(Ok(0)));
    }
    drop(other);
    let got = delivered.client.recv_timeout(DEADLINE).expect("answered").expect("read");
    assert_eq!(got, [0x24; 512]);
    drop(delivered.queue);
    delivered.device.delete();
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_AUTO_BUF_REG: a commit on another ring than the fetch's does not unregister;
/// the server has to, and the request waits for it.
#[rstest]
fn automatic_buffer_of_another_ring_is_the_server_s_to_unregister() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = registered(DataMode::AutoBuf, true);
    let mut other = delivered.queue.another().expect("a ring");
    other.make_table(1).expect("a table");
    assert_eq!(say(&mut other, at(REGISTER, 0)), Some(Ok(0)), "in the same slot of the other");
    assert_eq!(say(&mut other, commit(512)), None);
    assert_eq!(say(&mut other, at(UNREGISTER, 0)), Some(Ok(0)), "it was not the commit's");
    assert!(delivered.client.recv_timeout(MOMENT).is_err(), "its buffer is registered");
    assert_eq!(say(&mut delivered.queue, at(UNREGISTER, 0)), Some(Ok(0)));
    delivered.client.recv_timeout(DEADLINE).expect("answered").expect("written");
    drop((other, delivered.queue));
    delivered.device.delete();
}

/// The child: serves a device of one tag until it has a request whose data an operation waits for. Tells the device, then
/// `pending`.
fn serve(mode: DataMode) -> ! {
    let mut parent = Parent::connect();
    let (mut device, mut queue) = device(mode, 1);
    queue.make_table(1).expect("a table");
    let fetch = queue.begin(RawCommand::new(FETCH, 0, 0)).expect("submitted");
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    parent.tell(&id.to_string());
    let request = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(request.expect("the request is delivered").res, 0);
    if mode == DataMode::ZeroCopy {
        assert_eq!(say(&mut queue, at(REGISTER, 0)), Some(Ok(0)));
    }
    let (source, _feed) = pipe();
    assert_eq!(move_data(&mut queue, FixedTransfer::from(&source, 0, 512)), None);
    parent.tell("pending");
    parent.until_killed();
}

/// A server that dies with an operation on the data of a request: the operation ends with its ring, the request fails, and
/// the device goes.
#[rstest]
fn server_killed_with_an_operation_pending_fails_the_request(
    #[values(DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    if child::role().is_some() {
        serve(mode);
    }
    let mut server = Child::start("server");
    let mut device = UblkDevice::adopt(server.hear().parse().expect("a number"));
    let disk = BlockDevice::open(&device.block_path(), Access::ReadOnly);
    let client = thread::spawn(move || disk.read(0, 512));
    assert_eq!(server.hear(), "pending");
    server.kill();
    let failed = client.join().expect("no panic").expect_err("nobody did it");
    assert_eq!(Errno::from_io_error(&failed), Some(Errno::IO));
    device.await_state(0);
    device.delete();
}
