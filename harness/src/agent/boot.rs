//! From an empty initramfs to a machine that can run tests.

use std::{fs, path::Path};

use guest_protocol::{PROTOCOL_VERSION, message::Hello};
use rustix::{
    mount::{MountFlags, mount},
    time::{ClockId, clock_gettime},
};

use crate::{link::Link, module_code::Reporter, modules};

/// Why the machine cannot run tests, and the link to say so, if there is one.
pub(crate) struct Failure {
    pub(crate) link: Option<Link>,
    pub(crate) reason: String,
}

/// Mounts, opens the link, loads modules.
pub(crate) fn bring_up() -> Result<(Link, Reporter, Hello), Failure> {
    let init_us = monotonic_us();
    mount_all().map_err(|reason| Failure { link: None, reason })?;
    let link = Link::open().map_err(|reason| Failure { link: None, reason })?;
    let module_code = Reporter::new();
    let missing_modules = match modules::load_standard(|| module_code.tell(&link)) {
        Ok(missing) => missing,
        Err(reason) => return Err(Failure { link: Some(link), reason }),
    };
    let hello = Hello {
        version: PROTOCOL_VERSION,
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        init_us,
        uptime_us: monotonic_us(),
        missing_modules,
        module_parameters: modules::parameters(),
        tainted: read_number("/proc/sys/kernel/tainted"),
    };
    Ok((link, module_code, hello))
}

/// The mounts a test may rely on. debugfs is optional: a kernel without it is still worth testing.
fn mount_all() -> Result<(), String> {
    let mounts = [
        ("devtmpfs", "/dev", true),
        ("proc", "/proc", true),
        ("sysfs", "/sys", true),
        ("tmpfs", "/run", true),
        ("tmpfs", "/tmp", true),
        ("debugfs", "/sys/kernel/debug", false),
    ];
    for (kind, at, required) in mounts {
        if !Path::new(at).exists() {
            let made = fs::create_dir_all(at);
            if required {
                made.map_err(|error| format!("cannot make {at}: {error}"))?;
            }
        }
        match mount(kind, at, kind, MountFlags::empty(), None) {
            Ok(()) => {}
            // CONFIG_DEVTMPFS_MOUNT does not reach an initramfs, but a second mount is harmless.
            Err(rustix::io::Errno::BUSY) => {}
            Err(_) if !required => {}
            Err(error) => return Err(format!("cannot mount {kind} on {at}: {error}")),
        }
    }
    Ok(())
}

/// Guest CLOCK_MONOTONIC in microseconds.
pub(crate) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

fn read_number(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
