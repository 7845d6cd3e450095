//! A Debian archive for tests: real packages, a real signature, served on the loopback interface.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Options, Pin, sha256_of};

/// An archive; its directory is `dir`, laid out as `dists/` and `pool/`.
#[derive(Debug)]
pub struct Archive {
    dir: tempfile::TempDir,
    gnupg: tempfile::TempDir,
    url: String,
    requests: Arc<AtomicUsize>,
}

/// How the index of a suite is signed and dated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Signed, and valid for long.
    Good,
    /// Without a signature.
    Unsigned,
    /// Signed, and valid no longer.
    Expired,
}

impl Default for Archive {
    fn default() -> Archive {
        Archive::new()
    }
}

impl Archive {
    /// An archive without packages, served from now on.
    pub fn new() -> Archive {
        let dir = tempfile::tempdir().expect("temporary directory");
        let gnupg = tempfile::tempdir().expect("temporary directory");
        for sub in ["pool", "dists", "build"] {
            fs::create_dir(dir.path().join(sub)).expect("directory");
        }
        gpg(
            gnupg.path(),
            &["--quick-generate-key", "archive@example.org", "ed25519", "sign", "never"],
        );
        gpg(gnupg.path(), &["--output", "keyring.gpg", "--export"]);
        let requests = Arc::default();
        let url = serve(dir.path().to_owned(), Arc::clone(&requests));
        Archive { dir, gnupg, url, requests }
    }

    /// Options that use this archive and trust its key.
    pub fn options(&self) -> Options {
        Options {
            mirror: Some(self.url.clone()),
            keyring: Some(self.gnupg.path().join("keyring.gpg")),
        }
    }

    /// How many requests were answered so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Puts a package with these files (path and content) into the pool.
    pub fn package(&self, name: &str, version: &str, files: &[(String, Vec<u8>)]) -> Pin {
        let root = self.dir.path().join("build").join(name);
        fs::create_dir_all(root.join("DEBIAN")).expect("directory");
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n\
             Maintainer: Test <test@example.org>\nDescription: test\n"
        );
        fs::write(root.join("DEBIAN/control"), control).expect("write");
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
            fs::write(path, content).expect("write");
        }
        let deb = self.deb(name);
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", "--build"]).arg(&root).arg(&deb);
        let output = command.output().expect("dpkg-deb");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let sha256 = sha256_of(&deb).expect("the package");
        Pin { name: name.to_owned(), version: version.to_owned(), sha256 }
    }

    /// The package's file in the pool.
    pub fn deb(&self, name: &str) -> PathBuf {
        self.dir.path().join("pool").join(format!("{name}.deb"))
    }

    /// Writes the index of `suite`, which lists exactly `packages`.
    pub fn publish(&self, suite: &str, packages: &[Pin], index: Index) {
        let dist = self.dir.path().join("dists").join(suite);
        let binary = dist.join("main/binary-amd64");
        fs::create_dir_all(&binary).expect("directory");
        let list: String = packages.iter().map(|pin| self.stanza(pin)).collect();
        let packages = binary.join("Packages");
        fs::write(&packages, &list).expect("write");
        let (date, until) = match index {
            Index::Expired => {
                ("Thu, 01 Jan 2015 00:00:00 UTC", "\nValid-Until: Thu, 08 Jan 2015 00:00:00 UTC")
            }
            Index::Good | Index::Unsigned => ("Thu, 01 Jan 2015 00:00:00 UTC", ""),
        };
        let release = format!(
            "Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\nDate: {date}{until}\n\
             Architectures: amd64\nComponents: main\nSHA256:\n {} {} main/binary-amd64/Packages\n",
            sha256_of(&packages).expect("the index"),
            list.len(),
        );
        fs::write(dist.join("Release"), release).expect("write");
        let inline = dist.join("InRelease");
        if inline.exists() {
            fs::remove_file(&inline).expect("remove");
        }
        if index != Index::Unsigned {
            let release = dist.join("Release").display().to_string();
            gpg(
                self.gnupg.path(),
                &["--output", &inline.display().to_string(), "--clearsign", &release],
            );
        }
    }

    fn stanza(&self, pin: &Pin) -> String {
        let size = fs::metadata(self.deb(&pin.name)).map_or(1, |metadata| metadata.len());
        format!(
            "Package: {0}\nVersion: {1}\nArchitecture: amd64\nMaintainer: Test <test@example.org>\n\
             Filename: pool/{0}.deb\nSize: {size}\nSHA256: {2}\nDescription: test of {0}\n\n",
            pin.name, pin.version, pin.sha256
        )
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // The agent that gpg starts would end by itself, some time after its directory is gone.
        let mut command = Command::new("gpgconf");
        let _ =
            command.arg("--homedir").arg(self.gnupg.path()).args(["--kill", "gpg-agent"]).status();
    }
}

fn gpg(home: &Path, args: &[&str]) {
    let mut command = Command::new("gpg");
    command.current_dir(home).arg("--homedir").arg(home);
    command
        .args(["--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"])
        .args(args);
    let output = command.output().expect("gpg runs; it is in the Debian package gnupg");
    assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves `dir` by HTTP; returns the URL. The thread ends with the test process.
fn serve(dir: PathBuf, requests: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (dir, requests) = (dir.clone(), Arc::clone(&requests));
            std::thread::spawn(move || answer(&stream, &dir, &requests));
        }
    });
    url
}

/// Answers the requests of one connection, until it is closed.
fn answer(mut stream: &TcpStream, dir: &Path, requests: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut header = String::new();
        while reader.read_line(&mut header).unwrap_or(0) > 2 {
            header.clear();
        }
        requests.fetch_add(1, Ordering::Relaxed);
        let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
        // The one character of our names that apt escapes.
        let path = path.replace("%2b", "+");
        let (status, body) = match fs::read(dir.join(path)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}
