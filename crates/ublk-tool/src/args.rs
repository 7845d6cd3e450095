//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ublk::DataMode;

use crate::layout::Layout;

const EXAMPLES: &str = "\
Examples:
  What the driver of this kernel can do:
    sensecheck-ublk features
  A disk of 1 GiB in memory, served until Ctrl-C:
    sensecheck-ublk add --ram 1G
  A disk in a file, without a copy, that outlives its server; then the next server:
    sensecheck-ublk add --file disk.img --mode zero-copy --recovery reissue
    sensecheck-ublk recover 0 --file disk.img
  The same disk for many requests at a time, which two threads share:
    sensecheck-ublk add --file disk.img --mode auto-buf --batch --depth 256 --threads 2
  A disk of zones, and one whose metadata protects its data:
    sensecheck-ublk add --ram 64M --zone-size 4M
    sensecheck-ublk add --ram 64M --metadata-size 8 --csum-type crc16-t10dif
  A disk with a bad spot:
    sensecheck-ublk add --ram 64M --scenario harness/ublk-scenarios/bad-spot.toml
  A SCSI disk as it is, without a copy, over its bsg node:
    sensecheck-ublk add --bsg /dev/bsg/0:0:0:0 --mode auto-buf
  What there is, for a program:
    sensecheck-ublk --json list

Exit codes: 0 on success, 1 if the driver or the system refuses, 2 for a bad command line.
Needs root and the module ublk_drv. RUST_LOG=ublk=debug shows every request.";

/// Userspace block devices: made, served, listed, recovered and deleted.
#[derive(Debug, Parser)]
#[command(name = "sensecheck-ublk", version, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Prints JSON, one value.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the driver can do.
    Features,
    /// The devices there are.
    List,
    /// Makes a device and serves it until SIGINT or SIGTERM, which deletes it.
    Add(Add),
    /// Serves a device whose server has died or left, as `add` does.
    Recover {
        /// Number of the device.
        number: u32,
        #[command(flatten)]
        medium: Medium,
        /// Scenario of what goes wrong.
        #[arg(long, value_name = "FILE")]
        scenario: Option<PathBuf>,
    },
    /// Stops devices and deletes them.
    Del {
        /// Numbers of the devices.
        #[arg(required = true)]
        numbers: Vec<u32>,
        /// Does not wait for the numbers to be free.
        #[arg(long)]
        no_wait: bool,
    },
    /// Removes the block device of a device; its server is told and ends.
    Stop {
        /// Number of the device.
        number: u32,
        /// Not if somebody has it open.
        #[arg(long)]
        unless_open: bool,
    },
    /// Ends the server of a device and keeps its block device, for `recover`.
    Quiesce {
        /// Number of the device.
        number: u32,
        /// How long a request may keep each tag with the server.
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000)]
        patience: u32,
    },
    /// Gives a device another size.
    Resize {
        /// Number of the device.
        number: u32,
        /// Bytes, or with K, M, G.
        #[arg(value_parser = size)]
        size: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) medium: Medium,
    #[command(flatten)]
    pub(crate) layout: Layout,
    /// Number of the device [default: the driver's choice].
    #[arg(long)]
    pub(crate) number: Option<u32>,
    /// Queues, at most one for each CPU.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) queues: u16,
    /// Requests at the same time on each queue.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) depth: u16,
    /// Threads that share each queue.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: u16,
    /// How data moves [default: copy; user-copy of a device with zones or metadata, whose data the driver does not copy].
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// Requests are fetched and committed in batches, by whichever thread is free. Linux 7.0.
    #[arg(long)]
    pub(crate) batch: bool,
    /// The device outlives its server.
    #[arg(long, value_enum)]
    pub(crate) recovery: Option<Recovery>,
    /// Scenario of what goes wrong.
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Medium {
    /// So much memory: bytes, or with K, M, G.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) ram: Option<u64>,
    /// A file, or a block device.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// A SCSI disk, by its bsg node; the device is what the disk is, and fails as it does. Linux 7.1.
    #[arg(long, value_name = "NODE")]
    pub(crate) bsg: Option<PathBuf>,
    /// Nothing: what is written is lost, what is read means nothing.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) null: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// The driver copies.
    Copy,
    /// The driver copies, data of a write when the server asks.
    GetData,
    /// The server copies.
    UserCopy,
    /// The server registers data with its ring.
    ZeroCopy,
    /// The driver registers data with the server's ring.
    AutoBuf,
}

impl From<Mode> for DataMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Copy => DataMode::Copy,
            Mode::GetData => DataMode::GetData,
            Mode::UserCopy => DataMode::UserCopy,
            Mode::ZeroCopy => DataMode::ZeroCopy,
            Mode::AutoBuf => DataMode::AutoBuf,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Recovery {
    /// What a dead server had fails; what comes waits for the next.
    Wait,
    /// What a dead server had is done by the next, as what comes.
    Reissue,
    /// All fails until the next server.
    FailIo,
}

/// Bytes, a multiple of 512.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "give a number, as 4096, 64K, 16M or 1G")?;
    let bytes = number.checked_mul(1 << shift).ok_or("no medium is that long")?;
    match bytes {
        0 => Err("a device has a sector at least: give 512 or more".into()),
        _ if bytes % 512 != 0 => Err("a device has whole sectors: give a multiple of 512".into()),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn sizes_are_whole_sectors() {
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("512"), Ok(512));
        assert!(size("513").expect_err("refused").contains("multiple of 512"));
        assert!(size("0").is_err() && size("").is_err() && size("1T").is_err());
        assert!(size("99999999999G").is_err());
    }

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        assert!(parse("sensecheck-ublk add --ram 1M --mode zero-copy").is_ok());
        assert!(parse("sensecheck-ublk add --bsg /dev/bsg/0:0:0:0 --mode auto-buf").is_ok());
        assert!(parse("sensecheck-ublk add --null 1M --batch --threads 2").is_ok());
        assert!(parse("sensecheck-ublk add --ram 1M --zone-size 64K").is_ok());
        let both = parse("sensecheck-ublk add --ram 1M --zone-size 64K --metadata-size 8");
        assert!(both.is_err(), "zones and metadata");
        let alone = parse("sensecheck-ublk add --ram 1M --csum-type ip");
        assert!(alone.is_err(), "a guard in no metadata");
        assert!(parse("sensecheck-ublk add").is_err(), "no medium");
        assert!(parse("sensecheck-ublk add --ram 1M --null 1M").is_err(), "two media");
        assert!(parse("sensecheck-ublk del").is_err(), "no number");
    }
}
