//! A device outlives its server, is quiesced, resized and stopped while it is used.

use std::{
    process,
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare, privilege, sysfs, wait};
use rstest::rstest;
use ublk::{
    Config, DataMode, Errno, Faults, Features, Server,
    uapi::{CtrlCmd, ctrl},
};
use ublk_fault::{Effect, OpName, Rule, When};

use super::{
    modes::SINCE_7_0,
    protocol::{self, MOMENT},
    raw::plain,
    recorder::{Recorder, pattern, unscanned},
};

const SECTORS: u64 = 64;
const DEADLINE: Duration = Duration::from_secs(20);

/// Writes to sectors 8 to 15 are kept by the server.
fn held_writes() -> Arc<Faults> {
    let rule = Rule::new("held", Effect::hold()).when(When::op(OpName::Write).sectors(8, 15));
    Faults::new(vec![rule], 0).expect("sound")
}

/// Does something with the disk on a thread of its own, so that a request that never ends fails the test alone.
fn beside<T: Send + 'static>(
    server: &Server,
    act: impl FnOnce(&BlockDevice) -> T + Send + 'static,
) -> Receiver<T> {
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    BlockDevice::beside(move || disk, act)
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.expect_err("it fails").raw_os_error()
}

/// Documentation/block/ublk.rst, UBLK_F_USER_RECOVERY: what the server had fails with EIO, and for the next server data is
/// what it was. The state is QUIESCED, 2, in between.
#[rstest]
fn next_server_goes_on_without_what_the_last_one_had(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::AutoBuf)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let (target, faults) = (Arc::new(Recorder::new(SECTORS)), held_writes());
    let config = unscanned(SECTORS).mode(mode).with(Features::USER_RECOVERY);
    let server = Server::start(&config.clone().faults(&faults), target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let kept = pattern(0, 8, 1);
    beside(&server, move |disk| disk.write(0, &kept)).recv().expect("done").expect("written");
    let lost = beside(&server, |disk| disk.write(8 * 512, &pattern(8, 8, 2)));
    faults.wait_held(1, DEADLINE).expect("held");
    server.leave();
    device.await_state(2);
    assert_eq!(errno(lost.recv_timeout(DEADLINE).expect("it ends")), Some(5), "EIO");

    let server = Server::recover(device.id(), &config, target.clone()).expect("recovered");
    assert_eq!(device.state(), 1);
    let read = beside(&server, |disk| disk.read(0, 4096));
    assert_eq!(read.recv_timeout(DEADLINE).expect("done").expect("read"), pattern(0, 8, 1));
    assert_eq!(target.bytes()[8 * 512..16 * 512], [0; 4096]);
    server.delete().expect("deleted");
}

/// The same: a read that comes while nobody serves the device is done by the next server.
#[rstest]
fn request_without_a_server_waits_for_the_next() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    target.bytes()[..4096].copy_from_slice(&pattern(0, 8, 3));
    let config = unscanned(SECTORS).with(Features::USER_RECOVERY);
    let server = Server::start(&config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    server.leave();
    device.await_state(2);
    let result = BlockDevice::beside(move || disk, |disk| disk.read(0, 4096));
    assert!(result.try_recv().is_err(), "there is nobody to do it");
    let server = Server::recover(device.id(), &config, target).expect("recovered");
    assert_eq!(result.recv_timeout(DEADLINE).expect("done").expect("read"), pattern(0, 8, 3));
    server.delete().expect("deleted");
}

/// UBLK_F_USER_RECOVERY_REISSUE: what the server had is delivered to the next.
#[rstest]
fn next_server_gets_what_the_last_one_had(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let (target, faults) = (Arc::new(Recorder::new(SECTORS)), held_writes());
    let features = Features::USER_RECOVERY | Features::USER_RECOVERY_REISSUE;
    let config = unscanned(SECTORS).mode(mode).with(features);
    let server = Server::start(&config.clone().faults(&faults), target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let written = beside(&server, |disk| disk.write(8 * 512, &pattern(8, 8, 4)));
    faults.wait_held(1, DEADLINE).expect("held");
    server.leave();
    device.await_state(2);
    assert!(written.try_recv().is_err(), "nobody has done it");
    let server = Server::recover(device.id(), &config, target.clone()).expect("recovered");
    written.recv_timeout(DEADLINE).expect("it ends").expect("written");
    assert!(target.bytes()[8 * 512..16 * 512] == pattern(8, 8, 4)[..], "the medium differs");
    server.delete().expect("deleted");
}

/// UBLK_F_USER_RECOVERY_FAIL_IO: what the server had fails, and what comes fails too (EREMOTEIO, 121), until the next
/// server. The state is FAIL_IO, 3.
#[rstest]
fn request_without_a_server_fails_if_asked_for() {
    declare!(Contract, SINCE_7_0);
    let (target, faults) = (Arc::new(Recorder::new(SECTORS)), held_writes());
    let features = Features::USER_RECOVERY | Features::USER_RECOVERY_FAIL_IO;
    let config = unscanned(SECTORS).with(features);
    let server = Server::start(&config.clone().faults(&faults), target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let lost = beside(&server, |disk| disk.write(8 * 512, &pattern(8, 8, 5)));
    faults.wait_held(1, DEADLINE).expect("held");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    server.leave();
    device.await_state(3);
    assert_eq!(errno(lost.recv_timeout(DEADLINE).expect("it ends")), Some(5), "EIO");
    assert_eq!(errno(disk.read(0, 512)), Some(121), "EREMOTEIO");
    let server = Server::recover(device.id(), &config, target).expect("recovered");
    assert_eq!(disk.read(0, 512).expect("read"), [0; 512]);
    drop(disk);
    server.delete().expect("deleted");
}

/// ublk_drv.c:ublk_ctrl_start_recovery: EINVAL for a device that does not outlive its server, EBUSY for one that has one; and so
/// ublk_ctrl_end_recovery, which refuses (EINVAL) another process than the one that has the char device, before that.
#[rstest]
fn recovery_of_a_device_that_needs_none_is_refused() {
    declare!(Contract, SINCE_7_0);
    for (features, refused) in
        [(Features::empty(), Errno::INVAL), (Features::USER_RECOVERY, Errno::BUSY)]
    {
        let target = Arc::new(Recorder::new(SECTORS));
        let mut server =
            Server::start(&unscanned(SECTORS).with(features), target).expect("started");
        let id = server.dev_id();
        let error = server.control().start_recovery(id).expect_err("refused");
        assert_eq!(error.errno(), Some(refused));
        for (pid, refused) in [(process::id(), refused), (1, Errno::INVAL)] {
            let end = CtrlCmd { data: pid.into(), ..CtrlCmd::for_device(id) };
            let answer = plain(server.control(), ctrl::END_USER_RECOVERY, end);
            assert_eq!(answer, Err(refused), "{features:?}, END_USER_RECOVERY for {pid}");
        }
        server.delete().expect("deleted");
    }
    // Nor has one that never began anything to recover, though nobody has it open.
    let mut device = UblkDevice::add(&unscanned(SECTORS).with(Features::USER_RECOVERY).info);
    let id = device.id();
    let error = device.control().start_recovery(id).expect_err("refused");
    assert_eq!(error.errno(), Some(Errno::BUSY));
    device.delete();
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_QUIESCE: the fetches come back, the disk stays for the next server. To
/// quiesce it again changes nothing; START_USER_RECOVERY is EBUSY while somebody has the char device.
#[rstest]
fn quiesced_device_goes_to_the_next_server() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let config = unscanned(SECTORS).with(Features::USER_RECOVERY | Features::QUIESCE);
    let mut server = Server::start(&config, target.clone()).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    disk.write(0, &pattern(0, 8, 6)).expect("written");
    server.quiesce(DEADLINE).expect("quiesced");
    device.await_state(2);
    assert!(device.block_path().exists(), "the disk stays");
    let id = device.id();
    device.control().quiesce(id, DEADLINE).expect("it is quiesced");
    let open = protocol::reopen(id);
    let refused = device.control().start_recovery(id).expect_err("somebody has it open");
    assert_eq!(refused.errno(), Some(Errno::BUSY));
    drop(open);
    let server = Server::recover(device.id(), &config, target).expect("recovered");
    assert_eq!(disk.read(0, 4096).expect("read"), pattern(0, 8, 6));
    drop(disk);
    server.delete().expect("deleted");
}

/// The same without the flag: EOPNOTSUPP, and the device goes on.
#[rstest]
fn quiesce_without_the_feature_is_eopnotsupp() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let mut server = Server::start(&unscanned(SECTORS), target).expect("started");
    let refused = server.quiesce(DEADLINE).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::OPNOTSUPP));
    let read = beside(&server, |disk| disk.read(0, 512));
    assert_eq!(read.recv_timeout(DEADLINE).expect("done").expect("read"), [0; 512]);
    server.delete().expect("deleted");
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_QUIESCE: EBUSY if every command is with the server and none comes back within
/// the time given. Whatever the answer: after a refusal the device goes on, after a success the server is told.
#[rstest]
fn quiesce_with_every_tag_at_the_server_does_what_it_answers() {
    declare!(Contract, SINCE_7_0);
    let (target, faults) = (Arc::new(Recorder::new(SECTORS)), held_writes());
    let features = Features::USER_RECOVERY | Features::QUIESCE;
    let config = unscanned(SECTORS).with(features).queues(1, 1).faults(&faults);
    let mut server = Server::start(&config, target).expect("started");
    let mut device = UblkDevice::adopt(server.dev_id());
    let written = beside(&server, |disk| disk.write(8 * 512, &pattern(8, 8, 7)));
    faults.wait_held(1, DEADLINE).expect("held");
    let id = server.dev_id();
    let answer = server.control().quiesce(id, Duration::from_millis(200));
    faults.release();
    written.recv_timeout(DEADLINE).expect("it ends").expect("written");
    match answer {
        Ok(()) => {
            let patience = Duration::from_secs(2);
            let told = wait::until(patience, "QUIESCED after a success", || {
                (device.state() == 2).then_some(())
            });
            told.unwrap_or_else(|error| panic!("{error}"));
        }
        Err(error) => {
            assert_eq!(error.errno(), Some(Errno::BUSY));
            let read = beside(&server, |disk| disk.read(0, 512));
            let read = read.recv_timeout(DEADLINE);
            read.expect("the device goes on after EBUSY").expect("read");
        }
    }
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_UPDATE_SIZE: the size is the new one at once, for the parameters too, and what
/// is new can be used.
#[rstest]
fn update_size_changes_the_disk_at_once() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let config = Config::disk(SECTORS / 2);
    let mut server = Server::start(&config, target.clone()).expect("started");
    let id = server.dev_id();
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    assert!(disk.write(SECTORS / 2 * 512, &[1; 512]).is_err(), "behind the end");
    server.control().update_size(id, SECTORS).expect("UPDATE_SIZE");
    assert_eq!((disk.sectors(), disk.attribute("size").as_str()), (64, "64"));
    disk.write(63 * 512, &pattern(63, 1, 8)).expect("the last sector");
    assert_eq!(target.bytes()[63 * 512..], pattern(63, 1, 8));
    server.control().update_size(id, 8).expect("UPDATE_SIZE");
    assert_eq!(disk.sectors(), 8);
    assert_eq!(server.control().params(id).expect("GET_PARAMS").basic.dev_sectors, 8);
    drop(disk);
    server.delete().expect("deleted");
}

/// ublk_drv.c:ublk_ctrl_set_size and ublk_ctrl_quiesce_dev: ENODEV without a disk.
#[rstest]
fn command_for_a_disk_without_one_is_enodev() {
    declare!(Contract, SINCE_7_0);
    let config = unscanned(SECTORS).with(Features::USER_RECOVERY | Features::QUIESCE);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let refused = device.control().update_size(id, 8).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::NODEV));
    let refused = device.control().quiesce(id, DEADLINE).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::NODEV));
    assert_eq!(device.control().params(id).expect("GET_PARAMS").basic.dev_sectors, SECTORS);
}

/// ublk_drv.c:ublk_ctrl_start_dev and ublk_ctrl_set_params: as long as somebody has the old disk open, a device that was
/// stopped is not started again (EEXIST) and keeps its parameters (EACCES).
#[rstest]
fn stopped_device_is_not_free_before_its_disk() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = protocol::device(DataMode::Copy, 1);
    assert_eq!(protocol::say(&mut queue, protocol::fetch(0)), None);
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    let disk = BlockDevice::open(&device.block_path(), Access::ReadOnly);
    device.control().stop(id).expect("STOP_DEV");
    let other = unscanned(128).params;
    let refused = device.control().set_params(id, &other).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::ACCESS));
    let refused = device.control().start(id).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::EXIST));
    drop(disk);
    let free = wait::until(DEADLINE, "the end of the disk", || {
        device.control().set_params(id, &other).ok()
    });
    free.unwrap_or_else(|error| panic!("{error}"));
    drop(queue);
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_NO_AUTO_PART_SCAN: START_DEV looks for partitions unless it is told not to; with
/// the flag they are looked for when somebody asks (BLKRRPART). Nobody looks for those of a server without CAP_SYS_ADMIN.
#[rstest]
#[case::at_the_start(Config::disk(SECTORS), true, true)]
#[case::on_demand(unscanned(SECTORS), false, true)]
#[case::never(Config::disk(SECTORS).with(Features::UNPRIVILEGED_DEV), false, false)]
fn partitions_are_looked_for_where_they_may_be(
    #[case] config: Config,
    #[case] at_the_start: bool,
    #[case] on_demand: bool,
) {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let disk_target = target.clone();
    let server = thread::spawn(move || {
        if !on_demand {
            privilege::drop_sys_admin();
        }
        Server::start(&config, disk_target).expect("started")
    });
    let server = server.join().expect("no panic");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    let looked =
        |patience| wait::until(patience, "a read", || (target.count() > 0).then_some(())).is_ok();
    if at_the_start {
        assert!(looked(DEADLINE), "nobody has looked");
    } else {
        assert!(!looked(MOMENT), "{:?}", target.take());
        let asked = disk.reread_partitions();
        assert_eq!(asked.is_ok(), on_demand, "{asked:?}");
        assert_eq!(target.count() > 0, on_demand);
    }
    drop(disk);
    server.delete().expect("deleted");
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_SAFE_STOP_DEV: TRY_STOP_DEV is EBUSY while somebody has the disk open, and
/// nothing happens to it; then it stops as STOP_DEV does. Without a disk it is ENODEV.
#[rstest]
fn try_stop_minds_whoever_has_the_disk_open() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let mut server = Server::start(&unscanned(SECTORS), target).expect("started");
    let (id, block) = (server.dev_id(), server.block_path());
    let disk = BlockDevice::open(&block, Access::ReadOnly);
    let refused = server.control().try_stop(id).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::BUSY));
    assert_eq!(disk.read(0, 512).expect("it goes on"), [0; 512]);
    drop(disk);
    server.control().try_stop(id).expect("stopped");
    sysfs::vanish(&block);
    assert_eq!(server.control().info(id).expect("GET_DEV_INFO").state, 0);
    assert_eq!(server.control().try_stop(id).expect_err("no disk").errno(), Some(Errno::NODEV));
    server.delete().expect("deleted");
}

/// Documentation/block/ublk.rst, STOP_DEV, with writers at work: each of their writes is done or refused, and what was
/// acknowledged is on the medium.
#[rstest]
fn stop_under_load_loses_nothing_that_was_acknowledged() {
    declare!(Contract, SINCE_7_0);
    let target = Arc::new(Recorder::new(SECTORS));
    let mut server = Server::start(&unscanned(SECTORS), target.clone()).expect("started");
    let writers: Vec<_> = (0..3_u64)
        .map(|writer| {
            beside(&server, move |disk| {
                let marks = (1..=u8::MAX).cycle();
                let mut acknowledged = None;
                for mark in marks {
                    match disk.write(writer * 8 * 512, &pattern(writer * 8, 8, mark)) {
                        Ok(()) => acknowledged = Some(mark),
                        Err(_) => return (acknowledged, mark),
                    }
                }
                unreachable!("marks begin again and again")
            })
        })
        .collect();
    let busy = wait::until(DEADLINE, "writes", || (target.count() > 20).then_some(()));
    busy.unwrap_or_else(|error| panic!("{error}"));
    server.stop().expect("stopped");
    for (writer, ended) in (0..3_u64).zip(writers) {
        let (acknowledged, last) = ended.recv_timeout(DEADLINE).expect("the writer ends");
        let at = usize::try_from(writer * 8 * 512).expect("short");
        let medium = target.bytes()[at..at + 4096].to_vec();
        let acceptable = [acknowledged.unwrap_or(0), last].map(|mark| pattern(writer * 8, 8, mark));
        assert!(acceptable.contains(&medium), "{acknowledged:?} was acknowledged");
    }
    server.delete().expect("deleted");
}

/// include/uapi/linux/ublk_cmd.h, DEL_DEV_ASYNC: it returns while the char device is open, which DEL_DEV waits for, and
/// the device is gone as soon as that is closed.
#[rstest]
fn del_dev_async_waits_for_nobody() {
    declare!(Contract, SINCE_7_0);
    let mut device = UblkDevice::add(&unscanned(SECTORS).info);
    let id = device.id();
    let path = format!("/dev/ublkc{id}");
    let open = std::fs::File::open(&path).expect("the char device opens");
    device.control().delete_async(id).expect("DEL_DEV_ASYNC");
    drop(open);
    let gone = wait::until(DEADLINE, "the number to be free", || {
        UblkDevice::find(id).is_none().then_some(())
    });
    gone.unwrap_or_else(|error| panic!("{error}"));
}
