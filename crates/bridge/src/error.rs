//! Why there is no bridge to a disk.

use std::{io, path::PathBuf};

use rustix::io::Errno;

/// Why a disk cannot be bridged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its node cannot be opened, or takes no commands.
    #[error(transparent)]
    Bsg(#[from] bsg::Error),
    /// It does not say what has to be known.
    #[error("{what} failed: {why}")]
    Asked {
        /// The command.
        what: &'static str,
        /// How it ended.
        why: String,
    },
    /// What it says cannot be the block device of a kernel.
    #[error("the disk has {0}, which no block device has")]
    Unfit(String),
    /// What the kernel says of the way to it cannot be read.
    #[error("{}: {source}", path.display())]
    Sysfs {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node does not tell how much a command may move.
    #[error("the node does not say how much a command may move: {0}")]
    Limit(Errno),
}
