//! Debian packages of any suite, without root and without touching the host's own apt.
//!
//! Each suite gets a private root in the cache: its own configuration, source list, index and (empty)
//! installation status. apt does what it is good at: mirrors, proxies, signatures, checksums. From
//! the host come only the mirror, the keyring and the network settings.
//!
//! Nothing here installs anything: a package is downloaded, checked and unpacked.

mod error;
#[cfg(any(test, feature = "fakes"))]
pub mod fake;
mod host;

use std::{
    cmp::Ordering,
    collections::HashMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::error::Error;
pub use self::host::os_release_value;
use crate::{
    cache::{Cache, at},
    progress::Progress,
    tools,
};

/// The environment's way of `--mirror`.
pub const MIRROR_ENV: &str = "SENSECHECK_MIRROR";
/// A keyring file to check signatures with, instead of the host's Debian keyring.
pub const KEYRING_ENV: &str = "SENSECHECK_KEYRING";

/// Where to get packages from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A Debian mirror's URL; `None` takes `$SENSECHECK_MIRROR`, then the host's own.
    pub mirror: Option<String>,
    /// The keyring; `None` takes `$SENSECHECK_KEYRING`, then the host's Debian keyring.
    pub keyring: Option<PathBuf>,
}

impl Options {
    /// Fills in what the environment says, for all that is not given.
    pub fn with_environment(mut self) -> Options {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.mirror = self.mirror.or_else(|| set(MIRROR_ENV));
        self.keyring = self.keyring.or_else(|| set(KEYRING_ENV).map(PathBuf::from));
        self
    }
}

/// A package as a suite's index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// SHA-256 of the `.deb`, in lower-case hexadecimal.
    pub sha256: String,
    /// The `Depends` field, empty if absent.
    pub depends: String,
}

impl Package {
    /// What pins this version with this content.
    pub fn pin(&self) -> Pin {
        Pin { name: self.name.clone(), version: self.version.clone(), sha256: self.sha256.clone() }
    }
}

/// A package in exactly one version with exactly one content, as a file under `images/` pins it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pin {
    /// Name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// SHA-256 of the `.deb`, in lower-case hexadecimal.
    pub sha256: String,
}

/// Whether an index past its `Valid-Until` date may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// No: an old index could hide newer versions.
    Enforced,
    /// Yes: what is taken from it is pinned by SHA-256, so its age does not matter. The signature
    /// is checked all the same.
    Pinned,
}

/// A Debian mirror and the keys to trust.
#[derive(Clone, Debug)]
pub struct Apt {
    cache: Cache,
    mirror: String,
    keyring: PathBuf,
}

impl Apt {
    /// Finds apt, the mirror and the keyring. Touches no network.
    pub fn open(cache: &Cache, options: &Options) -> Result<Apt, Error> {
        if tools::find("apt-get").is_none() || tools::find("dpkg-deb").is_none() {
            return Err(Error::NoApt);
        }
        let options = options.clone().with_environment();
        let keyring = host::keyring(options.keyring.as_deref())?;
        let mirror = match &options.mirror {
            Some(mirror) => mirror.trim_end_matches('/').to_owned(),
            None => host::mirror()?,
        };
        Ok(Apt { cache: cache.clone(), mirror, keyring })
    }

    /// The mirror's URL.
    pub fn mirror(&self) -> &str {
        &self.mirror
    }

    /// The keyring in use.
    pub fn keyring(&self) -> &Path {
        &self.keyring
    }

    /// The suite and its packages that `pins` name, all of them; `None` if the mirror answers and
    /// does not have them all (any longer).
    ///
    /// Any index that lists them will do, however old: their content is pinned.
    pub fn find_pinned(
        &self,
        suite: &str,
        arch: &str,
        pins: &[Pin],
        progress: &Progress,
    ) -> Result<Option<(Suite, Vec<Package>)>, Error> {
        let mut suite = self.suite(suite, arch, Validity::Enforced)?;
        for max_age in [Duration::MAX, MOMENT] {
            match suite.refresh(max_age, progress) {
                Err(Error::Expired { .. }) => {
                    suite = self.suite(suite.suite(), arch, Validity::Pinned)?;
                    suite.refresh(max_age, progress)?;
                }
                refreshed => refreshed?,
            }
            let mut packages = Vec::new();
            for pin in pins {
                packages.extend(suite.pinned(pin)?);
            }
            if packages.len() == pins.len() {
                return Ok(Some((suite, packages)));
            }
        }
        Ok(None)
    }

    /// One suite (`trixie-backports`, `sid`) for one of Debian's architectures (`amd64`).
    pub fn suite(&self, suite: &str, arch: &str, validity: Validity) -> Result<Suite, Error> {
        let origin = format!("{}\n{}", self.mirror, self.keyring.display());
        let tag = hex(&Sha256::digest(origin.as_bytes()))[..8].to_owned();
        let pinned = if validity == Validity::Pinned { "-pinned" } else { "" };
        let name = format!("apt/{suite}-{arch}-{tag}{pinned}");
        let suite = Suite {
            cache: self.cache.clone(),
            root: self.cache.path(&name),
            name,
            suite: suite.to_owned(),
            arch: arch.to_owned(),
            mirror: self.mirror.clone(),
        };
        suite.write_configuration(&self.keyring, validity)?;
        Ok(suite)
    }
}

/// One suite of a mirror, with its private root.
#[derive(Clone, Debug)]
pub struct Suite {
    cache: Cache,
    /// Relative to the cache; also the lock's name.
    name: String,
    root: PathBuf,
    suite: String,
    arch: String,
    mirror: String,
}

impl Suite {
    /// Debian's word for the architecture.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// The suite's name.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// Reads the index from the mirror unless the one at hand is younger than `max_age`.
    pub fn refresh(&self, max_age: Duration, progress: &Progress) -> Result<(), Error> {
        if self.is_fresh(max_age) {
            return Ok(());
        }
        let _lock = self.cache.lock(&self.name, progress)?;
        if self.is_fresh(max_age) {
            return Ok(());
        }
        let mut task = progress.task(&format!("reading the index of Debian {}", self.suite), None);
        let mut command = self.apt("apt-get");
        // Without it an unreachable mirror is a warning and exit 0.
        command.args(["update", "--error-on=any"]);
        let output = tools::watch(&mut command, "apt", TICK, |_| task.alive())?;
        if !output.status.success() {
            let what = format!("suite {}", self.suite);
            return Err(error::from_output(&output.text(), &self.mirror, &what, &self.root));
        }
        self.cache.write(&format!("{}/updated", self.name), b"")?;
        task.done();
        Ok(())
    }

    /// Names of the packages that match an extended regular expression.
    pub fn search(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let mut command = self.apt("apt-cache");
        let output = tools::check(command.args(["search", "--names-only", pattern]), "apt")?;
        let names = output.stdout.lines().filter_map(|line| line.split_once(" - "));
        Ok(names.map(|(name, _)| name.to_owned()).collect())
    }

    /// All versions of `names` that the index has. A name it lacks is simply not among them.
    pub fn show(&self, names: &[impl AsRef<str>]) -> Result<Vec<Package>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.apt("apt-cache");
        command.arg("show").args(names.iter().map(AsRef::as_ref));
        let output = tools::run(&mut command, "apt")?;
        let is_only_absence = output.stderr.lines().all(|line| {
            line.is_empty()
                || line.contains("No packages found")
                || line.contains("Unable to locate")
        });
        if !output.status.success() && !is_only_absence {
            return Err(tools::failed(&command, &output).into());
        }
        Ok(output.stdout.split("\n\n").filter_map(parse_stanza).collect())
    }

    /// The version of `pin` in the index, if it is there with the pinned content.
    ///
    /// # Errors
    /// [`Error::Checksum`] if that version is there with other content.
    pub fn pinned(&self, pin: &Pin) -> Result<Option<Package>, Error> {
        let found = self.show(&[&pin.name])?.into_iter().find(|p| p.version == pin.version);
        if let Some(package) = &found
            && package.sha256 != pin.sha256
        {
            return Err(Error::Checksum {
                mirror: self.mirror.clone(),
                what: format!("{} {}", pin.name, pin.version),
                detail: format!(
                    "SHA-256 {} is pinned, the index says {}",
                    pin.sha256, package.sha256
                ),
            });
        }
        Ok(found)
    }

    /// Downloads packages into `dir` and checks each against its SHA-256.
    ///
    /// # Errors
    /// [`Error::NoSuchPackage`] if the index at hand was old and the mirror has dropped a package
    /// since; [`Error::NotFound`] if the mirror lists a file it does not have.
    pub fn download(
        &self,
        packages: &[Package],
        dir: &Path,
        progress: &Progress,
    ) -> Result<Vec<PathBuf>, Error> {
        let error = match self.download_listed(packages, dir, progress) {
            Err(error @ Error::NotFound { .. }) if !self.is_fresh(MOMENT) => error,
            downloaded => return downloaded,
        };
        self.refresh(MOMENT, progress)?;
        for package in packages {
            if !self.show(&[&package.name])?.contains(package) {
                let what = format!("{} {}", package.name, package.version);
                return Err(self.no_such_package(what));
            }
        }
        Err(error)
    }

    fn download_listed(
        &self,
        packages: &[Package],
        dir: &Path,
        progress: &Progress,
    ) -> Result<Vec<PathBuf>, Error> {
        let _lock = self.cache.lock(&self.name, progress)?;
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        let what = names.join(", ");
        let total = packages.iter().map(|package| package.size).sum();
        let mut task = progress.task(&format!("downloading {what}"), Some(total));

        let mut command = self.apt("apt-get");
        command.arg("-qq").arg("download").current_dir(dir);
        command.args(packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        let output = tools::watch(&mut command, "apt", TICK, |_| task.at(bytes_in(dir)))?;
        if !output.status.success() {
            return Err(error::from_output(&output.text(), &self.mirror, &what, dir));
        }
        let files = self.checked(packages, dir)?;
        task.done();
        Ok(files)
    }

    /// The files of `packages` in `dir`, each with the SHA-256 of its package.
    fn checked(&self, packages: &[Package], dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut by_hash = HashMap::new();
        for entry in fs::read_dir(dir).map_err(at("read", dir))? {
            let path = entry.map_err(at("read", dir))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                by_hash.insert(sha256_of(&path)?, path);
            }
        }
        let file_of = |package: &Package| {
            by_hash.get(&package.sha256).cloned().ok_or_else(|| Error::Checksum {
                mirror: self.mirror.clone(),
                what: format!("{} {}", package.name, package.version),
                detail: format!("no downloaded file has SHA-256 {}", package.sha256),
            })
        };
        packages.iter().map(file_of).collect()
    }

    /// The error for a package the index does not have.
    pub fn no_such_package(&self, what: impl Into<String>) -> Error {
        Error::NoSuchPackage {
            mirror: self.mirror.clone(),
            suite: self.suite.clone(),
            what: what.into(),
        }
    }

    fn is_fresh(&self, max_age: Duration) -> bool {
        fs::metadata(self.root.join("updated"))
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < max_age))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.root.join("apt.conf"));
        command
    }

    /// Writes the private root's configuration. Each time, for the host's proxy may have changed.
    fn write_configuration(&self, keyring: &Path, validity: Validity) -> Result<(), Error> {
        for dir in [
            "lists/partial",
            "archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/trusted.gpg.d",
        ] {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).map_err(at("make", &dir))?;
        }
        let arch = &self.arch;
        let source = format!(
            "deb [arch={arch} signed-by={}] {} {} main\n",
            keyring.display(),
            self.mirror,
            self.suite
        );
        let write = |file: &str, content: &str| {
            self.cache.write(&format!("{}/{file}", self.name), content.as_bytes())
        };
        write("status", "")?;
        write("sources.list", &source)?;
        write("apt.conf", &self.configuration(validity)?)?;
        Ok(())
    }

    fn configuration(&self, validity: Validity) -> Result<String, Error> {
        let (root, arch) = (self.root.display(), &self.arch);
        let check_valid_until = validity == Validity::Enforced;
        let network = host::network_settings()?;
        Ok(format!(
            "Dir \"{root}\";\n\
             Dir::State \"{root}\";\n\
             Dir::State::status \"{root}/status\";\n\
             Dir::State::lists \"{root}/lists\";\n\
             Dir::Cache \"{root}\";\n\
             Dir::Cache::archives \"{root}/archives\";\n\
             Dir::Etc \"{root}/etc\";\n\
             Dir::Etc::main \"{root}/etc/none\";\n\
             Dir::Etc::parts \"{root}/etc/apt.conf.d\";\n\
             Dir::Etc::sourcelist \"{root}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::netrc \"/etc/apt/auth.conf\";\n\
             Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n\
             APT::Architecture \"{arch}\";\n\
             APT::Architectures {{ \"{arch}\"; }};\n\
             // Nothing here is run as root on purpose; without this apt warns and tries to drop to\n\
             // a user who cannot write to the cache.\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::AllowInsecureRepositories \"false\";\n\
             Acquire::AllowWeakRepositories \"false\";\n\
             Acquire::AllowDowngradeToInsecureRepositories \"false\";\n\
             Acquire::Check-Valid-Until \"{check_valid_until}\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::GzipIndexes \"false\";\n\
             // A mirror on this very machine is never behind the proxy.\n\
             Acquire::http::Proxy::127.0.0.1 \"DIRECT\";\n\
             {network}"
        ))
    }
}

/// How long an index, and what was chosen from it, counts as the newest.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An index read a moment ago, by this very run, need not be read again.
const MOMENT: Duration = Duration::from_secs(60);
/// How often a running apt is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Bytes of all files directly in `dir`: what a download has so far.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn parse_stanza(text: &str) -> Option<Package> {
    let field = |key: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(": ")?.trim()))
    };
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?.to_owned(),
        depends: field("Depends").unwrap_or_default().to_owned(),
    })
}

/// Unpacks a `.deb` into `into`, without running any of its scripts.
pub fn unpack(deb: &Path, into: &Path) -> Result<(), Error> {
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(deb).arg(into);
    let output = tools::run(&mut command, "dpkg")?;
    if output.status.success() {
        return Ok(());
    }
    let text = output.text();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return Err(crate::cache::disk_full(into, 0).into());
    }
    Err(tools::failed(&command, &output).into())
}

/// Orders two Debian versions as dpkg does.
pub fn compare_versions(a: &str, b: &str) -> Result<Ordering, Error> {
    let is = |relation| -> Result<bool, Error> {
        let mut command = Command::new("dpkg");
        let output = tools::run(command.args(["--compare-versions", a, relation, b]), "dpkg")?;
        Ok(output.status.success())
    };
    Ok(if a == b {
        Ordering::Equal
    } else if is("lt")? {
        Ordering::Less
    } else if is("gt")? {
        Ordering::Greater
    } else {
        Ordering::Equal
    })
}

/// SHA-256 of a file in lower-case hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String, Error> {
    let mut file = fs::File::open(path).map_err(at("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(at("read", path))? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
