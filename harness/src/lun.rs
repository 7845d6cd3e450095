//! Logical units as fixtures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use control::{DeviceType, JournalPage, LunSpec};
use guest_protocol::message::Lease;

use crate::{bench, sysfs};

/// A SCSI device of the guest: its place in sysfs and its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiDevice {
    /// Host, channel, target and LUN as in `0:0:2:1`.
    pub hctl: String,
}

impl ScsiDevice {
    /// sysfs directory.
    pub fn dir(&self) -> PathBuf {
        Path::new("/sys/bus/scsi/devices").join(&self.hctl)
    }

    /// The bsg node.
    pub fn bsg(&self) -> PathBuf {
        Path::new("/dev/bsg").join(&self.hctl)
    }

    /// The sg node.
    #[track_caller]
    pub fn sg(&self) -> PathBuf {
        sysfs::node(&sysfs::entry_with_prefix(&self.dir().join("scsi_generic"), "sg"))
    }

    /// The block device, for a unit that `sd` attaches to. It can be opened when this returns.
    #[track_caller]
    pub fn disk(&self) -> PathBuf {
        let node = sysfs::node(&sysfs::entry_with_prefix(&self.dir().join("block"), "sd"));
        sysfs::openable(&node);
        node
    }

    /// An attribute of the device, for example `iorequest_cnt`.
    #[track_caller]
    pub fn attribute(&self, name: &str) -> String {
        let path = self.dir().join(name);
        sysfs::attribute(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// A logical unit of our target that belongs to this test alone, as new.
#[derive(Debug)]
pub struct Lun {
    lease: Lease,
    device: ScsiDevice,
}

impl Lun {
    /// A unit as [`LunSpec::default`] describes it: RAM, and no disk driver in between.
    #[track_caller]
    pub fn fresh() -> Self {
        Self::with(LunSpec::default())
    }

    /// A disk: the guest's `sd` has looked at it before this returns.
    #[track_caller]
    pub fn disk_unit() -> Self {
        Self::with(LunSpec { device_type: DeviceType::Disk, ..LunSpec::default() })
    }

    /// A unit made to measure.
    #[track_caller]
    pub fn with(spec: LunSpec) -> Self {
        let is_disk = spec.device_type == DeviceType::Disk;
        let lease = bench::lease(spec);
        let host = sysfs::scsi_host_below(Path::new(&lease.slot));
        let address = lease.address;
        let device = ScsiDevice { hctl: format!("{host}:0:{}:{}", address.target, address.lun) };
        if lease.plugged {
            sysfs::appear(&device.dir());
        }
        // A test before this one may have left the guest without the unit.
        if lease.rescan || !device.dir().exists() {
            rescan(&device, host, &lease);
        }
        sysfs::appear(&device.bsg());
        if is_disk {
            device.disk();
        }
        Lun { lease, device }
    }

    /// The guest's view of the unit.
    pub fn device(&self) -> &ScsiDevice {
        &self.device
    }

    /// What the unit was asked and answered since it was made.
    #[track_caller]
    pub fn journal(&self) -> JournalPage {
        bench::journal(self.lease.address)
    }
}

/// Lets the guest forget what it knows of a unit and look again.
#[track_caller]
fn rescan(device: &ScsiDevice, host: u32, lease: &Lease) {
    let write = |path: PathBuf, value: &str| {
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    if device.dir().exists() {
        write(device.dir().join("delete"), "1");
        sysfs::vanish(&device.dir());
    }
    let scan = Path::new("/sys/class/scsi_host").join(format!("host{host}/scan"));
    write(scan, &format!("0 {} {}", lease.address.target, lease.address.lun));
    sysfs::appear(&device.dir());
}
