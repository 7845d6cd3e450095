//! A server of a device with UBLK_F_BATCH_IO does what any other does: its data, its faults, its successor
//! (Documentation/block/ublk.rst; drivers/block/ublk_drv.c:ublk_ch_batch_io_uring_cmd). What the commands themselves say
//! is in `batch.rs`.

use std::{sync::Arc, thread, time::Duration};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare, wait};
use rstest::rstest;
use ublk::{Config, DataMode, Fallback, Faults, Features, Hold, NullTarget, Op, Server};
use ublk_fault::{Effect, ErrorName, OpName, Rule, When, WrongBuffer};

use super::{
    faults::Faulty,
    modes::{SECTORS, SINCE_7_0, check_clients, check_file, check_ranges, recording},
    recorder::{Recorder, pattern, unscanned},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// UBLK_F_BATCH_IO.
const BATCH_IO: u64 = 1 << 15;

fn in_batches(mode: DataMode) -> Config {
    unscanned(SECTORS).mode(mode).with(Features::BATCH_IO)
}

/// Data arrives whole at its place and comes back whole, in memory and in a file, and operations without data are done.
#[rstest]
fn data_in_batches_arrives_and_comes_back(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf)]
    mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let (server, target, disk) = recording(&in_batches(mode));
    assert_eq!(server.info().flags & BATCH_IO, BATCH_IO, "it is such a device");
    check_ranges(&disk, &target);
    target.take();
    disk.flush().expect("flushed");
    disk.discard(64 * 512, 8 * 512).expect("discarded");
    let seen: Vec<_> = target.take().iter().map(|seen| (seen.0, seen.3)).collect();
    assert_eq!(seen, [(Op::Flush, 0), (Op::Discard, 8)]);
    drop(disk);
    server.delete().expect("deleted");
    check_file(&in_batches(mode));
}

/// UBLK_F_NEED_GET_DATA is not for such a device, and the driver drops it (ublk_drv.c:ublk_ctrl_add_dev): it copies at
/// once.
#[rstest]
fn batches_need_not_ask_for_data() {
    declare!(Contract, SINCE_7_0);
    let (server, target, disk) = recording(&in_batches(DataMode::GetData));
    assert_eq!(server.info().flags & (BATCH_IO | 1 << 2), BATCH_IO);
    check_ranges(&disk, &target);
    drop(disk);
    server.delete().expect("deleted");
}

/// A queue of such a device belongs to no task: three threads fetch from it, and each commits what it was brought,
/// buffers and all.
#[rstest]
fn threads_share_a_queue_in_batches(
    #[values(DataMode::Copy, DataMode::ZeroCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let config = Config { threads: 3, ..in_batches(mode).queues(1, 4) };
    let (server, _, disk) = recording(&config);
    check_clients(&disk);
    drop(disk);
    server.delete().expect("deleted");
}

/// UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK: a request that could not be registered comes with UBLK_IO_F_NEED_REG_BUF, 1 << 17,
/// and the server registers it.
#[rstest]
fn registration_in_batches_falls_back_on_the_server() {
    declare!(Contract, SINCE_7_0);
    let config = Config { fallback: Fallback::Provoked, ..in_batches(DataMode::AutoBuf) };
    let (server, target, disk) = recording(&config);
    check_ranges(&disk, &target);
    let seen = target.take();
    assert!(seen.iter().all(|seen| seen.1 & 1 << 17 != 0), "{seen:?}");
    drop(disk);
    server.delete().expect("deleted");
}

/// More requests than a fetch has buffers to tell of, one by one, while the server is busy with the first: the fetch ends
/// with ENOBUFS, the next brings the others, and all are done.
#[rstest]
fn requests_beyond_the_buffers_of_a_fetch_are_done() {
    declare!(Contract, SINCE_7_0);
    const CLIENTS: u64 = 24;
    let target = Arc::new(Hold::new(NullTarget, |request| request.start_sector == 0));
    let server = Server::start(&in_batches(DataMode::UserCopy).queues(1, 32), target.clone());
    let server = server.expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    thread::scope(|scope| {
        // Apart from each other, so that no two are joined.
        let write = |client: u64| disk.write(client * 16384, &[1; 4096]).expect("written");
        scope.spawn(move || write(0));
        target.wait_held(1, DEADLINE).expect("held");
        for client in 1..CLIENTS {
            scope.spawn(move || write(client));
        }
        let waiting = || (disk.in_flight().1 == 24).then_some(());
        let all = wait::until(DEADLINE, "every client's write", waiting);
        target.release();
        all.unwrap_or_else(|error| panic!("{error}"));
    });
    drop(disk);
    server.delete().expect("deleted");
}

/// A negative result is what the application gets; a request that waits holds up no other.
#[rstest]
#[case::error(DataMode::Copy)]
#[case::error_user_copy(DataMode::UserCopy)]
#[case::error_registered(DataMode::AutoBuf)]
fn error_in_a_batch_is_the_application_s(#[case] mode: DataMode) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::on(in_batches(mode), OpName::Write, Effect::errno(ErrorName::Enospc));
    let failed = device.disk.write(8 * 512, &pattern(8, 8, 1)).expect_err("failed");
    assert_eq!(failed.raw_os_error(), Some(28), "ENOSPC");
    assert_eq!(device.target.bytes()[8 * 512..16 * 512], [0; 4096]);
    device.end();
}

/// A short result delivers the rest again, starting where the first part ended.
#[rstest]
fn short_result_in_a_batch_delivers_the_rest(
    #[values(DataMode::Copy, DataMode::AutoBuf)] mode: DataMode,
    #[values(OpName::Read, OpName::Write)] op: OpName,
) {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::on(in_batches(mode), op, Effect::short(3 * 512));
    let data = pattern(8, 8, 2);
    let seen = if op == OpName::Read {
        device.target.bytes()[8 * 512..16 * 512].copy_from_slice(&data);
        assert!(device.disk.read(8 * 512, 4096).expect("read") == data, "the data differs");
        Op::Read
    } else {
        device.disk.write(8 * 512, &data).expect("written");
        assert!(device.target.bytes()[8 * 512..16 * 512] == data[..], "the medium differs");
        Op::Write
    };
    assert_eq!(device.seen(), [(seen, 8, 3), (seen, 11, 5)]);
    device.end();
}

/// A request that waits in its server holds up no other of the same batch.
#[rstest]
fn held_request_of_a_batch_holds_up_no_other() {
    declare!(Contract, SINCE_7_0);
    let device = Faulty::on(in_batches(DataMode::Copy), OpName::Write, Effect::hold());
    thread::scope(|scope| {
        let writer = scope.spawn(|| device.disk.write(8 * 512, &pattern(8, 8, 6)));
        device.faults.wait_held(1, DEADLINE).expect("the write is held");
        device.disk.write(0, &pattern(0, 8, 7)).expect("written");
        assert_eq!(device.disk.read(0, 4096).expect("read"), pattern(0, 8, 7));
        assert!(!writer.is_finished(), "nobody has done it");
        device.faults.release();
        writer.join().expect("no panic").expect("written");
    });
    assert!(device.target.bytes()[8 * 512..16 * 512] == pattern(8, 8, 6)[..], "the medium differs");
    device.end();
}

/// ublk_drv.c:ublk_batch_commit_io: the data of a READ is copied from the address in the element of its commit, whatever
/// it was before.
#[rstest]
fn data_of_a_read_is_taken_from_the_address_in_the_element() {
    declare!(Quirk, SINCE_7_0);
    let effect = Effect::buffer(WrongBuffer::Other);
    let device = Faulty::on(in_batches(DataMode::Copy), OpName::Read, effect);
    assert_eq!(device.disk.read(8 * 512, 4096).expect("read"), [0xa5; 4096]);
    device.end();
}

/// UBLK_F_USER_RECOVERY_REISSUE: what a server of batches had when it left is done by the next, which also finds what was
/// done before.
#[rstest]
fn next_server_of_batches_gets_what_the_last_one_had(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let rule = Rule::new("held", Effect::hold()).when(When::op(OpName::Write).sectors(8, 15));
    let faults = Faults::new(vec![rule], 0).expect("sound");
    let features = Features::USER_RECOVERY | Features::USER_RECOVERY_REISSUE;
    let (config, target) = (in_batches(mode).with(features), Arc::new(Recorder::new(SECTORS)));
    let server = Server::start(&config.clone().faults(&faults), target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    disk.write(0, &pattern(0, 8, 3)).expect("written");
    let write_and_read =
        |disk: &BlockDevice| (disk.write(8 * 512, &pattern(8, 8, 4)), disk.read(0, 4096));
    let written = BlockDevice::beside(move || disk, write_and_read);
    faults.wait_held(1, DEADLINE).expect("held");
    server.leave();
    device.await_state(2);
    let server = Server::recover(device.id(), &config, target.clone()).expect("recovered");
    let (written, read) = written.recv_timeout(DEADLINE).expect("it ends");
    written.expect("written");
    assert_eq!(read.expect("read"), pattern(0, 8, 3));
    assert!(target.bytes()[8 * 512..16 * 512] == pattern(8, 8, 4)[..], "the medium differs");
    server.delete().expect("deleted");
}
