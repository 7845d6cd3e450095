//! The command line of `sensecheck-target`.

use std::{num::NonZeroU32, path::PathBuf, str::FromStr};

use clap::Parser;
use device_server::{
    DeviceConfig, DeviceType, LuConfig, LunAddress, MediumConfig, PhysicalBlocks, Provisioning,
};
use vhost_user_scsi::{
    journal::JOURNAL_LEN,
    target::{REQUEST_QUEUES_MAX, Settings},
};

const EXAMPLES: &str = "\
Addresses:
  The pool is targets 0 to T-1 with LUNs 0 to L-1 each: --targets T --luns L. Disks are the LUNs of the
  target after the pool, those of --disk first, then those of --disks.

Examples:
  One disk of 1 GiB in memory:
    sensecheck-target --socket /tmp/scsi.sock --disk 1G
  Two disks, one kept in a file, one write-protected with blocks of 4096 bytes:
    sensecheck-target --socket /tmp/scsi.sock --disk 10G,file=disk.img --disk 64M,block=4096,ro
  A disk that is slow, forgets a write now and then, and has a bad spot:
    sensecheck-target --socket /tmp/scsi.sock --disk 1G --scenario harness/scenarios/bad-disk.toml
    sensecheck-target --check harness/scenarios/bad-disk.toml
  What a test bench uses, a pool of 32 units that no disk driver attaches to, and two disks:
    sensecheck-target --socket /tmp/scsi.sock --control /tmp/control.sock --targets 4 --luns 8 --disks 2
  One disk, reached on two paths:
    sensecheck-target --socket /tmp/a.sock --socket /tmp/b.sock --disk 1G

The other end, in QEMU (shared memory and qboot are needed, SeaBIOS waits for this device for ever):
    qemu-system-x86_64 -machine q35 -m 512 -bios qboot.rom \\
      -object memory-backend-memfd,id=mem,size=512M,share=on -numa node,memdev=mem \\
      -chardev socket,id=scsi,path=/tmp/scsi.sock \\
      -device vhost-user-scsi-pci,chardev=scsi,num_queues=2 ...

Exit codes: 0 after SIGTERM or SIGINT, 1 if it cannot serve, 2 for a bad command line.
RUST_LOG=debug shows every refusal, RUST_LOG=trace every command.";

/// What `--check` has no use for: everything but `--hostile`.
const SERVING: [&str; 12] = [
    "sockets",
    "control",
    "targets",
    "luns",
    "disks",
    "disk",
    "scenario",
    "prepare",
    "journal_len",
    "identifier",
    "queues",
    "no_io_uring",
];

/// A SCSI target for virtual machines: serves vhost-user-scsi on a socket.
#[derive(Clone, Debug, Parser)]
#[command(name = "sensecheck-target", version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Socket for a virtual machine monitor (vhost-user). May be given several times: each is another
    /// way to the same units, with an I_T nexus of its own.
    #[arg(long = "socket", value_name = "PATH", required_unless_present = "check")]
    pub(crate) sockets: Vec<PathBuf>,

    /// Socket to change what is served, while it is: faults, what is held, plugging, resizing; and to read
    /// journals. JSON lines, see crates/control; README.md has an example.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Targets of the pool [default: 1 with --luns].
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=255))]
    targets: Option<u16>,

    /// Logical units of each target of the pool: 16 MiB of memory, of a device type (processor) that
    /// no disk driver attaches to, though the block commands work [default: 1 with --targets].
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u16).range(1..=256))]
    luns: Option<u16>,

    /// Disks of 16 MiB of memory each, beside the pool.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    disks: u16,

    /// A disk: SIZE (bytes, or with K, M, G, T) in memory, or kept in a file. SIZE may be left out for
    /// a file that exists. Of more than N commands at a time those beyond are TASK SET FULL. May be given
    /// several times.
    #[arg(
        long = "disk",
        value_name = "SIZE[,block=512|4096][,physical=LEN][,file=PATH][,ro][,thin][,tasks=N]"
    )]
    disk: Vec<Disk>,

    /// What goes wrong, from the first command on: a scenario file, see harness/scenarios for examples.
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,

    /// Says whether a scenario file is sound, for a daemon with --hostile if that is given too, and does
    /// nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = SERVING)]
    pub(crate) check: Option<PathBuf>,

    /// Requests of the control socket that are carried out before any socket is there: a command in JSON
    /// on each line, without its id.
    #[arg(long, value_name = "FILE")]
    pub(crate) prepare: Option<PathBuf>,

    /// Lets faults do what no device may do, such as lying lengths and wrong descriptor ids: a driver may
    /// crash of it.
    #[arg(long)]
    pub(crate) hostile: bool,

    /// Commands that the journal of each logical unit keeps, the newest; 0 for no journal, which makes a
    /// command some 50 ns cheaper.
    #[arg(long, value_name = "N", default_value_t = JOURNAL_LEN)]
    journal_len: usize,

    /// Number that tells the units of this daemon from those of others in one guest; part of their
    /// designators (INQUIRY, VPD page 83h).
    #[arg(long, value_name = "N", default_value_t = 0)]
    identifier: u32,

    /// Request queues, an upper bound for QEMU's num_queues.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse_queues)]
    pub(crate) queues: usize,

    /// Has a queue wait while a command of it reads data of a file that is not cached, or flushes it. Otherwise that is
    /// left to an io_uring, where the system has one.
    #[arg(long)]
    no_io_uring: bool,
}

fn parse_queues(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(queues @ 1..=REQUEST_QUEUES_MAX) => Ok(queues),
        _ => Err(format!("not a number from 1 to {REQUEST_QUEUES_MAX}")),
    }
}

impl Args {
    /// How the device is reached.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            hostile: self.hostile,
            journal_len: self.journal_len,
            io_uring: !self.no_io_uring,
            ..Settings::new(self.sockets.len(), self.queues)
        }
    }

    /// The device asked for.
    pub(crate) fn device(&self) -> Result<DeviceConfig, String> {
        Ok(DeviceConfig { identifier: self.identifier, units: self.units()? })
    }

    fn units(&self) -> Result<Vec<(LunAddress, LuConfig)>, String> {
        let (targets, luns) = match (self.targets, self.luns) {
            (None, None) => (0, 0),
            (targets, luns) => (targets.unwrap_or(1), luns.unwrap_or(1)),
        };
        let mut units = Vec::new();
        for target in 0..targets {
            let target = u8::try_from(target).expect("at most 255 targets");
            units.extend((0..luns).map(|lun| (LunAddress { target, lun }, LuConfig::default())));
        }

        let plain = LuConfig { device_type: DeviceType::Disk, ..LuConfig::default() };
        let given = self.disk.iter().map(Disk::config).collect::<Result<Vec<_>, _>>()?;
        let disks = given.into_iter().chain((0..self.disks).map(|_| plain.clone()));
        let target = u8::try_from(targets).expect("at most 255 targets");
        for (lun, disk) in (0..=u16::MAX).zip(disks) {
            if lun > 255 {
                return Err("more than 256 disks".into());
            }
            units.push((LunAddress { target, lun }, disk));
        }
        if units.is_empty() {
            return Err("nothing to serve: give --disk, --disks, or --targets and --luns".into());
        }
        Ok(units)
    }
}

/// The value of `--disk`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    len: Option<u64>,
    block_len: u32,
    /// Length of a physical block in bytes, if it is not that of a block.
    physical_len: Option<u64>,
    file: Option<PathBuf>,
    read_only: bool,
    thin: bool,
    task_set_max: Option<NonZeroU32>,
}

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut disk = Disk {
            len: None,
            block_len: 512,
            physical_len: None,
            file: None,
            read_only: false,
            thin: false,
            task_set_max: None,
        };
        for (position, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                Some(("block", "512")) => disk.block_len = 512,
                Some(("block", "4096")) => disk.block_len = 4096,
                Some(("block", other)) => {
                    return Err(format!("block={other} is neither 512 nor 4096"));
                }
                Some(("file", "")) => return Err("file= needs a path".into()),
                Some(("file", path)) => disk.file = Some(path.into()),
                Some(("physical", len)) => disk.physical_len = Some(parse_size(len)?),
                Some(("tasks", max)) => {
                    let max =
                        max.parse().map_err(|_| format!("tasks={max} is no number from 1"))?;
                    disk.task_set_max = Some(max);
                }
                None if part == "ro" => disk.read_only = true,
                None if part == "thin" => disk.thin = true,
                None if position == 0 => disk.len = Some(parse_size(part)?),
                _ => {
                    let known = "block=, physical=, file=, tasks=, ro, thin";
                    return Err(format!("`{part}` is none of {known}"));
                }
            }
        }
        match disk.len {
            None if disk.file.is_none() => Err("a disk in memory needs a size, such as 64M".into()),
            Some(len) if len == 0 || len % u64::from(disk.block_len) != 0 => {
                Err(format!("{len} bytes are no whole number of {}-byte blocks", disk.block_len))
            }
            _ => Ok(disk),
        }
    }
}

impl Disk {
    fn config(&self) -> Result<LuConfig, String> {
        let len = match (&self.file, self.len) {
            (_, Some(len)) => len,
            (Some(path), None) => std::fs::metadata(path)
                .map_err(|error| {
                    format!("{}: {error}; a file that does not exist needs a size", path.display())
                })?
                .len(),
            (None, None) => unreachable!("refused when parsed"),
        };
        let block_len = u64::from(self.block_len);
        if len == 0 || len % block_len != 0 {
            return Err(format!("{len} bytes are no whole number of {block_len}-byte blocks"));
        }
        Ok(LuConfig {
            device_type: DeviceType::Disk,
            block_len: self.block_len,
            blocks: len / block_len,
            medium: match &self.file {
                None => MediumConfig::Ram,
                Some(path) => MediumConfig::File { path: path.clone() },
            },
            write_protect: self.read_only,
            provisioning: if self.thin { Provisioning::Thin } else { Provisioning::Full },
            physical_blocks: self.physical_blocks()?,
            task_set_max: self.task_set_max,
        })
    }

    fn physical_blocks(&self) -> Result<PhysicalBlocks, String> {
        let Some(len) = self.physical_len else { return Ok(PhysicalBlocks::default()) };
        let blocks = len / u64::from(self.block_len);
        if len % u64::from(self.block_len) != 0 || !blocks.is_power_of_two() || blocks > 1 << 15 {
            let block_len = self.block_len;
            return Err(format!("physical={len} is no power of two of {block_len}-byte blocks"));
        }
        let exponent = u8::try_from(blocks.trailing_zeros()).expect("at most 15");
        Ok(PhysicalBlocks { exponent, lowest_aligned: 0 })
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is no size; examples: 1048576, 64M, 1G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(line: &str) -> Result<Vec<(LunAddress, LuConfig)>, String> {
        let words = format!("sensecheck-target --socket s {line}");
        let args =
            Args::try_parse_from(words.split_whitespace()).map_err(|error| error.to_string());
        args.and_then(|args| args.units())
    }

    #[test]
    fn command_line_is_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    /// What is left out of the list would be ignored without a word.
    #[test]
    fn check_takes_no_other_argument() {
        let command = <Args as clap::CommandFactory>::command();
        let others = command.get_arguments().map(|argument| argument.get_id().as_str());
        let others: Vec<_> = others.filter(|id| !["check", "hostile"].contains(id)).collect();
        for other in &others {
            assert!(SERVING.contains(other), "{other}");
        }
        assert_eq!(others.len(), SERVING.len());
    }

    #[test]
    fn pool_comes_first_and_disks_are_the_next_target() {
        let units = units("--targets 2 --luns 2 --disks 1 --disk 1M,block=4096,ro").expect("fine");
        let addresses: Vec<_> = units.iter().map(|(at, _)| (at.target, at.lun)).collect();
        assert_eq!(addresses, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        let types: Vec<_> = units.iter().map(|(_, unit)| unit.device_type as u8).collect();
        assert_eq!(types, [3, 3, 3, 3, 0, 0]);
        let given = &units[4].1;
        assert_eq!((given.blocks, given.block_len, given.write_protect), (256, 4096, true));
        assert_eq!((units[5].1.blocks, units[5].1.block_len), (32_768, 512));
    }

    #[test]
    fn a_disk_may_be_thin_and_of_larger_physical_blocks() {
        let units =
            units("--disk 3T,thin,physical=4k --disk 1M,physical=512,tasks=8").expect("fine");
        let (thin, plain) = (&units[0].1, &units[1].1);
        assert_eq!((thin.blocks, thin.provisioning), (3 << 31, Provisioning::Thin));
        assert_eq!((thin.physical_blocks.exponent, plain.physical_blocks.exponent), (3, 0));
        assert_eq!(plain.provisioning, Provisioning::Full);
        assert_eq!((thin.task_set_max, plain.task_set_max), (None, NonZeroU32::new(8)));
    }

    #[test]
    fn one_of_targets_and_luns_is_enough() {
        assert_eq!(units("--targets 3").expect("fine").len(), 3);
        assert_eq!(units("--luns 3").expect("fine").len(), 3);
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("3k"), Ok(3072));
        assert_eq!(parse_size("2T"), Ok(2 << 40));
        for bad in ["", "M", "-1", "1.5G", "99999999T", "1ü"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn size_of_an_existing_file_is_taken_from_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        let disk: Disk = format!("file={}", path.display()).parse().expect("fine");
        assert!(disk.config().expect_err("no such file").contains("needs a size"));
        std::fs::write(&path, [0; 1024]).expect("our directory");
        assert_eq!(disk.config().expect("two blocks").blocks, 2);
        std::fs::write(&path, [0; 1025]).expect("our directory");
        assert!(disk.config().is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, words) in [
            ("", "nothing to serve"),
            ("--disk ro", "needs a size"),
            ("--disk 1000", "no whole number of 512-byte blocks"),
            ("--disk 0", "no whole number"),
            ("--disk 1M,block=513", "neither 512 nor 4096"),
            ("--disk 1M,blok=512", "none of block=, physical=, file=, tasks=, ro, thin"),
            ("--disk 1M,2M", "none of block=, physical=, file=, tasks=, ro, thin"),
            ("--disk 1M,block=4096,physical=512", "no power of two of 4096-byte blocks"),
            ("--disk 1M,physical=1536", "no power of two"),
            ("--disk 1M,tasks=0", "tasks=0 is no number from 1"),
            ("--disk file=", "file= needs a path"),
            ("--disks 256 --disk 1M", "more than 256 disks"),
            ("--queues 255 --disks 1", "from 1 to 254"),
            ("--luns 257", "257"),
        ] {
            let error = units(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
