//! Listening sockets in the file system: bound without stealing a living one, removed at the end.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Longest socket path in bytes: `sun_path` of unix(7) without its closing 0.
const PATH_LEN_MAX: usize = 107;

/// Why there is no socket. The text names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory does not exist.
    #[error("{}: directory {} does not exist; create it first", path.display(), directory.display())]
    NoDirectory {
        /// The socket.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The path is too long for a socket address.
    #[error("{}: longer than {PATH_LEN_MAX} bytes, the most a socket path can have", .0.display())]
    TooLong(PathBuf),
    /// Somebody listens there.
    #[error("{}: another process is listening there; stop it or choose another path", .0.display())]
    InUse(PathBuf),
    /// The path is taken by something that is no socket.
    #[error("{}: exists and is no socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses it.
    #[error("{}: cannot {what}: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The name of a listening socket in the file system, removed when dropped.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Device and inode, so that a successor's socket is left alone.
    identity: (u64, u64),
}

/// Listens on `path`. A socket there that nobody listens on any more is replaced.
///
/// # Errors
/// See [`SocketError`]; a path taken by anything else is left as it is.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketPath), SocketError> {
    let system = |what| move |source| SocketError::System { path: path.to_owned(), what, source };
    if path.as_os_str().len() > PATH_LEN_MAX {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return Err(SocketError::NoDirectory {
            path: path.to_owned(),
            directory: directory.to_owned(),
        });
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(system("create the socket"))?;
    let metadata = fs::symlink_metadata(path).map_err(system("look at the new socket"))?;
    let identity = (metadata.dev(), metadata.ino());
    Ok((listener, SocketPath { path: path.to_owned(), identity }))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let system = |what| move |source| SocketError::System { path: path.to_owned(), what, source };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(system("look at the path"))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system("remove the stale socket"))
        }
        Err(source) => Err(system("find out whether the socket is in use")(source)),
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_error(path: &Path) -> SocketError {
        bind(path).expect_err("this path is not for us")
    }

    #[test]
    fn socket_is_removed_with_its_guard() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let (_listener, guard) = bind(&path).expect("a free path");
        assert!(path.exists());
        drop(guard);
        assert!(!path.exists());
    }

    #[test]
    fn stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let first = UnixListener::bind(&path).expect("a free path");
        assert!(matches!(bind_error(&path), SocketError::InUse(_)));
        drop(first);
        let (_listener, _guard) = bind(&path).expect("nobody listens any more");
        UnixStream::connect(&path).expect("we do");
    }

    #[test]
    fn successors_socket_survives_the_guard() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let (listener, guard) = bind(&path).expect("a free path");
        drop(listener);
        // Ours is out of the way but alive, so that its inode number is not given out again.
        fs::rename(&path, directory.path().join("old")).expect("our directory");
        let (_successor, _guard) = bind(&path).expect("the path is free");
        drop(guard);
        assert!(path.exists());
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        fs::write(&path, "data").expect("our directory");
        assert!(matches!(bind_error(&path), SocketError::NotASocket(_)));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
    }

    #[test]
    fn errors_name_path_and_remedy() {
        let path = Path::new("/nonexistent/socket");
        let text = bind_error(path).to_string();
        assert_eq!(
            text,
            "/nonexistent/socket: directory /nonexistent does not exist; create it first"
        );
        let long = PathBuf::from("x".repeat(108));
        assert!(matches!(bind_error(&long), SocketError::TooLong(_)));
    }
}
