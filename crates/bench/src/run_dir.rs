//! The directory of one run: sockets, console logs, media files.
//!
//! It lives below the user's runtime or temporary directory, because a Unix socket's path may have
//! 107 bytes at most. A run holds a lock on its directory; directories without a living owner were
//! left by a bench that was killed, and are removed by the next.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::getuid,
};

/// An own directory, removed on drop unless it is kept.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
    keep: bool,
    machines: AtomicU32,
}

impl RunDir {
    /// Makes a directory and removes those that dead runs left.
    pub fn new() -> io::Result<Self> {
        let base = base();
        make_private(&base)?;
        sweep(&base);
        let path = tempfile::Builder::new().prefix("run-").tempdir_in(&base)?.keep();
        // Another run that sweeps at this moment must not find the lock before it is held.
        let unheld = path.join("lock.new");
        let lock = File::create(&unheld)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(unheld, path.join("lock"))?;
        Ok(RunDir { path, _lock: lock, keep: false, machines: AtomicU32::new(0) })
    }

    /// A path for the files of the next machine; no two get the same, whatever became of the others.
    pub fn machine(&self) -> PathBuf {
        let number = self.machines.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("vm{number}"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory behind, for `--keep`.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep {
            // What is left is swept by the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn base() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let parent = runtime.unwrap_or_else(env::temp_dir);
    parent.join(format!("sensecheck-{}", getuid().as_raw()))
}

/// Makes a directory that is the user's alone. In a temporary directory its name is known to all:
/// somebody else's, waiting there, is refused.
fn make_private(base: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(base) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", base.display())));
        }
    }
    let found = fs::symlink_metadata(base)?;
    if found.is_dir() && found.uid() == getuid().as_raw() {
        return Ok(());
    }
    let reason = format!("{} belongs to somebody else; remove it", base.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Removes directories whose lock nobody holds.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        // A directory without a lock file is one that is being made this moment.
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // A failure leaves it to the next sweep.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_did_not_come_up_leaves_its_directory_to_nobody() {
        let run_dir = RunDir::new().expect("made");
        let first = run_dir.machine();
        assert_ne!(first, run_dir.machine());
        assert!(first.starts_with(run_dir.path()));
        assert!(run_dir.path().join("lock").exists());
    }

    #[test]
    fn a_directory_is_private_and_a_file_in_its_place_is_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        let base = parent.path().join("base");
        make_private(&base).expect("made");
        make_private(&base).expect("found");
        assert_eq!(fs::metadata(&base).expect("there").mode() & 0o777, 0o700);
        let file = parent.path().join("file");
        fs::write(&file, "").expect("written");
        let refused = make_private(&file).expect_err("no directory");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_dead_runs_directory_is_swept_and_a_living_ones_is_not() {
        let base = tempfile::tempdir().expect("a directory");
        let make = |name: &str| {
            let dir = base.path().join(name);
            fs::create_dir(&dir).expect("made");
            (File::create(dir.join("lock")).expect("made"), dir)
        };
        let (living_lock, living) = make("living");
        flock(&living_lock, FlockOperation::LockExclusive).expect("locked");
        let (dead_lock, dead) = make("dead");
        drop(dead_lock);
        sweep(base.path());
        assert!(living.exists());
        assert!(!dead.exists());
    }
}
