//! Units that go offline, are removed and come back, as the administrator has it by sysfs.

use std::{borrow::Cow, fs, thread};

use bsg::{Access, BsgIoctl, BsgUring, Errno, Passthrough, Request, SgIoctl};
use harness::{
    Feature, HostShape, Lun, Needs, ScsiHost,
    assert::{assert_good, assert_host_error},
    declare, sysfs,
};

use super::ways::{URING_CMD, Way, execute, sg_io_v4, uring_cmd};

const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

const DID_NO_CONNECT: u32 = 0x01;

fn test_unit_ready() -> Request {
    Request::new(&[0; 6])
}

/// drivers/scsi/scsi_sysfs.c:store_state_field knows a state by its newline.
fn set_state(lun: &Lun, state: &str) -> Option<Errno> {
    let written = fs::write(lun.device().dir().join("state"), format!("{state}\n"));
    written.err().map(|error| Errno::from_io_error(&error).expect("the kernel's"))
}

fn refusal(way: &mut dyn Passthrough) -> Option<Errno> {
    way.execute(test_unit_ready()).err().map(|error| error.errno().expect("an errno"))
}

/// A unit's three nodes.
fn nodes(lun: &Lun) -> (BsgIoctl, BsgUring, SgIoctl) {
    let sg = SgIoctl::open(lun.device().sg(), Access::ReadWrite).expect("the node opens");
    let access = Access::ReadWrite;
    (sg_io_v4(lun.device(), access), uring_cmd(lun.device(), access), sg)
}

/// drivers/scsi/scsi_lib.c:scsi_device_state_check, scsi_queue_rq: what is sent to a unit that is offline ends with
/// DID_NO_CONNECT and never reaches it. drivers/scsi/sg.c:sg_ioctl_common, sg_open look before they send: ENXIO.
#[test]
fn unit_that_is_offline_is_not_reached_until_it_is_running() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let (mut v4, mut ring, mut v3) = nodes(&lun);
    assert_eq!(set_state(&lun, "offline"), None);
    assert_eq!(lun.device().attribute("state"), "offline");
    assert_host_error(&execute(&mut v4, test_unit_ready()), DID_NO_CONNECT);
    assert_host_error(&execute(&mut ring, test_unit_ready()), DID_NO_CONNECT);
    assert_eq!(refusal(&mut v3), Some(Errno::NXIO));
    let opened = SgIoctl::open(lun.device().sg(), Access::ReadWrite);
    assert_eq!(opened.expect_err("refused").errno(), Some(Errno::NXIO));
    // bsg's node opens: block/bsg.c:bsg_open looks at nothing but the queue.
    assert_host_error(
        &execute(&mut *Way::SgIoV4.open(lun.device()), test_unit_ready()),
        DID_NO_CONNECT,
    );
    assert_eq!(lun.journal().entries, []);
    assert_eq!(set_state(&lun, "running"), None);
    for way in [&mut v4 as &mut dyn Passthrough, &mut ring, &mut v3] {
        assert_good(&execute(way, test_unit_ready()));
    }
    // To be set running is to be looked at again (drivers/scsi/scsi_sysfs.c:store_state_field).
    let entries = lun.journal().entries;
    let tests = entries.iter().filter(|entry| entry.command == "TEST UNIT READY");
    assert_eq!(tests.count(), 3);
}

/// drivers/scsi/scsi_sysfs.c:store_state_field takes `running` and `offline` alone.
#[test]
fn state_is_set_to_running_or_offline_alone() {
    declare!(Contract);
    let lun = Lun::fresh();
    for state in ["quiesce", "blocked", "cancel", "deleted", "transport-offline", "created", ""] {
        assert_eq!(set_state(&lun, state), Some(Errno::INVAL), "{state}");
    }
    assert_eq!(lun.device().attribute("state"), "running");
}

/// drivers/scsi/scsi_sysfs.c:sdev_store_delete, __scsi_remove_device: the nodes are gone, and what is still open
/// says ENODEV. A scan brings nodes of a new device.
#[test]
fn unit_that_is_deleted_is_enodev_and_comes_back_by_a_scan() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let (mut v4, mut ring, mut v3) = nodes(&lun);
    let sg = lun.device().sg();
    fs::write(lun.device().dir().join("delete"), "1").expect("written");
    assert!(!lun.device().dir().exists() && !lun.device().bsg().exists() && !sg.exists());
    for way in [&mut v4 as &mut dyn Passthrough, &mut ring, &mut v3] {
        assert_eq!(refusal(way), Some(Errno::NODEV));
    }
    assert_eq!(lun.journal().entries, []);

    let hctl: Vec<&str> = lun.device().hctl.split(':').collect();
    let scan = format!("/sys/class/scsi_host/host{}/scan", hctl[0]);
    fs::write(&scan, hctl[1..].join(" ")).unwrap_or_else(|error| panic!("{scan}: {error}"));
    sysfs::appear(&lun.device().bsg());
    for way in [&mut v4 as &mut dyn Passthrough, &mut ring, &mut v3] {
        assert_eq!(refusal(way), Some(Errno::NODEV), "a node of the device before");
    }
    let (mut v4, mut ring, mut v3) = nodes(&lun);
    for way in [&mut v4 as &mut dyn Passthrough, &mut ring, &mut v3] {
        assert_good(&execute(way, test_unit_ready()));
    }
}

/// block/blk-mq.c:blk_mq_destroy_queue: a unit is gone when its last command has ended, and that ends as if nothing
/// had happened.
#[test]
fn removal_waits_for_what_is_in_flight() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let mut v4 = sg_io_v4(lun.device(), Access::ReadWrite);
    let delete = lun.device().dir().join("delete");
    lun.hold(1);
    thread::scope(|scope| {
        let command = scope.spawn(|| execute(&mut v4, test_unit_ready()));
        lun.held(1);
        let removal = scope.spawn(|| fs::write(&delete, "1").expect("written"));
        sysfs::vanish(&lun.device().bsg());
        assert!(!removal.is_finished() && !command.is_finished());
        lun.release();
        assert_good(&command.join().expect("no panic"));
        removal.join().expect("no panic");
    });
    assert!(!lun.device().dir().exists());
}
