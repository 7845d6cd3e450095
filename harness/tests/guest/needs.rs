//! What a test declares is what it gets: each need, seen through the kernel's own eyes.

use std::{
    borrow::Cow,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bsg::{Access, BsgUring, Request};
use guest_protocol::message::TargetSignal;
use harness::{Feature, HostShape, Lun, Module, Needs, ScsiHost, bench, declare, sysfs, wait};

use crate::bsg::ways::soon;

const fn own_host(shape: HostShape) -> Needs {
    Needs { host: ScsiHost::Own(shape), ..Needs::DEFAULT }
}

/// An attribute of the test's SCSI host.
fn host_attribute(name: &str) -> String {
    let host = sysfs::scsi_host_below(Path::new(&bench::host().slots[0]));
    let path = format!("/sys/class/scsi_host/host{host}/{name}");
    // drivers/scsi/hosts.c:scsi_add_host_with_dma adds the host before its entry in the class.
    sysfs::appear(Path::new(&path));
    sysfs::attribute(Path::new(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// drivers/scsi/virtio_scsi.c:virtscsi_probe: `cmd_per_lun` of the device is that of the host, and
/// with it the depth of each unit's queue, and the greatest that can be set (virtscsi_change_queue_depth).
#[test]
fn cmd_per_lun_is_the_queue_depth() {
    declare!(Contract, own_host(HostShape { cmd_per_lun: Some(4), ..HostShape::DEFAULT }));
    let lun = Lun::fresh();
    let depth = || lun.device().attribute("queue_depth");
    assert_eq!(depth(), "4");
    assert_eq!(host_attribute("cmd_per_lun"), "4");
    for (written, taken) in [("5", "4"), ("64", "4"), ("3", "3"), ("1", "1"), ("4", "4")] {
        fs::write(lun.device().dir().join("queue_depth"), written).expect("a depth");
        assert_eq!(depth(), taken, "{written} was written");
    }
}

/// drivers/scsi/virtio_scsi.c:virtscsi_probe: `can_queue` is the size of a request queue's ring.
#[test]
fn ring_size_is_can_queue() {
    declare!(Contract, own_host(HostShape { tags: Some(32), ..HostShape::DEFAULT }));
    assert_eq!(host_attribute("can_queue"), "32");
}

/// drivers/scsi/virtio_scsi.c:virtscsi_probe: each request queue is a hardware queue, as far as there
/// are CPUs.
#[test]
fn request_queues_are_hardware_queues() {
    declare!(
        Contract,
        Needs { cpus: Some(2), ..own_host(HostShape { queues: Some(2), ..HostShape::DEFAULT }) }
    );
    assert_eq!(host_attribute("nr_hw_queues"), "2");
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online").expect("sysfs is mounted");
    assert_eq!(cpus.trim(), "0-1");
}

/// include/uapi/linux/virtio_scsi.h, max_sectors, in units of 512 bytes.
#[test]
fn max_sectors_bounds_a_transfer() {
    declare!(Contract, own_host(HostShape { max_sectors: Some(64), ..HostShape::DEFAULT }));
    let lun = Lun::fresh();
    let mut way = crate::bsg::ways::Way::SgIoV4.open(lun.device());
    let read = |blocks: u8| {
        Request::new(&[0x28, 0, 0, 0, 0, 0, 0, 0, blocks, 0]).data_in(usize::from(blocks) * 512)
    };
    assert_eq!(way.execute(read(64)).expect("64 blocks fit").device_status, 0);
    let refused = way.execute(read(72)).expect_err("72 blocks do not fit");
    assert_eq!(refused.errno(), Some(bsg::Errno::INVAL), "{refused}");
}

/// Memory beyond the default of 512 MiB.
#[test]
fn memory_is_what_was_asked_for() {
    declare!(Contract, Needs { memory_mib: Some(768), ..Needs::DEFAULT });
    let text = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix(" kB"));
    let total_kib: u64 = total.and_then(|text| text.trim().parse().ok()).expect("a number");
    // The kernel itself, its page structures and the firmware take their share, and KASAN an eighth;
    // the default machine never has as much.
    assert!((512 << 10..768 << 10).contains(&total_kib), "{total_kib} KiB");
}

/// Words for the kernel command line arrive there.
#[test]
fn kernel_arguments_are_on_the_command_line() {
    declare!(
        Contract,
        Needs {
            kernel_args: Cow::Borrowed(&[Cow::Borrowed("scsi_mod.default_dev_flags=0x40")]),
            ..Needs::DEFAULT
        }
    );
    let cmdline = fs::read_to_string("/proc/cmdline").expect("proc is mounted");
    assert!(cmdline.contains(" scsi_mod.default_dev_flags=0x40"), "{cmdline}");
    let flags = fs::read_to_string("/sys/module/scsi_mod/parameters/default_dev_flags");
    assert_eq!(flags.expect("scsi_mod is loaded").trim(), "64");
}

/// A module with parameters is loaded before the test begins.
#[test]
fn modules_are_loaded_with_their_parameters() {
    declare!(
        Contract,
        Needs {
            modules: Cow::Borrowed(&[Module {
                name: Cow::Borrowed("scsi_debug"),
                params: Cow::Borrowed("num_tgts=2 max_luns=3"),
            }]),
            features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_SCSI_DEBUG"))]),
            ..Needs::DEFAULT
        }
    );
    let parameter = |name: &str| {
        let path = format!("/sys/module/scsi_debug/parameters/{name}");
        fs::read_to_string(path).expect("scsi_debug is loaded").trim().to_owned()
    };
    assert_eq!((parameter("num_tgts").as_str(), parameter("max_luns").as_str()), ("2", "3"));
}

/// bsg has `uring_cmd` since 7.1.
const URING_CMD_ON_OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// A stopped target answers nothing, and its host alone waits; when it goes on, so does the command.
#[test]
fn stopped_target_holds_a_command_until_it_goes_on() {
    declare!(Contract, URING_CMD_ON_OWN_HOST);
    let lun = Lun::fresh();
    let mut ring = BsgUring::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    bench::signal_target(TargetSignal::Stop);
    let token = ring.submit(Request::new(&[0; 6]).into()).expect("submitted");
    // The kernel has handed it to the device: only an answer is missing.
    let dispatched = || {
        (lun.device().attribute("iorequest_cnt") != lun.device().attribute("iodone_cnt"))
            .then_some(())
    };
    wait::until(Duration::from_secs(10), "the dispatch", dispatched).expect("dispatched");
    assert!(ring.wait_for(token, Instant::now()).is_err(), "nobody can have answered");
    bench::signal_target(TargetSignal::Continue);
    let done = ring.wait_for(token, soon()).expect("answered").completion().expect("executed");
    assert_eq!((done.device_status, done.host_status), (0, 0));
}

/// A test may end in the middle. Removal of its host waits for every command, so the bench lets go of
/// those that are held; this test hangs if it does not.
#[test]
fn command_that_is_held_when_its_test_ends_keeps_no_host() {
    declare!(Contract, URING_CMD_ON_OWN_HOST);
    let lun = Lun::fresh();
    lun.hold(2);
    let mut ring = BsgUring::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    ring.submit(Request::new(&[0; 6]).into()).expect("submitted");
    lun.held(1);
}

/// What others work with is not taken away.
#[test]
#[should_panic(expected = "the target is shared")]
fn shared_host_is_not_pulled() {
    declare!(Contract);
    bench::pull_adapter();
}

/// As above.
#[test]
#[should_panic(expected = "the machine is shared")]
fn shared_machine_does_not_boot_again() {
    declare!(Contract);
    bench::reboot("");
}
