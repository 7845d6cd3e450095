//! What the parameters of a device make of its disk, what an errno asks for that no server ever does, and the module.

use std::{
    fs,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    thread,
};

use bsg::Access;
use harness::{
    BlockDevice, Needs, UblkDevice, bench, declare,
    modules::{self, Modules},
    privilege, program, sysfs,
};
use rstest::rstest;
use rustix::fs::OFlags;
use ublk::{
    Buffer, Config, Control, DataMode, Errno, Pointer, Region, Server,
    uapi::{CtrlCmd, DevInfo, Params, ctrl},
};
use zerocopy::IntoBytes;

use super::{
    modes::SINCE_7_0,
    raw::exchange,
    recorder::{Recorder, huge_page, unscanned},
};

fn disk(config: &Config) -> (Server, BlockDevice) {
    let server = Server::start(config, Arc::new(Recorder::new(64))).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    (server, disk)
}

/// `struct ublk_param_basic`, `ublk_param_dma_align` and `ublk_param_segment`: what they say is a limit of the queue
/// (Documentation/ABI/stable/sysfs-block).
#[rstest]
#[case::rotational(|p: &mut Params| p.basic.attrs |= 2, "queue/rotational", "1")]
#[case::not_rotational(|_: &mut Params| (), "queue/rotational", "0")]
#[case::force_unit_access(|p: &mut Params| p.basic.attrs |= 8, "queue/fua", "1")]
#[case::no_force_unit_access(|_: &mut Params| (), "queue/fua", "0")]
#[case::dma(|p: &mut Params| (p.types, p.dma.alignment) = (0x11, 511), "queue/dma_alignment", "511")]
#[case::segments(|p: &mut Params| segments(p), "queue/max_segments", "7")]
#[case::segment_len(|p: &mut Params| segments(p), "queue/max_segment_size", "8192")]
#[case::io_min(|p: &mut Params| p.basic.io_min_shift = 13, "queue/minimum_io_size", "8192")]
#[case::io_opt(|p: &mut Params| p.basic.io_opt_shift = 16, "queue/optimal_io_size", "65536")]
#[case::virt_boundary(|p: &mut Params| p.basic.virt_boundary_mask = 4095, "queue/virt_boundary_mask", "4095")]
#[case::chunk(|p: &mut Params| p.basic.chunk_sectors = 32, "queue/chunk_sectors", "32")]
#[case::longest_discard(
    |p: &mut Params| p.discard.max_discard_sectors = 64,
    "queue/discard_max_hw_bytes",
    "32768"
)]
#[case::longest_zeroes(
    |p: &mut Params| p.discard.max_write_zeroes_sectors = 32,
    "queue/write_zeroes_max_bytes",
    "16384"
)]
#[case::discard(
    |p: &mut Params| p.discard.discard_granularity = 65536,
    "queue/discard_granularity",
    "65536"
)]
fn parameter_is_a_limit_of_the_disk(
    #[case] bend: fn(&mut Params),
    #[case] attribute: &str,
    #[case] expected: &str,
) {
    declare!(Contract, SINCE_7_0);
    let mut config = unscanned(64);
    bend(&mut config.params);
    let (server, disk) = disk(&config);
    assert_eq!(disk.attribute(attribute), expected);
    assert_eq!(disk.read(0, 512).expect("read"), [0; 512]);
    drop(disk);
    server.delete().expect("deleted");
}

fn segments(params: &mut Params) {
    params.types |= 0x20;
    params.seg.seg_boundary_mask = 8191;
    params.seg.max_segment_size = 8192;
    params.seg.max_segments = 7;
}

/// `struct ublk_param_segment`: a request of one segment ends where that may not go on, at each boundary of 8 KiB here,
/// though the memory does; here it is a huge page, if the kernel gives us one.
#[rstest]
fn segment_does_not_cross_its_boundary() {
    declare!(Contract, SINCE_7_0);
    let mut config = unscanned(64);
    config.params.types |= 0x20;
    config.params.seg.seg_boundary_mask = 8191;
    (config.params.seg.max_segment_size, config.params.seg.max_segments) = (1 << 20, 1);
    let target = Arc::new(Recorder::new(64));
    let server = Server::start(&config, target.clone()).expect("started");
    let direct = OFlags::DIRECT.bits().cast_signed();
    let disk = fs::File::options().write(true).custom_flags(direct).open(server.block_path());
    let disk = disk.expect("the disk opens");
    let (mut memory, start) = huge_page();
    memory[start..start + 32768].fill(7);
    disk.write_all_at(&memory[start..start + 32768], 0).expect("written");
    let lengths: Vec<u32> = target.take().iter().map(|seen| seen.3).collect();
    assert_eq!(lengths.iter().sum::<u32>(), 64);
    assert!(lengths.iter().all(|sectors| *sectors <= 16), "{lengths:?}");
    drop(disk);
    server.delete().expect("deleted");
}

/// `struct ublk_param_integrity`: the format that the block layer names by the guard (block/blk-integrity.c), and the
/// interval.
#[rstest]
#[case::none(0, 0, 8, "nop", "0")]
#[case::ip(1, 3, 8, "T10-DIF-TYPE1-IP", "1")]
#[case::crc(2, 2, 8, "T10-DIF-TYPE1-CRC", "0")]
#[case::crc64(4, 3, 16, "EXT-DIF-TYPE1-CRC64", "1")]
fn integrity_is_a_limit_of_the_disk(
    #[case] guard: u8,
    #[case] capabilities: u32,
    #[case] metadata: u8,
    #[case] format: &str,
    #[case] capable: &str,
) {
    declare!(Contract, SINCE_7_0);
    let mut config = unscanned(64).mode(DataMode::UserCopy);
    config.info.flags |= 1 << 16;
    config.params.types |= 1 << 6;
    let integrity = &mut config.params.integrity;
    (integrity.flags, integrity.csum_type) = (capabilities, guard);
    (integrity.interval_exp, integrity.metadata_size) = (9, metadata);
    (integrity.max_integrity_segments, integrity.tag_size) = (5, 2);
    let (server, disk) = disk(&config);
    assert_eq!(disk.attribute("integrity/format"), format);
    assert_eq!(disk.attribute("integrity/protection_interval_bytes"), "512");
    assert_eq!(disk.attribute("integrity/device_is_integrity_capable"), capable);
    assert_eq!(disk.attribute("integrity/tag_size"), "2");
    assert_eq!(disk.attribute("queue/max_integrity_segments"), "5");
    drop(disk);
    server.delete().expect("deleted");
}

/// A payload that cannot be read or written is EFAULT, and changes nothing but what a half-read set of parameters would.
#[rstest]
#[case::features(ctrl::GET_FEATURES, 8)]
#[case::info(ctrl::GET_DEV_INFO, 64)]
#[case::affinity(ctrl::GET_QUEUE_AFFINITY, 512)]
#[case::get_params(ctrl::GET_PARAMS, 152)]
#[case::set_params(ctrl::SET_PARAMS, 152)]
#[case::add(ctrl::ADD_DEV, 64)]
fn payload_that_is_nowhere_is_efault(#[case] op: u32, #[case] len: u16) {
    declare!(Contract, SINCE_7_0);
    let device = UblkDevice::add(&unscanned(64).info);
    let mut control = Control::open().expect("opened");
    let dev_id = if op == ctrl::ADD_DEV { u32::MAX } else { device.id() };
    let command = CtrlCmd { len, ..CtrlCmd::for_device(dev_id) };
    let token = control.begin(op, command, Pointer::Unmapped).expect("submitted");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let reply = control.finish(token, deadline).expect("answered");
    assert_eq!(reply.res, -14, "EFAULT");
    device.delete();
}

/// A payload that can be read and not written is EFAULT where an answer goes there; a device that nobody could be told of
/// is not there.
#[rstest]
#[case::features(ctrl::GET_FEATURES, 8)]
#[case::info(ctrl::GET_DEV_INFO, 64)]
#[case::affinity(ctrl::GET_QUEUE_AFFINITY, 512)]
#[case::get_params(ctrl::GET_PARAMS, 152)]
#[case::add(ctrl::ADD_DEV, 64)]
fn payload_that_cannot_be_written_is_efault(#[case] op: u32, #[case] len: u16) {
    declare!(Contract, SINCE_7_0);
    let (mut info, params) = (unscanned(64).info, unscanned(64).params);
    let device = UblkDevice::add(&info);
    info.dev_id = 0x5_4000;
    let payload = Region::zeroed(4096).expect("a page");
    payload.write(0, if op == ctrl::ADD_DEV { info.as_bytes() } else { params.as_bytes() });
    payload.make_read_only(0..4096).expect("its protection changes");
    let mut control = Control::open().expect("opened");
    let dev_id = if op == ctrl::ADD_DEV { info.dev_id } else { device.id() };
    let command = CtrlCmd { len, ..CtrlCmd::for_device(dev_id) };
    let token = control.begin(op, command, Pointer::In(payload, 0)).expect("submitted");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    assert_eq!(control.finish(token, deadline).expect("answered").res, -14, "EFAULT");
    assert!(UblkDevice::find(info.dev_id).is_none(), "nobody was told of it");
    UblkDevice::add(&info).delete();
    device.delete();
}

/// A payload that ends in the middle of what it announces: EFAULT, and no parameters are left of those there were.
#[rstest]
fn parameters_cut_off_by_the_end_of_memory_leave_none() {
    declare!(Contract, SINCE_7_0);
    let config = unscanned(64);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    // The buffer ends with its page, before a guard, 40 bytes in; the command says 152.
    let mut part = Buffer::at_offset(4096 - 40, 40).expect("memory");
    part.copy_from_slice(&config.params.as_bytes()[..40]);
    let command = CtrlCmd { len: 152, ..CtrlCmd::for_device(id) };
    let token = device.control().begin(ctrl::SET_PARAMS, command, part.into()).expect("submitted");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let reply = device.control().finish(token, deadline).expect("answered");
    assert_eq!(reply.res, -14, "EFAULT");
    assert_eq!(device.control().params(id).expect("GET_PARAMS").types, 4, "DEVT alone");
    device.delete();
}

/// ublk_ctrl_set_params and ublk_ctrl_get_params: parameters of a newer header, longer than the driver's, are taken as
/// far as it knows them; a length of more than the buffer has, or of nothing, is EINVAL.
#[rstest]
#[case::longer(160, 160, Ok(0))]
#[case::more_than_the_buffer(160, 152, Err(Errno::INVAL))]
#[case::nothing(0, 152, Err(Errno::INVAL))]
fn length_of_parameters_is_theirs(
    #[case] told: u32,
    #[case] room: usize,
    #[case] expected: Result<i32, Errno>,
) {
    declare!(Contract, SINCE_7_0);
    let mut config = unscanned(64);
    config.params.len = told;
    let device = UblkDevice::add(&config.info);
    let mut control = Control::open().expect("opened");
    let mut bytes = config.params.as_bytes().to_vec();
    bytes.resize(room, 0);
    for op in [ctrl::SET_PARAMS, ctrl::GET_PARAMS] {
        let command = CtrlCmd::for_device(device.id());
        assert_eq!(exchange(&mut control, op, command, &bytes).0, expected, "{op:#x}");
    }
    device.delete();
}

/// ublk_ctrl_get_queue_affinity: EINVAL for no room, for a part of a word, and for a queue that is not there; bytes beyond
/// what the kernel has are zero.
#[rstest]
fn affinity_has_room_for_all_cpus_in_whole_words() {
    declare!(Contract, SINCE_7_0);
    let device = UblkDevice::add(&unscanned(64).info);
    let mut control = Control::open().expect("opened");
    let mut ask = |queue: u64, len: usize| {
        let command = CtrlCmd { data: queue, ..CtrlCmd::for_device(device.id()) };
        exchange(&mut control, ctrl::GET_QUEUE_AFFINITY, command, &vec![0xff; len])
    };
    for (queue, len) in [(0, 0), (0, 9), (0, 12), (1, 512), (1 << 32, 512)] {
        assert_eq!(ask(queue, len).0, Err(Errno::INVAL), "queue {queue}, {len} bytes");
    }
    let (answer, mask) = ask(0, 4096);
    assert_eq!(answer, Ok(0));
    assert_eq!(mask[0] & 1, 1, "the first CPU");
    assert!(mask[1024..].iter().all(|byte| *byte == 0), "there are at most 8192 CPUs");
    device.delete();
}

const ALONE: Needs = Needs { own_vm: true, ..SINCE_7_0 };

/// The parameter `ublks_max` limits the devices of the unprivileged (EACCES), and nobody else's. The module takes devices
/// that nobody has open with it, and comes back; meanwhile `sensecheck-ublk` says what to do.
#[rstest]
fn module_goes_with_its_devices_and_has_a_limit() {
    declare!(Contract, ALONE);
    const LIMIT: &str = "/sys/module/ublk_drv/parameters/ublks_max";
    let unprivileged = DevInfo { flags: 1 << 5, ..Config::disk(64).queues(1, 4).info };
    fs::write(LIMIT, "0").expect("it can be changed");
    assert_eq!(sysfs::attribute(Path::new(LIMIT)).expect("read"), "0");
    let refused = thread::spawn(move || {
        privilege::drop_sys_admin();
        Control::open().expect("opened").add(&unprivileged).err()
    });
    let refused = refused.join().expect("no panic").expect("refused");
    assert_eq!(refused.errno(), Some(Errno::ACCESS));
    assert!(fs::write(LIMIT, "1048577").is_err(), "more than there are minor numbers");
    fs::write(LIMIT, "1").expect("it can be changed");
    let again = thread::spawn(move || {
        privilege::drop_sys_admin();
        for _ in 0..2 {
            let device = UblkDevice::add(&unprivileged);
            let second = Control::open().expect("opened").add(&unprivileged).err();
            assert_eq!(second.and_then(|error| error.errno()), Some(Errno::ACCESS), "the limit");
            device.delete();
        }
    });
    again.join().expect("one at a time");
    fs::write(LIMIT, "64").expect("it can be changed");
    if !Path::new("/sys/module/ublk_drv/initstate").exists() {
        bench::skip("ublk_drv is built into this kernel");
    }

    let mut control = Control::open().expect("opened");
    let ids = [0; 3].map(|_| control.add(&unscanned(64).info).expect("ADD_DEV").dev_id);
    control.set_params(ids[0], &unscanned(64).params).expect("SET_PARAMS");
    let stopped = Server::start(&unscanned(64), Arc::new(Recorder::new(64)));
    let mut stopped = stopped.expect("started");
    assert!(module_is_in_use(), "a server has its char device open");
    stopped.stop().expect("stopped");
    // The module has no user any more; the device goes with it.
    stopped.leave();
    drop(control);
    modules::unload("ublk_drv").expect("nobody uses it");
    for id in ids {
        sysfs::vanish(Path::new(&format!("/dev/ublkc{id}")));
    }
    let ran = program::run("sensecheck-ublk", &["features"]);
    assert!(ran.ended_with(1).contains("`modprobe ublk_drv`"), "{}", ran.said);
    Modules::of_image().expect("a list").load("ublk_drv", "").expect("loads again");
    let (server, disk) = disk(&unscanned(64));
    assert_eq!(disk.read(0, 512).expect("read"), [0; 512]);
    drop(disk);
    server.delete().expect("deleted");
}

/// Whether the kernel says that the module is in use.
fn module_is_in_use() -> bool {
    let users = fs::read_to_string("/sys/module/ublk_drv/refcnt").expect("it is a module");
    users.trim() != "0"
}
