//! A QEMU of Debian's packages, unpacked in the cache and used from there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, FIRMWARE, PACKAGES, PROGRAM, Qemu, version_of};
use host::{
    apt::{self, Apt, Package, Pin, Suite, Validity},
    cache::{self, Cache, at},
    progress::Progress,
    tools,
};

/// `images/qemu.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The oldest version that will do.
    minimum: String,
    /// The suite with the packages.
    suite: String,
    /// The suite with libraries the host may lack.
    library_suite: String,
    /// The exact packages.
    lock: Locked,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Locked {
    /// Debian architecture of the host they are for.
    arch: String,
    packages: Vec<Pin>,
}

/// `qemu.json` in the directory of a fetched QEMU; paths are relative to that directory, so that
/// the cache can be moved.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    package_version: String,
    version: (u32, u32, u32),
    library_dir: Option<PathBuf>,
    note: Option<String>,
}

const STORED: &str = "qemu.json";
const BINARY: &str = "root/usr/bin/qemu-system-x86_64";
const DATA_DIR: &str = "root/usr/share/qemu";
/// Room for the unpacked packages and libraries.
const UNPACKED: u64 = 250_000_000;
/// How far dependencies of dependencies are followed for missing libraries.
const LIBRARY_ROUNDS: usize = 4;

impl Manifest {
    /// Reads `images/qemu.toml` of a checkout.
    pub fn read(checkout: &Path) -> Result<Manifest, Error> {
        let path = checkout.join("images/qemu.toml");
        let manifest = |detail: String| Error::Manifest { path: path.clone(), detail };
        let text = fs::read_to_string(&path).map_err(|error| manifest(error.to_string()))?;
        toml::from_str(&text).map_err(|error| manifest(error.to_string()))
    }

    fn locked_place(&self) -> String {
        place(&self.lock.packages)
    }
}

fn place(pins: &[Pin]) -> String {
    let hashes: String = pins.iter().map(|pin| pin.sha256.as_str()).collect();
    format!("qemu/{}", &apt::hex(&Sha256::digest(hashes.as_bytes()))[..12])
}

/// A QEMU that reconnects: the host's if it is new enough, else from the cache, else fetched.
pub fn reconnecting(
    host: &Qemu,
    cache: &Cache,
    manifest: &Manifest,
    options: &apt::Options,
    progress: &Progress,
) -> Result<Qemu, Error> {
    if host.can_reconnect() {
        return Ok(host.clone());
    }
    if let Some(qemu) = cached(cache, manifest)? {
        return Ok(qemu);
    }
    let apt = Apt::open(cache, options)?;
    let (suite, packages, note) = choose(&apt, manifest, progress)?;
    if let Some(note) = &note {
        progress.note(&format!("NOTE: {note}"));
    }
    let size: u64 = packages.iter().map(|package| package.size).sum();
    let pins: Vec<Pin> = packages.iter().map(Package::pin).collect();
    let dir = cache.entry(&place(&pins), size + UNPACKED, progress, |dir| {
        fill(dir, &apt, manifest, &suite, &packages, note, progress)
    })?;
    load(&dir)
}

/// A fetched QEMU that is already in the cache; the locked one before any other.
pub fn cached(cache: &Cache, manifest: &Manifest) -> Result<Option<Qemu>, Error> {
    let locked = cache.path(&manifest.locked_place());
    if locked.exists() {
        return load(&locked).map(Some);
    }
    let Ok(entries) = fs::read_dir(cache.path("qemu")) else { return Ok(None) };
    entries.flatten().next().map(|entry| load(&entry.path())).transpose()
}

fn load(dir: &Path) -> Result<Qemu, Error> {
    let path = dir.join(STORED);
    let damaged = |detail: String| Error::Unusable {
        version: "in the cache".to_owned(),
        detail: format!(
            "{}: {detail} (remove {} to fetch it again)",
            path.display(),
            dir.display()
        ),
    };
    let json = fs::read(&path).map_err(|error| damaged(error.to_string()))?;
    let stored: Stored =
        serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    Ok(Qemu {
        binary: dir.join(BINARY),
        version: stored.version,
        data_dir: Some(dir.join(DATA_DIR)),
        library_dir: stored.library_dir.map(|library_dir| dir.join(library_dir)),
        qboot: dir.join(DATA_DIR).join(FIRMWARE),
        note: stored.note,
    })
}

/// The locked packages, or the suite's newest if they have left the mirror.
fn choose(
    apt: &Apt,
    manifest: &Manifest,
    progress: &Progress,
) -> Result<(Suite, Vec<Package>, Option<String>), Error> {
    let output = tools::check(Command::new("dpkg").arg("--print-architecture"), "dpkg")?;
    let arch = output.stdout.trim();
    let lock = &manifest.lock;
    if arch == lock.arch
        && let Some((suite, packages)) =
            apt.find_pinned(&manifest.suite, arch, &lock.packages, progress)?
    {
        return Ok((suite, packages, None));
    }
    let suite = apt.suite(&manifest.suite, arch, Validity::Enforced)?;
    suite.refresh(apt::DAY, progress)?;
    let shown = suite.show(&PACKAGES)?;
    // apt-cache shows the newest version of a package first.
    let newest: Vec<Package> = PACKAGES
        .iter()
        .filter_map(|name| shown.iter().find(|package| package.name == *name).cloned())
        .collect();
    let is_enough = |package: &Package| {
        // QEMU's packages have the epoch 1.
        let minimum = format!("1:{}~", manifest.minimum);
        Ok::<bool, apt::Error>(apt::compare_versions(&package.version, &minimum)?.is_gt())
    };
    match newest.first() {
        Some(package) if newest.len() == PACKAGES.len() && is_enough(package)? => {
            let note = format!("QEMU {} is not the locked version", package.version);
            Ok((suite, newest, Some(note)))
        }
        _ => Err(suite.no_such_package(format!("{} ≥ {}", PACKAGES[0], manifest.minimum)).into()),
    }
}

/// Downloads, unpacks, adds missing libraries, and proves that it runs here.
fn fill(
    dir: &Path,
    apt: &Apt,
    manifest: &Manifest,
    suite: &Suite,
    packages: &[Package],
    note: Option<String>,
    progress: &Progress,
) -> Result<(), Error> {
    let root = dir.join("root");
    fetch_into(&root, dir, suite, packages, progress)?;
    let package_version = packages.first().map(|p| p.version.clone()).unwrap_or_default();
    let library_dir = add_libraries(dir, apt, manifest, suite, packages, progress)?;

    let unusable = |detail: String| Error::Unusable { version: package_version.clone(), detail };
    let mut qemu = Qemu {
        binary: dir.join(BINARY),
        version: (0, 0, 0),
        data_dir: Some(dir.join(DATA_DIR)),
        library_dir: library_dir.as_ref().map(|library_dir| dir.join(library_dir)),
        qboot: dir.join(DATA_DIR).join(FIRMWARE),
        note: note.clone(),
    };
    qemu.version = version_of(qemu.command(), &qemu.binary).map_err(|e| unusable(e.to_string()))?;
    if !qemu.can_reconnect() {
        return Err(unusable(format!("it says it is {}", super::dotted(qemu.version))));
    }
    let mut command = qemu.command();
    command.args(["-machine", "none", "-device", "vhost-user-scsi-pci,help"]);
    let output = tools::run(&mut command, PACKAGES[0])?;
    if !output.status.success() || !output.stdout.contains("chardev") {
        return Err(unusable(format!("no vhost-user-scsi-pci device: {}", output.text().trim())));
    }
    if !qemu.qboot.exists() {
        return Err(unusable(format!("its packages have no {FIRMWARE}")));
    }

    let stored = Stored { package_version, version: qemu.version, library_dir, note };
    let json = serde_json::to_vec_pretty(&stored).expect("plain data has a JSON form");
    let path = dir.join(STORED);
    fs::write(&path, json).map_err(at("write", &path))?;
    progress.note(&format!("fetched QEMU {} ({PROGRAM})", super::dotted(qemu.version)));
    Ok(())
}

/// Downloads `packages` and unpacks them into `root`.
fn fetch_into(
    root: &Path,
    dir: &Path,
    suite: &Suite,
    packages: &[Package],
    progress: &Progress,
) -> Result<(), Error> {
    let debs = dir.join("debs");
    fs::create_dir(&debs).map_err(at("make", &debs))?;
    for file in suite.download(packages, &debs, progress)? {
        apt::unpack(&file, root)?;
    }
    fs::remove_dir_all(&debs).map_err(at("remove", &debs))?;
    Ok(())
}

/// Adds libraries the host lacks, from QEMU's dependencies. Returns their directory, relative to
/// `dir`, if any was needed.
fn add_libraries(
    dir: &Path,
    apt: &Apt,
    manifest: &Manifest,
    suite: &Suite,
    packages: &[Package],
    progress: &Progress,
) -> Result<Option<PathBuf>, Error> {
    if missing_libraries(&dir.join(BINARY), None)?.is_empty() {
        return Ok(None);
    }
    let library_suite = apt.suite(&manifest.library_suite, suite.arch(), Validity::Enforced)?;
    library_suite.refresh(apt::DAY, progress)?;
    let root = dir.join("libraries");
    let mut seen = BTreeSet::new();
    let mut wanted: BTreeSet<String> =
        packages.iter().flat_map(|package| libraries_in(&package.depends)).collect();
    for _ in 0..LIBRARY_ROUNDS {
        wanted.retain(|name| seen.insert(name.clone()));
        let names: Vec<&String> = wanted.iter().collect();
        let mut found = library_suite.show(&names)?;
        found.dedup_by(|later, first| later.name == first.name);
        fetch_into(&root, dir, &library_suite, &found, progress)?;
        // Debian puts libraries into one directory for each architecture.
        let library_dir = multiarch_dir(&root)?;
        let missing = missing_libraries(&dir.join(BINARY), Some(&library_dir))?;
        if missing.is_empty() {
            let relative = library_dir.strip_prefix(dir).map(Path::to_owned);
            return Ok(Some(relative.expect("it is under dir")));
        }
        wanted = found.iter().flat_map(|package| libraries_in(&package.depends)).collect();
    }
    Err(Error::Unusable {
        version: packages.first().map(|p| p.version.clone()).unwrap_or_default(),
        detail: format!(
            "missing libraries: {}",
            missing_libraries(&dir.join(BINARY), multiarch_dir(&root).ok().as_deref())?.join(", ")
        ),
    })
}

fn multiarch_dir(root: &Path) -> Result<PathBuf, cache::Error> {
    let lib = root.join("usr/lib");
    let entries = fs::read_dir(&lib).map_err(at("read", &lib))?;
    let dirs = entries.flatten().map(|entry| entry.path());
    Ok(dirs.into_iter().find(|dir| dir.to_string_lossy().ends_with("-linux-gnu")).unwrap_or(lib))
}

/// The names of library packages in a `Depends` field, the first of each alternative. The C library
/// is the host's in any case: it belongs to the dynamic linker.
fn libraries_in(depends: &str) -> Vec<String> {
    depends
        .split(',')
        .filter_map(|item| item.split('|').next()?.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name))
        .filter(|name| name.starts_with("lib") || *name == "zlib1g")
        .filter(|name| !matches!(*name, "libc6" | "libgcc-s1" | "libstdc++6"))
        .map(str::to_owned)
        .collect()
}

/// What the dynamic linker does not find for `binary`.
fn missing_libraries(binary: &Path, library_dir: Option<&Path>) -> Result<Vec<String>, Error> {
    let mut command = Command::new("ldd");
    command.arg(binary);
    if let Some(library_dir) = library_dir {
        command.env("LD_LIBRARY_PATH", library_dir);
    }
    let output = tools::run(&mut command, "libc-bin")?;
    Ok(not_found(&output.stdout))
}

/// The names in lines such as `libslirp.so.0 => not found`.
fn not_found(ldd: &str) -> Vec<String> {
    let lines = ldd.lines().filter_map(|line| line.split_once(" => not found"));
    lines.map(|(name, _)| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_in_manifest_is_valid() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let manifest = Manifest::read(&checkout).expect("images/qemu.toml");
        let names: Vec<&str> = manifest.lock.packages.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["qemu-system-x86", "qemu-system-data"]);
        assert_eq!(manifest.minimum, "8.2");
    }

    #[test]
    fn library_packages_are_the_first_alternatives_without_the_c_library() {
        let depends = "libaio1 (>= 0.3.93), libc6 (>= 2.34), zlib1g (>= 1:1.2.0), seabios, \
                       libslirp0:any | libslirp1";
        assert_eq!(libraries_in(depends), ["libaio1", "zlib1g", "libslirp0"]);
    }

    #[test]
    fn missing_libraries_are_those_not_found() {
        let ldd = "\tlinux-vdso.so.1 (0x1)\n\tlibslirp.so.0 => not found\n\
                   \tlibz.so.1 => /lib/libz.so.1 (0x2)\n\tlibfdt.so.1 => not found\n";
        assert_eq!(not_found(ldd), ["libslirp.so.0", "libfdt.so.1"]);
    }
}
