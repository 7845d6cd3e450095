//! Kernels to boot: where they come from, and what is known about them.
//!
//! * [`manifest`] is `images/kernels.toml`.
//! * [`debian`] fetches one from Debian's packages into the cache.
//! * [`config`] says what a configuration lacks.
//! * [`vmlinux`] gets the directly bootable ELF file out of a bzImage.
//!
//! It must not know machines, guests or tests.

#![forbid(unsafe_code)]

pub mod compression;
pub mod config;
pub mod debian;
pub mod manifest;
pub mod vmlinux;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::manifest::{Arch, Version};
use host::{
    apt::{self, Pin},
    cache::{self, Cache, at},
    tools,
};

/// Why there is no kernel to boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `images/kernels.toml` cannot be read.
    #[error("{}: {detail}; correct the file", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: String,
    },
    /// No such name.
    #[error("no kernel is called {name:?}; images/kernels.toml has: {}", known.join(", "))]
    UnknownKernel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The mirror has nothing suitable.
    #[error(
        "the mirror {mirror} has no {flavour} kernel of Linux {wanted} in {}; give another Debian \
         mirror's URL with `--mirror URL`, or another kernel with `--kernel NAME`",
        suites.join(", ")
    )]
    NoneSuitable {
        /// The mirror's URL.
        mirror: String,
        /// The flavour.
        flavour: String,
        /// Which versions would do, in words.
        wanted: String,
        /// Where it was looked for.
        suites: Vec<String>,
    },
    /// The packages do not hold what they should.
    #[error(
        "the packages of kernel {release} have no {what}; report it, and choose another kernel with `--kernel NAME`"
    )]
    Layout {
        /// The kernel's release.
        release: String,
        /// The file looked for.
        what: &'static str,
    },
    /// What the cache holds is not readable.
    #[error("{} is damaged ({detail}); remove that directory and run the same command again", dir.display())]
    Damaged {
        /// The kernel's directory in the cache.
        dir: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The image cannot be booted directly.
    #[error("kernel {release}: {source}")]
    Image {
        /// The kernel's release.
        release: String,
        /// Why.
        source: vmlinux::Error,
    },
    /// Packages.
    #[error(transparent)]
    Apt(#[from] apt::Error),
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

impl From<tools::Error> for Error {
    fn from(error: tools::Error) -> Error {
        Error::Apt(error.into())
    }
}

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The name it was asked for by, for example `stock`.
    pub name: String,
    /// As `uname -r` says it.
    pub release: String,
    /// The leading numbers of the release.
    pub version: Version,
    /// The distribution's version of the package.
    pub package_version: String,
    /// The guest's architecture.
    pub arch: Arch,
    /// The ELF file with a PVH entry.
    pub vmlinux: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// The directory that has `kernel/` and `modules.builtin`.
    pub modules_dir: PathBuf,
    /// What the reader of a report must know, for example that the locked version has vanished.
    pub note: Option<String>,
    config_text: String,
}

/// `kernel.json` in a kernel's directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    release: String,
    arch: Arch,
    packages: Vec<Pin>,
}

const STORED: &str = "kernel.json";

impl Kernel {
    /// Whether a configuration symbol (`CONFIG_BLK_DEV_UBLK`) is built in or a module.
    pub fn config_has(&self, symbol: &str) -> bool {
        has_symbol(&self.config_text, symbol)
    }

    /// A kernel that is nothing but a directory of modules.
    #[cfg(any(test, feature = "fakes"))]
    pub fn for_test(release: &str, modules_dir: &Path, config: &str) -> Kernel {
        Kernel {
            name: "test".to_owned(),
            release: release.to_owned(),
            version: Version::of_release(release).expect("a release"),
            package_version: String::new(),
            arch: Arch::Amd64,
            vmlinux: modules_dir.join("vmlinux"),
            config: modules_dir.join("config"),
            modules_dir: modules_dir.to_owned(),
            note: None,
            config_text: config.to_owned(),
        }
    }

    /// The kernel in the cache under `key`, if it is there.
    fn cached(cache: &Cache, name: &str, key: &str) -> Result<Option<Kernel>, Error> {
        let dir = cache.path(&place(key));
        let damaged = |detail: String| Error::Damaged { dir: dir.clone(), detail };
        let stored = match fs::read(dir.join(STORED)) {
            Ok(stored) => stored,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !dir.exists() => {
                return Ok(None);
            }
            Err(error) => return Err(damaged(format!("{STORED}: {error}"))),
        };
        let stored: Stored =
            serde_json::from_slice(&stored).map_err(|e| damaged(format!("{STORED}: {e}")))?;
        let version = Version::of_release(&stored.release)
            .ok_or_else(|| damaged(format!("release {:?}", stored.release)))?;
        let file = |name: &str| {
            let path = dir.join(name);
            if path.exists() { Ok(path) } else { Err(damaged(format!("no {name}"))) }
        };
        let config = file("config")?;
        let config_text = fs::read_to_string(&config).map_err(at("read", &config))?;
        Ok(Some(Kernel {
            name: name.to_owned(),
            version,
            package_version: stored.packages.first().map(|p| p.version.clone()).unwrap_or_default(),
            arch: stored.arch,
            vmlinux: file("vmlinux")?,
            modules_dir: file("modules")?,
            config,
            config_text,
            release: stored.release,
            note: None,
        }))
    }
}

/// The directory of a kernel, relative to the cache.
fn place(key: &str) -> String {
    format!("kernels/{key}")
}

fn has_symbol(config: &str, symbol: &str) -> bool {
    config
        .lines()
        .any(|line| line.strip_prefix(symbol).is_some_and(|value| value == "=y" || value == "=m"))
}

/// Where one of `candidates` is, relative to `root`.
fn existing(root: &Path, candidates: &[String]) -> Option<PathBuf> {
    candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbol_is_there_as_built_in_or_module_only() {
        let config = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_DE=y\nCONFIG_F=7\n";
        for (symbol, expected) in [
            ("CONFIG_A", true),
            ("CONFIG_B", true),
            ("CONFIG_C", false),
            ("CONFIG_D", false),
            ("CONFIG_DE", true),
            ("CONFIG_F", false),
        ] {
            assert_eq!(has_symbol(config, symbol), expected, "{symbol}");
        }
    }
}
