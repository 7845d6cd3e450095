//! The user's cache: kernels, package indexes and images, outside the checkout.
//!
//! A thing in the cache is whole or absent. It is made in a temporary directory on the same file
//! system, written out to the disk, and renamed into its place. Whoever makes it holds a lock file,
//! so two runs at once wait for each other instead of doing the work twice; what a killed run left
//! behind is removed by the next one that takes the same lock.

use std::{
    env, fs,
    fs::{File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::progress::{Bytes, Progress};

/// Where the user moves the cache.
pub const CACHE_ENV: &str = "SENSECHECK_CACHE";

/// Why something could not be kept in the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no directory to put the cache in.
    #[error(
        "no place for the cache: {CACHE_ENV}, XDG_CACHE_HOME and HOME are all unset; set {CACHE_ENV} \
         to a directory with 1 GB free"
    )]
    NoHome,
    /// The disk is full, or a quota is reached.
    #[error(
        "disk full: {} needs {need}, {available} is free; free space there or set {CACHE_ENV} to a \
         directory on another disk",
        path.display()
    )]
    DiskFull {
        /// Where the space ran out.
        path: PathBuf,
        /// What the work needs in all.
        need: Bytes,
        /// What is left for this user.
        available: Bytes,
    },
    /// Any other failure of a file operation.
    #[error(
        "cannot {action} {}: {source}; check that the directory is yours and writable, or set \
         {CACHE_ENV} to another one",
        path.display()
    )]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Whether a file was written longer ago than that; not, if that cannot be told.
pub fn is_older(path: &Path, age: Duration) -> bool {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed > age))
}

/// Turns an I/O error into [`Error`], naming what was tried on which path. For use in `map_err`.
pub fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            disk_full(path, 0)
        }
        _ => Error::Io { action, path: path.to_owned(), source },
    }
}

/// The disk under `path` is full. `need` is zero where only the failing write is known.
pub fn disk_full(path: &Path, need: u64) -> Error {
    Error::DiskFull {
        path: path.to_owned(),
        need: Bytes(need),
        available: Bytes(available(path).unwrap_or(0)),
    }
}

/// Bytes a user without privileges may still write under `path` or its nearest existing parent.
pub fn available(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|parent| parent.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What tells one version of a file or directory from another without reading it.
pub fn identity(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    Ok(format!(
        "{}:{}:{}:{}.{:09}",
        path.display(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}

/// The cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A held lock file; the lock ends with the value, or with the process.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// The lock file once more. The lock is held as long as any process has it open, so a child that
    /// gets it keeps others out even if this process is killed.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Cache {
    /// `$SENSECHECK_CACHE`, else `$XDG_CACHE_HOME/sensecheck`, else `~/.cache/sensecheck`.
    pub fn open() -> Result<Cache, Error> {
        let dir = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = dir(CACHE_ENV)
            // The base directory specification: a relative path is invalid and ignored.
            .or_else(|| {
                dir("XDG_CACHE_HOME")
                    .filter(|path| path.is_absolute())
                    .map(|p| p.join("sensecheck"))
            })
            .or_else(|| dir("HOME").map(|home| home.join(".cache/sensecheck")))
            .ok_or(Error::NoHome)?;
        Cache::at(&root)
    }

    /// A cache in `root`, which is made if need be.
    pub fn at(root: &Path) -> Result<Cache, Error> {
        fs::create_dir_all(root).map_err(at("make the cache directory", root))?;
        // Package tools and QEMU are started elsewhere: the paths handed to them are absolute.
        let root = fs::canonicalize(root).map_err(at("resolve", root))?;
        Ok(Cache { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of `name` (a relative path), whether it exists or not.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Takes the lock called `name`; if another process has it, says so and waits.
    pub fn lock(&self, name: &str, progress: &Progress) -> Result<Lock, Error> {
        let dir = self.made("locks")?;
        let path = dir.join(format!("{}.lock", flat(name)));
        let file = File::create(&path).map_err(at("make the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.note(&format!(
                    "waiting for another run that prepares {name} (lock {})",
                    path.display()
                ));
                file.lock().map_err(at("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
        }
        Ok(Lock { file })
    }

    /// The directory `name`, made by `fill` if the cache lacks it.
    ///
    /// `fill` gets an empty directory on the same file system. `need` is about how many bytes it
    /// will write: too little free space is an error before any work is done.
    ///
    /// # Errors
    /// What `fill` returned, or the cache's own [`Error`]; in both cases nothing of it remains.
    pub fn entry<E: From<Error>>(
        &self,
        name: &str,
        need: u64,
        progress: &Progress,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let place = self.path(name);
        if place.exists() {
            return Ok(place);
        }
        let _lock = self.lock(name, progress)?;
        if place.exists() {
            return Ok(place);
        }
        let temporary = self.temporary(name)?;
        if let Some(free) = available(temporary.path())
            && free < need
        {
            return Err(disk_full(&self.root, need).into());
        }
        fill(temporary.path())?;
        self.publish(temporary, &place)?;
        Ok(place)
    }

    /// Removes the directory `name`: for others it is there whole, or not at all. Waits for whoever makes or
    /// uses it under its lock.
    pub fn remove(&self, name: &str, progress: &Progress) -> Result<(), Error> {
        let place = self.path(name);
        let _lock = self.lock(name, progress)?;
        let temporary = self.temporary(name)?;
        fs::rename(&place, temporary.path().join("old")).map_err(at("move away", &place))?;
        temporary.close().map_err(at("remove", &place))
    }

    /// Replaces the file `name` by `content`, whole or not at all.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
        let place = self.path(name);
        let parent = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(at("make", parent))?;
        let file = tempfile::NamedTempFile::new_in(parent).map_err(at("make a file in", parent))?;
        fs::write(file.path(), content).map_err(at("write", &place))?;
        file.as_file().sync_all().map_err(at("write out", &place))?;
        file.persist(&place).map_err(|error| at("rename into", &place)(error.error))?;
        Ok(place)
    }

    /// A fresh temporary directory for making `name`, whose lock the caller holds.
    fn temporary(&self, name: &str) -> Result<tempfile::TempDir, Error> {
        let dir = self.made("tmp")?;
        for entry in fs::read_dir(&dir).map_err(at("read", &dir))? {
            let stale = entry.map_err(at("read", &dir))?.path();
            if self.is_left_over(&stale, name)? {
                fs::remove_dir_all(&stale).map_err(at("remove the left-over", &stale))?;
            }
        }
        let prefix = format!("{}{MAKER_END}", flat(name));
        tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&dir)
            .map_err(at("make a temporary directory in", &dir))
    }

    /// Whether nobody works in this temporary directory any more. Its maker would hold the lock that
    /// the start of its name tells; that of `held` is the caller's own.
    fn is_left_over(&self, temporary: &Path, held: &str) -> Result<bool, Error> {
        let file_name = temporary.file_name().unwrap_or_default().to_string_lossy();
        let Some((maker, _)) = file_name.split_once(MAKER_END) else { return Ok(false) };
        if maker == flat(held) {
            return Ok(true);
        }
        let path = self.made("locks")?.join(format!("{maker}.lock"));
        let file = File::create(&path).map_err(at("make the lock file", &path))?;
        Ok(file.try_lock().is_ok())
    }

    /// Writes the directory out and renames it to `place`.
    fn publish(&self, temporary: tempfile::TempDir, place: &Path) -> Result<(), Error> {
        let parent = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(at("make", parent))?;
        // One call for thousands of small files; a delayed "no space" shows here as well.
        let handle = File::open(temporary.path()).map_err(at("open", temporary.path()))?;
        rustix::fs::syncfs(&handle).map_err(|errno| at("write out", place)(errno.into()))?;
        // Others must be able to use what root prepared in a shared cache; tempfile made it 0700.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(temporary.path(), readable).map_err(at("open up", place))?;
        fs::rename(temporary.path(), place).map_err(at("rename into", place))?;
        // Renamed: there is nothing left for the guard to remove.
        let _ = temporary.keep();
        let handle = File::open(parent).map_err(at("open", parent))?;
        handle.sync_all().map_err(at("write out", parent))
    }

    fn made(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).map_err(at("make", &dir))?;
        Ok(dir)
    }
}

/// Stands between the lock's name and the random part in the name of a temporary directory.
const MAKER_END: char = '~';

/// A name without directories, for lock files and temporary directories.
fn flat(name: &str) -> String {
    name.replace('/', "_")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error(transparent)]
        Cache(#[from] Error),
        #[error("planned")]
        Planned,
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(dir.path()).expect("cache");
        (dir, cache)
    }

    #[test]
    fn failed_entry_leaves_nothing_behind() {
        let (_dir, cache) = cache();
        let made = cache.entry("kernels/x", 0, &Progress::quiet(), |dir| {
            fs::write(dir.join("half"), b"half").expect("write");
            Err(Failure::Planned)
        });
        assert!(matches!(made, Err(Failure::Planned)), "{made:?}");
        assert!(!cache.path("kernels/x").exists());
        assert_eq!(fs::read_dir(cache.path("tmp")).expect("tmp").count(), 0);
    }

    #[test]
    fn entry_is_made_once() {
        let (_dir, cache) = cache();
        for round in 0..2 {
            let place = cache
                .entry("a/b", 0, &Progress::quiet(), |dir| {
                    assert_eq!(round, 0, "made twice");
                    fs::write(dir.join("whole"), b"whole").map_err(at("write", dir))
                })
                .expect("entry");
            assert_eq!(fs::read(place.join("whole")).expect("read"), b"whole");
        }
    }

    #[test]
    fn left_over_of_a_killed_run_is_swept() {
        let (_dir, cache) = cache();
        let stale = cache.path("tmp/a_b~dead");
        let elsewhere = cache.path("tmp/a_d~dead");
        let other = cache.path("tmp/a_c~alive");
        for dir in [stale.join("deep"), elsewhere.clone(), other.clone()] {
            fs::create_dir_all(dir).expect("directory");
        }
        let _at_work = cache.lock("a/c", &Progress::quiet()).expect("lock");
        cache.entry("a/b", 0, &Progress::quiet(), |_| Ok::<(), Error>(())).expect("entry");
        assert!(!stale.exists() && !elsewhere.exists());
        assert!(other.exists(), "what another lock guards was removed");
    }

    #[test]
    fn second_run_waits_and_says_so() {
        let (_dir, cache) = cache();
        let held = cache.lock("kernels/x", &Progress::quiet()).expect("lock");
        let (progress, lines) = Progress::recording();
        let (send, got_it) = mpsc::channel();
        let other = cache.clone();
        let waiter = std::thread::spawn(move || {
            let lock = other.lock("kernels/x", &progress).expect("lock");
            send.send(()).expect("send");
            drop(lock);
        });
        lines.wait_for("waiting for another run that prepares kernels/x");
        assert!(got_it.try_recv().is_err(), "the lock was not exclusive");
        drop(held);
        got_it.recv().expect("the waiter gets the lock");
        waiter.join().expect("waiter");
    }

    #[test]
    fn too_little_space_is_told_before_work() {
        let (_dir, cache) = cache();
        let made = cache.entry("big", u64::MAX, &Progress::quiet(), |_| -> Result<(), Error> {
            panic!("work was begun")
        });
        let text = made.expect_err("too big").to_string();
        assert!(text.contains("disk full"), "{text}");
        assert!(text.contains(&cache.root().display().to_string()), "{text}");
        assert!(text.contains("SENSECHECK_CACHE"), "{text}");
    }

    #[test]
    fn full_disk_is_recognised() {
        let error = at("write", Path::new("/"))(io::Error::from_raw_os_error(28));
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    }

    #[test]
    fn written_file_replaces_the_old_one() {
        let (_dir, cache) = cache();
        cache.write("s/x.json", b"one").expect("write");
        let place = cache.write("s/x.json", b"two").expect("write");
        assert_eq!(fs::read(place).expect("read"), b"two");
    }
}
