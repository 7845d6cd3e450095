//! Kernels to boot: where they come from, and what is known about them.
//!
//! * [`manifest`] is `images/kernels.toml`.
//! * [`debian`] fetches one from Debian's packages into the cache.
//! * [`config`] says what a configuration lacks.
//! * [`mirror`] copies a kernel tree, so that builds never write to it.
//! * [`mutation`] builds kernels with a small change.
//! * [`debug_info`] says which line of which source file an address is.
//! * [`selftest`] compiles programs of the kernel's own tests.
//! * [`series`] reads and applies a patch series as it was posted.
//! * [`vmlinux`] gets the directly bootable ELF file out of a bzImage.
//!
//! It must not know machines, guests or tests.

#![forbid(unsafe_code)]

mod build;
pub mod compression;
pub mod config;
pub mod debian;
pub mod debug_info;
mod error;
pub mod fragments;
pub mod image;
pub mod kbuild;
pub mod manifest;
pub mod mirror;
pub mod mutation;
pub mod recipe;
pub mod request;
mod selection;
pub mod selftest;
pub mod series;
pub mod source;
pub mod tree;
mod unused;
pub mod vmlinux;
mod workspace;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use crate::error::Error;
use crate::{
    config::Config,
    debug_info::DebugFiles,
    manifest::{Arch, Version},
};
use host::{
    apt::Pin,
    cache::{Cache, at},
};

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The name it was asked for by, for example `stock`.
    pub name: String,
    /// As `uname -r` says it.
    pub release: String,
    /// The leading numbers of the release.
    pub version: Version,
    /// What it was made of: a package's version, a source, a tree.
    pub origin: String,
    /// The guest's architecture.
    pub arch: Arch,
    /// What QEMU boots: an ELF file with a PVH entry, or a bzImage.
    pub image: PathBuf,
    /// The directory that has `kernel/` and `modules.builtin`.
    pub modules_dir: PathBuf,
    /// What the reader of a report must know, for example that the locked version has vanished.
    pub note: Option<String>,
    /// Its debug information, if it was built with any. That of a packaged kernel is fetched when it is
    /// asked for, see [`request::debug_files`].
    pub debug: Option<DebugFiles>,
    is_packaged: bool,
    config: Config,
}

/// `kernel.json` in a kernel's directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    release: String,
    arch: Arch,
    /// What it was unpacked from.
    packages: Vec<Pin>,
    /// What it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    built: Option<Built>,
}

/// How a kernel was built.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Built {
    origin: String,
    /// The root of its source.
    source: PathBuf,
    /// The directory with its objects, and modules with debug information.
    objects: PathBuf,
    note: Option<String>,
}

const STORED: &str = "kernel.json";

impl Kernel {
    /// Whether a configuration symbol (`CONFIG_BLK_DEV_UBLK`) is built in or a module.
    pub fn config_has(&self, symbol: &str) -> bool {
        self.config.has(symbol)
    }

    /// A kernel that is nothing but a directory of modules.
    #[cfg(any(test, feature = "fakes"))]
    pub fn for_test(release: &str, modules_dir: &Path, config: &str) -> Kernel {
        Kernel {
            name: "test".to_owned(),
            release: release.to_owned(),
            version: Version::of_release(release).expect("a release"),
            origin: String::new(),
            arch: Arch::Amd64,
            image: modules_dir.join("vmlinux"),
            modules_dir: modules_dir.to_owned(),
            note: None,
            debug: None,
            is_packaged: false,
            config: Config::parse("test", config).expect("a configuration"),
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
        let images = ["vmlinux", "bzImage"].map(str::to_owned);
        let image = existing(&dir, &images).ok_or_else(|| damaged("no vmlinux".to_owned()))?;
        let modules_dir = dir.join("modules");
        if !modules_dir.exists() {
            return Err(damaged("no modules".to_owned()));
        }
        let config = dir.join("config");
        let text = fs::read_to_string(&config).map_err(at("read", &config))?;
        let config = Config::parse("config", &text).map_err(|error| damaged(error.to_string()))?;
        let built = stored.built.as_ref();
        if built.is_some() {
            unused::stamp(&dir);
        }
        let origin = built.map(|built| built.origin.clone());
        let vmlinux = dir.join("debug/vmlinux");
        let debug = built.filter(|_| vmlinux.exists()).map(|built| DebugFiles {
            vmlinux,
            modules: built.objects.clone(),
            source: Some(built.source.clone()),
        });
        Ok(Some(Kernel {
            name: name.to_owned(),
            version,
            origin: origin
                .or_else(|| stored.packages.first().map(|package| package.version.clone()))
                .unwrap_or_default(),
            arch: stored.arch,
            image,
            modules_dir,
            config,
            debug,
            is_packaged: stored.built.is_none(),
            note: stored.built.and_then(|built| built.note),
            release: stored.release,
        }))
    }
}

/// Where kernels are in the cache.
const KERNELS: &str = "kernels";

/// The directory of a kernel, relative to the cache.
fn place(key: &str) -> String {
    format!("{KERNELS}/{key}")
}

/// Where one of `candidates` is, relative to `root`.
fn existing(root: &Path, candidates: &[String]) -> Option<PathBuf> {
    candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists())
}
