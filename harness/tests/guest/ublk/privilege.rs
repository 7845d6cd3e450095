//! Who may do what with a device (drivers/block/ublk_drv.c:ublk_ctrl_uring_cmd_permission).

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{Arc, mpsc::channel},
    thread,
    time::Instant,
};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare, privilege};
use rstest::rstest;
use rustix::fs::FileType;
use ublk::{
    Config, Control, Errno, Features, Pointer, RawQueue, Server,
    uapi::{CtrlCmd, DevInfo, ctrl},
};

use super::{
    modes::SINCE_7_0,
    protocol::{DEADLINE, MOMENT, fetch, reopen, say},
    raw::exchange,
    recorder::{Recorder, pattern, unscanned},
};

/// UBLK_F_UNPRIVILEGED_DEV (include/uapi/linux/ublk_cmd.h).
const UNPRIVILEGED: u64 = 1 << 5;
/// UBLK_F_NO_AUTO_PART_SCAN.
const NO_SCAN: u64 = 1 << 18;

fn info(flags: u64) -> DevInfo {
    DevInfo { flags, ..Config::disk(64).queues(1, 4).info }
}

/// Without CAP_SYS_ADMIN another's device is out of reach: EPERM for every command but ADD_DEV, which has to ask for an
/// unprivileged device (EPERM), and GET_FEATURES, which is about no device.
#[rstest]
fn device_of_the_privileged_is_out_of_reach() {
    declare!(Contract, SINCE_7_0);
    let device = UblkDevice::add(&info(0));
    let id = device.id();
    // The thread loses the capability, the fixture keeps it.
    let tries = thread::spawn(move || {
        privilege::drop_sys_admin();
        let mut control = Control::open().expect("opened");
        control.features().expect("GET_FEATURES");
        let mut errnos = vec![control.add(&info(0)).err().and_then(|e| e.errno())];
        for op in [
            ctrl::GET_DEV_INFO,
            ctrl::GET_DEV_INFO2,
            ctrl::GET_PARAMS,
            ctrl::GET_QUEUE_AFFINITY,
            ctrl::SET_PARAMS,
            ctrl::START_DEV,
            ctrl::STOP_DEV,
            ctrl::TRY_STOP_DEV,
            ctrl::UPDATE_SIZE,
            ctrl::QUIESCE_DEV,
            ctrl::START_USER_RECOVERY,
            ctrl::END_USER_RECOVERY,
            ctrl::REG_BUF,
            ctrl::UNREG_BUF,
            ctrl::DEL_DEV_ASYNC,
            ctrl::DEL_DEV,
        ] {
            let command = CtrlCmd { data: 1, ..CtrlCmd::for_device(id) };
            errnos.push(exchange(&mut control, op, command, &[0; 512]).0.err());
        }
        errnos
    });
    let errnos = tries.join().expect("no panic");
    assert_eq!(errnos, [Some(Errno::PERM); 17]);
    device.delete();
}

/// UBLK_F_UNPRIVILEGED_DEV: its owner makes, serves, uses, resizes and deletes a device without CAP_SYS_ADMIN, and the
/// device says so.
#[rstest]
fn owner_of_an_unprivileged_device_needs_no_capability() {
    declare!(Contract, SINCE_7_0);
    privilege::drop_sys_admin();
    let target = Arc::new(Recorder::new(64));
    let config = unscanned(64).with(Features::UNPRIVILEGED_DEV);
    let mut server = Server::start(&config, target).expect("started");
    assert_eq!(server.info().flags & UNPRIVILEGED, UNPRIVILEGED);
    let id = server.dev_id();
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    disk.write(0, &pattern(0, 8, 1)).expect("written");
    assert_eq!(disk.read(0, 4096).expect("read"), pattern(0, 8, 1));
    server.control().update_size(id, 32).expect("UPDATE_SIZE");
    assert_eq!(disk.sectors(), 32);
    assert_eq!(server.control().params(id).expect("GET_PARAMS").basic.dev_sectors, 32);
    drop(disk);
    server.delete().expect("deleted");
}

/// Such a device asks everybody for the path of its char device: none is EINVAL, one that is not there ENOENT, one of
/// another file EPERM. A path longer than the buffer is EINVAL.
#[rstest]
#[case::none("", 0, Errno::INVAL)]
#[case::nowhere("/dev/no-such-device\0", 20, Errno::NOENT)]
#[case::another("/dev/null\0", 10, Errno::PERM)]
#[case::longer_than_the_buffer("/dev/null\0", 11, Errno::INVAL)]
#[case::longer_than_any_path("/dev/null\0", 4097, Errno::INVAL)]
fn path_of_an_unprivileged_device_is_checked(
    #[case] path: &str,
    #[case] len: u16,
    #[case] errno: Errno,
) {
    declare!(Contract, SINCE_7_0);
    privilege::drop_sys_admin();
    let device = UblkDevice::add(&info(UNPRIVILEGED));
    let mut command = CtrlCmd::for_device(device.id());
    command.dev_path_len = len;
    let mut control = Control::open().expect("opened");
    let answer = exchange(&mut control, ctrl::STOP_DEV, command, path.as_bytes()).0;
    assert_eq!(answer, Err(errno));
    device.delete();
}

/// A path that cannot be read is EFAULT.
#[rstest]
fn path_that_is_nowhere_is_efault() {
    declare!(Contract, SINCE_7_0);
    privilege::drop_sys_admin();
    let device = UblkDevice::add(&info(UNPRIVILEGED));
    let mut control = Control::open().expect("opened");
    let command = CtrlCmd { len: 20, dev_path_len: 20, ..CtrlCmd::for_device(device.id()) };
    let token = control.begin(ctrl::STOP_DEV, command, Pointer::Unmapped).expect("submitted");
    assert_eq!(control.finish(token, Instant::now() + DEADLINE).expect("answered").res, -14);
    device.delete();
}

/// ublk_ctrl_add_dev: such a device gets no data that its server has not filled in, so the ways that could leave some
/// are EINVAL; and nobody waits for its next server, so those flags are gone.
#[rstest]
fn unprivileged_device_has_no_way_to_leak() {
    declare!(Contract, SINCE_7_0);
    privilege::drop_sys_admin();
    let mut control = Control::open().expect("opened");
    for leaking in [1 << 0, 1 << 7, 1 << 11] {
        let refused = control.add(&info(UNPRIVILEGED | leaking)).expect_err("refused");
        assert_eq!(refused.errno(), Some(Errno::INVAL), "{leaking:#x}");
    }
    let device = UblkDevice::add(&info(UNPRIVILEGED | 1 << 3 | 1 << 4));
    assert_eq!(device.info().flags & (UNPRIVILEGED | 1 << 3 | 1 << 4), UNPRIVILEGED);
    device.delete();
}

/// The header says of DEL_DEV_ASYNC no more than of DEL_DEV; the list of commands an owner may send lacks it (EINVAL).
#[rstest]
fn owner_of_an_unprivileged_device_cannot_delete_it_without_waiting() {
    declare!(Accident, SINCE_7_0);
    privilege::drop_sys_admin();
    let mut device = UblkDevice::add(&info(UNPRIVILEGED));
    let id = device.id();
    let refused = device.control().delete_async(id).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::INVAL));
    device.delete();
}

/// ublk_drv.c:ublk_ctrl_uring_cmd_permission and ublk_char_dev_permission: who may read the char device may look, who may
/// read and write it may change (EACCES else); the path has to be of that device (EPERM for a node of another kind).
#[rstest]
fn mode_of_the_char_device_says_who_may_what() {
    declare!(Contract, SINCE_7_0);
    privilege::drop_sys_admin();
    privilege::drop_file_access();
    let mut device = UblkDevice::add(&info(UNPRIVILEGED));
    let id = device.id();
    let node = format!("/dev/ublkc{id}");
    let allow = |mode| {
        fs::set_permissions(&node, fs::Permissions::from_mode(mode)).expect("its owner may");
    };
    let params = Config::disk(64).params;
    for (mode, look, change) in [(0o400, true, false), (0o200, false, false), (0o600, true, true)] {
        allow(mode);
        let control = device.control();
        let looked = [control.info(id).err(), control.info2(id).err(), control.params(id).err()];
        let errnos = looked.map(|error| error.and_then(|error| error.errno()));
        assert_eq!(errnos, [(!look).then_some(Errno::ACCESS); 3], "{mode:o}");
        let changed = [
            control.set_params(id, &params).err(),
            control.update_size(id, 8).err().filter(|e| e.errno() != Some(Errno::NODEV)),
            control.stop(id).err(),
        ];
        let errnos = changed.map(|error| error.and_then(|error| error.errno()));
        assert_eq!(errnos, [(!change).then_some(Errno::ACCESS); 3], "{mode:o}");
    }
    let rdev = fs::metadata(&node).expect("the node is there").rdev();
    let block = format!("/tmp/ublk-{id}");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let made = rustix::fs::mknodat(rustix::fs::CWD, &block, FileType::BlockDevice, mode, rdev);
    made.expect("root may make nodes");
    let mut command = CtrlCmd::for_device(id);
    command.dev_path_len = u16::try_from(block.len()).expect("short");
    let answer =
        exchange(&mut Control::open().expect("opened"), ctrl::STOP_DEV, command, block.as_bytes());
    assert_eq!(answer.0, Err(Errno::PERM));
    fs::remove_file(block).expect("removed");
    device.delete();
}

/// ublk_drv.c:ublk_open: the disk of an unprivileged device is its owner's, user and group, and that of who has
/// CAP_SYS_ADMIN; for others it is EPERM, whatever the mode of its node says.
#[rstest]
fn disk_of_an_unprivileged_device_is_its_owner_s() {
    declare!(Contract, SINCE_7_0);
    let as_user = |user: u32, group: u32| {
        rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(group)).expect("root may");
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(user)).expect("root may");
    };
    let added = thread::spawn(move || {
        let mut control = Control::open().expect("opened");
        as_user(1000, 1001);
        control.add(&DevInfo { queue_depth: 1, ..info(UNPRIVILEGED | NO_SCAN) }).expect("ADD_DEV")
    });
    let added = added.join().expect("no panic");
    assert_eq!((added.owner_uid, added.owner_gid), (1000, 1001));
    let mut control = Control::open().expect("opened");
    control.say_path();
    let id = added.dev_id;
    control.set_params(id, &unscanned(64).params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("root may");
    assert_eq!(say(&mut queue, fetch(0)), None);
    control.start(id).expect("START_DEV");
    let disk = format!("/dev/ublkb{id}");
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o666)).expect("root may");
    let opened = [(0, 0), (1000, 1000), (1001, 1001), (1000, 1001)].map(|(user, group)| {
        let path = disk.clone();
        let opened = thread::spawn(move || {
            if user == 0 {
                privilege::drop_sys_admin();
            } else {
                as_user(user, group);
            }
            fs::File::open(path).err().and_then(|error| error.raw_os_error())
        });
        opened.join().expect("no panic")
    });
    assert_eq!(opened, [Some(1), Some(1), Some(1), None], "EPERM for all but the owner");
    fs::File::open(&disk).expect("who has CAP_SYS_ADMIN may");
    control.stop(id).expect("STOP_DEV");
    drop(queue);
    control.delete(id).expect("DEL_DEV");
}

/// ublk_drv.c:ublk_reset_ch_dev: nobody looks for partitions on the disk of a server without CAP_SYS_ADMIN. When it is
/// gone and somebody else serves the device, the next disk is looked at.
#[rstest]
fn unprivileged_server_leaves_no_mark() {
    declare!(Contract, SINCE_7_0);
    let config = Config::disk(64).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let (fetched, is_fetched) = channel();
    let (end, at_the_end) = channel::<()>();
    let unprivileged = thread::spawn(move || {
        privilege::drop_sys_admin();
        let mut queue = RawQueue::open(id).expect("the char device opens");
        let first = queue.begin(fetch(0)).expect("submitted");
        fetched.send(()).expect("the test waits");
        at_the_end.recv().expect_err("nothing is said but that it is over");
        queue.finish(first, Instant::now() + MOMENT).expect("no error").map(|reply| reply.res)
    });
    is_fetched.recv_timeout(DEADLINE).expect("it fetches");
    device.control().start(id).expect("START_DEV");
    drop(end);
    assert_eq!(unprivileged.join().expect("no panic"), None, "nobody looks");
    device.await_state(0);
    let mut queue = reopen(id);
    let token = queue.begin(fetch(0)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(request.expect("somebody looks").res, 0);
    drop(queue);
    device.delete();
}
