//! `images/kernels.toml`: which kernels have a name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize, de};

use super::Error;
use host::apt::Pin;

/// All named kernels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// By name.
    pub kernel: BTreeMap<String, Entry>,
}

/// One kernel made from Debian's packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// The guest's architecture, in Debian's word.
    pub arch: Arch,
    /// The end of the release's name, for example `cloud-amd64`.
    pub flavour: String,
    /// Suites to look in. One that cannot be read is left out, and the run says so.
    pub suites: Vec<String>,
    /// The oldest version that has what the tests need.
    pub minimum: Version,
    /// The exact packages; without it the newest is taken.
    pub lock: Option<LockedKernel>,
}

/// The one version of a kernel that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LockedKernel {
    /// As `uname -r` says it.
    pub release: String,
    /// What it is unpacked from.
    pub packages: Vec<Pin>,
}

/// Architecture of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// x86-64.
    Amd64,
}

impl Arch {
    /// Debian's word for it.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
        }
    }
}

/// The numbers at the start of a kernel's release: `7.2.12+deb13-cloud-amd64` is 7.2.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, zero if absent.
    pub patch: u32,
}

impl Version {
    /// The leading numbers of `release`, of which there must be at least two.
    pub fn of_release(release: &str) -> Option<Version> {
        let end = release.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(release.len());
        let mut numbers = release[..end].trim_end_matches('.').split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().unwrap_or(Ok(0)).ok()?;
        Some(Version { major, minor, patch })
    }

    /// Whether both belong to one series, as 7.2.6 and 7.2.12 do.
    pub fn is_same_series(self, other: Version) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch == 0 { Ok(()) } else { write!(f, ".{}", self.patch) }
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        let is_plain = text.chars().all(|c| c == '.' || c.is_ascii_digit());
        Version::of_release(text)
            .filter(|_| is_plain)
            .ok_or_else(|| format!("{text:?} is not a kernel version such as \"7.1\""))
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(path: &Path) -> Result<Manifest, Error> {
        let manifest = |detail: String| Error::Manifest { path: path.to_owned(), detail };
        let text = std::fs::read_to_string(path).map_err(|error| manifest(error.to_string()))?;
        let read: Manifest = toml::from_str(&text).map_err(|error| manifest(error.to_string()))?;
        for (name, entry) in &read.kernel {
            entry.check().map_err(|detail| manifest(format!("kernel {name}: {detail}")))?;
        }
        Ok(read)
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Result<&Entry, Error> {
        self.kernel.get(name).ok_or_else(|| Error::UnknownKernel {
            name: name.to_owned(),
            known: self.kernel.keys().cloned().collect(),
        })
    }
}

impl Entry {
    /// What the types cannot say.
    fn check(&self) -> Result<(), String> {
        if self.suites.is_empty() {
            return Err("no suites".to_owned());
        }
        let Some(lock) = &self.lock else { return Ok(()) };
        let version = Version::of_release(&lock.release)
            .ok_or_else(|| format!("{:?} is not a kernel release", lock.release))?;
        if version < self.minimum {
            return Err(format!("the locked {version} is older than the minimum {}", self.minimum));
        }
        if lock.packages.is_empty() {
            return Err("no packages in the lock".to_owned());
        }
        for pin in &lock.packages {
            let is_sha256 = pin.sha256.len() == 64
                && pin.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
            if !is_sha256 {
                return Err(format!("{} has no SHA-256 of 64 lower-case digits", pin.name));
            }
        }
        Ok(())
    }
}

/// The manifest in a checkout.
pub fn manifest_path(checkout: &Path) -> PathBuf {
    checkout.join("images/kernels.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32, patch: u32) -> Version {
        Version { major, minor, patch }
    }

    #[test]
    fn version_is_the_leading_numbers_of_the_release() {
        let of = Version::of_release;
        assert_eq!(of("7.2.12+deb13-cloud-amd64"), Some(version(7, 2, 12)));
        assert_eq!(of("7.3-rc4"), Some(version(7, 3, 0)));
        assert_eq!(of("7.1"), Some(version(7, 1, 0)));
        assert_eq!(of("next-20260101"), None);
        assert!("7.1".parse::<Version>().is_ok());
        assert!("7.1-rc1".parse::<Version>().is_err());
    }

    #[test]
    fn versions_order_by_number_not_by_digit() {
        assert!(version(7, 2, 12) > version(7, 2, 9));
        assert!(version(7, 10, 0) > version(7, 9, 9));
        assert!(version(7, 2, 12).is_same_series(version(7, 2, 6)));
        assert!(!version(7, 2, 12).is_same_series(version(7, 3, 12)));
    }

    #[test]
    fn checked_in_manifest_is_valid_and_locks_stock() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let manifest = Manifest::read(&manifest_path(&checkout)).expect("images/kernels.toml");
        let stock = manifest.get("stock").expect("stock");
        assert!(stock.lock.is_some(), "stock is locked");
        assert!(stock.minimum >= version(7, 1, 0), "bsg uring_cmd came with 7.1");
        assert!(manifest.get("stock-next").expect("stock-next").lock.is_none());
    }

    fn read(text: &str) -> Result<Manifest, Error> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("kernels.toml");
        std::fs::write(&path, text).expect("write");
        Manifest::read(&path)
    }

    #[test]
    fn misspelt_field_is_an_error_that_names_it() {
        let text = "[kernel.x]\narch=\"amd64\"\nflavour=\"f\"\nsuites=[\"s\"]\nminimun=\"7.1\"\n";
        let error = read(text).expect_err("typo").to_string();
        assert!(error.contains("minimun") && error.contains("kernels.toml"), "{error}");
    }

    #[test]
    fn lock_below_the_minimum_is_an_error() {
        let text = "[kernel.x]\narch=\"amd64\"\nflavour=\"f\"\nsuites=[\"s\"]\nminimum=\"7.3\"\n\
                    [kernel.x.lock]\nrelease=\"7.2.12-f\"\npackages=[]\n";
        let error = read(text).expect_err("too old").to_string();
        assert!(error.contains("older than the minimum 7.3"), "{error}");
    }

    #[test]
    fn unknown_kernel_lists_the_known_ones() {
        let text = "[kernel.x]\narch=\"amd64\"\nflavour=\"f\"\nsuites=[\"s\"]\nminimum=\"7.3\"\n";
        let error = read(text).expect("valid").get("y").expect_err("unknown").to_string();
        assert!(error.contains("\"y\"") && error.contains('x'), "{error}");
    }
}
