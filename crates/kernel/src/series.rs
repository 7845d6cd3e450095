//! A posted patch series: read from what a mailing list's archive gives, applied to a tree.
//!
//! * [`read`] takes an mbox, a single patch, or a directory, and finds the patches of the newest
//!   version in their order among cover letters, replies and older versions.
//! * [`apply()`] applies them, or says which patch fails at which line and why.
//!
//! Mail and diffs are read by git's own programs (`mailsplit`, `mailinfo`, `apply`); they run outside
//! any repository and without the user's configuration.

mod apply;
mod diff;
mod explain;
mod git;
mod mail;
mod select;
mod subject;
#[cfg(test)]
mod tests;

use std::{fmt, io, path::PathBuf};

use host::tools;

pub use apply::{ApplyError, Patched, apply};
pub use explain::Reason;
pub use mail::read;
pub use subject::Number;

/// The patches of one version of a series, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// At least one.
    pub patches: Vec<Patch>,
    /// The commit that its author says it was made on (`base-commit:`).
    pub base_commit: Option<String>,
    /// What was left out or put right, for the reader of a report.
    pub notes: Vec<String>,
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its place in the posting: the `2/3` of `[PATCH v4 2/3]`.
    pub number: Option<Number>,
    /// The subject without its tags; of a bare diff, the name of its file.
    pub subject: String,
    /// `Name <address>`; empty if nobody is named.
    pub author: String,
    /// The files it changes, makes or removes, relative to the tree.
    pub files: Vec<PathBuf>,
    /// Directories to take off the front of its file names: 1 but for a quilt series that says else.
    pub strip: u32,
    /// The diff, in the encoding of the files it changes.
    pub diff: Vec<u8>,
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "patch {number} \"{}\"", self.subject),
            None => write!(f, "patch \"{}\"", self.subject),
        }
    }
}

/// Why a series could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}; give an mbox, a patch, or a directory of patches", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A compressed file is damaged, or compressed in a way that is not known.
    #[error("{} cannot be decompressed: {detail}; fetch it again, or decompress it yourself", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// There are mails or files, and none is a patch.
    #[error("there is no patch in {}: {found}; give an mbox, a patch, or a directory of patches", path.display())]
    NoPatch {
        /// What was given.
        path: PathBuf,
        /// What was there instead.
        found: String,
    },
    /// Patches of the series are not there.
    #[error(
        "{} has no patch {missing} of version {version}{empty}; fetch the whole thread (its mbox.gz in \
         the list's archive)", path.display()
    )]
    Missing {
        /// What was given.
        path: PathBuf,
        /// `2/3, 3/3`.
        missing: String,
        /// The version that was chosen, the newest.
        version: u32,
        /// Empty, or in brackets which of them were posted without a diff.
        empty: String,
    },
    /// Two different patches have the same number.
    #[error(
        "{} has two different patches {number} of version {version}: \"{one}\" and \"{other}\"; give \
         one series at a time, or a directory with a file `series` that lists the patches in order",
        path.display()
    )]
    Ambiguous {
        /// What was given.
        path: PathBuf,
        /// The number both have.
        number: Number,
        /// The version both have.
        version: u32,
        /// The subject of the first.
        one: String,
        /// The subject of the second.
        other: String,
    },
    /// A diff that cannot be one.
    #[error(
        "the diff of {patch} is damaged: {detail}; get the mail as it was sent, from the list's archive"
    )]
    Damaged {
        /// Which patch.
        patch: String,
        /// What is wrong, and where.
        detail: String,
    },
    /// A line of a quilt `series` file.
    #[error("{}:{line}: {detail}; correct the file", path.display())]
    SeriesFile {
        /// The `series` file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// No room for temporary files.
    #[error("cannot write a temporary file: {0}; free space in TMPDIR")]
    Temporary(io::Error),
    /// git.
    #[error(transparent)]
    Git(#[from] tools::Error),
}
