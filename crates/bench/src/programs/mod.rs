//! Programs of Debian's packages for the guest: which, and into the cache with them.
//!
//! A set of `images/programs.toml` is fetched once and packed into an archive that follows the others of
//! an image, so that machines without such programs boot as small as ever. Everything a set consists of
//! is listed: its programs need no package that is not, and a library nobody brings is an error before
//! anything boots. A set may have programs of the kernel's own tests, which are compiled with what its packages have.

mod elf;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kernel::{
    request::Context,
    selftest::{self, Selftest},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::image::archive::Archive;
use host::{
    apt::{self, Apt, Package, Pin, Suite, Validity},
    cache::{self, Cache, at},
    progress::Progress,
};

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `images/programs.toml` cannot be read.
    #[error("{}: {detail}; correct the file", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: String,
    },
    /// A test names a set that is not there.
    #[error("no set of programs is called {name:?}; images/programs.toml has: {}", known.join(", "))]
    UnknownSet {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The packages do not hold what they should.
    #[error(
        "no package of the program set `{set}` has {what}; correct its entry in images/programs.toml"
    )]
    Absent {
        /// The set.
        set: String,
        /// The program or file.
        what: String,
    },
    /// A library is missing.
    #[error(
        "{needed_by} needs {library}, which no package of the program set `{set}` has; add the package \
         that has it to images/programs.toml"
    )]
    NoLibrary {
        /// The set.
        set: String,
        /// Its name for the dynamic linker.
        library: String,
        /// The program or library that asks for it.
        needed_by: String,
    },
    /// Not something a guest can execute.
    #[error(
        "{program} of the program set `{set}` cannot be used: {detail}; only ELF files of 64 bits can, \
         correct images/programs.toml"
    )]
    NotElf {
        /// The set.
        set: String,
        /// The program or library.
        program: String,
        /// What is wrong.
        detail: String,
    },
    /// What the cache holds is not readable.
    #[error("{} is damaged ({detail}); remove that directory and run the same command again", dir.display())]
    Damaged {
        /// The set's directory in the cache.
        dir: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Packages.
    #[error("the guest's programs `{set}` cannot be had: {source}")]
    Apt {
        /// The set.
        set: String,
        /// Why.
        source: apt::Error,
    },
    /// Programs of the kernel's own tests.
    #[error("the guest's programs `{set}` cannot be had: {source}")]
    Selftest {
        /// The set.
        set: String,
        /// Why.
        source: Box<kernel::Error>,
    },
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

/// `images/programs.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The sets by name.
    #[serde(rename = "set")]
    sets: BTreeMap<String, Set>,
    /// The checkout it is of.
    #[serde(skip)]
    checkout: PathBuf,
}

/// A set of programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Set {
    /// Debian's suite with the packages.
    suite: String,
    /// Debian's word for the guest's architecture.
    arch: String,
    /// Names, each to be found where the packages have commands.
    programs: Vec<String>,
    /// Other files they need, without a leading slash.
    #[serde(default)]
    files: Vec<String>,
    /// Modules of the kernel for the image, with all they depend on. They are not loaded.
    #[serde(default)]
    modules: Vec<String>,
    /// The programs are of no package: they are these, compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selftest: Option<Selftest>,
    /// The exact packages, those of the libraries included.
    packages: Vec<Pin>,
}

/// Programs in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The cpio archive with them, their libraries and their files.
    pub archive: PathBuf,
    /// Modules of the kernel the image should have for them.
    pub modules: Vec<String>,
    /// What the reader of a report must know, for example that a locked package has vanished.
    pub note: Option<String>,
}

/// `programs.json` in the directory of a set.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    packages: Vec<Pin>,
    note: Option<String>,
    /// The same of the source of what was compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_note: Option<String>,
}

/// Packages as they stand in the manifest.
#[derive(Debug, Serialize)]
struct Lock<'a> {
    packages: &'a [Pin],
}

const STORED: &str = "programs.json";
const ARCHIVE: &str = "programs.cpio";
/// What was taken where the locked packages are gone, as an entry of the manifest has it.
const LOCK: &str = "lock.toml";
/// Goes up with every change of what the archive holds.
const LAYOUT: u32 = 1;
/// Room for packages, their content and the archive of the largest set.
const ROOM: u64 = 400_000_000;
/// Where packages have commands.
const COMMANDS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

impl Manifest {
    /// Reads `images/programs.toml` of a checkout.
    pub fn read(checkout: &Path) -> Result<Manifest, Error> {
        let path = checkout.join("images/programs.toml");
        let manifest = |detail: String| Error::Manifest { path: path.clone(), detail };
        let text = fs::read_to_string(&path).map_err(|error| manifest(error.to_string()))?;
        let read: Manifest = toml::from_str(&text).map_err(|error| manifest(error.to_string()))?;
        Ok(Manifest { checkout: checkout.to_owned(), ..read })
    }

    /// The names of the sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    fn set(&self, name: &str) -> Result<&Set, Error> {
        let unknown = || Error::UnknownSet {
            name: name.to_owned(),
            known: self.names().map(str::to_owned).collect(),
        };
        self.sets.get(name).ok_or_else(unknown)
    }

    /// The place in the cache: another entry is another place, whatever packages it ends up with; and so is another
    /// source.
    fn place(&self, name: &str, set: &Set) -> Result<String, Error> {
        let source = set.selftest.as_ref().map(|wanted| selftest::identity(&self.checkout, wanted));
        let source = source.transpose().map_err(failed_selftest(name))?.flatten();
        let entry = serde_json::to_string(set).expect("plain data has a JSON form");
        let all = format!("{LAYOUT}{entry}{}", source.unwrap_or_default());
        let digest = apt::hex(&Sha256::digest(all.as_bytes()));
        Ok(format!("programs/{name}-{}", &digest[..12]))
    }
}

fn failed_selftest(set: &str) -> impl FnOnce(kernel::Error) -> Error {
    move |source| Error::Selftest { set: set.to_owned(), source: Box::new(source) }
}

/// The set called `name` from the cache, or else from the mirror.
///
/// With the set in the cache neither apt nor the network is needed.
pub fn get(
    cache: &Cache,
    manifest: &Manifest,
    name: &str,
    options: &apt::Options,
    progress: &Progress,
) -> Result<Programs, Error> {
    let set = manifest.set(name)?;
    let context = Context { cache, checkout: &manifest.checkout, options, progress };
    let place = manifest.place(name, set)?;
    let dir = cache.entry(&place, ROOM, progress, |dir| fill(dir, context, name, set))?;
    load(&dir, set)
}

/// The set called `name` if the cache has it. Never touches the network.
pub fn cached(cache: &Cache, manifest: &Manifest, name: &str) -> Result<Option<Programs>, Error> {
    let set = manifest.set(name)?;
    let dir = cache.path(&manifest.place(name, set)?);
    dir.exists().then(|| load(&dir, set)).transpose()
}

fn load(dir: &Path, set: &Set) -> Result<Programs, Error> {
    let damaged = |detail: String| Error::Damaged { dir: dir.to_owned(), detail };
    let json = fs::read(dir.join(STORED)).map_err(|error| damaged(error.to_string()))?;
    let stored: Stored =
        serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    let note = stored.note.map(|note| format!("{note} from {}", dir.join(LOCK).display()));
    let note = stored.source_note.into_iter().chain(note).reduce(|a, b| format!("{a}; {b}"));
    Ok(Programs { archive: dir.join(ARCHIVE), modules: set.modules.clone(), note })
}

/// Downloads, unpacks, compiles, and packs what is wanted.
fn fill(dir: &Path, context: Context<'_>, name: &str, set: &Set) -> Result<(), Error> {
    let Context { cache, options, progress, .. } = context;
    let failed = |source| Error::Apt { set: name.to_owned(), source };
    let apt = Apt::open(cache, options).map_err(failed)?;
    let (suite, packages, note) = choose(&apt, name, set, progress).map_err(failed)?;
    if let Some(note) = &note {
        progress.note(&format!("NOTE: {note}"));
    }
    let (debs, root) = (dir.join("debs"), dir.join("root"));
    fs::create_dir(&debs).map_err(at("make", &debs))?;
    let files = suite.download(&packages, &debs, progress).map_err(failed)?;
    let task = progress.task(&format!("unpacking the guest's programs `{name}`"), None);
    for file in &files {
        apt::unpack(file, &root).map_err(failed)?;
    }
    let source_note = match &set.selftest {
        Some(wanted) => {
            selftest::build(context, wanted, &set.programs, &root).map_err(failed_selftest(name))?
        }
        None => None,
    };
    let archive = pack(&root, name, set)?;
    for left in [debs, root] {
        fs::remove_dir_all(&left).map_err(at("remove", &left))?;
    }

    let packages: Vec<Pin> = packages.iter().map(Package::pin).collect();
    let lock = toml::to_string(&Lock { packages: &packages }).expect("plain data has a TOML form");
    let stored = Stored { packages, note, source_note };
    let json = serde_json::to_vec_pretty(&stored).expect("plain data has a JSON form");
    for (file, content) in [(ARCHIVE, archive), (LOCK, lock.into_bytes()), (STORED, json)] {
        let path = dir.join(file);
        fs::write(&path, content).map_err(at("write", &path))?;
    }
    task.done();
    Ok(())
}

/// The locked packages, or the suite's newest of the same names if one has left the mirror.
fn choose(
    apt: &Apt,
    name: &str,
    set: &Set,
    progress: &Progress,
) -> Result<(Suite, Vec<Package>, Option<String>), apt::Error> {
    if let Some((suite, packages)) =
        apt.find_pinned(&set.suite, &set.arch, &set.packages, progress)?
    {
        return Ok((suite, packages, None));
    }
    let suite = apt.suite(&set.suite, &set.arch, Validity::Enforced)?;
    suite.refresh(apt::DAY, progress)?;
    let names: Vec<&str> = set.packages.iter().map(|pin| pin.name.as_str()).collect();
    let shown = suite.show(&names)?;
    let mut packages = Vec::new();
    let mut others = Vec::new();
    for pin in &set.packages {
        // apt-cache shows the newest version of a package first.
        let package = shown.iter().find(|package| package.name == pin.name);
        let package = package.ok_or_else(|| suite.no_such_package(pin.name.as_str()))?;
        if package.version != pin.version {
            others.push(format!("{} {} for {}", pin.name, package.version, pin.version));
        }
        packages.push(package.clone());
    }
    let note = format!(
        "the locked packages of the program set `{name}` have left the mirror {}, the newest are used in \
         their place ({}); update the lock in images/programs.toml",
        apt.mirror(),
        others.join(", ")
    );
    Ok((suite, packages, Some(note)))
}

/// The archive of a set, from its unpacked packages: programs in `/bin`, libraries in `/lib`, where the
/// dynamic linker looks last, and the linker itself where they ask for it.
fn pack(root: &Path, name: &str, set: &Set) -> Result<Vec<u8>, Error> {
    let absent = |what: &str| Error::Absent { set: name.to_owned(), what: what.to_owned() };
    let mut programs = BTreeMap::new();
    for program in &set.programs {
        let mut places = COMMANDS.iter().map(|dir| root.join(dir).join(program));
        let file = places.find_map(|place| resolve(root, &place));
        let file = file.ok_or_else(|| absent(&format!("a program {program}")))?;
        programs.insert(program.as_str(), file);
    }
    let needed = elf::closure(root, name, &programs)?;

    let mut files = BTreeMap::new();
    for (program, file) in &programs {
        files.insert(format!("bin/{program}"), (0o755, file.clone()));
    }
    for (library, file) in needed.libraries {
        files.insert(format!("lib/{library}"), (0o755, file));
    }
    for (linker, file) in needed.linkers {
        files.insert(linker, (0o755, file));
    }
    for wanted in &set.files {
        let file = resolve(root, &root.join(wanted)).ok_or_else(|| absent(wanted))?;
        files.insert(wanted.clone(), (0o644, file));
    }

    let mut archive = Archive::new();
    let dirs = files.keys().flat_map(|file| Path::new(file).ancestors().skip(1));
    let dirs: std::collections::BTreeSet<&Path> = dirs.collect();
    for dir in dirs.into_iter().filter_map(Path::to_str).filter(|dir| !matches!(*dir, "" | "bin")) {
        archive.directory(dir);
    }
    for (place, (mode, file)) in &files {
        let content = fs::read(file).map_err(at("read", file))?;
        archive.file(place, *mode, &content);
    }
    Ok(archive.finish())
}

/// As many links as the kernel follows (include/linux/namei.h, `MAXSYMLINKS`).
const LINKS: u32 = 40;

/// The regular file that `path` leads to, with the links of the packages followed as if `root` were `/`.
fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let metadata = path.symlink_metadata().ok()?;
        if !metadata.is_symlink() {
            return metadata.is_file().then_some(path);
        }
        let target = fs::read_link(&path).ok()?;
        path = match target.strip_prefix("/") {
            Ok(target) => root.join(target),
            Err(_) => path.with_file_name(target),
        };
    }
    None
}
