//! Which lines of the kernel a run reaches, without a kernel built for it.
//!
//! ```text
//! Coverage   what a whole run collects: a recorder for each machine
//! Recorder   one machine: the plugin's log, where its modules were, which test ended when
//! Files      recorders and debug information put together: lines, functions, error codes
//! ```
//!
//! QEMU's translator says which code the kernel reached (crate `coverage-plugin`), DWARF says which
//! lines that is (crate `kernel`). What that can and cannot say:
//!
//! * A line counts as reached if an instruction of it is in a block that was entered. A block that
//!   took an exception half-way counts to its end.
//! * A line without an instruction does not count at all: what the compiler dropped, folded into
//!   another line's instruction, or merged with an equal statement elsewhere. Of equal statements
//!   that were merged, one line stands for all.
//! * A function counts as reached if its entry was, or that of a copy of it that was inlined.
//! * A test is named for a line if it was the first to reach it on the first machine that did. Kernel
//!   threads work for nobody in particular: what they do between the end of one test and that of the
//!   next counts for the latter.
//! * The code that initializes a module is gone afterwards, and another's may be put in its place. If
//!   one test loads several modules, what two of them claim is not counted for either.
//! * Against gcov, in one run of the suite on a kernel built for both: of the 2927 lines both know in
//!   [`DEFAULT_FILES`], 98.2 % are judged alike, and of the functions all but two. Where they differ the
//!   compiler had merged, hoisted or made conditional moves of what gcov counts before it does so. A
//!   tenth of the lines only one of them knows.
//! * The kernel has to be where it was linked (`nokaslr`) and be emulated: KVM translates nothing.

mod errno;
mod lcov;
mod listing;
mod measure;
mod recorder;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod unreachable;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    cargo::{self, BuildError},
    rig,
};

pub(crate) use self::unreachable::OfFile;
pub use self::{
    measure::{FileCoverage, FunctionCoverage, measure},
    recorder::{BOOT, Recorder},
    report::{Report, Wish},
    run::{Request, run},
    unreachable::Unreachable,
};

/// The files a run is measured by if the user names none: what this project tests.
pub const DEFAULT_FILES: [&str; 4] = [
    "block/bsg.c",
    "drivers/scsi/scsi_bsg.c",
    "drivers/scsi/virtio_scsi.c",
    "drivers/block/ublk_drv.c",
];

/// Why there is no coverage. Each says the next step.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of what it is named after")]
pub enum Error {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Rig(#[from] rig::Error),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Debug(#[from] kernel::debug_info::Error),
    #[error("{}: {detail}; correct the file", path.display())]
    Unreachable { path: PathBuf, detail: String },
    #[error(
        "{}: {source}; the run's directory was removed or damaged while it ran, run it again",
        path.display()
    )]
    Log { path: PathBuf, source: io::Error },
    #[error(
        "{}: tests ran, and QEMU's plugin wrote down none of the kernel's code; run it again, and report \
         it with the version of QEMU if it stays so",
        path.display()
    )]
    Silent { path: PathBuf },
    #[error(
        "the kernel {kernel} has no code of {file}; give a path relative to the kernel's tree, such as \
         drivers/scsi/scsi_bsg.c, of code that is built in or in a module the guest has loaded"
    )]
    NoSuchFile { kernel: String, file: String },
    #[error("cannot write {}: {source}; choose another file with --lcov", path.display())]
    Lcov { path: PathBuf, source: io::Error },
}

/// Builds the library that QEMU loads.
pub fn build_plugin(workspace: &Path) -> Result<PathBuf, BuildError> {
    cargo::library(workspace, "coverage-plugin", "coverage_plugin")
}

/// What a run collects.
#[derive(Debug)]
pub struct Coverage {
    plugin: PathBuf,
    machines: Mutex<Vec<Arc<Recorder>>>,
}

impl Coverage {
    /// Nothing yet; `plugin` is the library for QEMU.
    pub fn new(plugin: PathBuf) -> Coverage {
        Coverage { plugin, machines: Mutex::default() }
    }

    /// The recorder of a machine that is about to boot in `dir`.
    pub fn machine(&self, dir: &Path) -> io::Result<Arc<Recorder>> {
        let recorder = Arc::new(Recorder::create(self.plugin.clone(), dir)?);
        self.lock().push(recorder.clone());
        Ok(recorder)
    }

    /// The machines so far, in the order they were booted.
    pub fn machines(&self) -> Vec<Arc<Recorder>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Recorder>>> {
        self.machines.lock().expect("no thread panics with the lock")
    }
}
