//! Why there is no kernel to boot.

use std::path::PathBuf;

use host::{apt, cache, tools};

use crate::{mirror, series, vmlinux};

/// Why there is no kernel to boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `images/kernels.toml` cannot be read.
    #[error("{}: {detail}; correct the file", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: String,
    },
    /// The user's choice of a compiler is not there.
    #[error(
        "there is no compiler `{compiler}`: install it, correct CC= or LLVM=, or leave them out"
    )]
    NoCompiler {
        /// Its command.
        compiler: String,
    },
    /// No such name.
    #[error("no kernel is called {name:?}; images/kernels.toml has: {}", known.join(", "))]
    UnknownKernel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The mirror has nothing suitable.
    #[error(
        "the mirror {mirror} has no {flavour} kernel of Linux {wanted} in {}; give another Debian \
         mirror's URL with `--mirror URL`, or another kernel with `--kernel NAME` (`cargo xtask kernels --versions` lists \
         them)",
        suites.join(", ")
    )]
    NoneSuitable {
        /// The mirror's URL.
        mirror: String,
        /// The flavour.
        flavour: String,
        /// Which versions would do, in words.
        wanted: String,
        /// Where it was looked for.
        suites: Vec<String>,
    },
    /// The packages do not hold what they should.
    #[error(
        "the packages of kernel {release} have no {what}; report it, and choose another kernel with `--kernel NAME`"
    )]
    Layout {
        /// The kernel's release.
        release: String,
        /// The file looked for.
        what: &'static str,
    },
    /// What the cache holds is not readable.
    #[error("{} is damaged ({detail}); remove that directory and run the same command again", dir.display())]
    Damaged {
        /// The kernel's directory in the cache.
        dir: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The image cannot be booted directly.
    #[error("kernel {release}: {source}")]
    Image {
        /// The kernel's release.
        release: String,
        /// Why.
        source: vmlinux::Error,
    },
    /// What was named is neither a kernel's name nor a version nor a file.
    #[error("{what}: {detail}")]
    Input {
        /// The file or directory.
        what: String,
        /// What is wrong with it, and what to do.
        detail: String,
    },
    /// Symbols do not have the values that are needed.
    #[error("{config} cannot be used: {symbols}.\n{hint}", symbols = symbols.join(", "))]
    Symbols {
        /// The configuration.
        config: String,
        /// Each with what it is and what it has to be.
        symbols: Vec<String>,
        /// The next step.
        hint: String,
    },
    /// The kernel does not build.
    #[error("{what} failed:\n{detail}\nthe whole output is in {}", log.display())]
    Build {
        /// What was made.
        what: String,
        /// The first error, or the last lines.
        detail: String,
        /// What make printed.
        log: PathBuf,
    },
    /// A program of the host.
    #[error(transparent)]
    Tool(tools::Error),
    /// A posted series that cannot be read.
    #[error(transparent)]
    Read(#[from] series::ReadError),
    /// A posted series that does not fit.
    #[error(transparent)]
    Apply(#[from] series::ApplyError),
    /// A copy of a tree.
    #[error(transparent)]
    Mirror(#[from] mirror::Error),
    /// What the debug information says.
    #[error(transparent)]
    Debug(#[from] crate::debug_info::Error),
    /// There is no debug information.
    #[error(
        "kernel {name} has no debug information at hand; build it with CONFIG_DEBUG_INFO_DWARF5=y, or \
         take a kernel of images/kernels.toml with `--kernel NAME`"
    )]
    NoDebugInfo {
        /// The kernel.
        name: String,
    },
    /// Packages.
    #[error(transparent)]
    Apt(#[from] apt::Error),
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

impl From<tools::Error> for Error {
    fn from(error: tools::Error) -> Error {
        Error::Apt(error.into())
    }
}
