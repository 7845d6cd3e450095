//! What a daemon of ours costs beside its commands: memory while idle, and time to start.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Error,
    cpus::Cpus,
    daemon::Daemon,
    memory::Memory,
    rounds::{Place, connect},
    session::Session,
    workload::{Operation, Workload},
};

/// Starts a daemon with 256 units, sends each a command, as a guest that looks for devices does, and
/// returns its resident memory in MB.
pub(crate) fn idle_mb(ours: &Path, place: &Place, cpus: Cpus) -> Result<f64, Error> {
    let memory = Memory::new()?;
    let (daemon, mut session, _) = start(ours, &["--luns", "256"], place, cpus, &memory)?;
    let load = Workload {
        name: "",
        operation: Operation::TestUnitReady,
        len: 0,
        segment_len: 4096,
        queue_depth: 1,
    };
    for lun in 0..256 {
        let (response, status) = session.command(lun, &[0; 6], &load)?;
        // Each has something to say first: that it was switched on.
        if response != 0 {
            let (name, what) = (daemon.name().to_owned(), format!("TEST UNIT READY of LUN {lun}"));
            return Err(Error::Refused { name, what, response, status });
        }
    }
    Ok(kib_to_mb(daemon.resident_kib()?))
}

/// Starts a daemon with 16384 units and returns the seconds until it has answered a first message
/// and runs its queues.
pub(crate) fn start_seconds(ours: &Path, place: &Place, cpus: Cpus) -> Result<f64, Error> {
    let memory = Memory::new()?;
    let (_, _, took) = start(ours, &["--targets", "64", "--luns", "256"], place, cpus, &memory)?;
    Ok(took.as_secs_f64())
}

fn start<'m>(
    ours: &Path,
    options: &[&str],
    place: &Place,
    cpus: Cpus,
    memory: &'m Memory,
) -> Result<(Daemon, Session<'m>, Duration), Error> {
    let socket = place.socket("life");
    let mut command = Command::new(ours);
    command.arg("--socket").arg(&socket).args(options);
    let begun = Instant::now();
    let daemon = Daemon::start("sensecheck-target", command, cpus.daemon, &place.log("life"))?;
    let session = connect(&daemon, &socket, memory)?;
    Ok((daemon, session, begun.elapsed()))
}

fn kib_to_mb(kib: u64) -> f64 {
    let bytes = u32::try_from(kib).map_or(f64::INFINITY, f64::from) * 1024.0;
    bytes / 1e6
}

#[cfg(test)]
mod tests {
    #[test]
    fn mb_are_decimal() {
        assert!((super::kib_to_mb(1_000_000) - 1024.0).abs() < 1e-9);
    }
}
