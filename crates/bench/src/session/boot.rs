//! From nothing to a machine whose agent has said hello.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use guest_protocol::{
    PROTOCOL_VERSION,
    message::{FromGuest, Hello, KernelRecord},
};
use rustix::time::{ClockId, clock_gettime};

use super::{SHARED, Session, TICK, hosts::Hosts};
use crate::{
    target::{HostIdentity, PoolSize, Target, TargetError},
    vm::{Vm, VmConfig, VmError, VmEvent},
};
use host::interrupt;

/// What a session needs beside the machine's own configuration.
#[derive(Debug)]
pub struct Settings {
    /// The daemon's executable.
    pub target: PathBuf,
    /// Directory for the machine's sockets, logs and media; made by the session.
    pub dir: PathBuf,
    /// Tests that run side by side.
    pub jobs: usize,
    /// Seed for proptest.
    pub seed: u64,
    /// Cases proptest tries.
    pub cases: u32,
    /// How long a test may run if it declares nothing.
    pub deadline: Duration,
    /// How long the guest may take to come up.
    pub boot_deadline: Duration,
}

/// Why a machine did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The guest did not say hello in time, or died before.
    #[error("{reason}\n{console}")]
    Guest {
        /// What happened.
        reason: String,
        /// The kernel's words, if it panicked.
        panic: Option<String>,
        /// The end of the serial console.
        console: String,
    },
    /// QEMU or its files.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The daemon.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The directory.
    #[error("cannot make {path}: {source}")]
    Dir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing to boot with.
    #[error("{0}")]
    Image(String),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

/// How long the stages of a boot took.
#[derive(Clone, Copy, Debug)]
pub struct BootTimes {
    /// The daemon listens.
    pub target: Duration,
    /// From QEMU's start to the agent's hello.
    pub guest: Duration,
    /// Of that, from the kernel's first instruction to PID 1, on the guest's clock.
    pub kernel: Duration,
}

impl Session {
    /// Starts daemon and machine and waits for the agent. One stalled boot is tried again by the
    /// caller, who also reports it.
    pub fn boot(config: &VmConfig<'_>, settings: Settings) -> Result<(Self, BootTimes), BootError> {
        let dir = &settings.dir;
        std::fs::create_dir_all(dir)
            .map_err(|source| BootError::Dir { path: dir.clone(), source })?;
        let (events_sender, events) = mpsc::channel();
        let start = Instant::now();
        // Runs count from 1, so the shared host's 0 is its own.
        let identity = HostIdentity { number: 0, queues: 1, nexuses: 1, hostile: false };
        let target = Target::start(
            &settings.target,
            dir,
            SHARED,
            PoolSize::SHARED,
            identity,
            &events_sender,
        )?;
        let target_time = start.elapsed();
        let start = Instant::now();
        let vm = Vm::boot(config, dir, &target.sockets()[0], &events_sender)?;
        let (hello, stray) = await_hello(&vm, &events, settings.boot_deadline)?;
        let times = BootTimes {
            target: target_time,
            guest: start.elapsed(),
            kernel: Duration::from_micros(hello.init_us),
        };
        let clock_offset_us = host_us() - i64::try_from(hello.uptime_us).unwrap_or(0);
        let session = Session {
            clock_offset_us,
            accel: config.accel,
            hosts: Hosts::new(target, config.accel.slowdown()),
            settings,
            vm,
            events,
            events_sender,
            hello,
            next_run: 1,
            active: BTreeMap::new(),
            spoiled: None,
            stray: vec![("before the first test".into(), stray)],
            last_ended: None,
            rebooting: None,
            boot_log: Vec::new(),
            clock_lost_us: 0,
            next_record: None,
        };
        Ok((session, times))
    }
}

/// Waits for the agent's first words; what the kernel logged meanwhile comes with them.
fn await_hello(
    vm: &Vm,
    events: &mpsc::Receiver<VmEvent>,
    limit: Duration,
) -> Result<(Hello, Vec<KernelRecord>), BootError> {
    let failed = |reason: String| {
        let console = vm.console();
        let panic = panic_line(&console);
        let console = format!("{}\n{}", vm.log(), tail(&console, 30));
        Err(BootError::Guest { reason, panic, console })
    };
    let deadline = Instant::now() + limit;
    let mut stray = Vec::new();
    loop {
        match events.recv_timeout(TICK) {
            Ok(VmEvent::Guest(FromGuest::Hello(hello))) if hello.version == PROTOCOL_VERSION => {
                return Ok((hello, stray));
            }
            Ok(VmEvent::Guest(FromGuest::Hello(hello))) => {
                return failed(format!("the image is stale: it speaks version {}", hello.version));
            }
            Ok(VmEvent::Guest(FromGuest::Failed { reason })) => return failed(reason),
            Ok(VmEvent::Guest(FromGuest::Kernel(record))) => stray.push(record),
            Ok(VmEvent::Exited(status)) => return failed(format!("QEMU ended: {status}")),
            Ok(VmEvent::TargetExited(_, status)) => {
                return failed(format!("the target daemon ended: {status}"));
            }
            // A kernel that panics and stays says so on its console only.
            Err(_) if panic_line(&vm.console()).is_some() => {
                return failed("the guest panicked while it booted".into());
            }
            Ok(VmEvent::LinkLost(_) | VmEvent::Guest(_) | VmEvent::DeviceDeleted(_)) | Err(_) => {}
        }
        if interrupt::pending() {
            return Err(BootError::Interrupted);
        }
        if Instant::now() > deadline {
            return failed(format!("no word from the guest within {} s", limit.as_secs()));
        }
    }
}

/// Host CLOCK_MONOTONIC in microseconds.
pub(super) fn host_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

/// What every panic says, whatever its cause.
const PANIC: &str = "Kernel panic - not syncing";

/// The panic on a serial console, without time stamp and frame.
pub(super) fn panic_line(console: &str) -> Option<String> {
    let line = console.lines().find_map(|line| line.find(PANIC).map(|at| &line[at..]))?;
    Some(line.trim_end_matches(['-', ' ', ']', '[']).to_owned())
}

/// The last lines of a text.
pub(super) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
