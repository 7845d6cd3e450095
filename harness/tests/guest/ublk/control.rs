//! The control plane: what `/dev/ublk-control` answers, and what it refuses.

use std::{borrow::Cow, process};

use harness::{Feature, Needs, UblkDevice, declare};
use rstest::rstest;
use ublk::{
    Config, Control, CqeSize, Errno, Shape, SqeSize,
    uapi::{CtrlCmd, DevInfo, Params, ctrl},
};
use zerocopy::IntoBytes;

use super::raw::{NO_SUCH_DEVICE, exchange, plain};

fn control() -> Control {
    Control::open().expect("the control node opens")
}

/// What `ADD_DEV` is given: 64 sectors in the end, one queue of 4 tags, any number.
fn info() -> DevInfo {
    Config::disk(64).queues(1, 4).info
}

const SINCE_6_13: Needs =
    Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(6, 13)]), ..Needs::DEFAULT };

/// include/uapi/linux/ublk_cmd.h: GET_FEATURES fills 8 bytes. The ten bits up to USER_RECOVERY_FAIL_IO
/// (6.13) are all there; a newer driver adds to them.
#[rstest]
fn get_features_has_the_bits_of_6_13() {
    declare!(Contract, SINCE_6_13);
    let mut control = control();
    let any = CtrlCmd::for_device(u32::MAX);
    let (result, bytes) = exchange(&mut control, 0x8020_7513, any, &[0; 8]);
    assert_eq!(result, Ok(0));
    let features = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    assert_eq!(features & 0x3ff, 0x3ff, "{features:#x}");
    assert_eq!(control.features().expect("GET_FEATURES").bits(), features);
}

/// ublk_drv.c:ublk_ctrl_get_features: any other length is EINVAL.
#[rstest]
fn get_features_of_another_length_is_einval(#[values(0, 4, 7, 9, 16)] len: usize) {
    declare!(Contract);
    let any = CtrlCmd::for_device(u32::MAX);
    let (result, bytes) = exchange(&mut control(), 0x8020_7513, any, &vec![0xa5; len]);
    assert_eq!(result, Err(Errno::INVAL));
    assert_eq!(bytes, vec![0xa5; len]);
}

/// ublk_drv.c:ublk_ctrl_add_dev: the returned information is what was asked for, with a number, the
/// owner and the flags that every device has (1 << 1 URING_CMD_COMP_IN_TASK, 1 << 6 CMD_IOCTL_ENCODE)
/// filled in; unknown flags are gone. The state is DEAD, 0, until START_DEV. There is no server yet, which is
/// -1; before 7.2 some answers have what was asked for there, each of them on 6.16.3, that of ADD_DEV alone on 6.18.15.
#[rstest]
fn add_dev_returns_what_was_asked_for_and_a_number() {
    declare!(Contract);
    let asked = DevInfo { flags: 1 << 63, ublksrv_flags: 0x1234_5678_9abc_def0, ..info() };
    let mut device = UblkDevice::add(&asked);
    let added = *device.info();
    assert!(added.dev_id < 1 << 20, "number {:#x}", added.dev_id);
    let echoed =
        (added.nr_hw_queues, added.queue_depth, added.max_io_buf_bytes, added.ublksrv_flags);
    assert_eq!(echoed, (1, 4, 512 << 10, 0x1234_5678_9abc_def0));
    assert_eq!(added.state, 0);
    assert_eq!(added.flags & 1 << 63, 0, "an unknown flag: {:#x}", added.flags);
    assert_eq!(added.flags & 0x42, 0x42, "{:#x}", added.flags);
    assert_eq!((added.owner_uid, added.owner_gid), (0, 0));

    let id = device.id();
    let told = [
        added,
        device.control().info(id).expect("GET_DEV_INFO"),
        device.control().info2(id).expect("GET_DEV_INFO2"),
    ];
    for told in told {
        let is_as_asked = !harness::kernel::at_least(7, 2) && told.ublksrv_pid == asked.ublksrv_pid;
        assert!(is_as_asked || told.ublksrv_pid == -1, "server {}", told.ublksrv_pid);
        assert_eq!(DevInfo { ublksrv_pid: -1, ..told }, DevInfo { ublksrv_pid: -1, ..added });
    }
}

/// ublk_drv.c:ublk_ctrl_add_dev: there are no more queues than CPUs, and the caller is told.
#[rstest]
fn add_dev_with_more_queues_than_cpus_is_clipped() {
    declare!(Contract);
    let cpus = std::thread::available_parallelism().expect("a number of CPUs").get();
    let device = UblkDevice::add(&DevInfo { nr_hw_queues: 4096, queue_depth: 4096, ..info() });
    assert_eq!(device.info().queue_depth, 4096);
    assert_eq!(usize::from(device.info().nr_hw_queues), cpus.min(64));
}

/// ublk_drv.c:ublk_ctrl_add_dev, each check alone.
#[rstest]
#[case::no_depth(|i: &mut DevInfo, _: &mut CtrlCmd| i.queue_depth = 0)]
#[case::too_deep(|i: &mut DevInfo, _: &mut CtrlCmd| i.queue_depth = 4097)]
#[case::no_queue(|i: &mut DevInfo, _: &mut CtrlCmd| i.nr_hw_queues = 0)]
#[case::too_many_queues(|i: &mut DevInfo, _: &mut CtrlCmd| i.nr_hw_queues = 4097)]
#[case::two_numbers(|i: &mut DevInfo, c: &mut CtrlCmd| (i.dev_id, c.dev_id) = (70, 71))]
#[case::number_too_big(|i: &mut DevInfo, c: &mut CtrlCmd| (i.dev_id, c.dev_id) = (1 << 20, 1 << 20))]
#[case::for_a_queue(|_: &mut DevInfo, c: &mut CtrlCmd| c.queue_id = 0)]
fn add_dev_with_a_bad_field_is_einval(#[case] bend: fn(&mut DevInfo, &mut CtrlCmd)) {
    declare!(Contract);
    let (mut info, mut command) = (info(), CtrlCmd::for_device(u32::MAX));
    bend(&mut info, &mut command);
    let (result, _) = exchange(&mut control(), ctrl::ADD_DEV, command, info.as_bytes());
    assert_eq!(result, Err(Errno::INVAL));
}

/// ublk_drv.c:ublk_ctrl_add_dev, since 6.13: requests of a dead server wait or fail, not both.
#[rstest]
fn add_dev_with_reissue_and_fail_io_is_einval() {
    declare!(Contract, SINCE_6_13);
    let info = DevInfo { flags: 1 << 3 | 1 << 4 | 1 << 9, ..info() };
    let command = CtrlCmd::for_device(u32::MAX);
    let (result, _) = exchange(&mut control(), ctrl::ADD_DEV, command, info.as_bytes());
    assert_eq!(result, Err(Errno::INVAL));
}

/// ublk_drv.c:ublk_ctrl_add_dev: fewer than the 64 bytes of `struct ublksrv_ctrl_dev_info` are EINVAL.
#[rstest]
fn add_dev_with_a_short_buffer_is_einval(#[values(0, 32, 63)] len: usize) {
    declare!(Contract);
    let any = CtrlCmd::for_device(u32::MAX);
    let bytes = &info().as_bytes()[..len].to_vec();
    assert_eq!(exchange(&mut control(), ctrl::ADD_DEV, any, bytes).0, Err(Errno::INVAL));
}

/// ublk_drv.c:ublk_alloc_dev_number: a number is given once.
#[rstest]
fn add_dev_of_a_number_in_use_is_eexist() {
    declare!(Contract);
    let device = UblkDevice::add(&info());
    let again = control().add(&DevInfo { dev_id: device.id(), ..info() });
    assert_eq!(again.expect_err("refused").errno(), Some(Errno::EXIST));
}

/// ublk_drv.c:ublk_ctrl_uring_cmd: every command for a device that is not there is ENODEV.
#[rstest]
fn command_for_an_unknown_device_is_enodev(
    #[values(
        ctrl::GET_QUEUE_AFFINITY,
        ctrl::GET_DEV_INFO,
        ctrl::DEL_DEV,
        ctrl::START_DEV,
        ctrl::STOP_DEV,
        ctrl::SET_PARAMS,
        ctrl::GET_PARAMS,
        ctrl::START_USER_RECOVERY,
        ctrl::END_USER_RECOVERY
    )]
    op: u32,
) {
    declare!(Contract);
    let mut command = CtrlCmd::for_device(NO_SUCH_DEVICE);
    command.data = process::id().into();
    let (result, _) = exchange(&mut control(), op, command, &[0; 256]);
    assert_eq!(result, Err(Errno::NODEV), "{op:#x}");
}

/// ublk_drv.c:ublk_ctrl_uring_cmd: EOPNOTSUPP for a number the driver does not know, and for commands
/// of another type than 'u'.
#[rstest]
#[case::number(0xc020_757f)]
#[case::type_letter(0xc020_7806)]
fn unknown_control_command_is_eopnotsupp(#[case] op: u32) {
    declare!(Contract);
    let mut device = UblkDevice::add(&info());
    let command = CtrlCmd::for_device(device.id());
    assert_eq!(plain(device.control(), op, command), Err(Errno::OPNOTSUPP));
}

/// ublk_drv.c:ublk_ctrl_uring_cmd: the payload needs 128-byte submissions, else EINVAL.
#[rstest]
fn control_over_a_ring_of_small_entries_is_einval() {
    declare!(Contract);
    let shape = Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..Shape::big(4) };
    let mut control = Control::with_shape(&shape).expect("the ring is legal");
    let any = CtrlCmd::for_device(u32::MAX);
    let (result, _) = exchange(&mut control, ctrl::GET_FEATURES, any, &[0; 8]);
    assert_eq!(result, Err(Errno::INVAL));
}

/// ublk_drv.c:ublk_ctrl_set_params and _get_params: what is set is what is returned, with the numbers
/// of the char device filled in.
#[rstest]
fn get_params_returns_what_was_set_and_the_device_numbers() {
    declare!(Contract);
    let mut device = UblkDevice::add(&info());
    let id = device.id();
    let params = Config::disk(64).params;
    device.control().set_params(id, &params).expect("SET_PARAMS");
    let returned = device.control().params(id).expect("GET_PARAMS");
    assert_eq!((returned.basic, returned.discard), (params.basic, params.discard));
    // UBLK_PARAM_TYPE_BASIC, _DISCARD, and _DEVT of the driver's own.
    assert_eq!(returned.types, 0b111);
    assert_ne!(returned.devt.char_major, 0);
    assert_eq!((returned.devt.disk_major, returned.devt.disk_minor), (0, 0), "no disk yet");
}

/// ublk_drv.c:ublk_ctrl_get_params: no more is written than the header says that the caller knows. Numbers of types that
/// nobody knows are gone; without any type SET_PARAMS is EINVAL, and takes nothing away.
#[rstest]
fn parameters_are_those_the_caller_knows() {
    declare!(Contract);
    let mut device = UblkDevice::add(&info());
    let id = device.id();
    let mut params = Config::disk(64).params;
    params.types |= 1 << 30;
    device.control().set_params(id, &params).expect("SET_PARAMS");
    params.types = 0;
    let refused = device.control().set_params(id, &params).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::INVAL));
    assert_eq!(device.control().params(id).expect("GET_PARAMS").types, 0b111);
    let mut bytes = [0xa5; 152];
    bytes[..4].copy_from_slice(&16_u32.to_le_bytes());
    let (answer, bytes) =
        exchange(device.control(), ctrl::GET_PARAMS, CtrlCmd::for_device(id), &bytes);
    assert_eq!(answer, Ok(0));
    assert_eq!(bytes[4], 0b111);
    assert_eq!(bytes[16..], [0xa5; 136]);
}

/// ublk_drv.c:ublk_ctrl_get_dev_info: fewer than 64 bytes are EINVAL; and GET_DEV_INFO2 wants the path of the char
/// device of everybody (EINVAL).
#[rstest]
fn information_has_room_and_a_path() {
    declare!(Contract);
    let mut device = UblkDevice::add(&info());
    let command = CtrlCmd::for_device(device.id());
    for (op, len) in [(ctrl::GET_DEV_INFO, 63), (ctrl::GET_DEV_INFO, 32), (ctrl::GET_DEV_INFO2, 64)]
    {
        let (answer, bytes) = exchange(device.control(), op, command, &vec![0xa5; len]);
        assert_eq!(answer, Err(Errno::INVAL), "{op:#x}, {len} bytes");
        assert_eq!(bytes, vec![0xa5; len]);
    }
}

/// ublk_drv.c:ublk_validate_params: logical blocks of 512 to 4096 bytes, no larger than physical ones;
/// requests of 8 sectors to the buffer's length; a granularity with discard, and one segment.
#[rstest]
#[case::logical_256(|p: &mut Params| p.basic.logical_bs_shift = 8)]
#[case::logical_8192(|p: &mut Params| (p.basic.logical_bs_shift, p.basic.physical_bs_shift) = (13, 13))]
#[case::logical_above_physical(|p: &mut Params| p.basic.physical_bs_shift = 8)]
#[case::request_above_buffer(|p: &mut Params| p.basic.max_sectors = 1025)]
#[case::no_granularity(|p: &mut Params| p.discard.discard_granularity = 0)]
#[case::two_segments(|p: &mut Params| p.discard.max_discard_segments = 2)]
#[case::no_types(|p: &mut Params| p.types = 0)]
#[case::no_length(|p: &mut Params| p.len = 0)]
#[case::devt(|p: &mut Params| p.types |= 0b100)]
fn set_params_beyond_a_limit_is_einval(#[case] bend: fn(&mut Params)) {
    declare!(Contract);
    let mut device = UblkDevice::add(&info());
    let id = device.id();
    let mut params = Config::disk(64).params;
    bend(&mut params);
    let refused = device.control().set_params(id, &params).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::INVAL));
}

/// ublk_drv.c:ublk_ctrl_start_dev: EINVAL without parameters, and without a server's process id.
#[rstest]
fn start_dev_before_params_or_without_pid_is_einval() {
    declare!(Contract);
    let mut device = UblkDevice::add(&info());
    let id = device.id();
    let mut start = CtrlCmd::for_device(id);
    start.data = process::id().into();
    assert_eq!(plain(device.control(), ctrl::START_DEV, start), Err(Errno::INVAL));
    device.control().set_params(id, &Config::disk(64).params).expect("SET_PARAMS");
    start.data = 0;
    assert_eq!(plain(device.control(), ctrl::START_DEV, start), Err(Errno::INVAL));
    assert_eq!(device.state(), 0);
}

/// ublk_drv.c:ublk_ctrl_del_dev: DEL_DEV returns when the number is free again.
#[rstest]
fn del_dev_frees_the_number() {
    declare!(Contract);
    let device = UblkDevice::add(&info());
    let id = device.id();
    device.delete();
    let gone = control().info(id).expect_err("deleted");
    assert_eq!(gone.errno(), Some(Errno::NODEV));
    // Tests beside this one may have taken the number meanwhile; nobody else asks for one of their own.
    let mut id = 0x5_0000;
    for _ in 0..2 {
        let device = UblkDevice::add(&DevInfo { dev_id: id, ..info() });
        assert_eq!(device.id(), id);
        id = device.id();
        device.delete();
    }
}
