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
    /// What is compared where nobody says.
    #[serde(default)]
    pub matrix: Matrix,
}

/// The kernels whose differences are of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Matrix {
    /// Series of Linux, such as 7.2; whatever is newer than all of them is of interest, too.
    pub series: Vec<Version>,
    /// Of this series and later ones the oldest version is of interest as well as the newest.
    pub oldest_since: Option<Version>,
}

/// One kernel: either packaged, or built from source, or a variation of another entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// The guest's architecture, in Debian's word.
    pub arch: Arch,
    /// One line for lists.
    pub about: String,
    /// Fetched ready to boot.
    pub packages: Option<Packages>,
    /// Built from a source package.
    pub source: Option<Source>,
    /// Built like this entry, with what follows added.
    pub base: Option<String>,
    /// Fragments of configuration, files of `images/kernel/config` without their ending.
    #[serde(default)]
    pub config: Vec<String>,
    /// Own patch series, directories of `images/kernel/patches`.
    #[serde(default)]
    pub series: Vec<String>,
}

/// A kernel made from Debian's packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Packages {
    /// The end of the release's name, for example `cloud-amd64`.
    pub flavour: String,
    /// Suites to look in. One that cannot be read is left out, and the run says so.
    pub suites: Vec<String>,
    /// The oldest version that has what the tests need.
    pub minimum: Version,
    /// Only this series, for example 6.12, or this version.
    pub series: Option<Version>,
    /// The exact packages; without it the newest is taken.
    pub lock: Option<LockedKernel>,
}

/// A Debian package with a kernel's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    /// Its name, for example `linux-source-7.2`.
    pub package: String,
    /// Suites to look in.
    pub suites: Vec<String>,
    /// The exact package; without it, and once the mirror no longer has it, the newest is taken.
    pub lock: Option<Pin>,
}

/// What a built kernel is made of, all bases followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Where the source comes from.
    pub source: Source,
    /// Fragments, the later ones winning.
    pub config: Vec<String>,
    /// Patch series, in order.
    pub series: Vec<String>,
    /// The entry with the source itself, whose build others start from.
    pub root: String,
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

    /// kbuild's word for it, the value of `ARCH`.
    pub fn kbuild(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86",
        }
    }

    /// Where Debian has libraries of it, in `/usr/lib`.
    pub fn libraries(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-linux-gnu",
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

    /// Whether this version belongs to `wanted`: a series such as 7.2, or one version such as 7.2.6.
    pub fn is_of(self, wanted: Version) -> bool {
        (self.major, self.minor) == (wanted.major, wanted.minor)
            && (wanted.patch == 0 || self.patch == wanted.patch)
    }

    /// The series it belongs to.
    pub fn series(self) -> Version {
        Version { patch: 0, ..self }
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
        for name in read.kernel.keys() {
            read.check(name).map_err(|detail| manifest(format!("kernel {name}: {detail}")))?;
        }
        Ok(read)
    }

    /// What the types cannot say.
    fn check(&self, name: &str) -> Result<(), String> {
        let entry = &self.kernel[name];
        let origins = [entry.packages.is_some(), entry.source.is_some(), entry.base.is_some()];
        if origins.iter().filter(|is_given| **is_given).count() != 1 {
            return Err("exactly one of packages, source and base has to be given".to_owned());
        }
        match &entry.packages {
            Some(packages) if entry.config.is_empty() && entry.series.is_empty() => {
                packages.check()
            }
            Some(_) => Err("a packaged kernel has neither config nor series".to_owned()),
            None => {
                let recipe = self.recipe(name)?;
                if recipe.source.suites.is_empty() {
                    return Err("no suites".to_owned());
                }
                recipe.source.lock.iter().try_for_each(check_pin)
            }
        }
    }

    /// What the built kernel `name` is made of.
    ///
    /// # Errors
    /// In words: a base that does not exist, is packaged, or leads in a circle.
    pub fn recipe(&self, name: &str) -> Result<Recipe, String> {
        let mut chain: Vec<(&str, &Entry)> = Vec::new();
        let mut next = name;
        let source = loop {
            if chain.iter().any(|(seen, _)| *seen == next) {
                return Err(format!("its bases lead back to {next}"));
            }
            let entry = self.kernel.get(next).ok_or_else(|| format!("there is no base {next}"))?;
            chain.push((next, entry));
            match (&entry.source, &entry.base) {
                (Some(source), _) => break source.clone(),
                (None, Some(base)) => next = base,
                (None, None) => {
                    return Err(format!("{next} is packaged, so nothing can be built on it"));
                }
            }
        };
        let entries = || chain.iter().rev().map(|(_, entry)| *entry);
        Ok(Recipe {
            source,
            config: entries().flat_map(|entry| entry.config.iter().cloned()).collect(),
            series: entries().flat_map(|entry| entry.series.iter().cloned()).collect(),
            root: next.to_owned(),
        })
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Result<&Entry, Error> {
        self.kernel.get(name).ok_or_else(|| Error::UnknownKernel {
            name: name.to_owned(),
            known: self.kernel.keys().cloned().collect(),
        })
    }
}

impl Packages {
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
        lock.packages.iter().try_for_each(check_pin)
    }
}

fn check_pin(pin: &Pin) -> Result<(), String> {
    let is_sha256 =
        pin.sha256.len() == 64 && pin.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    if is_sha256 {
        Ok(())
    } else {
        Err(format!("{} has no SHA-256 of 64 lower-case digits", pin.name))
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
        assert!(version(7, 2, 12).is_of(version(7, 2, 0)));
        assert!(version(7, 2, 12).is_of(version(7, 2, 12)));
        assert!(!version(7, 2, 12).is_of(version(7, 2, 6)));
        assert!(!version(7, 2, 12).is_of(version(7, 3, 0)));
    }

    #[test]
    fn checked_in_manifest_is_valid_and_locks_stock() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let manifest = Manifest::read(&manifest_path(&checkout)).expect("images/kernels.toml");
        let stock = manifest.get("stock").expect("stock");
        let stock = stock.packages.as_ref().expect("packaged");
        assert!(stock.lock.is_some(), "stock is locked");
        assert!(stock.minimum >= version(7, 1, 0), "bsg uring_cmd came with 7.1");
        let next = manifest.get("stock-next").expect("stock-next").packages.as_ref();
        assert!(next.expect("packaged").lock.is_none());
        assert!(manifest.recipe("source").expect("built").source.lock.is_some());
        let series = &manifest.matrix.series;
        assert!(series.contains(&version(7, 1, 0)), "bsg uring_cmd came with 7.1");
        assert!(series.iter().all(|series| *series == series.series()), "{series:?}");
    }

    fn read(text: &str) -> Result<Manifest, Error> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("kernels.toml");
        std::fs::write(&path, text).expect("write");
        Manifest::read(&path)
    }

    fn packaged(rest: &str) -> String {
        format!(
            "[kernel.x]\narch = \"amd64\"\nabout = \"\"\n[kernel.x.packages]\nflavour = \"f\"\n\
             suites = [\"s\"]\nminimum = \"7.3\"\n{rest}"
        )
    }

    fn built(name: &str, rest: &str) -> String {
        format!("[kernel.{name}]\narch = \"amd64\"\nabout = \"\"\n{rest}\n")
    }

    const SOURCE: &str = "source = { package = \"linux-source-7.2\", suites = [\"s\"] }";

    #[test]
    fn misspelt_field_is_an_error_that_names_it() {
        let error = read(&packaged("minimun = \"7.1\"")).expect_err("typo").to_string();
        assert!(error.contains("minimun") && error.contains("kernels.toml"), "{error}");
    }

    #[test]
    fn lock_below_the_minimum_is_an_error() {
        let lock = "[kernel.x.packages.lock]\nrelease = \"7.2.12-f\"\npackages = []\n";
        let error = read(&packaged(lock)).expect_err("too old").to_string();
        assert!(error.contains("older than the minimum 7.3"), "{error}");
    }

    #[test]
    fn unknown_kernel_lists_the_known_ones() {
        let manifest = read(&packaged("")).expect("valid");
        let error = manifest.get("y").expect_err("unknown").to_string();
        assert!(error.contains("\"y\"") && error.contains('x'), "{error}");
    }

    #[test]
    fn a_variation_adds_to_its_base_in_order() {
        let a = built("a", &format!("{SOURCE}\nconfig = [\"one\"]"));
        let b = built("b", "base = \"a\"\nconfig = [\"two\"]\nseries = [\"first\"]");
        let c = built("c", "base = \"b\"\nconfig = [\"three\"]\nseries = [\"second\"]");
        let recipe = read(&format!("{a}{b}{c}")).expect("valid").recipe("c").expect("built");
        assert_eq!(recipe.config, ["one", "two", "three"]);
        assert_eq!(recipe.series, ["first", "second"]);
        assert_eq!(
            (recipe.source.package.as_str(), recipe.root.as_str()),
            ("linux-source-7.2", "a")
        );
    }

    #[test]
    fn an_entry_without_one_origin_is_an_error_that_says_so() {
        let source = format!("{SOURCE}\nbase = \"a\"");
        for (text, expected) in [
            (built("a", ""), "exactly one of"),
            (built("a", &source), "exactly one of"),
            (built("a", "base = \"b\""), "no base b"),
            (format!("{}{}", built("a", "base = \"b\""), built("b", "base = \"a\"")), "lead back"),
            (format!("{}{}", packaged(""), built("a", "base = \"x\"")), "x is packaged"),
        ] {
            let error = read(&text).expect_err(&text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
