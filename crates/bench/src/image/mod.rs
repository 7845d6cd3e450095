//! The guest image: an initramfs with the agent, the tests and the kernel modules.
//!
//! The image is two cpio archives in one file, which the kernel unpacks one after the other. The
//! part with the modules depends on the kernel alone and is made once; the part with the binaries is
//! made whenever they were rebuilt. Where tests need programs of other packages, an archive with them
//! follows. Nothing is compressed: under emulation the guest would spend
//! more time undoing it than the host spends reading it.

pub(crate) mod archive;
mod images;
pub(crate) mod modules;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::archive::Archive;
pub(crate) use self::modules::module_files;
pub use self::{images::Images, modules::Missing};
use host::{
    apt,
    cache::{self, Cache, at},
    progress::Progress,
};
use kernel::Kernel;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `images/initramfs.toml` cannot be read.
    #[error("{}: {detail}; correct the file", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: String,
    },
    /// A kernel module's file is not what it should be.
    #[error("kernel module {} cannot be used: {detail}; remove the kernel from the cache and fetch it again", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A program for the guest is not there.
    #[error("cannot read {}: {source}; build it first", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

/// `images/initramfs.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// Directories, without a leading slash.
    pub directories: Vec<String>,
    /// The standard set of modules.
    pub modules: Vec<String>,
    /// Device nodes.
    #[serde(rename = "device")]
    pub devices: Vec<Device>,
}

/// A character device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Device {
    /// Path without a leading slash.
    pub path: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Manifest {
    /// Reads `images/initramfs.toml` of a checkout.
    pub fn read(checkout: &Path) -> Result<Manifest, Error> {
        let path = checkout.join("images/initramfs.toml");
        let manifest = |detail: String| Error::Manifest { path: path.clone(), detail };
        let text = fs::read_to_string(&path).map_err(|error| manifest(error.to_string()))?;
        toml::from_str(&text).map_err(|error| manifest(error.to_string()))
    }
}

/// An image ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file to be given with `-initrd`.
    pub path: PathBuf,
    /// What it has of the wanted modules.
    pub contents: Contents,
}

/// The modules of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Contents {
    /// In load order.
    pub modules: Vec<String>,
    /// Wanted, and part of the kernel itself.
    pub builtin: Vec<String>,
    /// Wanted, and not to be had: a reason to skip what needs them.
    pub missing: Vec<Missing>,
}

/// An image not used for this long is removed.
const UNUSED: Duration = Duration::from_secs(3 * 24 * 60 * 60);
const IMAGES: &str = "images";
/// Goes up with every change of what the archive of modules holds.
const LAYOUT: u32 = 2;
const CONTENTS: &str = "contents.json";
const MODULES: &str = "modules.cpio";

/// What goes into an image besides what the manifest says.
#[derive(Clone, Copy, Debug)]
pub struct Ingredients<'a> {
    /// Whose modules.
    pub kernel: &'a Kernel,
    /// Becomes `/init`.
    pub agent: &'a Path,
    /// Becomes `/bin/guest-tests`.
    pub tests: &'a Path,
    /// Becomes `/bin/sensecheck-ublk`.
    pub ublk: &'a Path,
    /// Modules beside the standard ones.
    pub extra_modules: &'a [String],
}

/// The image with these ingredients and the standard modules, with all that modules depend on. If
/// neither binary nor kernel changed since, the one made last time.
pub fn build(
    cache: &Cache,
    manifest: &Manifest,
    ingredients: Ingredients<'_>,
    progress: &Progress,
) -> Result<Image, Error> {
    let Ingredients { kernel, agent, tests, ublk, extra_modules } = ingredients;
    let parts = module_part(cache, manifest, kernel, extra_modules, progress)?;
    let json = parts.join(CONTENTS);
    let contents = fs::read(&json).map_err(at("read", &json))?;
    let contents: Contents = serde_json::from_slice(&contents).map_err(|error| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        cache::Error::Io { action: "understand", path: json, source }
    })?;

    let programs = [("init", agent), ("bin/guest-tests", tests), ("bin/sensecheck-ublk", ublk)];
    let mut made_of = parts.display().to_string();
    for (_, program) in programs {
        write!(made_of, " {}", identity(program)?).expect("a String takes all");
    }
    let key = digest(&made_of);
    let name = format!("{IMAGES}/guest-{key}.cpio");
    let path = cache.path(&name);
    if path.exists() {
        // In use: not to be swept as an old one.
        let touched = fs::File::options().append(true).open(&path);
        touched.and_then(|f| f.set_modified(SystemTime::now())).map_err(at("touch", &path))?;
        return Ok(Image { path, contents });
    }
    let modules = parts.join(MODULES);
    let mut image = fs::read(&modules).map_err(at("read", &modules))?;
    let mut archive = Archive::new();
    for (name, program) in programs {
        let content = fs::read(program).map_err(no_program(program))?;
        archive.file(name, 0o755, &content);
    }
    image.extend(archive.finish());
    sweep(&cache.path(IMAGES));
    let path = cache.write(&name, &image)?;
    Ok(Image { path, contents })
}

/// The directory with the archive of everything but the binaries.
fn module_part(
    cache: &Cache,
    manifest: &Manifest,
    kernel: &Kernel,
    extra_modules: &[String],
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let mut wanted = manifest.modules.clone();
    wanted.extend(extra_modules.iter().filter(|name| !manifest.modules.contains(name)).cloned());
    let key = digest(&format!("{LAYOUT}{}{manifest:?}{wanted:?}", identity(&kernel.modules_dir)?));
    cache.entry(&format!("{IMAGES}/modules-{key}"), 0, progress, |dir| {
        let closure = modules::closure(&kernel.modules_dir, &wanted)?;
        let archive = archive_of(manifest, &closure);
        let path = dir.join(MODULES);
        fs::write(&path, archive.finish()).map_err(at("write", &path))?;
        let contents = Contents {
            modules: closure.modules.into_iter().map(|module| module.name).collect(),
            builtin: closure.builtin.into_iter().collect(),
            missing: closure.missing,
        };
        let json = serde_json::to_vec_pretty(&contents).expect("plain data has a JSON form");
        let path = dir.join(CONTENTS);
        fs::write(&path, json).map_err(at("write", &path))?;
        Ok::<(), Error>(())
    })
}

fn archive_of(manifest: &Manifest, closure: &modules::Closure) -> Archive {
    let mut archive = Archive::new();
    for directory in &manifest.directories {
        archive.directory(directory);
    }
    for device in &manifest.devices {
        archive.character_device(device);
    }
    let mut order = String::new();
    for module in &closure.modules {
        let file = format!("{}.ko", module.name);
        let depends = module.depends.join(",");
        let line = format!("{} {file} {depends}", module.name);
        writeln!(order, "{}", line.trim_end()).expect("a String takes all");
        archive.file(&format!("modules/{file}"), 0o644, &module.content);
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    let builtin: String = closure.builtin.iter().map(|name| format!("{name}\n")).collect();
    archive.file("modules/builtin", 0o644, builtin.as_bytes());
    archive
}

fn identity(program: &Path) -> Result<String, Error> {
    cache::identity(program).map_err(no_program(program))
}

fn no_program(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Program { path: path.to_owned(), source }
}

fn digest(text: &str) -> String {
    apt::hex(&Sha256::digest(text.as_bytes()))[..16].to_owned()
}

/// Removes images of binaries that were rebuilt long ago. Failing to is no reason to fail.
fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_file()
            && cache::is_older(&path, UNUSED)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old image");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
