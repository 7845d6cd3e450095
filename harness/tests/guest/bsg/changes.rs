//! Units that come, go and change while the host is up: events of virtio-scsi (virtio 1.2, 5.6.6.3), as
//! drivers/scsi/virtio_scsi.c:virtscsi_handle_event takes them.

use std::{borrow::Cow, path::Path};

use bsg::{Access, Request};
use control::{Command, DeviceType, LunAddress, LunSpec};
use harness::{
    Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost,
    assert::{assert_good, assert_sense},
    bench, declare, sysfs, wait,
};
use scsi_fault::{Effect, Rule, Scenario, When};

use super::{
    cdb::{self, Size},
    ways::{execute, uring_cmd},
};

const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// A LUN the pool of a test's own host does not have, of eight bits.
const NEW: LunAddress = LunAddress { target: 0, lun: 0xcd };

fn device_at(address: LunAddress) -> ScsiDevice {
    let host = sysfs::scsi_host_below(Path::new(&bench::host().slots[0]));
    ScsiDevice { hctl: format!("{host}:0:{}:{}", address.target, address.lun) }
}

/// RESCAN makes the guest look, REMOVED makes it forget.
#[test]
fn unit_that_is_plugged_appears_and_one_that_is_unplugged_vanishes() {
    declare!(Contract, OWN_HOST);
    let _host_is_scanned = Lun::fresh();
    let device = device_at(NEW);
    assert!(!device.dir().exists());
    let spec = LunSpec { device_type: DeviceType::Disk, ..LunSpec::default() };
    bench::control(Command::Plug { address: NEW, spec, silent: false });
    sysfs::appear(&device.bsg());
    let mut bsg = uring_cmd(&device, Access::ReadWrite);
    assert_good(&execute(&mut bsg, Request::new(&[0; 6])));
    drop(bsg);
    bench::control(Command::Unplug { address: NEW, silent: false });
    sysfs::vanish(&device.dir());
}

/// SBC-3, READ CAPACITY(16): RETURNED LOGICAL BLOCK ADDRESS is the last one. The guest's disk follows
/// (drivers/scsi/virtio_scsi.c:virtscsi_handle_param_change rescans on 2A/09). `size` in sysfs counts 512
/// bytes.
#[test]
fn resized_disk_is_seen_in_its_new_size() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::disk_unit();
    let size = || {
        let name = lun.device().disk();
        let path =
            Path::new("/sys/class/block").join(name.file_name().expect("a name")).join("size");
        std::fs::read_to_string(path).expect("an attribute").trim().to_owned()
    };
    assert_eq!(size(), "32768");
    bench::control(Command::Resize { address: lun.address(), blocks: 40_000, silent: false });
    let soon = std::time::Duration::from_secs(30);
    wait::until(soon, "the new size", || (size() == "40000").then_some(()))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// SPC-4, Support for incorrect logical unit numbers: LOGICAL UNIT NOT SUPPORTED, 5/25/00. Nobody has told the
/// guest, which keeps its node.
#[test]
fn unit_that_vanishes_is_not_supported() {
    declare!(Contract, OWN_HOST);
    let gone = Effect { vanish: true, ..Effect::default() };
    let rules = vec![Rule::new("gone", gone).when(When::command("READ(10)")).nth(2)];
    let text = include_str!("../../../scenarios/vanish.toml");
    let scenario = Scenario::parse(text).expect("a sound scenario");
    assert_eq!(scenario, Scenario::new(0, rules));
    let lun = Lun::fresh();
    lun.scenario(&scenario);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let read = || Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512);
    assert_good(&execute(&mut bsg, read()));
    for _ in 0..2 {
        let done = execute(&mut bsg, read());
        assert_sense(&done, 0x05, 0x25, 0x00);
        assert_eq!(done.residual, 512);
    }
    assert!(lun.device().bsg().exists());
}
