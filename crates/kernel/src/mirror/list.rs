//! Which files of a kernel tree are its source.
//!
//! The tree's own `.gitignore` files say what is not, as git reads them, whether the tree is a git
//! worktree or not. Three things are added: what kbuild makes is left out even where no `.gitignore`
//! says so; a rule that hides the whole tree is passed over (Debian's source package ends its
//! `.gitignore` with one); and what git tracks is source, ignored or not.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rayon::prelude::*;

use super::{Entry, Error, Kind, OBJECTS, Stamp};
use host::{interrupt, tools};

/// What kbuild writes beside or among its sources (`Makefile`: `clean`, `mrproper`), in the words of
/// `.gitignore`. The tree's own files come later and may take back any of it.
const PRODUCTS: &str = "\
.*.cmd
.*.d
.tmp_*
*.o
*.a
*.ko
*.mod
*.mod.c
*.order
*.symvers
/vmlinux
/vmlinux.*
/System.map
";

/// Files the kernel keeps although its `.gitignore` begins with `.*`; Debian's source package has lost
/// the lines that say so, and a patch may well change one of them.
const DOT_FILES: &str = "\
!.clang-format
!.clippy.toml
!.cocciconfig
!.editorconfig
!.get_maintainer.ignore
!.gitattributes
!.gitignore
!.kunitconfig
!.mailmap
!.pylintrc
!.renames.txt
!.rustfmt.toml
";

/// What makes kbuild take the tree for configured in place (`Makefile`: `outputmakefile`), and git's
/// own directory: never source, whoever says so.
fn is_never_source(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    matches!(
        parts[..],
        [".config" | ".config.old"]
            | ["include", "config" | "generated", ..]
            | ["arch", _, "include", "generated", ..]
    ) || parts.contains(&".git")
}

/// What a walk found; paths are relative to its root, in no order.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files and links.
    pub(super) entries: Vec<Entry>,
    /// Directories, without the root.
    pub(super) directories: Vec<PathBuf>,
    /// Sockets, devices and the like.
    pub(super) odd: Vec<PathBuf>,
}

impl Found {
    fn append(&mut self, mut other: Found) {
        self.entries.append(&mut other.entries);
        self.directories.append(&mut other.directories);
        self.odd.append(&mut other.odd);
    }
}

/// Everything below `root`.
pub(super) fn everything(root: &Path) -> Result<Found, Error> {
    walk(root, None)
}

/// The source files of the tree, and what a reader of a report should know about the choice.
pub(super) fn source(tree: &Path) -> Result<(Found, Vec<String>), Error> {
    let own = rules(Path::new(""), PRODUCTS.lines(), |_| true);
    let mut found = walk(tree, Some(&Arc::new(Rules { own, above: None })))?;
    let mut notes = Vec::new();
    if let Some(first) = found.odd.first() {
        let (count, first) = (found.odd.len(), first.display());
        notes.push(format!(
            "left out, as neither file, directory nor link: {count} of the tree's entries, one is {first}"
        ));
    }
    if tree.join(".git").exists() {
        match tracked_though_ignored(tree) {
            Ok(paths) => add_tracked(tree, paths, &mut found.entries)?,
            Err(tools::Error::Interrupted { .. }) => return Err(Error::Interrupted),
            Err(error) => notes.push(format!(
                "git cannot say which files {} tracks, so those that its .gitignore hides are left \
                 out: {error}",
                tree.display()
            )),
        }
    }
    Ok((found, notes))
}

/// The `.gitignore` files that count for a directory, the nearest first.
struct Rules {
    own: Gitignore,
    above: Option<Arc<Rules>>,
}

impl Rules {
    /// Whether the nearest file that has a word on this path says that it is not source.
    fn hide(&self, path: &Path, is_dir: bool) -> bool {
        let matched = self.own.matched(path, is_dir);
        match &self.above {
            Some(above) if matched.is_none() => above.hide(path, is_dir),
            _ => matched.is_ignore(),
        }
    }
}

/// Those of the lines that count and that are rules; git passes over one that it cannot read, too.
fn rules<'a>(
    directory: &Path,
    lines: impl Iterator<Item = &'a str>,
    counts: impl Fn(&str) -> bool,
) -> Gitignore {
    let mut builder = GitignoreBuilder::new(directory);
    for line in lines.filter(|line| counts(line)) {
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Whether a line of the root's `.gitignore` leaves the tree's `Makefile` alone.
fn leaves_the_tree(line: &str) -> bool {
    !rules(Path::new(""), [line].into_iter(), |_| true).matched("Makefile", false).is_ignore()
}

fn walk(root: &Path, rules: Option<&Arc<Rules>>) -> Result<Found, Error> {
    let walk = Walk { root: root.into(), found: Mutex::default() };
    walk.directory(Path::new(""), rules)?;
    Ok(walk.found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A walk under way.
struct Walk {
    root: Arc<Path>,
    found: Mutex<Found>,
}

impl Walk {
    /// `directory` is relative to the root. Without rules everything is found.
    fn directory(&self, directory: &Path, above: Option<&Arc<Rules>>) -> Result<(), Error> {
        if interrupt::pending() {
            return Err(Error::Interrupted);
        }
        let place = self.root.join(directory);
        let unreadable = |source| Error::Unreadable { path: place.clone(), source };
        let read: io::Result<Vec<_>> = fs::read_dir(&place).and_then(Iterator::collect);
        let children = read.map_err(unreadable)?;
        let has_rules = children.iter().any(|child| child.file_name() == ".gitignore");
        let rules = match above {
            Some(above) if has_rules => Some(self.rules_of(directory, above)?),
            above => above.cloned(),
        };

        let mut found = Found::default();
        for child in children {
            let path = directory.join(child.file_name());
            if path == Path::new(OBJECTS) {
                continue;
            }
            let kind = child.file_type().map_err(unreadable)?;
            let is_hidden =
                |rules: &Arc<Rules>| is_never_source(&path) || rules.hide(&path, kind.is_dir());
            if rules.as_ref().is_some_and(is_hidden) {
                continue;
            }
            if kind.is_dir() {
                found.directories.push(path);
            } else if kind.is_file() || kind.is_symlink() {
                found.entries.extend(entry(&self.root, path)?);
            } else {
                found.odd.push(path);
            }
        }
        let directories = found.directories.clone();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).append(found);
        directories.par_iter().try_for_each(|directory| self.directory(directory, rules.as_ref()))
    }

    fn rules_of(&self, directory: &Path, above: &Arc<Rules>) -> Result<Arc<Rules>, Error> {
        let path = self.root.join(directory).join(".gitignore");
        // git does not follow a link here, and takes a directory of that name for no rules.
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(Arc::clone(above));
        }
        let text = fs::read(&path).map_err(|source| Error::Unreadable { path, source })?;
        let text = String::from_utf8_lossy(&text);
        let own = if directory.as_os_str().is_empty() {
            rules(directory, text.lines().chain(DOT_FILES.lines()), leaves_the_tree)
        } else {
            rules(directory, text.lines(), |_| true)
        };
        Ok(Rules { own, above: Some(Arc::clone(above)) }.into())
    }
}

/// What stands at `path` below `root`; `None` if it has just vanished, or is neither file nor link.
pub(super) fn entry(root: &Arc<Path>, path: PathBuf) -> Result<Option<Entry>, Error> {
    let place = root.join(&path);
    let metadata = match fs::symlink_metadata(&place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Unreadable { path: place, source }),
    };
    let kind = if metadata.is_symlink() {
        let target =
            fs::read_link(&place).map_err(|source| Error::Unreadable { path: place, source })?;
        Kind::Link { target }
    } else if metadata.is_file() {
        Kind::File { is_executable: metadata.mode() & 0o111 != 0 }
    } else {
        return Ok(None);
    };
    Ok(Some(Entry { root: Arc::clone(root), path, kind, stamp: stamp(&metadata) }))
}

/// What tells that a file was written to.
pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    Stamp {
        size: metadata.size(),
        modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// What git tracks although a `.gitignore` hides it. `ls-files` reads the index and writes nothing.
fn tracked_though_ignored(tree: &Path) -> Result<Vec<PathBuf>, tools::Error> {
    // The tree may belong to another user; whoever names it on the command line trusts it.
    let mut command = Command::new("git");
    command.arg("-c").arg(format!("safe.directory={}", tree.display())).arg("-C").arg(tree);
    command.args(["-c", "core.quotePath=false", "-c", "core.fsmonitor=false"]);
    command.args(["ls-files", "-z", "--cached", "--ignored", "--exclude-per-directory=.gitignore"]);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let output = tools::check(&mut command, "git")?;
    let paths = output.stdout.trim_end_matches('\n').split('\0').filter(|path| !path.is_empty());
    Ok(paths.map(PathBuf::from).collect())
}

fn add_tracked(tree: &Path, paths: Vec<PathBuf>, entries: &mut Vec<Entry>) -> Result<(), Error> {
    let root = tree.into();
    let known: HashSet<PathBuf> = entries.iter().map(|entry| entry.path.clone()).collect();
    for path in paths {
        if !is_never_source(&path) && !known.contains(&path) {
            entries.extend(entry(&root, path)?);
        }
    }
    Ok(())
}
