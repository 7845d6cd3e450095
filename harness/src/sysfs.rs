//! Finding devices through sysfs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::io::Errno;

use crate::wait;

/// How long a device may take to appear: plugging, driver probe, scan, under emulation.
const DEADLINE: Duration = Duration::from_secs(30);

/// Names of the entries of a directory; none if there is no such directory.
pub fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Reads an attribute without its newline.
pub fn attribute(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned())
}

/// Waits for the SCSI host below a PCI slot and returns its number.
#[track_caller]
pub fn scsi_host_below(slot: &Path) -> u32 {
    let found = wait::until(DEADLINE, format_args!("a SCSI host below {}", slot.display()), || {
        find_host(slot, 4)
    });
    found.unwrap_or_else(|error| panic!("{error}"))
}

/// Depth first: PCI function, virtio device, host.
fn find_host(dir: &Path, depth: u32) -> Option<u32> {
    let names = entries(dir);
    let number = |name: &String| name.strip_prefix("host")?.parse().ok();
    if let Some(host) = names.iter().find_map(number) {
        return Some(host);
    }
    let is_bus = |name: &&String| name.starts_with("virtio") || name.contains(':');
    let mut below = names.iter().filter(is_bus).map(|name| dir.join(name));
    below.find_map(|path| depth.checked_sub(1).and_then(|depth| find_host(&path, depth)))
}

/// Waits for a path to exist.
#[track_caller]
pub fn appear(path: &Path) {
    let found = wait::until(DEADLINE, path.display(), || path.exists().then_some(()));
    found.unwrap_or_else(|error| panic!("{error}"));
}

/// Waits for a device node that can be opened. A disk's node is there before its driver is ready:
/// block/genhd.c:add_disk_fwnode makes the node first, and until it is through opening says ENXIO.
#[track_caller]
pub fn openable(node: &Path) {
    let what = format!("a device behind {}", node.display());
    let opened = wait::until(DEADLINE, what, || match File::open(node) {
        Err(error) if not_there(&error) => None,
        outcome => Some(outcome),
    });
    let outcome = opened.unwrap_or_else(|error| panic!("{error}"));
    outcome.unwrap_or_else(|error| panic!("{}: {error}", node.display()));
}

/// No node, or none with a device behind it.
fn not_there(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NXIO))
}

/// Waits for a path to be gone.
#[track_caller]
pub fn vanish(path: &Path) {
    let what = format!("the removal of {}", path.display());
    let gone = wait::until(DEADLINE, what, || (!path.exists()).then_some(()));
    gone.unwrap_or_else(|error| panic!("{error}"));
}

/// Waits for the first entry of a directory whose name begins so.
#[track_caller]
pub fn entry_with_prefix(dir: &Path, prefix: &str) -> String {
    let what = format!("{prefix}* in {}", dir.display());
    let found = wait::until(DEADLINE, what, || {
        entries(dir).into_iter().find(|name| name.starts_with(prefix))
    });
    found.unwrap_or_else(|error| panic!("{error}"))
}

/// Device node of a sysfs entry.
pub fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}
