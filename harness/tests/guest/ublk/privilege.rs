//! Who may do what with a device (drivers/block/ublk_drv.c:ublk_ctrl_uring_cmd_permission).

use std::{sync::Arc, thread};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare, privilege};
use rstest::rstest;
use ublk::{
    Config, Control, Errno, Features, Server,
    uapi::{CtrlCmd, DevInfo, ctrl},
};

use super::{
    modes::SINCE_7_0,
    raw::exchange,
    recorder::{Recorder, pattern, unscanned},
};

/// UBLK_F_UNPRIVILEGED_DEV (include/uapi/linux/ublk_cmd.h).
const UNPRIVILEGED: u64 = 1 << 5;

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
