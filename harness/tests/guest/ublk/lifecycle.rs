//! A device from start to end.

use std::{borrow::Cow, os::unix::fs::MetadataExt, path::Path, process, sync::Arc};

use bsg::Access;
use harness::{
    BlockDevice, Child, Feature, Needs, UblkDevice,
    child::{self, Parent},
    declare, sysfs,
};
use rstest::rstest;
use ublk::{Config, Control, Errno, RamTarget, Server, uapi::attr};

use super::recorder::unscanned;

const PID_NAMESPACE: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 0),
        Feature::Config(Cow::Borrowed("CONFIG_PID_NS")),
    ]),
    ..Needs::DEFAULT
};

/// Documentation/block/ublk.rst: START_DEV exposes the block device, with the size and the limits of
/// SET_PARAMS; the state is LIVE, 1, and the server is known by its process id.
#[rstest]
fn start_dev_makes_a_disk_of_the_size_asked_for() {
    declare!(Contract);
    let mut config = Config::disk(4099);
    // The char device has it as its minor number, which the disk has not.
    config.info.dev_id = 0x5_1000;
    let mut server = Server::start(&config, Arc::new(RamTarget::new(4099))).expect("started");
    let id = server.dev_id();
    let info = server.control().info(id).expect("GET_DEV_INFO");
    assert_eq!(info.state, 1);
    assert_eq!(u32::try_from(info.ublksrv_pid), Ok(process::id()));
    let disk = BlockDevice::open(&server.block_path(), Access::ReadOnly);
    assert_eq!(disk.attribute("size"), "4099");
    assert_eq!(disk.attribute("ro"), "0");
    assert_eq!(disk.attribute("queue/logical_block_size"), "512");
    assert_eq!(disk.attribute("queue/physical_block_size"), "4096");
    assert_eq!(disk.attribute("queue/max_hw_sectors_kb"), "512");
    assert_eq!(disk.attribute("queue/write_cache"), "write back");
    let devt = server.control().params(id).expect("GET_PARAMS").devt;
    let numbers = |path: &Path| {
        let rdev = path.metadata().expect("the node is there").rdev();
        (rustix::fs::major(rdev), rustix::fs::minor(rdev))
    };
    assert_eq!((devt.disk_major, devt.disk_minor), numbers(&server.block_path()));
    assert_eq!((devt.char_major, devt.char_minor), numbers(&server.char_path()));
    drop(disk);
    server.delete().expect("deleted");
}

/// ublk_drv.c:ublk_ctrl_start_dev: a device that is LIVE is not started again (EEXIST).
#[rstest]
fn start_dev_of_a_live_device_is_eexist() {
    declare!(Contract);
    let mut server = start(64);
    let id = server.dev_id();
    let again = server.control().start(id).expect_err("refused");
    assert_eq!(again.errno(), Some(Errno::EXIST));
    server.delete().expect("deleted");
}

/// ublk_drv.c:ublk_ctrl_set_params: the parameters of a started device stay (EACCES).
#[rstest]
fn set_params_of_a_live_device_is_eacces() {
    declare!(Contract);
    let mut server = start(64);
    let id = server.dev_id();
    let refused = server.control().set_params(id, &Config::disk(128).params);
    assert_eq!(refused.expect_err("refused").errno(), Some(Errno::ACCESS));
    assert_eq!(server.control().params(id).expect("GET_PARAMS").basic.dev_sectors, 64);
    server.delete().expect("deleted");
}

/// Documentation/block/ublk.rst: STOP_DEV removes the block device and gives every fetch back; the
/// char device and the number stay until DEL_DEV.
#[rstest]
fn stop_dev_removes_the_disk_and_keeps_the_device() {
    declare!(Contract);
    let mut server = start(64);
    let (id, block, char) = (server.dev_id(), server.block_path(), server.char_path());
    // Returns when the queues have ended, that is, have got all their fetches back.
    server.stop().expect("stopped");
    sysfs::vanish(&block);
    assert!(char.exists());
    assert_eq!(server.control().info(id).expect("GET_DEV_INFO").state, 0);
    // Stopping what is stopped changes nothing.
    server.control().stop(id).expect("STOP_DEV");
    server.delete().expect("deleted");
    sysfs::vanish(&char);
    let gone = UblkDevice::find(id);
    assert!(gone.is_none(), "{gone:?}");
}

/// include/uapi/linux/ublk_cmd.h: UBLK_ATTR_READ_ONLY makes a disk that takes no writes (EPERM,
/// block/fops.c:blkdev_write_iter).
#[rstest]
fn write_to_a_read_only_device_is_eperm() {
    declare!(Contract);
    let mut config = Config::disk(64);
    config.params.basic.attrs = attr::READ_ONLY;
    let target = Arc::new(RamTarget::new(64));
    let server = Server::start(&config, target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    assert_eq!(disk.attribute("ro"), "1");
    let refused = disk.write(0, &[0xa5; 512]).expect_err("refused");
    assert_eq!(refused.raw_os_error(), Some(1), "{refused}");
    assert_eq!(disk.read(0, 512).expect("read"), [0; 512]);
    drop(disk);
    server.delete().expect("deleted");
}

/// A number is used again and again: nothing of a device outlives it.
#[rstest]
fn device_can_be_started_and_deleted_over_and_over() {
    declare!(Contract);
    for round in 1..=5 {
        let server = start(64 * round);
        let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
        assert_eq!(disk.sectors(), 64 * round);
        assert_eq!(disk.read(0, 512).expect("read"), [0; 512], "round {round}");
        disk.write(0, &[0xa5; 512]).expect("written");
        drop(disk);
        server.delete().expect("deleted");
    }
}

fn start(sectors: u64) -> Server {
    Server::start(&Config::disk(sectors), Arc::new(RamTarget::new(sectors))).expect("started")
}

/// The child: serves a device, says its number, and what the driver tells it of its process.
fn serve_as_the_first() -> ! {
    let mut parent = Parent::connect();
    assert_eq!(process::id(), 1, "the first of its namespace");
    let server = Server::start(&unscanned(64), Arc::new(RamTarget::new(64))).expect("started");
    let mut control = Control::open().expect("opened");
    let told = control.info(server.dev_id()).expect("GET_DEV_INFO").ublksrv_pid;
    parent.tell(&format!("{} {told}", server.dev_id()));
    parent.until_killed()
}

/// The child: says what the driver tells it of the server of a device.
fn ask(id: &str) -> ! {
    let mut parent = Parent::connect();
    let id = id.parse().expect("a number");
    let info = Control::open().and_then(|mut control| control.info(id)).expect("GET_DEV_INFO");
    parent.tell(&info.ublksrv_pid.to_string());
    parent.until_killed()
}

/// ublk_drv.c:ublk_validate_user_pid and ublk_ctrl_get_dev_info: a server says its process id as it is in its own PID
/// namespace, and everybody is told it as it is in theirs; -1 where it is in none.
#[rstest]
fn server_has_a_process_id_in_each_namespace() {
    declare!(Contract, PID_NAMESPACE);
    match child::role().as_deref() {
        Some("server") => serve_as_the_first(),
        Some(id) => ask(id),
        None => {}
    }
    let mut server = Child::start_in_a_pid_namespace("server");
    let said = server.hear();
    let (id, told) = said.split_once(' ').expect("two numbers");
    assert_eq!(told, "1");
    let mut device = UblkDevice::adopt(id.parse().expect("a number"));
    let number = device.id();
    let info = device.control().info(number).expect("GET_DEV_INFO");
    assert_eq!(u32::try_from(info.ublksrv_pid), Ok(server.pid()));
    assert_eq!(Child::start_in_a_pid_namespace(id).hear(), "-1");
    let disk = BlockDevice::open(&device.block_path(), Access::ReadOnly);
    assert_eq!(disk.read(0, 512).expect("read"), [0; 512]);
    drop(disk);
    server.kill();
    device.await_state(0);
    device.delete();
}
