//! QEMU: the host's own, and a newer one in the cache for tests that need it.
//!
//! Only finding is done here. The machine's command line is the virtual machine's business.

pub mod fetch;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use host::{
    apt,
    cache::{self, Cache},
    progress::Progress,
    tools::{self, Installer},
};

/// The emulator's program.
const PROGRAM: &str = "qemu-system-x86_64";
/// The Debian packages that have the program, and the firmware (Debian 12 and 13 alike).
pub const PACKAGES: [&str; 2] = ["qemu-system-x86", "qemu-system-data"];
/// The firmware: SeaBIOS hangs when a vhost-user-scsi device does not answer it.
const FIRMWARE: &str = "qboot.rom";
/// The first version whose vhost-user-scsi device reconnects to a restarted daemon.
pub const FIRST_RECONNECTING: (u32, u32, u32) = (8, 2, 0);
/// The oldest version the bench is known to work with.
pub const OLDEST: (u32, u32, u32) = (7, 2, 0);

/// Why there is no usable QEMU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program answers something unexpected.
    #[error(
        "{} does not work: {detail}; reinstall it ({})",
        binary.display(),
        tools::install_command(&PACKAGES)
    )]
    Broken {
        /// The program.
        binary: PathBuf,
        /// What it said.
        detail: String,
    },
    /// The firmware is missing even after installing.
    #[error(
        "{FIRMWARE} is in none of QEMU's data directories ({}); install the package that has it: {}",
        dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
        tools::install_command(&["qemu-system-data"])
    )]
    NoFirmware {
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// Too old for the bench.
    #[error(
        "{} is version {}, the bench needs at least {}; use Debian 12 or newer, or install a newer QEMU",
        binary.display(), dotted(*version), dotted(OLDEST)
    )]
    TooOld {
        /// The program.
        binary: PathBuf,
        /// Its version.
        version: (u32, u32, u32),
    },
    /// `images/qemu.toml` cannot be read.
    #[error("{}: {detail}; correct the file", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: String,
    },
    /// The fetched QEMU does not start on this host.
    #[error(
        "QEMU {version} was fetched, but does not run on this host: {detail}; install a QEMU of at \
         least 8.2 yourself, or let the tests that need it be skipped"
    )]
    Unusable {
        /// Debian version of the fetched QEMU.
        version: String,
        /// What went wrong.
        detail: String,
    },
    /// Programs of the host, and installing them.
    #[error(transparent)]
    Tool(#[from] tools::Error),
    /// Packages.
    #[error(transparent)]
    Apt(#[from] apt::Error),
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

/// A QEMU that can be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Qemu {
    /// The program.
    pub binary: PathBuf,
    /// Its version.
    pub version: (u32, u32, u32),
    /// A data directory to be given with `-L`; `None` uses the built-in ones.
    pub data_dir: Option<PathBuf>,
    /// A directory of libraries the host lacks, for `LD_LIBRARY_PATH`.
    pub library_dir: Option<PathBuf>,
    /// The firmware to be given with `-bios`.
    pub qboot: PathBuf,
    /// What the reader of a report must know, for example that the locked version has vanished.
    pub note: Option<String>,
}

impl Qemu {
    /// The program with its data directory and its libraries, ready for more arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(self.data_dir_args()).envs(self.env());
        command
    }

    /// `-L` and the data directory, or nothing.
    pub fn data_dir_args(&self) -> Vec<OsString> {
        let dir = self.data_dir.iter();
        dir.flat_map(|dir| [OsString::from("-L"), dir.clone().into_os_string()]).collect()
    }

    /// Variables to be set for the program.
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        let dir = self.library_dir.iter();
        dir.map(|dir| ("LD_LIBRARY_PATH".into(), dir.clone().into_os_string())).collect()
    }

    /// Whether its vhost-user-scsi device reconnects to a restarted daemon.
    pub fn can_reconnect(&self) -> bool {
        self.version >= FIRST_RECONNECTING
    }
}

/// The host's QEMU. What is missing is installed where that is allowed.
pub fn host(cache: &Cache, progress: &Progress) -> Result<Qemu, Error> {
    if tools::find(PROGRAM).is_none() {
        tools::install(&PACKAGES, PROGRAM, Installer::here(), progress)?;
    }
    match find(cache)? {
        Lookup::Found(qemu) => Ok(qemu),
        Lookup::NoProgram => {
            let package = PACKAGES[0].to_owned();
            Err(tools::Error::Missing { program: PROGRAM.to_owned(), package }.into())
        }
        Lookup::NoFirmware(_) => {
            tools::install(&["qemu-system-data"], FIRMWARE, Installer::here(), progress)?;
            match find(cache)? {
                Lookup::Found(qemu) => Ok(qemu),
                Lookup::NoProgram => Err(Error::NoFirmware { dirs: Vec::new() }),
                Lookup::NoFirmware(dirs) => Err(Error::NoFirmware { dirs }),
            }
        }
    }
}

/// What looking for the host's QEMU came to.
#[derive(Debug)]
pub enum Lookup {
    /// All there.
    Found(Qemu),
    /// Not on `PATH`.
    NoProgram,
    /// The program is there, its firmware in none of these directories.
    NoFirmware(Vec<PathBuf>),
}

/// What was learnt from starting a program, kept because asking QEMU costs some 50 ms.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Remembered {
    identity: String,
    qemu: Qemu,
}

const REMEMBERED: &str = "host-qemu.json";

/// Looks for the host's QEMU. Installs nothing.
pub fn find(cache: &Cache) -> Result<Lookup, Error> {
    match tools::find(PROGRAM) {
        Some(binary) => inspect(cache, binary),
        None => Ok(Lookup::NoProgram),
    }
}

/// What there is to know of the program `binary`, from the cache if it is unchanged.
fn inspect(cache: &Cache, binary: PathBuf) -> Result<Lookup, Error> {
    let identity = cache::identity(&binary).map_err(cache::at("look at", &binary))?;
    if let Some(known) = remembered(cache)
        && known.identity == identity
        && known.qemu.qboot.exists()
    {
        return Ok(Lookup::Found(known.qemu));
    }
    let version = version_of(Command::new(&binary), &binary)?;
    if version < OLDEST {
        return Err(Error::TooOld { binary, version });
    }
    let mut command = Command::new(&binary);
    let listed = tools::check(command.args(["-L", "help"]), PACKAGES[0])?;
    let dirs: Vec<PathBuf> = listed.stdout.lines().map(PathBuf::from).collect();
    let Some(qboot) = dirs.iter().map(|dir| dir.join(FIRMWARE)).find(|file| file.exists()) else {
        return Ok(Lookup::NoFirmware(dirs));
    };
    let qemu = Qemu { binary, version, data_dir: None, library_dir: None, qboot, note: None };
    let known = Remembered { identity, qemu };
    let json = serde_json::to_vec_pretty(&known).expect("plain data has a JSON form");
    cache.write(REMEMBERED, &json)?;
    Ok(Lookup::Found(known.qemu))
}

fn remembered(cache: &Cache) -> Option<Remembered> {
    serde_json::from_slice(&fs::read(cache.path(REMEMBERED)).ok()?).ok()
}

/// The version a QEMU says it has.
fn version_of(mut command: Command, binary: &Path) -> Result<(u32, u32, u32), Error> {
    let broken = |detail: String| Error::Broken { binary: binary.to_owned(), detail };
    let output = tools::run(command.arg("--version"), PACKAGES[0])?;
    if !output.status.success() {
        return Err(broken(output.text().trim().to_owned()));
    }
    parse_version(&output.stdout)
        .ok_or_else(|| broken(format!("--version says {:?}", output.stdout.trim())))
}

/// The numbers in `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let after = text.split("version ").nth(1)?;
    let numbers = after.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// A version as it is written.
pub fn dotted((major, minor, micro): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{micro}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_qemu_prints() {
        let debian_12 = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(parse_version(debian_12), Some((7, 2, 22)));
        assert_eq!(parse_version("QEMU emulator version 9.1.50"), Some((9, 1, 50)));
        assert_eq!(parse_version("QEMU emulator version 8.2"), Some((8, 2, 0)));
        assert_eq!(parse_version("bash: not found"), None);
    }

    /// A program that answers as QEMU does, with a data directory beside it.
    fn fake_qemu(dir: &Path, version: &str) -> PathBuf {
        let binary = dir.join(PROGRAM);
        let script = format!(
            "#!/bin/sh\ncase $1 in --version) echo 'QEMU emulator version {version}';; \
             -L) echo {0}/none; echo {0};; esac\n",
            dir.display()
        );
        // Written by a process of its own: a descriptor open for writing here could be inherited by
        // whatever another test starts meanwhile, and the file then not be executed.
        let mut command = Command::new("sh");
        command
            .args(["-c", "printf %s \"$1\" > \"$0\" && chmod +x \"$0\""])
            .arg(&binary)
            .arg(script);
        tools::check(&mut command, "dash").expect("the script is written");
        binary
    }

    #[test]
    fn firmware_is_looked_for_in_all_data_directories() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        let binary = fake_qemu(dir.path(), "7.2.22");
        let lookup = inspect(&cache, binary.clone()).expect("it answers");
        assert!(matches!(&lookup, Lookup::NoFirmware(dirs) if dirs.len() == 2), "{lookup:?}");
        fs::write(dir.path().join(FIRMWARE), b"").expect("write");
        let Lookup::Found(qemu) = inspect(&cache, binary).expect("it answers") else {
            panic!("the firmware is there")
        };
        assert_eq!(qemu.qboot, dir.path().join("qboot.rom"));
        assert_eq!(qemu.version, (7, 2, 22));
    }

    #[test]
    fn replaced_program_is_asked_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        fs::write(dir.path().join(FIRMWARE), b"").expect("write");
        for version in ["7.2.22", "10.0.13"] {
            let binary = fake_qemu(dir.path(), version);
            let Lookup::Found(qemu) = inspect(&cache, binary).expect("it answers") else {
                panic!("all there")
            };
            assert_eq!(Some(qemu.version), parse_version(&format!("version {version}")));
        }
    }

    #[test]
    fn qemu_too_old_or_broken_is_told_with_its_path() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        for (version, reason) in [("6.2.0", "at least 7.2.0"), ("", "--version says")] {
            let error = inspect(&cache, fake_qemu(dir.path(), version)).expect_err(reason);
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains(PROGRAM), "{text}");
        }
    }

    #[test]
    fn reconnect_needs_8_2() {
        let qemu = |version| Qemu {
            binary: PathBuf::new(),
            version,
            data_dir: Some("/data".into()),
            library_dir: None,
            qboot: PathBuf::new(),
            note: None,
        };
        assert!(!qemu((8, 1, 99)).can_reconnect());
        assert!(qemu((8, 2, 0)).can_reconnect());
        assert_eq!(qemu((8, 2, 0)).data_dir_args(), ["-L", "/data"]);
    }
}
