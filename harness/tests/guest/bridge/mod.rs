//! The bridge from ublk to bsg: application → `/dev/ublkbN` → server → `/dev/bsg/H:C:T:L` → virtio-scsi → target.
//!
//! The measure is the kernel's own disk driver on the same unit: what an application gets from `/dev/sdX`, it gets from
//! the bridge.

mod copies;
mod data;
mod death;
mod faults;
mod limits;
mod programs;
mod story;

pub(crate) use copies::scattered;
use std::{borrow::Cow, sync::Arc, time::Duration};

use bridge::{Bridge, Disk, Log, Patience, Route};
use bsg::{Access, Errno};
use control::{DeviceType, JournalEntry, LunSpec, Provisioning};
use harness::{BlockDevice, Feature, Lun, Needs, ScsiDevice};
use ublk::{Config, DataMode, Server};

/// bsg nodes take uring_cmd since Linux 7.1.
const BRIDGE: Needs =
    Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]), ..Needs::DEFAULT };

/// How long anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// Blocks of 512 bytes.
const BLOCK: usize = 512;

/// Time for what passes that no test waits out.
pub(crate) const PATIENT: Patience =
    Patience { retries: 5, command: Duration::from_secs(20), request: Duration::from_secs(20) };

/// A thin disk of 16 MiB.
fn thin() -> LunSpec {
    LunSpec {
        device_type: DeviceType::Disk,
        provisioning: Provisioning::Thin,
        ..LunSpec::default()
    }
}

/// What the disk becomes. Nobody looks for partitions (UBLK_F_NO_AUTO_PART_SCAN, 1 << 18), so that every request is the
/// test's.
#[track_caller]
pub(crate) fn config(device: &ScsiDevice, mode: DataMode) -> (Disk, Config) {
    let node = device.bsg();
    let disk = Disk::ask(&node).unwrap_or_else(|error| panic!("{error}"));
    let route = Route::of(&node).unwrap_or_else(|error| panic!("{error}"));
    let mut config = disk.config(&route, mode, 16);
    config.info.flags |= 1 << 18;
    (disk, config)
}

/// A bridge to a unit, deleted when it is dropped.
pub(crate) struct Bridged {
    pub(crate) server: Server,
    log: Arc<Log>,
}

impl Bridged {
    #[track_caller]
    fn to(device: &ScsiDevice, mode: DataMode) -> Self {
        let (disk, config) = config(device, mode);
        Bridged::with(device, disk, &config, PATIENT)
    }

    #[track_caller]
    fn with(device: &ScsiDevice, disk: Disk, config: &Config, patience: Patience) -> Self {
        let log = Arc::<Log>::default();
        let bridge = Bridge::new(&device.bsg(), disk, patience);
        let bridge = bridge.unwrap_or_else(|error| panic!("{error}")).noting(&log);
        Bridged::start(config, bridge, log)
    }

    /// One that notes nothing.
    #[track_caller]
    pub(crate) fn quiet(
        device: &ScsiDevice,
        disk: Disk,
        config: &Config,
        patience: Patience,
    ) -> Self {
        let bridge = Bridge::new(&device.bsg(), disk, patience);
        let bridge = bridge.unwrap_or_else(|error| panic!("{error}"));
        Bridged::start(config, bridge, Arc::default())
    }

    #[track_caller]
    fn start(config: &Config, bridge: Bridge, log: Arc<Log>) -> Self {
        let server = Server::start(config, Arc::new(bridge));
        Bridged { server: server.unwrap_or_else(|error| panic!("{error}")), log }
    }

    #[track_caller]
    fn open(&self) -> BlockDevice {
        BlockDevice::open(&self.server.block_path(), Access::ReadWrite)
    }

    /// Stops it and says that nothing went wrong with it.
    #[track_caller]
    pub(crate) fn delete(self) {
        self.server.delete().unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What the unit is asked by this.
#[track_caller]
fn asked<T>(lun: &Lun, what: impl FnOnce() -> T) -> (T, Vec<JournalEntry>) {
    let before = lun.journal().entries.len();
    let result = what();
    (result, lun.journal().entries.split_off(before))
}

/// The errno of a failure; none if it is none.
fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_io_error(&error).expect("the kernel's"))
}
