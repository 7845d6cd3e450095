//! Feature flags and parameters: which of them a device may have together, and what the driver makes of them.

use harness::{Needs, UblkDevice, declare};
use rstest::rstest;
use ublk::{
    Config, Control, Errno, Features,
    uapi::{DevInfo, Params},
};

use super::modes::SINCE_7_0;

/// UBLK_F_* (include/uapi/linux/ublk_cmd.h).
const ZERO_COPY: u64 = 1 << 0;
const GET_DATA: u64 = 1 << 2;
const RECOVERY: u64 = 1 << 3;
const REISSUE: u64 = 1 << 4;
const UNPRIVILEGED: u64 = 1 << 5;
const USER_COPY: u64 = 1 << 7;
const ZONED: u64 = 1 << 8;
const FAIL_IO: u64 = 1 << 9;
const AUTO_BUF: u64 = 1 << 11;
const QUIESCE: u64 = 1 << 12;
const INTEGRITY: u64 = 1 << 16;

const SINCE_7_3: Needs = Needs {
    features: std::borrow::Cow::Borrowed(&[harness::Feature::KernelAtLeast(7, 3)]),
    ..Needs::DEFAULT
};

fn info(flags: u64) -> DevInfo {
    DevInfo { flags, ..Config::disk(64).queues(1, 4).info }
}

/// ublk_drv.c:ublk_ctrl_add_dev: combinations that make no sense are EINVAL.
#[rstest]
#[case::reissue_without_recovery(REISSUE)]
#[case::fail_io_without_recovery(FAIL_IO)]
#[case::reissue_and_fail_io(RECOVERY | REISSUE | FAIL_IO)]
#[case::quiesce_without_recovery(QUIESCE)]
#[case::integrity_without_user_copy(INTEGRITY)]
#[case::integrity_with_zero_copy(INTEGRITY | ZERO_COPY)]
#[case::zoned_by_copy(ZONED)]
fn flags_that_make_no_sense_together_are_einval(#[case] flags: u64) {
    declare!(Contract, SINCE_7_0);
    let refused = Control::open().expect("opened").add(&info(flags)).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::INVAL));
}

/// The same: the flags that a device is added with are the ones it has, as far as the driver knows them; NEED_GET_DATA
/// means nothing where the driver copies nothing, and is gone. What every device has comes in addition.
#[rstest]
#[case::zero_copy(ZERO_COPY, ZERO_COPY)]
#[case::get_data(GET_DATA, GET_DATA)]
#[case::get_data_and_zero_copy(GET_DATA | ZERO_COPY, ZERO_COPY)]
#[case::get_data_and_user_copy(GET_DATA | USER_COPY, USER_COPY)]
#[case::get_data_and_auto_buf(GET_DATA | AUTO_BUF, AUTO_BUF)]
#[case::recovery(RECOVERY | QUIESCE, RECOVERY | QUIESCE)]
#[case::reissue(RECOVERY | REISSUE, RECOVERY | REISSUE)]
#[case::fail_io(RECOVERY | FAIL_IO, RECOVERY | FAIL_IO)]
#[case::privileged(UNPRIVILEGED, 0)]
#[case::unknown(1 << 40, 0)]
fn flags_of_a_device_are_what_was_agreed_on(#[case] asked: u64, #[case] agreed: u64) {
    declare!(Contract, SINCE_7_0);
    let device = UblkDevice::add(&info(asked));
    // What every device of 7.0 to 7.3 has: bits 1, 6, 13, 14 and 17, and that the driver knows UPDATE_SIZE or not.
    let always = 1 << 1 | 1 << 6 | 1 << 13 | 1 << 14 | 1 << 17;
    let (flags, optional) = (device.info().flags, 1 << 10);
    assert_eq!(flags & !optional, agreed | always, "{flags:#x}");
}

/// ublk_drv.c:ublk_ctrl_add_dev, UBLK_F_BATCH_IO (1 << 15): no tag has a task of its own (no PER_IO_DAEMON, 1 << 13), and
/// nobody asks for data (no NEED_GET_DATA). A buffer is whole pages.
#[rstest]
fn batch_device_has_neither_daemons_nor_data_to_ask_for() {
    declare!(Contract, SINCE_7_0);
    const BATCH: u64 = 1 << 15;
    let asked = DevInfo { max_io_buf_bytes: (512 << 10) + 4095, ..info(BATCH | GET_DATA) };
    let device = UblkDevice::add(&asked);
    let (flags, always, optional) =
        (device.info().flags, 1 << 1 | 1 << 6 | 1 << 14 | 1 << 17, 1 << 10);
    assert_eq!(flags & !optional, BATCH | always, "{flags:#x}");
    assert_eq!(device.info().max_io_buf_bytes, 512 << 10);
}

/// What the caller says of state and server is not taken over: a device that was just added is DEAD and has none.
#[rstest]
fn add_dev_ignores_the_state_it_is_told() {
    declare!(Contract, SINCE_7_0);
    let device = UblkDevice::add(&DevInfo { state: 1, ublksrv_pid: 1, ..info(0) });
    assert_eq!((device.info().state, device.info().ublksrv_pid), (0, -1));
}

/// ublk_drv.c:ublk_ctrl_add_dev of 7.3: a descriptor has 24 to 256 bytes, in steps of 8 (EINVAL). Without the flag the
/// size is 24, whatever was said.
#[rstest]
#[case::shorter(16, false)]
#[case::odd(28, false)]
#[case::longer(264, false)]
#[case::shortest(24, true)]
#[case::longest(256, true)]
fn descriptor_has_a_size_within_bounds(#[case] size: u16, #[case] valid: bool) {
    declare!(Contract, SINCE_7_3);
    let plain = UblkDevice::add(&DevInfo { io_desc_size: size, ..info(0) });
    assert_eq!(plain.info().io_desc_size, 24);
    let asked = DevInfo { io_desc_size: size, ..info(1 << 20) };
    if valid {
        assert_eq!(UblkDevice::add(&asked).info().io_desc_size, size);
    } else {
        let refused = Control::open().expect("opened").add(&asked).expect_err("refused");
        assert_eq!(refused.errno(), Some(Errno::INVAL));
    }
}

/// ublk_drv.c:ublk_validate_params: each limit of the parameters that narrow requests, from its other side (EINVAL), and
/// a device whose parameters were refused has none: it cannot be started (EINVAL).
#[rstest]
#[case::alignment_of_a_page(|p: &mut Params| (p.types, p.dma.alignment) = (0x11, 4096))]
#[case::alignment_of_three(|p: &mut Params| (p.types, p.dma.alignment) = (0x11, 2))]
#[case::alignment_of_two_pages(|p: &mut Params| (p.types, p.dma.alignment) = (0x11, 8191))]
#[case::boundary_below_a_page(|p: &mut Params| segment(p, 2047, 4096))]
#[case::boundary_of_no_power(|p: &mut Params| segment(p, 8190, 4096))]
#[case::segment_below_a_page(|p: &mut Params| segment(p, 4095, 4095))]
#[case::zones_of_a_device_without(|p: &mut Params| p.types = 0x9)]
#[case::integrity_of_a_device_without(|p: &mut Params| integrity(p))]
#[case::requests_below_a_page(|p: &mut Params| p.basic.max_sectors = 7)]
#[case::physical_above_256m(|p: &mut Params| p.basic.physical_bs_shift = 29)]
#[case::io_min_above_256m(|p: &mut Params| p.basic.io_min_shift = 29)]
#[case::io_opt_above_256m(|p: &mut Params| p.basic.io_opt_shift = 29)]
fn parameter_beyond_a_limit_is_einval_and_leaves_none(#[case] bend: fn(&mut Params)) {
    declare!(Contract, SINCE_7_0);
    let mut device = UblkDevice::add(&info(0));
    let id = device.id();
    let mut params = Config::disk(64).params;
    bend(&mut params);
    let refused = device.control().set_params(id, &params).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::INVAL));
    assert_eq!(device.control().params(id).expect("GET_PARAMS").types & 1, 0, "no basic ones");
    assert_eq!(device.control().start(id).expect_err("refused").errno(), Some(Errno::INVAL));
}

/// The same limits from their inner side: what is just within them is taken.
#[rstest]
fn parameter_at_a_limit_is_taken() {
    declare!(Contract, SINCE_7_0);
    let bends: [fn(&mut Params); 8] = [
        |p| (p.types, p.dma.alignment) = (0x11, 4095),
        |p| segment(p, 4095, 4096),
        |p| p.basic.max_sectors = 8,
        |p| p.basic.max_sectors = 1024,
        |p| p.basic.physical_bs_shift = 28,
        |p| (p.basic.io_min_shift, p.basic.io_opt_shift) = (28, 28),
        |p| (p.basic.logical_bs_shift, p.basic.physical_bs_shift) = (12, 12),
        |p| (p.discard.max_discard_sectors, p.discard.max_discard_segments) = (0, 0),
    ];
    let mut device = UblkDevice::add(&info(0));
    let id = device.id();
    for (number, bend) in bends.into_iter().enumerate() {
        let mut params = Config::disk(64).params;
        bend(&mut params);
        let taken = device.control().set_params(id, &params);
        taken.unwrap_or_else(|error| panic!("number {number}: {error}"));
    }
}

fn segment(params: &mut Params, mask: u64, len: u32) {
    params.types = 0x21;
    (params.seg.seg_boundary_mask, params.seg.max_segment_size, params.seg.max_segments) =
        (mask, len, 1);
}

fn integrity(params: &mut Params) {
    params.types = 0x41;
    (params.integrity.interval_exp, params.integrity.metadata_size) = (9, 8);
}

/// The same with integrity: metadata of some length, a guard that is known, protection information that fits, an
/// interval of 512 bytes to a block.
#[rstest]
#[case::sound(|_: &mut Params| (), true)]
#[case::no_metadata(|p: &mut Params| p.integrity.metadata_size = 0, false)]
#[case::interval_of_a_block(
    |p: &mut Params| (p.basic.logical_bs_shift, p.integrity.interval_exp) = (12, 12),
    true
)]
#[case::unknown_guard(|p: &mut Params| p.integrity.csum_type = 3, false)]
#[case::unknown_capability(|p: &mut Params| p.integrity.flags = 4, false)]
#[case::information_behind_the_metadata(|p: &mut Params| p.integrity.pi_offset = 1, false)]
#[case::reference_tag_without_a_guard(
    |p: &mut Params| (p.integrity.csum_type, p.integrity.flags) = (0, 2),
    false
)]
#[case::interval_below_a_sector(|p: &mut Params| p.integrity.interval_exp = 8, false)]
#[case::interval_above_a_block(|p: &mut Params| p.integrity.interval_exp = 10, false)]
fn integrity_parameters_are_checked(#[case] bend: fn(&mut Params), #[case] valid: bool) {
    declare!(
        Contract,
        Needs {
            features: std::borrow::Cow::Borrowed(&[
                harness::Feature::KernelAtLeast(7, 0),
                harness::Feature::Config(std::borrow::Cow::Borrowed("CONFIG_BLK_DEV_INTEGRITY")),
            ]),
            ..Needs::DEFAULT
        }
    );
    let mut device = UblkDevice::add(&info(USER_COPY | INTEGRITY));
    let id = device.id();
    let mut params = Config::disk(64).params;
    integrity(&mut params);
    // LBMD_PI_CSUM_CRC16_T10DIF of include/uapi/linux/fs.h, whose information has 8 bytes.
    params.integrity.csum_type = 2;
    bend(&mut params);
    let answer = device.control().set_params(id, &params);
    assert_eq!(answer.err().and_then(|e| e.errno()), (!valid).then_some(Errno::INVAL));
}

/// ublk_drv.c:ublk_dev_param_zoned_validate and ublk_validate_params: a zoned device has zones of a power of two of
/// sectors, zone append, and no more open and active zones than zones; it says so (EINVAL).
#[rstest]
#[case::sound(|_: &mut Params| (), true)]
#[case::zones_of_three_sectors(|p: &mut Params| p.basic.chunk_sectors = 3, false)]
#[case::no_zones(|p: &mut Params| p.basic.chunk_sectors = 0, false)]
#[case::no_zone_append(|p: &mut Params| p.zoned.max_zone_append_sectors = 0, false)]
#[case::more_active_than_zones(|p: &mut Params| p.zoned.max_active_zones = 5, false)]
#[case::more_open_than_zones(|p: &mut Params| p.zoned.max_open_zones = 5, false)]
#[case::without_its_parameters(|p: &mut Params| p.types = 1, false)]
fn zoned_parameters_are_checked(#[case] bend: fn(&mut Params), #[case] valid: bool) {
    declare!(
        Contract,
        Needs {
            features: std::borrow::Cow::Borrowed(&[
                harness::Feature::KernelAtLeast(7, 0),
                harness::Feature::Config(std::borrow::Cow::Borrowed("CONFIG_BLK_DEV_ZONED")),
            ]),
            ..Needs::DEFAULT
        }
    );
    let mut device = UblkDevice::add(&info(USER_COPY | ZONED));
    let id = device.id();
    // Four zones of 16 sectors.
    let mut params = Config::disk(64).params;
    params.types = 0x9;
    params.basic.chunk_sectors = 16;
    params.zoned.max_zone_append_sectors = 16;
    (params.zoned.max_active_zones, params.zoned.max_open_zones) = (4, 4);
    bend(&mut params);
    let answer = device.control().set_params(id, &params);
    assert_eq!(answer.err().and_then(|e| e.errno()), (!valid).then_some(Errno::INVAL));
}

/// include/uapi/linux/ublk_cmd.h: commands up to GET_DEV_INFO2 have a number without encoding, which does the same.
#[rstest]
fn legacy_numbers_do_the_same() {
    declare!(
        Contract,
        Needs {
            features: std::borrow::Cow::Borrowed(&[
                harness::Feature::KernelAtLeast(7, 0),
                harness::Feature::Config(std::borrow::Cow::Borrowed(
                    "CONFIG_BLKDEV_UBLK_LEGACY_OPCODES"
                )),
            ]),
            ..SINCE_7_0
        }
    );
    let mut control = Control::open().expect("opened");
    control.use_legacy_numbers();
    let added = control.add(&info(0)).expect("ADD_DEV");
    let mut device = UblkDevice::adopt(added.dev_id);
    assert_eq!(control.info(added.dev_id).expect("GET_DEV_INFO"), added);
    assert_eq!(control.info2(added.dev_id).expect("GET_DEV_INFO2"), added);
    let params = Config::disk(64).params;
    control.set_params(added.dev_id, &params).expect("SET_PARAMS");
    let id = device.id();
    assert_eq!(device.control().params(id).expect("GET_PARAMS").basic, params.basic);
    assert_eq!(control.params(id).expect("GET_PARAMS").basic, params.basic);
    control.stop(id).expect("STOP_DEV");
    control.delete(id).expect("DEL_DEV");
    assert_eq!(UblkDevice::find(id), None);
}

/// ublk_drv.c:ublk_ctrl_get_queue_affinity: the queues share the CPUs, each with one queue. A queue that is not there is
/// EINVAL.
#[rstest]
fn every_cpu_has_one_queue() {
    declare!(Contract, SINCE_7_0);
    let mut device = UblkDevice::add(&DevInfo { nr_hw_queues: 64, ..info(0) });
    let (id, queues) = (device.id(), device.info().nr_hw_queues);
    let mut cpus = Vec::new();
    for queue in 0..queues {
        cpus.extend(device.control().queue_affinity(id, queue).expect("GET_QUEUE_AFFINITY"));
    }
    let online = std::thread::available_parallelism().expect("a number of CPUs").get();
    for cpu in 0..u32::try_from(online).expect("few") {
        assert_eq!(cpus.iter().filter(|of| **of == cpu).count(), 1, "{cpus:?}");
    }
    let none = device.control().queue_affinity(id, queues).expect_err("refused");
    assert_eq!(none.errno(), Some(Errno::INVAL));
}

/// GET_FEATURES names every flag of this driver that we know, and the tests would like to know of more.
#[rstest]
fn driver_has_no_feature_we_have_no_name_for() {
    declare!(Accident, SINCE_7_0);
    let features = Control::open().expect("opened").features().expect("GET_FEATURES");
    let unknown: Vec<_> =
        features.names().into_iter().filter(|name| name.starts_with("BIT_")).collect();
    assert_eq!(unknown, [""; 0]);
    assert!(features.contains(Features::BATCH_IO | Features::SAFE_STOP_DEV));
}
