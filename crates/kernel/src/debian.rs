//! Kernels from Debian's packages: which version, and into the cache with it.

pub mod debug;

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use super::{
    Error, Kernel, STORED, Stored, existing,
    manifest::{Arch, LockedKernel, Packages, Version},
    place,
    selection::{Choice, Chosen, Pick},
    vmlinux,
};
use host::{
    apt::{self, Apt, DAY, Package, Pin, Suite, Validity},
    cache::{Cache, at},
    progress::Progress,
};

/// Room for an unpacked kernel beside its packages: modules, vmlinux, bzImage.
const UNPACKED: u64 = 300_000_000;

/// A packaged kernel of the manifest, and where it may come from.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name in the manifest.
    pub name: &'a str,
    /// The guest's architecture.
    pub arch: Arch,
    /// Which packages.
    pub entry: &'a Packages,
    /// Where packages come from.
    pub options: &'a apt::Options,
}

/// The kernel from the cache or else from the mirror.
///
/// A locked kernel that is in the cache costs reading two small files; neither apt nor the network
/// is needed.
pub fn get(cache: &Cache, wanted: Wanted<'_>, progress: &Progress) -> Result<Kernel, Error> {
    let Wanted { name, entry, options, .. } = wanted;
    if let Some(kernel) = cached(cache, name, entry)? {
        return Ok(kernel);
    }
    let choice = Choice { cache, name, entry, options, progress };
    let is_in_cache = |key: &str| cache.path(&place(key)).exists();
    let Chosen { key, note } =
        choice.make(is_in_cache, |apt| choose(cache, apt, wanted, progress))?;
    let vanished = || Error::Damaged {
        dir: cache.path(&place(&key)),
        detail: "it was removed while in use".to_owned(),
    };
    let kernel = Kernel::cached(cache, name, &key)?.ok_or_else(vanished)?;
    Ok(Kernel { note, ..kernel })
}

/// The locked kernel called `name` if the cache has it. Never touches the network.
pub fn cached(cache: &Cache, name: &str, entry: &Packages) -> Result<Option<Kernel>, Error> {
    match &entry.lock {
        Some(lock) => Kernel::cached(cache, name, &key(&lock.release, &lock.packages)),
        None => Ok(None),
    }
}

/// Fetches what the entry asks for.
fn choose(
    cache: &Cache,
    apt: &Apt,
    wanted: Wanted<'_>,
    progress: &Progress,
) -> Result<Pick, Error> {
    let Wanted { name, arch, entry, .. } = wanted;
    let mut notes = Vec::new();
    if let Some(lock) = &entry.lock {
        if let Some(key) = fetch_locked(cache, apt, wanted, lock, progress)? {
            return Ok(Pick::Locked(key));
        }
        let version = lock.packages.first().map_or("", |pin| pin.version.as_str());
        notes.push(format!(
            "the locked kernel {} ({version}) has left the mirror {}",
            lock.release,
            apt.mirror()
        ));
    }
    let found = newest(apt, arch, entry, &mut notes, progress)?;
    if entry.lock.is_some() {
        notes.push(format!(
            "{} is used in its place; update the lock of {name} in images/kernels.toml",
            found.release
        ));
    }
    let key = fetch(cache, &found, arch, progress)?;
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Pick::Newest(Chosen { key, note }))
}

/// Packages of one release, and the suite that has them.
#[derive(Debug)]
struct Found {
    suite: Suite,
    release: String,
    packages: Vec<Package>,
}

/// Fetches exactly the locked packages. `None`: the mirror answers, and no longer has them.
fn fetch_locked(
    cache: &Cache,
    apt: &Apt,
    wanted: Wanted<'_>,
    lock: &LockedKernel,
    progress: &Progress,
) -> Result<Option<String>, Error> {
    let arch = wanted.arch;
    let mut trouble = None;
    for suite in &wanted.entry.suites {
        let fetched = apt
            .find_pinned(suite, arch.debian(), &lock.packages, progress)
            .map_err(Error::from)
            .and_then(|found| {
                let Some((suite, packages)) = found else { return Ok(None) };
                let found = Found { suite, release: lock.release.clone(), packages };
                fetch(cache, &found, arch, progress).map(Some)
            });
        match fetched {
            Ok(Some(key)) => return Ok(Some(key)),
            // Listed by an old index only.
            Ok(None) | Err(Error::Apt(apt::Error::NoSuchPackage { .. })) => {}
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    trouble.map_or(Ok(None), Err)
}

/// The newest kernel that fits the entry (and, where one is locked, its series), in the first suite
/// that has it. A suite that cannot be read becomes a note, unless none can.
fn newest(
    apt: &Apt,
    arch: Arch,
    entry: &Packages,
    notes: &mut Vec<String>,
    progress: &Progress,
) -> Result<Found, Error> {
    let locked = entry.lock.as_ref().and_then(|lock| Version::of_release(&lock.release));
    let locked = locked.map(Version::series);
    let series = entry.series.or(locked);
    let mut best: Option<(Version, Found)> = None;
    let mut trouble = Vec::new();
    for name in &entry.suites {
        match newest_in(apt, name, arch, entry, series, progress) {
            Ok(Some((version, found))) => {
                if best.as_ref().is_none_or(|(newest, _)| version > *newest) {
                    best = Some((version, found));
                }
            }
            Ok(None) => {}
            Err(error) => {
                notes.push(format!("suite {name} is left out: {error}"));
                trouble.push(error);
            }
        }
    }
    if let Some((_, found)) = best {
        return Ok(found);
    }
    // Of what the other suites have nothing is known only if there is no other.
    if trouble.len() == entry.suites.len()
        && let Some(error) = trouble.into_iter().next()
    {
        return Err(error);
    }
    let wanted = match series {
        Some(series) => format!("{series} (≥ {})", entry.minimum),
        None => format!("≥ {}", entry.minimum),
    };
    Err(Error::NoneSuitable {
        mirror: apt.mirror().to_owned(),
        flavour: entry.flavour.clone(),
        wanted,
        suites: entry.suites.clone(),
    })
}

fn newest_in(
    apt: &Apt,
    suite: &str,
    arch: Arch,
    entry: &Packages,
    series: Option<Version>,
    progress: &Progress,
) -> Result<Option<(Version, Found)>, Error> {
    let suite = apt.suite(suite, arch.debian(), Validity::Enforced)?;
    suite.refresh(DAY, progress)?;
    for (version, release) in releases(&suite, entry, series)?.into_iter().rev() {
        if let Some(packages) = packages_of(&suite, &release)? {
            return Ok(Some((version, Found { suite, release, packages })));
        }
    }
    Ok(None)
}

/// The releases a suite names, the oldest first. Of some it may not have everything.
fn releases(
    suite: &Suite,
    entry: &Packages,
    series: Option<Version>,
) -> Result<Vec<(Version, String)>, Error> {
    let pattern = format!("^linux-(binary|image)-(unsigned-)?[0-9].*-{}$", entry.flavour);
    let names = suite.search(&pattern)?;
    let mut releases: Vec<(Version, String)> = names
        .iter()
        .filter_map(|name| {
            let rest = name.strip_prefix("linux-binary-").or(name.strip_prefix("linux-image-"))?;
            let release = rest.strip_prefix("unsigned-").unwrap_or(rest);
            Some((Version::of_release(release)?, release.to_owned()))
        })
        .filter(|(version, _)| *version >= entry.minimum)
        .filter(|(version, _)| series.is_none_or(|series| version.is_of(series)))
        .collect();
    releases.sort_unstable();
    releases.dedup();
    Ok(releases)
}

/// The versions of which the mirror has everything, the oldest first. Suites that cannot be read are
/// left out, and told.
pub fn versions(
    cache: &Cache,
    wanted: Wanted<'_>,
    progress: &Progress,
) -> Result<Vec<Version>, Error> {
    let apt = Apt::open(cache, wanted.options)?;
    let mut versions = Vec::new();
    for name in &wanted.entry.suites {
        let suite = apt.suite(name, wanted.arch.debian(), Validity::Enforced)?;
        if let Err(error) = suite.refresh(DAY, progress) {
            progress.note(&format!("suite {name} is left out: {error}"));
            continue;
        }
        for (version, release) in releases(&suite, wanted.entry, wanted.entry.series)? {
            if packages_of(&suite, &release)?.is_some() {
                versions.push(version);
            }
        }
    }
    versions.sort_unstable();
    versions.dedup();
    Ok(versions)
}

/// The packages that make up a release, the signed image if there is one. Since 7.0 there are image
/// and modules, since 7.2 also one with the configuration; before, all is in one package. `None` if the
/// suite has only part of it.
fn packages_of(suite: &Suite, release: &str) -> Result<Option<Vec<Package>>, Error> {
    let parts = ["binary", "binary-unsigned", "modules", "base", "image", "image-unsigned"];
    let names = parts.map(|part| format!("linux-{part}-{release}"));
    let shown = suite.show(&names)?;
    let get = |name: &String| shown.iter().find(|package| package.name == *name).cloned();
    let [binary, unsigned, modules, base, whole, whole_unsigned] = names.each_ref().map(get);
    Ok(match (binary.or(unsigned), modules, whole.or(whole_unsigned)) {
        (Some(image), Some(modules), _) => Some([image, modules].into_iter().chain(base).collect()),
        // Beside the split packages, one of this name holds nothing and depends on them.
        (None, None, Some(whole)) => Some(vec![whole]),
        _ => None,
    })
}

/// The name in the cache: release and content, so that a rebuilt package is another kernel.
fn key(release: &str, packages: &[Pin]) -> String {
    let mut hashes: Vec<&str> = packages.iter().map(|pin| pin.sha256.as_str()).collect();
    hashes.sort_unstable();
    let digest = apt::hex(&Sha256::digest(hashes.concat().as_bytes()));
    format!("{release}-{}", &digest[..12])
}

/// Downloads and unpacks, unless the cache has it already; returns the key.
fn fetch(cache: &Cache, found: &Found, arch: Arch, progress: &Progress) -> Result<String, Error> {
    let pins: Vec<Pin> = found.packages.iter().map(Package::pin).collect();
    let key = key(&found.release, &pins);
    let download: u64 = found.packages.iter().map(|package| package.size).sum();
    cache.entry(&place(&key), download + UNPACKED, progress, |dir| {
        let debs = dir.join("debs");
        fs::create_dir(&debs).map_err(at("make", &debs))?;
        let files = found.suite.download(&found.packages, &debs, progress)?;
        let task = progress.task(&format!("unpacking kernel {}", found.release), None);
        let root = dir.join("root");
        for file in &files {
            apt::unpack(file, &root)?;
        }
        arrange(&root, dir, &found.release)?;
        for left in [debs, root] {
            fs::remove_dir_all(&left).map_err(at("remove", &left))?;
        }
        let stored = Stored { release: found.release.clone(), arch, packages: pins, built: None };
        let json = serde_json::to_vec_pretty(&stored).expect("plain data has a JSON form");
        let path = dir.join(STORED);
        fs::write(&path, json).map_err(at("write", &path))?;
        task.done();
        Ok::<(), Error>(())
    })?;
    Ok(key)
}

/// Moves what is needed from the unpacked packages in `root` to its place in `dir`: `vmlinux`,
/// `config`, `modules`.
fn arrange(root: &Path, dir: &Path, release: &str) -> Result<(), Error> {
    let find = |what, candidates: &[String]| {
        existing(root, candidates).ok_or(Error::Layout { release: release.to_owned(), what })
    };
    let merged = format!("usr/lib/modules/{release}");
    let candidates = [
        format!("{merged}/vmlinuz"),
        format!("{merged}/vmlinuz.unsigned"),
        format!("boot/vmlinuz-{release}"),
    ];
    let image = find("vmlinuz", &candidates)?;
    let config = find("config", &[format!("{merged}/config"), format!("boot/config-{release}")])?;
    let modules =
        find("modules", &[format!("{merged}/kernel"), format!("lib/modules/{release}/kernel")])?;

    let bytes = fs::read(&image).map_err(at("read", &image))?;
    let elf = vmlinux::extract(&bytes)
        .map_err(|source| Error::Image { release: release.to_owned(), source })?;
    let path = dir.join("vmlinux");
    fs::write(&path, elf).map_err(at("write", &path))?;
    let path = dir.join("config");
    fs::rename(&config, &path).map_err(at("move", &path))?;
    fs::remove_file(&image).map_err(at("remove", &image))?;
    let modules = modules.parent().unwrap_or(root);
    fs::rename(modules, dir.join("modules")).map_err(at("move", modules))?;
    Ok(())
}

#[cfg(test)]
mod tests;
