//! The kernel's own simulated SCSI device, as a second opinion on what a test asserts.

use std::path::Path;

use crate::{
    ScsiDevice,
    modules::{self, Modules},
    sysfs,
};

/// The module.
const NAME: &str = "scsi_debug";

/// Parameters of the one instance a machine has: no partition scan's worth of time, small, and
/// without the delay it adds to every command (in jiffies).
const PARAMS: &str = "dev_size_mb=16 delay=0";

/// Loads scsi_debug, unless another test of this machine has, and returns its unit.
#[track_caller]
pub fn device() -> ScsiDevice {
    load(PARAMS)
}

/// Loads scsi_debug with these parameters, anew, so that nothing of what was done to it is left. For a test
/// that has the machine to itself, and has closed the nodes of the unit before.
#[track_caller]
pub fn fresh(params: &str) -> ScsiDevice {
    if modules::is_loaded(NAME) {
        modules::unload(NAME).unwrap_or_else(|error| panic!("{error}"));
    }
    load(params)
}

#[track_caller]
fn load(params: &str) -> ScsiDevice {
    let loaded = Modules::of_image().and_then(|modules| modules.load(NAME, params));
    loaded.unwrap_or_else(|error| panic!("{error}"));
    let adapter = Path::new("/sys/bus/pseudo/devices/adapter0");
    let host = sysfs::entry_with_prefix(adapter, "host");
    let number = host.trim_start_matches("host");
    let device = ScsiDevice { hctl: format!("{number}:0:0:0") };
    sysfs::appear(&device.bsg());
    device
}
