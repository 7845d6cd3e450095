//! What a byte costs through the bridge, with and without copies. `cargo xtask bench bridge` runs it, round by round.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use bsg::Buffer;
use control::{DeviceType, LunSpec};
use guest_protocol::figure::Figure;
use harness::{Lun, declare};
use rustix::{
    fs::OFlags,
    time::{ClockId, clock_gettime},
};
use ublk::DataMode;

use crate::{
    bridge::{Bridged, PATIENT, config, scattered},
    bsg::ways::URING_CMD,
};

/// Lengths of a write in KiB.
const LENGTHS: [u32; 5] = [4, 16, 64, 256, 1024];
/// Bytes of one measurement, and its least writes.
const VOLUME_KIB: u32 = 4096;
const WRITES_MIN: u32 = 16;

/// A way from an application to the disk.
#[derive(Clone, Copy)]
enum Way {
    /// The kernel's own driver.
    Sd,
    /// The bridge.
    Mode(DataMode),
    /// The bridge, which promises to take data at a multiple of two: the way takes it at one of four, and the kernel copies
    /// what lies between.
    Bounced,
}

const WAYS: [(&str, Way); 6] = [
    ("copy", Way::Mode(DataMode::Copy)),
    ("user copy", Way::Mode(DataMode::UserCopy)),
    ("no copy", Way::Mode(DataMode::AutoBuf)),
    ("no copy, registered by the server", Way::Mode(DataMode::ZeroCopy)),
    ("no copy, bounced", Way::Bounced),
    ("sd", Way::Sd),
];

/// CPU time of this process: the application's, the server's, and what the kernel does for them.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("not negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Counts how often the kernel copies the data of a write on its way (block/blk-map.c:bio_copy_user_iov, which fills its
/// copy by this function).
struct Bounces;

impl Bounces {
    const TRACING: &str = "/sys/kernel/debug/tracing";

    fn write(file: &str, text: &str) -> std::io::Result<()> {
        fs::write(Path::new(Self::TRACING).join(file), text)
    }

    /// `None` where the kernel has no such function, or no probes.
    fn counted() -> Option<Self> {
        Self::write("kprobe_events", "p:sensecheck/bounce bio_copy_from_iter").ok()?;
        Self::write("events/sensecheck/bounce/enable", "1").ok()?;
        Some(Bounces)
    }

    fn count(&self) -> u64 {
        let profile = fs::read_to_string(Path::new(Self::TRACING).join("kprobe_profile"));
        let profile = profile.expect("probes have a profile");
        let line = profile.lines().find(|line| line.trim_start().starts_with("bounce"));
        let count = line.and_then(|line| line.split_whitespace().nth(1));
        count.expect("the probe is there").parse().expect("a number")
    }
}

impl Drop for Bounces {
    /// An empty list of probes takes the place of ours. Nothing else has probes in this guest, which ends anyway.
    fn drop(&mut self) {
        let off = Self::write("events/sensecheck/bounce/enable", "0");
        let removed = off.and_then(|()| Self::write("kprobe_events", ""));
        if !std::thread::panicking() {
            removed.expect("the probe can be removed");
        }
    }
}

/// CPU time of a write in microseconds, and how many of a hundred were copied.
fn measured(disk: &File, offset: usize, kib: u32, bounces: Option<&Bounces>) -> (f64, Option<f64>) {
    let buffer: Buffer = scattered(offset, usize::try_from(kib << 10).expect("short"));
    let writes = (VOLUME_KIB / kib).max(WRITES_MIN);
    let run = |writes: u32| {
        for write in 0..writes {
            let at = u64::from(write) * buffer.len() as u64 % (8 << 20);
            disk.write_all_at(&buffer, at).expect("written");
        }
    };
    run(4);
    let (before, begin) = (bounces.map(Bounces::count), cpu_time());
    run(writes);
    let took = cpu_time() - begin;
    let copied = bounces.zip(before).map(|(bounces, before)| bounces.count() - before);
    let share = copied.map(|copied| 100.0 * copied as f64 / f64::from(writes));
    (took.as_secs_f64() * 1e6 / f64::from(writes), share)
}

fn direct(path: &Path) -> File {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let opened = File::options().read(true).write(true).custom_flags(flags).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn through(lun: &Lun, way: Way, kib: u32, bounces: Option<&Bounces>) -> (f64, Option<f64>) {
    let (mode, offset) = match way {
        Way::Sd => return measured(&direct(&lun.device().disk()), 0, kib, bounces),
        Way::Mode(mode) => (mode, 0),
        Way::Bounced => (DataMode::AutoBuf, 2),
    };
    let (disk, mut config) = config(lun.device(), mode);
    if matches!(way, Way::Bounced) {
        config.params.dma.alignment = 1;
    }
    let bridged = Bridged::quiet(lun.device(), disk, &config, PATIENT);
    let file = direct(&bridged.server.block_path());
    let figures = measured(&file, offset, kib, bounces);
    drop(file);
    bridged.delete();
    figures
}

/// One round: every way once with each length, beginning with another one each time.
#[test]
#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn bridge() {
    declare!(Accident, URING_CMD);
    let lun = Lun::with(LunSpec { device_type: DeviceType::Disk, ..LunSpec::default() });
    let bounces = Bounces::counted();
    let first = std::process::id() as usize % WAYS.len();
    for kib in LENGTHS {
        let mut figures = [(0.0, None); WAYS.len()];
        for at in (0..WAYS.len()).map(|at| (at + first) % WAYS.len()) {
            figures[at] = through(&lun, WAYS[at].1, kib, bounces.as_ref());
        }
        for ((way, _), (micros, bounced)) in WAYS.iter().zip(figures) {
            let (what, way) = (format!("{kib} KiB"), (*way).into());
            println!("{}", Figure { what, way, micros, bounced, ..Figure::default() }.line());
        }
    }
}
