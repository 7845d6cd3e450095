//! Kernel source from Debian's packages, unpacked in the cache.
//!
//! What is unpacked is never written to: trees that are built from it are hard links, and whoever
//! changes a file of such a tree puts a new one in its place.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use host::{
    apt::{self, Apt, DAY, Package, Suite, Validity},
    cache::{Cache, at, disk_full},
    progress::Progress,
    tools,
};

use crate::{
    Error,
    manifest::{Arch, Source},
    selection::{Choice, Chosen, Pick},
};

/// Room for an unpacked tree.
const UNPACKED: u64 = 1_800_000_000;

/// A kernel's source in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTree {
    /// The root of the tree.
    pub dir: PathBuf,
    /// The name in the cache, which says version and content.
    pub key: String,
    /// What the reader of a report must know, for example that the locked version has vanished.
    pub note: Option<String>,
}

/// The tree of `source`, from the cache or else from the mirror.
pub fn get(
    cache: &Cache,
    source: &Source,
    arch: Arch,
    options: &apt::Options,
    progress: &Progress,
) -> Result<SourceTree, Error> {
    let is_in_cache = |key: &str| cache.path(&place(key)).exists();
    let tree =
        |Chosen { key, note }| SourceTree { dir: cache.path(&place(&key)).join(TREE), key, note };
    if let Some(key) = locked_key(source).filter(|key| is_in_cache(key)) {
        return Ok(tree(Chosen { key, note: None }));
    }
    let choice = Choice { cache, name: &source.package, entry: source, options, progress };
    choice.make(is_in_cache, |apt| choose(cache, apt, source, arch, progress)).map(tree)
}

/// The key of the locked version, whether it is in the cache or not.
pub(crate) fn locked_key(source: &Source) -> Option<String> {
    source.lock.as_ref().map(|lock| key(&lock.name, &lock.version, &lock.sha256))
}

/// Where the tree is in its directory.
const TREE: &str = "linux";

fn place(key: &str) -> String {
    format!("sources/{key}")
}

fn key(package: &str, version: &str, sha256: &str) -> String {
    // A Debian version may have `:` and `~`, which make has no love for.
    let version = version.replace([':', '~'], "-");
    format!("{package}-{version}-{}", &sha256[..12])
}

fn choose(
    cache: &Cache,
    apt: &Apt,
    source: &Source,
    arch: Arch,
    progress: &Progress,
) -> Result<Pick, Error> {
    let mut notes = Vec::new();
    if let Some(lock) = &source.lock {
        for name in &source.suites {
            let pins = std::slice::from_ref(lock);
            if let Some((suite, packages)) = apt.find_pinned(name, arch.debian(), pins, progress)?
                && let Some(package) = packages.first()
            {
                return fetch(cache, &suite, package, progress).map(Pick::Locked);
            }
        }
        notes.push(format!(
            "the locked {} {} has left the mirror {}; update its lock in images/kernels.toml",
            lock.name,
            lock.version,
            apt.mirror()
        ));
    }
    let mut trouble = None;
    for name in &source.suites {
        match newest_in(apt, name, source, arch, progress) {
            Ok(Some((suite, package))) => {
                if !notes.is_empty() {
                    notes.push(format!("{} is used in its place", package.version));
                }
                let key = fetch(cache, &suite, &package, progress)?;
                let note = (!notes.is_empty()).then(|| notes.join("; "));
                return Ok(Pick::Newest(Chosen { key, note }));
            }
            Ok(None) => {}
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    Err(trouble.unwrap_or_else(|| Error::NoneSuitable {
        mirror: apt.mirror().to_owned(),
        flavour: "source of the".to_owned(),
        wanted: source.package.clone(),
        suites: source.suites.clone(),
    }))
}

fn newest_in(
    apt: &Apt,
    suite: &str,
    source: &Source,
    arch: Arch,
    progress: &Progress,
) -> Result<Option<(Suite, Package)>, Error> {
    let suite = apt.suite(suite, arch.debian(), Validity::Enforced)?;
    suite.refresh(DAY, progress)?;
    let mut newest: Option<Package> = None;
    for package in suite.show(&[&source.package])? {
        let is_newer = match &newest {
            Some(best) => {
                apt::compare_versions(&package.version, &best.version)? == Ordering::Greater
            }
            None => true,
        };
        if is_newer {
            newest = Some(package);
        }
    }
    Ok(newest.map(|package| (suite, package)))
}

/// Downloads and unpacks, unless the cache has it already; returns the key.
fn fetch(
    cache: &Cache,
    suite: &Suite,
    package: &Package,
    progress: &Progress,
) -> Result<String, Error> {
    let key = key(&package.name, &package.version, &package.sha256);
    let need = package.size * 2 + UNPACKED;
    cache.entry(&place(&key), need, progress, |dir| {
        let debs = dir.join("debs");
        fs::create_dir(&debs).map_err(at("make", &debs))?;
        let files = suite.download(std::slice::from_ref(package), &debs, progress)?;
        let mut task = progress.task(&format!("unpacking {}", package.name), None);
        let root = dir.join("root");
        for file in &files {
            apt::unpack(file, &root)?;
        }
        let archive = root.join(format!("usr/src/{}.tar.xz", package.name));
        untar(&archive, &dir.join(TREE), || task.alive())?;
        for left in [debs, root] {
            fs::remove_dir_all(&left).map_err(at("remove", &left))?;
        }
        task.done();
        Ok::<(), Error>(())
    })?;
    Ok(key)
}

/// Unpacks an archive with one directory in it as the directory `into`.
fn untar(archive: &Path, into: &Path, mut alive: impl FnMut()) -> Result<(), Error> {
    fs::create_dir(into).map_err(at("make", into))?;
    let mut command = Command::new("tar");
    command.arg("-xJf").arg(archive).arg("-C").arg(into).arg("--strip-components=1");
    let tick = std::time::Duration::from_millis(200);
    let output = tools::watch(&mut command, "tar", tick, |_| alive()).map_err(Error::Tool)?;
    if output.status.success() {
        return Ok(());
    }
    if output.text().contains("No space left on device") {
        return Err(disk_full(into, UNPACKED).into());
    }
    Err(Error::Tool(tools::failed(&command, &output)))
}
