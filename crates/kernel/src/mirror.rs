//! A copy of a kernel tree to build from, brought up to date in place.
//!
//! A user's tree is never written to, and kbuild refuses `O=` on a tree that was configured in place
//! (`Makefile`: `outputmakefile`). So builds see a copy of the tree's source files alone, see
//! `list`, and the next run copies what has changed since.
//!
//! **Times.** A file of the copy carries the moment at which its content last changed *there*, by the
//! clock that also stamps what is built from it. That is what make compares: a file that went back to
//! an older version, with its older time, is built again; one that was only touched is not; a clock
//! that is wrong elsewhere does no harm.
//!
//! **Interruption.** At any moment each file of the copy is whole, or its content differs from the
//! tree's and the next run finds that out: what is up to date is decided by looking at the files on
//! both sides, never by what a run meant to do. Whatever else was changed in the copy, a patch for
//! example, is undone in the same way.

mod index;
mod list;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rayon::prelude::*;

use host::{
    cache::{self, at},
    interrupt,
    progress::{Progress, Task},
};
use index::{Index, Pair};

/// The directory below a copy in which it is built: neither source nor in the way. Directly below the
/// source kbuild names everything relative to it, so a copy can be copied with its objects, and make
/// finds them up to date there.
pub const OBJECTS: &str = ".objects";

/// Why a tree could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such directory.
    #[error("{} is not a directory; give the top directory of a kernel source tree", path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// The directory is something else.
    #[error("{} is not a kernel source tree: it has no {missing}; {hint}", path.display())]
    NotAKernelTree {
        /// What was given.
        path: PathBuf,
        /// The file that every kernel tree has and this one lacks.
        missing: &'static str,
        /// What to give instead.
        hint: String,
    },
    /// Tree and copy lie in each other.
    #[error(
        "the tree {} and the cache's copy of it, {}, lie in each other; set {} to a directory elsewhere",
        tree.display(), copy.display(), cache::CACHE_ENV
    )]
    Overlap {
        /// The tree.
        tree: PathBuf,
        /// The copy.
        copy: PathBuf,
    },
    /// A file or directory of the tree cannot be read.
    #[error(
        "cannot read {}: {source}; make it readable for you (`chmod -R u+rX`, `chown`), or remove it if \
         it is no part of the kernel", path.display()
    )]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The user wants the bench to stop.
    #[error("interrupted while the kernel tree was copied; the next run goes on from there")]
    Interrupted,
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

/// What an update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that were not in the copy.
    pub added: Vec<PathBuf>,
    /// Files whose content, kind or executable bit was another.
    pub changed: Vec<PathBuf>,
    /// Files of the copy that the tree does not have.
    pub removed: Vec<PathBuf>,
    /// How many files were as they should be.
    pub unchanged: usize,
    /// What the reader of a report should know.
    pub notes: Vec<String>,
}

impl Changes {
    /// Whether the copy was up to date.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (added, changed, removed) = (self.added.len(), self.changed.len(), self.removed.len());
        write!(f, "{added} new, {changed} changed, {removed} gone, {} as before", self.unchanged)
    }
}

/// What tells that a file was written to: its size, and the times of its content and of its inode, in
/// nanoseconds since 1970. The latter also moves when somebody sets the former back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File { is_executable: bool },
    Link { target: PathBuf },
}

/// A file or link; the path is relative to the root.
#[derive(Clone, Debug)]
struct Entry {
    root: Arc<Path>,
    path: PathBuf,
    kind: Kind,
    stamp: Stamp,
}

impl Entry {
    fn place(&self) -> PathBuf {
        self.root.join(&self.path)
    }
}

/// Files that take the place of a tree's, for example those a patch series changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The directory they are in.
    pub root: PathBuf,
    /// New and changed files, relative to it.
    pub files: Vec<PathBuf>,
    /// Files of the tree that are gone.
    pub removed: Vec<PathBuf>,
}

/// How an entry of the tree relates to the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is there, and known to be.
    Keep,
    /// It is there, as reading both has shown.
    Same,
    /// It is there with the wrong executable bit.
    Mode,
    Add,
    Replace,
}

/// The younger of these stamps may miss a write: the kernel's clock for files moves in ticks, and a
/// crash may lose the content of a file whose inode it kept.
const SETTLED_NS: i128 = 1_000_000_000;

/// A run that copied this much waits until the disk has it, so that the next need not compare it all.
const WRITE_OUT_BYTES: u64 = 64 << 20;

/// Makes `copy` hold the source files of the kernel tree `tree`, changed by `overlay`, and nothing else.
///
/// `copy` is made if need be; the caller holds the lock that keeps others from writing to it. Links
/// are copied as links and never followed; one that leads out of the tree is made absolute.
pub fn update(
    tree: &Path,
    overlay: Option<&Overlay>,
    copy: &Path,
    progress: &Progress,
) -> Result<Changes, Error> {
    update_at(now_ns(), tree, overlay, copy, progress)
}

fn update_at(
    began_ns: i128,
    tree: &Path,
    overlay: Option<&Overlay>,
    copy: &Path,
    progress: &Progress,
) -> Result<Changes, Error> {
    let tree = checked(tree)?;
    let copy = resolved(copy)?;
    if tree.starts_with(&copy) || copy.starts_with(&tree) {
        return Err(Error::Overlap { tree, copy });
    }
    fs::create_dir_all(&copy).map_err(at("make", &copy))?;
    let (source, notes) = list::source(&tree)?;
    let present = list::everything(&copy)?;
    let mut entries = source.entries;
    entries.iter_mut().for_each(anchor);
    if let Some(overlay) = overlay {
        lay_over(overlay, &mut entries)?;
    }
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));

    let there = present.entries.iter().map(|entry| (entry.path.as_path(), entry)).collect();
    let comparison = Comparison { copy: &copy, there, index: index::read(&copy) };
    let steps: Vec<Step> =
        entries.par_iter().map(|entry| comparison.step(entry)).collect::<Result<_, _>>()?;

    let removed = remove_others(&copy, &entries, &present)?;
    let moves: Vec<(&Entry, Step)> = entries.iter().zip(steps.iter().copied()).collect();
    let copied_bytes = perform(&tree, &copy, &moves, progress)?;

    let is_written_out = copied_bytes >= WRITE_OUT_BYTES;
    if is_written_out {
        let handle = File::open(&copy).map_err(at("open", &copy))?;
        rustix::fs::syncfs(&handle).map_err(|errno| at("write out", &copy)(errno.into()))?;
    }
    if !removed.is_empty() || steps.iter().any(|step| *step != Step::Keep) {
        let young_ns = began_ns - SETTLED_NS;
        let settled = |pair: &Pair| {
            pair.source.changed_ns < young_ns && (is_written_out || pair.copy.changed_ns < young_ns)
        };
        let mut pairs = Vec::new();
        for (entry, step) in &moves {
            if let Some(pair) = comparison.pair(entry, *step)?.filter(settled) {
                pairs.push((entry.path.as_path(), pair));
            }
        }
        index::write(&copy, pairs.into_iter())?;
    }
    let paths = |of: &[Step]| -> Vec<PathBuf> {
        moves.iter().filter(|(_, step)| of.contains(step)).map(|(e, _)| e.path.clone()).collect()
    };
    let (added, changed) = (paths(&[Step::Add]), paths(&[Step::Replace, Step::Mode]));
    let unchanged = entries.len() - added.len() - changed.len();
    Ok(Changes { added, changed, removed, unchanged, notes })
}

/// The absolute path of a tree that looks like a kernel's.
fn checked(tree: &Path) -> Result<PathBuf, Error> {
    if !tree.is_dir() {
        return Err(Error::NotADirectory { path: tree.to_owned() });
    }
    let path = fs::canonicalize(tree)
        .map_err(|source| Error::Unreadable { path: tree.to_owned(), source })?;
    for missing in ["Makefile", "Kconfig", "Kbuild", "scripts/kconfig/Makefile"] {
        if !path.join(missing).exists() {
            // kbuild leaves a link to the source in an output directory.
            let hint = match fs::read_link(path.join("source")) {
                Ok(source) => format!(
                    "it looks like the output directory of a build (O=): give its source, {}",
                    path.join(source).display()
                ),
                Err(_) => "give the top directory of a kernel source tree".to_owned(),
            };
            return Err(Error::NotAKernelTree { path, missing, hint });
        }
    }
    Ok(path)
}

/// The absolute path, free of links, of a directory that need not exist yet.
fn resolved(path: &Path) -> Result<PathBuf, cache::Error> {
    let path = std::path::absolute(path).map_err(at("resolve", path))?;
    let existing = path.ancestors().find(|parent| parent.exists()).unwrap_or(&path);
    let rest = path.strip_prefix(existing).expect("an ancestor is a prefix");
    Ok(fs::canonicalize(existing).map_err(at("resolve", existing))?.join(rest))
}

fn now_ns() -> i128 {
    // A clock before 1970 makes every stamp young, which costs time and nothing else.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Makes the target of a link absolute if it leads out of the tree: it would lead elsewhere, or
/// nowhere, from the copy.
fn anchor(entry: &mut Entry) {
    let place = entry.place();
    let Kind::Link { target } = &mut entry.kind else { return };
    let mut depth = entry.path.components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir => {
                *target = place.with_file_name(&*target);
                return;
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

/// Puts the overlay's files into the place of the tree's.
fn lay_over(overlay: &Overlay, entries: &mut Vec<Entry>) -> Result<(), Error> {
    let theirs: HashSet<&PathBuf> = overlay.files.iter().chain(&overlay.removed).collect();
    entries.retain(|entry| !theirs.contains(&entry.path));
    let root: Arc<Path> = overlay.root.as_path().into();
    for path in &overlay.files {
        entries.extend(list::entry(&root, path.clone())?);
    }
    Ok(())
}

/// Both sides as they were when the update began.
struct Comparison<'a> {
    copy: &'a Path,
    there: HashMap<&'a Path, &'a Entry>,
    index: Index,
}

impl Comparison<'_> {
    fn step(&self, entry: &Entry) -> Result<Step, Error> {
        let Some(there) = self.there.get(entry.path.as_path()) else { return Ok(Step::Add) };
        let (is_executable, was_executable) = match (&entry.kind, &there.kind) {
            (Kind::File { is_executable: is }, Kind::File { is_executable: was }) => (is, was),
            (is, was) if is == was => return Ok(Step::Keep),
            _ => return Ok(Step::Replace),
        };
        let pair = Pair { source: entry.stamp, copy: there.stamp };
        let is_known = self.index.get(entry.path.as_os_str().as_bytes()) == Some(&pair);
        if !is_known {
            if interrupt::pending() {
                return Err(Error::Interrupted);
            }
            if !is_equal(&entry.place(), &self.copy.join(&entry.path))? {
                return Ok(Step::Replace);
            }
        }
        Ok(match (is_executable == was_executable, is_known) {
            (false, _) => Step::Mode,
            (true, true) => Step::Keep,
            (true, false) => Step::Same,
        })
    }

    /// The stamps for the index, after the step. `None` for a link, which is compared by its target,
    /// and for a file that has vanished meanwhile.
    fn pair(&self, entry: &Entry, step: Step) -> Result<Option<Pair>, Error> {
        if matches!(entry.kind, Kind::Link { .. }) {
            return Ok(None);
        }
        let copy = match (step, self.there.get(entry.path.as_path())) {
            (Step::Keep | Step::Same, Some(there)) => Some(there.stamp),
            _ => list::entry(&self.copy.into(), entry.path.clone())?.map(|there| there.stamp),
        };
        Ok(copy.map(|copy| Pair { source: entry.stamp, copy }))
    }
}

/// Whether two files have the same content. One that has vanished is equal to none.
fn is_equal(source: &Path, copy: &Path) -> Result<bool, Error> {
    let read = |path: &Path, buffer: &mut Vec<u8>, file: &mut File| {
        buffer.clear();
        file.take(1 << 16)
            .read_to_end(buffer)
            .map_err(|source| Error::Unreadable { path: path.to_owned(), source })
    };
    let Some(mut one) = opened(source)? else { return Ok(false) };
    let Some(mut other) = opened(copy)? else { return Ok(false) };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    loop {
        let len = read(source, &mut ours, &mut one)?;
        read(copy, &mut theirs, &mut other)?;
        if ours != theirs {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
    }
}

/// `None` if the file has vanished since it was listed.
fn opened(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Unreadable { path: path.to_owned(), source }),
    }
}

/// Removes what the copy has and the tree has not, with the directories this leaves empty.
fn remove_others(
    copy: &Path,
    entries: &[Entry],
    present: &list::Found,
) -> Result<Vec<PathBuf>, Error> {
    let wanted: HashSet<&Path> = entries.iter().map(|entry| entry.path.as_path()).collect();
    let mut directories: HashSet<&Path> = HashSet::new();
    for path in &wanted {
        // The parents of a directory that was seen were seen with it.
        path.ancestors().skip(1).take_while(|parent| directories.insert(parent)).for_each(drop);
    }
    let mut removed = Vec::new();
    let others = present.entries.iter().map(|entry| &entry.path).chain(&present.odd);
    for path in others.filter(|path| !wanted.contains(path.as_path())) {
        if path.as_os_str() == OsStr::new(index::NAME) {
            continue;
        }
        let place = copy.join(path);
        fs::remove_file(&place).map_err(at("remove", &place))?;
        removed.push(path.clone());
    }
    let mut empty: Vec<&PathBuf> =
        present.directories.iter().filter(|path| !directories.contains(path.as_path())).collect();
    // What lies in a directory sorts behind it.
    empty.sort_unstable_by(|a, b| b.cmp(a));
    for path in empty {
        let place = copy.join(path);
        fs::remove_dir(&place).map_err(at("remove", &place))?;
    }
    removed.sort_unstable();
    Ok(removed)
}

/// Carries out the steps; how many bytes were written.
fn perform(
    tree: &Path,
    copy: &Path,
    moves: &[(&Entry, Step)],
    progress: &Progress,
) -> Result<u64, Error> {
    let is_write = |step: Step| matches!(step, Step::Add | Step::Replace);
    let writes: Vec<&Entry> =
        moves.iter().filter(|(_, step)| is_write(*step)).map(|(entry, _)| *entry).collect();
    let size = |entry: &&Entry| entry.stamp.size;
    let total: u64 = writes.iter().map(size).sum();
    // A file takes whole blocks.
    let need = total + writes.len() as u64 * 4096;
    if let Some(free) = cache::available(copy)
        && free < need
    {
        return Err(cache::disk_full(copy, need).into());
    }
    let directories: HashSet<&Path> =
        writes.iter().filter_map(|entry| entry.path.parent()).collect();
    for directory in directories {
        let place = copy.join(directory);
        fs::create_dir_all(&place).map_err(at("make", &place))?;
    }
    let report = (total >= WRITE_OUT_BYTES).then(|| {
        let what = format!("copying the kernel tree {}", tree.display());
        Mutex::new((0, progress.task(&what, Some(total))))
    });
    writes.par_iter().try_for_each(|entry| {
        if interrupt::pending() {
            return Err(Error::Interrupted);
        }
        write(copy, entry)?;
        if let Some(report) = &report {
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            let (done, task): &mut (u64, Task) = &mut report;
            *done += entry.stamp.size;
            task.at(*done);
        }
        Ok(())
    })?;
    for (entry, _) in moves.iter().filter(|(_, step)| *step == Step::Mode) {
        set_mode(&copy.join(&entry.path), &entry.kind)?;
    }
    if let Some(report) = report {
        report.into_inner().unwrap_or_else(PoisonError::into_inner).1.done();
    }
    Ok(total)
}

/// Puts one file or link into the copy, as a new inode: what was there is not written to.
fn write(copy: &Path, entry: &Entry) -> Result<(), Error> {
    let (source, place) = (entry.place(), copy.join(&entry.path));
    match fs::remove_file(&place) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at("replace", &place)(error).into()),
    }
    match &entry.kind {
        Kind::Link { target } => symlink(target, &place).map_err(at("make the link", &place))?,
        Kind::File { .. } => {
            // A file that has vanished is not there; the next run will have seen it.
            let Some(mut from) = opened(&source)? else { return Ok(()) };
            let mut to = File::create(&place).map_err(at("make", &place))?;
            io::copy(&mut from, &mut to).map_err(at("write", &place))?;
            set_mode(&place, &entry.kind)?;
        }
    }
    Ok(())
}

/// Readable for all and writable for the owner, however it is in the tree.
fn set_mode(place: &Path, kind: &Kind) -> Result<(), Error> {
    let Kind::File { is_executable } = kind else { return Ok(()) };
    let mode = if *is_executable { 0o755 } else { 0o644 };
    fs::set_permissions(place, fs::Permissions::from_mode(mode)).map_err(at("chmod", place))?;
    Ok(())
}
