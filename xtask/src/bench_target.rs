//! `cargo xtask bench target`.
#![expect(clippy::print_stdout, reason = "the report is the task")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bench::exit;
use clap::ValueEnum;
use host::{cache::Cache, progress::Progress};
use target_bench::{Cpus, Peer, Request, Wait, peer};

const EXAMPLES: &str = "\
Examples:
  Everything, and every figure in a file:
    cargo xtask bench target --json target.json
  One line, quickly, while working on it:
    cargo xtask bench target --filter read-4k-qd32/ram --rounds 3 --peer none
  Two builds of ours, one after the other:
    cargo xtask bench target --target ./before --peer none; cargo xtask bench target --peer none

The daemon and this process, which drives it as a guest's virtio_scsi would, run on a core each. CPU per
command is the time of all threads of the daemon, as the kernel accounts it; it moves little under load,
latencies and IOPS move much. By default the driver polls: a guest's interrupt wakes a CPU, which costs
whatever the machine makes of it, on both sides; --wait interrupt has it measured.
Figures are no verdict. Exit codes: 0 measured, 10 something could not be measured, 130 interrupted.";

/// Measures sensecheck-target, beside vhost-device-scsi, over their vhost-user sockets.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Measure what has this in its name, such as tur-qd32, read-4k-qd32/ram, /file, idle, start
    /// [default: everything]. May be given several times.
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,

    /// How often each is measured, in turns.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long each is measured in a round.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    sample_ms: u64,

    /// What ours is compared with: `auto` is vhost-device-scsi from the registry, built into the cache
    /// once (about 2 minutes); `none`; or the path of its program.
    #[arg(long, value_name = "auto|none|PATH", default_value = "auto")]
    peer: String,

    /// The sensecheck-target to measure [default: a release build of this checkout].
    #[arg(long, value_name = "PATH")]
    target: Option<PathBuf>,

    /// CPUs for daemons and for the driver [default: the first two that share no core].
    #[arg(long, value_name = "DAEMON,DRIVER")]
    cpus: Option<Cpus>,

    /// How the driver learns of answers.
    #[arg(long, value_enum, default_value_t = WaitArg::Poll)]
    wait: WaitArg,

    /// Directory for images of 128 MiB. On a disk they are read from its page cache, which moves more
    /// at once than a tmpfs does [default: /dev/shm].
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// Put images out of the page cache before they are measured: how well a daemon waits for storage.
    #[arg(long, requires = "images")]
    uncached: bool,

    /// Write every figure to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WaitArg {
    /// It looks all the time.
    Poll,
    /// It sleeps until it is interrupted.
    Interrupt,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let progress = Progress::auto();
    let ours = match &args.target {
        Some(path) => named(path, "--target")?,
        None => bench::cargo::daemon(&crate::workspace())?,
    };
    let request = Request {
        ours,
        peer: find_peer(&args.peer, &progress)?,
        rounds: args.rounds,
        sample: Duration::from_millis(args.sample_ms),
        cpus: args.cpus,
        wait: match args.wait {
            WaitArg::Poll => Wait::Poll,
            WaitArg::Interrupt => Wait::Interrupt,
        },
        filters: args.filter.clone(),
        image_dir: args.images.clone(),
        uncached: args.uncached,
    };
    let report = match target_bench::run(&request, &progress) {
        Err(_) if host::interrupt::pending() => return Ok(exit::INTERRUPTED),
        result => result?,
    };
    print!("{}", report.table());
    if let Some(path) = &args.json {
        fs::write(path, report.json())
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    }
    Ok(exit::PASS)
}

/// Without a registry, ours is measured alone; a program that was named has to be there.
fn find_peer(wish: &str, progress: &Progress) -> anyhow::Result<Peer> {
    match wish {
        "none" => Ok(Peer::Absent("--peer none".into())),
        "auto" => match peer::install(&Cache::open()?, progress) {
            Ok(path) => Ok(Peer::Program(path)),
            Err(_) if host::interrupt::pending() => anyhow::bail!("interrupted"),
            Err(error) => {
                progress.note(&format!("measuring ours alone: {error}"));
                Ok(Peer::Absent(error.to_string()))
            }
        },
        path => Ok(Peer::Program(named(Path::new(path), "--peer")?)),
    }
}

fn named(path: &Path, option: &str) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path)
        .map_err(|error| anyhow::anyhow!("{option}: no program {}: {error}", path.display()))
}
