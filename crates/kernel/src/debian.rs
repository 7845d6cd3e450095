//! Kernels from Debian's packages: which version, and into the cache with it.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Error, Kernel, STORED, Stored, existing,
    manifest::{Arch, Entry, LockedKernel, Manifest, Version},
    place, vmlinux,
};
use host::{
    apt::{self, Apt, DAY, Package, Pin, Suite, Validity},
    cache::{Cache, at},
    progress::Progress,
};

/// Room for an unpacked kernel beside its packages: modules, vmlinux, bzImage.
const UNPACKED: u64 = 300_000_000;

/// What was chosen for a name whose version the manifest does not fix, or no longer can.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Selection {
    /// The manifest's entry at that time: another entry means another choice.
    entry: Entry,
    /// The mirror asked for at that time.
    mirror: Option<String>,
    key: String,
    note: Option<String>,
}

/// The kernel called `name`, from the cache or else from the mirror.
///
/// A locked kernel that is in the cache costs reading two small files; neither apt nor the network
/// is needed.
pub fn named(
    cache: &Cache,
    manifest: &Manifest,
    name: &str,
    options: &apt::Options,
    progress: &Progress,
) -> Result<Kernel, Error> {
    let entry = manifest.get(name)?;
    if let Some(kernel) = cached(cache, manifest, name)? {
        return Ok(kernel);
    }
    let options = &options.clone().with_environment();
    let (earlier, is_recent) = match earlier(cache, name, entry, options) {
        Some((selection, age)) => (Some(selection), age < DAY),
        None => (None, false),
    };
    if let Some(selection) = &earlier
        && is_recent
        && let Some(kernel) = Kernel::cached(cache, name, &selection.key)?
    {
        return Ok(Kernel { note: selection.note.clone(), ..kernel });
    }
    let chosen = Apt::open(cache, options)
        .map_err(Error::from)
        .and_then(|apt| choose(cache, &apt, name, entry, options, progress));
    match (chosen, earlier) {
        (Ok(kernel), _) => Ok(kernel),
        // Without the network, what was the newest some days ago is better than nothing.
        (Err(error), Some(selection)) => match Kernel::cached(cache, name, &selection.key)? {
            Some(kernel) => {
                let note =
                    format!("{name} is as found earlier, no newer one was looked at: {error}");
                progress.note(&note);
                let note =
                    selection.note.map_or(note.clone(), |earlier| format!("{earlier}; {note}"));
                Ok(Kernel { note: Some(note), ..kernel })
            }
            None => Err(error),
        },
        (Err(error), None) => Err(error),
    }
}

/// The locked kernel called `name` if the cache has it. Never touches the network.
pub fn cached(cache: &Cache, manifest: &Manifest, name: &str) -> Result<Option<Kernel>, Error> {
    match &manifest.get(name)?.lock {
        Some(lock) => Kernel::cached(cache, name, &key(&lock.release, &lock.packages)),
        None => Ok(None),
    }
}

/// The earlier selection for an unchanged entry, and its age.
fn earlier(
    cache: &Cache,
    name: &str,
    entry: &Entry,
    options: &apt::Options,
) -> Option<(Selection, Duration)> {
    let path = cache.path(&selection_file(name));
    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
    // A clock set back makes it look new-born in the future: then look again.
    let age = SystemTime::now().duration_since(modified).unwrap_or(DAY);
    let selection: Selection = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    (selection.entry == *entry && selection.mirror == options.mirror).then_some((selection, age))
}

fn selection_file(name: &str) -> String {
    format!("selections/{name}.json")
}

/// Fetches what the entry asks for.
fn choose(
    cache: &Cache,
    apt: &Apt,
    name: &str,
    entry: &Entry,
    options: &apt::Options,
    progress: &Progress,
) -> Result<Kernel, Error> {
    let mut notes = Vec::new();
    if let Some(lock) = &entry.lock {
        if let Some(key) = fetch_locked(cache, apt, entry, lock, progress)? {
            return in_cache(cache, name, &key, None);
        }
        let version = lock.packages.first().map_or("", |pin| pin.version.as_str());
        notes.push(format!(
            "the locked kernel {} ({version}) has left the mirror {}",
            lock.release,
            apt.mirror()
        ));
    }
    let found = newest(apt, entry, &mut notes, progress)?;
    if entry.lock.is_some() {
        notes.push(format!(
            "{} is used in its place; update the lock of {name} in images/kernels.toml",
            found.release
        ));
    }
    let key = fetch(cache, &found, entry.arch, progress)?;
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    if let Some(note) = &note {
        progress.note(&format!("NOTE: {note}"));
    }
    let mirror = options.mirror.clone();
    let selection =
        Selection { entry: entry.clone(), mirror, key: key.clone(), note: note.clone() };
    let json = serde_json::to_vec_pretty(&selection).expect("plain data has a JSON form");
    cache.write(&selection_file(name), &json)?;
    in_cache(cache, name, &key, note)
}

fn in_cache(cache: &Cache, name: &str, key: &str, note: Option<String>) -> Result<Kernel, Error> {
    let vanished = || Error::Damaged {
        dir: cache.path(&place(key)),
        detail: "it was removed while in use".to_owned(),
    };
    let kernel = Kernel::cached(cache, name, key)?.ok_or_else(vanished)?;
    Ok(Kernel { note, ..kernel })
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
    entry: &Entry,
    lock: &LockedKernel,
    progress: &Progress,
) -> Result<Option<String>, Error> {
    let mut trouble = None;
    for suite in &entry.suites {
        let fetched = apt
            .find_pinned(suite, entry.arch.debian(), &lock.packages, progress)
            .map_err(Error::from)
            .and_then(|found| {
                let Some((suite, packages)) = found else { return Ok(None) };
                let found = Found { suite, release: lock.release.clone(), packages };
                fetch(cache, &found, entry.arch, progress).map(Some)
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
    entry: &Entry,
    notes: &mut Vec<String>,
    progress: &Progress,
) -> Result<Found, Error> {
    let series = entry.lock.as_ref().and_then(|lock| Version::of_release(&lock.release));
    let mut best: Option<(Version, Found)> = None;
    let mut trouble = Vec::new();
    for name in &entry.suites {
        match newest_in(apt, name, entry, series, progress) {
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
    if let Some(error) = trouble.into_iter().next() {
        return Err(error);
    }
    let wanted = match series {
        Some(series) => format!("{}.{} (≥ {})", series.major, series.minor, entry.minimum),
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
    entry: &Entry,
    series: Option<Version>,
    progress: &Progress,
) -> Result<Option<(Version, Found)>, Error> {
    let suite = apt.suite(suite, entry.arch.debian(), Validity::Enforced)?;
    suite.refresh(DAY, progress)?;
    let names = suite.search(&format!("^linux-binary-(unsigned-)?[0-9].*-{}$", entry.flavour))?;
    let mut releases: Vec<(Version, &str)> = names
        .iter()
        .filter_map(|name| {
            let rest = name.strip_prefix("linux-binary-")?;
            let release = rest.strip_prefix("unsigned-").unwrap_or(rest);
            Some((Version::of_release(release)?, release))
        })
        .filter(|(version, _)| *version >= entry.minimum)
        .filter(|(version, _)| series.is_none_or(|series| version.is_same_series(series)))
        .collect();
    releases.sort_unstable();
    releases.dedup();
    for (version, release) in releases.into_iter().rev() {
        if let Some(packages) = packages_of(&suite, release)? {
            let found = Found { suite, release: release.to_owned(), packages };
            return Ok(Some((version, found)));
        }
    }
    Ok(None)
}

/// The packages that make up a release: image (the signed one if there is one), modules, and since
/// 7.2 the package with the configuration. `None` if the suite has only part of it.
fn packages_of(suite: &Suite, release: &str) -> Result<Option<Vec<Package>>, Error> {
    let names = ["binary", "binary-unsigned", "modules", "base"]
        .map(|part| format!("linux-{part}-{release}"));
    let shown = suite.show(&names)?;
    let get = |name: &str| shown.iter().find(|package| package.name == name).cloned();
    let image = get(&names[0]).or_else(|| get(&names[1]));
    let (Some(image), Some(modules)) = (image, get(&names[2])) else { return Ok(None) };
    Ok(Some([image, modules].into_iter().chain(get(&names[3])).collect()))
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
        let stored = Stored { release: found.release.clone(), arch, packages: pins };
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
