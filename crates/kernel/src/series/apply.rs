//! Applying a series to a tree that is not written to.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use super::{
    Patch, Series,
    explain::{self, Reason},
    git,
};
use crate::mirror::Overlay;
use host::tools;

/// Why a series does not apply.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A patch does not fit.
    #[error("{patch} ({place} of {count}) does not apply: {reason}\n{hint}")]
    DoesNotApply {
        /// Which one.
        patch: String,
        /// Its place, from 1.
        place: usize,
        /// How many patches there are.
        count: usize,
        /// Why.
        reason: Box<Reason>,
        /// What to do next.
        hint: String,
    },
    /// A patch would write where no patch may.
    #[error("{patch} is refused: {} {why}; correct the patch", file.display())]
    Refused {
        /// Which one.
        patch: String,
        /// The name in the patch.
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file of the tree cannot be read.
    #[error("cannot read {}: {source}; make it readable for you", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// No room for the patched files.
    #[error("cannot write a temporary file: {0}; free space in TMPDIR")]
    Temporary(io::Error),
    /// git.
    #[error(transparent)]
    Git(#[from] tools::Error),
}

/// What a series makes of a tree: the files that differ.
#[derive(Debug)]
pub struct Patched {
    /// New, changed and removed files, for [`crate::mirror::update`]. They last as long as this value.
    pub overlay: Overlay,
    /// Where a patch did not fit to the letter, for the reader of a report.
    pub notes: Vec<String>,
    _dir: tempfile::TempDir,
}

/// Applies the patches in order to the files of `tree`, which stays as it is whatever happens.
///
/// A hunk may have moved; that is noted, and so is a patch that fits only with less context than it
/// has, or with other blanks.
pub fn apply(series: &Series, tree: &Path) -> Result<Patched, ApplyError> {
    let dir = tempfile::tempdir().map_err(ApplyError::Temporary)?;
    let scratch =
        Scratch { tree, root: dir.path().join("tree"), diff: dir.path().join("diff"), series };
    fs::create_dir(&scratch.root).map_err(ApplyError::Temporary)?;
    let mut notes = series.notes.clone();
    let mut touched = BTreeSet::new();
    for (place, patch) in (1..).zip(&series.patches) {
        for file in &patch.files {
            if touched.insert(file.clone()) {
                scratch.bring(patch, file)?;
            }
        }
        notes.extend(scratch.apply(patch, place)?);
    }
    let mut overlay = Overlay { root: scratch.root.clone(), ..Overlay::default() };
    for file in touched {
        let is_in = |root: &Path| fs::symlink_metadata(root.join(&file)).is_ok();
        if is_in(&scratch.root) {
            overlay.files.push(file);
        } else if is_in(tree) {
            overlay.removed.push(file);
        }
    }
    Ok(Patched { overlay, notes, _dir: dir })
}

/// Ways to apply a patch, the strictest first, and what is noted of one.
const WAYS: &[(&[&str], Option<&str>)] = &[
    (&[], None),
    (&["--recount"], Some("the line counts of its hunks are wrong")),
    (&["-C2"], Some("two lines of context around a change fit, not three")),
    (&["--ignore-whitespace"], Some("blanks of the context differ")),
    (&["-C1"], Some("one line of context around a change fits, not three")),
    (&["-C1", "--ignore-whitespace", "--recount"], Some("little of the context fits")),
];

/// The files that the series touches, as far as it has been applied.
struct Scratch<'a> {
    tree: &'a Path,
    root: PathBuf,
    diff: PathBuf,
    series: &'a Series,
}

impl Scratch<'_> {
    /// Brings a file of the tree, if it is there. Parents that are no directories are refused: git
    /// would look at the copy of a link, where it leads somewhere else.
    fn bring(&self, patch: &Patch, file: &Path) -> Result<(), ApplyError> {
        let refused = |why| {
            let patch = patch.to_string();
            Err(ApplyError::Refused { patch, file: file.to_owned(), why })
        };
        let is_inside = file.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside {
            return refused("lies outside the tree");
        }
        if file.starts_with(".git") {
            return refused("belongs to git");
        }
        let parents: Vec<&Path> = file.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|parent| !parent.as_os_str().is_empty()) {
            match fs::symlink_metadata(self.tree.join(parent)) {
                Ok(metadata) if metadata.is_symlink() => {
                    return refused("lies behind a symbolic link");
                }
                Ok(metadata) if !metadata.is_dir() => return refused("lies below a file"),
                Ok(_) => {}
                Err(_) => return Ok(()),
            }
        }
        let (from, to) = (self.tree.join(file), self.root.join(file));
        let unreadable = |source| ApplyError::Unreadable { path: from.clone(), source };
        let Ok(metadata) = fs::symlink_metadata(&from) else { return Ok(()) };
        fs::create_dir_all(to.parent().unwrap_or(&self.root)).map_err(ApplyError::Temporary)?;
        if metadata.is_symlink() {
            let target = fs::read_link(&from).map_err(unreadable)?;
            symlink(target, &to).map_err(ApplyError::Temporary)
        } else if metadata.is_file() {
            let content = fs::read(&from).map_err(unreadable)?;
            fs::write(&to, content).map_err(ApplyError::Temporary)?;
            fs::set_permissions(&to, metadata.permissions()).map_err(ApplyError::Temporary)
        } else {
            refused("is a directory")
        }
    }

    /// Applies one patch; what is to be noted of it.
    fn apply(&self, patch: &Patch, place: usize) -> Result<Vec<String>, ApplyError> {
        fs::write(&self.diff, &patch.diff).map_err(ApplyError::Temporary)?;
        let mut words = None;
        for (arguments, note) in WAYS {
            let output = self.git(patch, arguments)?;
            if output.status.success() {
                let mut notes: Vec<String> =
                    note.iter().map(|note| format!("{patch} applies, but {note}")).collect();
                let moved = output.stderr.matches("(offset ").count();
                if moved > 0 {
                    notes.push(format!("{patch}: {moved} hunks have moved"));
                }
                return Ok(notes);
            }
            words.get_or_insert(output.stderr);
        }
        let is_applied = self.git(patch, &["-R", "--check"])?.status.success();
        let reason = if is_applied {
            Reason::AlreadyApplied
        } else {
            explain::reason(&words.unwrap_or_default(), patch, &self.root)
        };
        Err(ApplyError::DoesNotApply {
            patch: patch.to_string(),
            place,
            count: self.series.patches.len(),
            hint: self.hint(patch, place, &reason),
            reason: Box::new(reason),
        })
    }

    fn git(&self, patch: &Patch, arguments: &[&str]) -> Result<tools::Output, tools::Error> {
        let arguments = [&["--verbose"], arguments].concat();
        tools::run(&mut git::apply(&self.root, patch.strip, &arguments, &self.diff), "git")
    }

    /// What to do about a patch that does not apply.
    fn hint(&self, patch: &Patch, place: usize, reason: &Reason) -> String {
        if matches!(reason, Reason::AlreadyApplied) {
            return "choose an older kernel with --base, or leave the patch out".to_owned();
        }
        let earlier = patch.number.filter(|number| number.n > 1 && place == 1);
        if let Some(number) = earlier {
            return format!(
                "the patches before {number} are not there and may be needed: fetch the whole series"
            );
        }
        match &self.series.base_commit {
            Some(commit) => format!(
                "the series was made on commit {commit}: choose a kernel near it with --base, or give \
                 a tree of it with --kernel-tree"
            ),
            None => {
                "choose the kernel it was made for with --base, or give a tree with --kernel-tree"
                    .to_owned()
            }
        }
    }
}
