//! Logical units as fixtures.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use control::{DeviceType, Faults, HeldEntry, JournalPage, LunAddress, LunSpec};
use fault::Times;
use guest_protocol::message::Lease;
use rustix::io::Errno;
use scsi_fault::{Effect, Rule, Scenario};

use crate::{bench, sysfs, wait};

/// How long a command may take on its way to the device.
const HELD_DEADLINE: Duration = Duration::from_secs(30);

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
    /// One for each nexus.
    devices: Vec<ScsiDevice>,
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
        let hosts = scanned_hosts();
        let lease = bench::lease(spec);
        let devices = hosts.into_iter().map(|host| found(host, &lease, is_disk)).collect();
        Lun { lease, devices }
    }

    /// A unit that the test has leased before the machine booted again.
    #[track_caller]
    pub fn leased(address: LunAddress) -> Self {
        let lease = Lease { address, rescan: false };
        let hosts = scanned_hosts();
        let devices = hosts.into_iter().map(|host| found(host, &lease, false)).collect();
        Lun { lease, devices }
    }

    /// The guest's view of the unit.
    pub fn device(&self) -> &ScsiDevice {
        &self.devices[0]
    }

    /// The guest's views of the unit, one for each I_T nexus of the test's host.
    pub fn devices(&self) -> &[ScsiDevice] {
        &self.devices
    }

    /// Makes it new again: nothing of what was done to it is left.
    #[track_caller]
    pub fn renew(&self) {
        bench::renew(self.lease.address);
    }

    /// Where the unit is on its host.
    pub fn address(&self) -> LunAddress {
        self.lease.address
    }

    /// What the unit was asked and answered since it was made.
    #[track_caller]
    pub fn journal(&self) -> JournalPage {
        bench::journal(self.lease.address)
    }

    /// Says what goes wrong from the next command on, in place of what was said before. Each rule must fire,
    /// or the test fails. What holds commands, or ends the daemon, needs a SCSI host of the test's own.
    #[track_caller]
    pub fn faults(&self, rules: impl IntoIterator<Item = Rule>) {
        let faults = Faults { seed: 0, rules: rules.into_iter().collect() };
        bench::faults(self.lease.address, faults, false);
    }

    /// As [`Lun::faults`], from a scenario.
    #[track_caller]
    pub fn scenario(&self, scenario: &Scenario) {
        let faults = Faults { seed: scenario.seed, rules: scenario.rules.clone() };
        bench::faults(self.lease.address, faults, false);
    }

    /// As [`Lun::faults`], with this seed, and rules may stay without a firing: for what is left to chance,
    /// and for tests of what a rule is not about.
    #[track_caller]
    pub fn possible_faults(&self, seed: u64, rules: impl IntoIterator<Item = Rule>) {
        let faults = Faults { seed, rules: rules.into_iter().collect() };
        bench::faults(self.lease.address, faults, true);
    }

    /// How often a rule has fired.
    #[track_caller]
    pub fn fired(&self, rule: &str) -> u64 {
        let counts = self.journal().rules;
        let count = counts.iter().find(|count| count.name == rule);
        count.unwrap_or_else(|| panic!("there is no rule `{rule}`: {counts:?}")).fired
    }

    /// Has so many of the next commands held until [`Lun::release`], and nothing else go wrong.
    #[track_caller]
    pub fn hold(&self, commands: u64) {
        self.faults([Rule::new("hold", Effect::hold()).times(Times::First(commands))]);
    }

    /// Has what is held carried out and answered.
    #[track_caller]
    pub fn release(&self) {
        bench::release(self.lease.address, None);
    }

    /// As [`Lun::release`], in this order, by position of arrival from 0.
    #[track_caller]
    pub fn release_in_order(&self, order: impl IntoIterator<Item = u32>) {
        bench::release(self.lease.address, Some(order.into_iter().collect()));
    }

    /// Waits until so much is held, and says what.
    #[track_caller]
    pub fn held(&self, count: usize) -> Vec<HeldEntry> {
        let what = format!("{count} held at {}", self.device().hctl);
        let held = wait::until(HELD_DEADLINE, what, || {
            Some(self.journal().held).filter(|held| held.len() == count)
        });
        held.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Number of the test's SCSI host, by nexus. The first scan is over when this returns, so that no command
/// of the scan reaches a unit the test has leased.
#[track_caller]
fn scanned_hosts() -> Vec<u32> {
    let place = bench::host();
    let numbers = place.slots.iter().map(|slot| sysfs::scsi_host_below(Path::new(slot)));
    let hosts: Vec<_> = numbers.collect();
    for host in hosts.iter().filter(|_| place.plugged) {
        // The first unit appears while the scan goes on; asking for it again waits for the scan's lock
        // and sends nothing (drivers/scsi/scsi_scan.c:scsi_scan_host_selected, scsi_probe_and_add_lun).
        sysfs::appear(&ScsiDevice { hctl: format!("{host}:0:0:0") }.dir());
        scan(*host, 0, 0);
    }
    hosts
}

/// A leased unit as the guest sees it through this host.
#[track_caller]
fn found(host: u32, lease: &Lease, is_disk: bool) -> ScsiDevice {
    let address = lease.address;
    let device = ScsiDevice { hctl: format!("{host}:0:{}:{}", address.target, address.lun) };
    // A test before this one may have left the guest without the unit.
    if lease.rescan || !device.dir().exists() {
        rescan(&device, host, lease);
    }
    sysfs::appear(&device.bsg());
    if is_disk {
        device.disk();
        probed(&device);
    }
    device
}

/// Waits for the end of `sd`'s probe. A disk can be opened before, and the partition table may be read once
/// more after that (block/genhd.c:device_add_disk). Binding takes the lock that the probe holds, and a
/// device that is bound is refused without a command (drivers/base/dd.c:device_driver_attach).
#[track_caller]
fn probed(device: &ScsiDevice) {
    match fs::write("/sys/bus/scsi/drivers/sd/bind", &device.hctl) {
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {}
        Err(error) => panic!("sd does not take {}: {error}", device.hctl),
    }
}

/// Scans one unit, behind whatever scan is under way.
#[track_caller]
fn scan(host: u32, target: u8, lun: u16) {
    let path = Path::new("/sys/class/scsi_host").join(format!("host{host}/scan"));
    write(&path, &format!("0 {target} {lun}"));
}

#[track_caller]
fn write(path: &Path, value: &str) {
    fs::write(path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Lets the guest forget what it knows of a unit and look again.
#[track_caller]
fn rescan(device: &ScsiDevice, host: u32, lease: &Lease) {
    if device.dir().exists() {
        write(&device.dir().join("delete"), "1");
        sysfs::vanish(&device.dir());
    }
    scan(host, lease.address.target, lease.address.lun);
    sysfs::appear(&device.dir());
}
