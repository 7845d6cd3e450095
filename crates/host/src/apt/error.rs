//! What can go wrong with a package archive, read from apt's own words (`LC_ALL=C`).

use crate::{cache, tools};

/// Why packages could not be had. Each text ends with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No apt on this host.
    #[error(
        "apt-get is not installed, and Debian's packages are fetched with it; run on Debian or \
         Ubuntu (a container will do), or give a kernel of your own"
    )]
    NoApt,
    /// The host does not tell which mirror to use.
    #[error(
        "no Debian mirror is known: this host's package sources name none; give a Debian mirror's \
         URL with `--mirror URL` or in {}",
        super::MIRROR_ENV
    )]
    NoMirror,
    /// Debian's signing keys are not on this host.
    #[error(
        "Debian's signing keys are missing ({looked_for}); run `{}`, or name a keyring file in {}",
        tools::install_command(&["debian-archive-keyring"]),
        super::KEYRING_ENV
    )]
    NoKeyring {
        /// The files looked for.
        looked_for: String,
    },
    /// The mirror does not answer.
    #[error(
        "cannot reach the mirror {mirror} for {what}: {detail}; check the network and proxy \
         settings, or give another Debian mirror's URL with `--mirror URL`"
    )]
    Network {
        /// The mirror's URL.
        mirror: String,
        /// What was wanted from it.
        what: String,
        /// apt's line.
        detail: String,
    },
    /// The mirror answers, but does not have it.
    #[error(
        "the mirror {mirror} does not have {what}: {detail}; it may be partial or behind: give \
         another Debian mirror's URL with `--mirror URL`"
    )]
    NotFound {
        /// The mirror's URL.
        mirror: String,
        /// What was wanted from it.
        what: String,
        /// apt's line.
        detail: String,
    },
    /// A signature is missing or made with an unknown key.
    #[error(
        "the signature of {what} on {mirror} is not good: {detail}; bring the keys up to date \
         (`{}`), or give a Debian mirror's URL with `--mirror URL`",
        tools::install_command(&["debian-archive-keyring"])
    )]
    Signature {
        /// The mirror's URL.
        mirror: String,
        /// The suite.
        what: String,
        /// apt's line.
        detail: String,
    },
    /// The index is too old, or from the future.
    #[error(
        "the index of {what} on {mirror} is out of date: {detail}; check this machine's clock, or \
         give an up-to-date Debian mirror's URL with `--mirror URL`"
    )]
    Expired {
        /// The mirror's URL.
        mirror: String,
        /// The suite.
        what: String,
        /// apt's line.
        detail: String,
    },
    /// A file is not what it should be.
    #[error(
        "bad checksum: {what} from {mirror} is not the file that was asked for: {detail}; nothing \
         of it is kept: try again, or give another Debian mirror's URL with `--mirror URL`"
    )]
    Checksum {
        /// The mirror's URL.
        mirror: String,
        /// The file or package.
        what: String,
        /// Expected and found.
        detail: String,
    },
    /// The index does not list a package.
    #[error(
        "{suite} on {mirror} has no package {what}; give another Debian mirror's URL with `--mirror URL`, or correct the \
         entry in images/"
    )]
    NoSuchPackage {
        /// The mirror's URL.
        mirror: String,
        /// The suite.
        suite: String,
        /// The package, with its version if one was asked for.
        what: String,
    },
    /// Another apt holds the private root: an orphan of a killed run.
    #[error(
        "another apt-get still works in the cache: {detail}; wait until it ends, then try again"
    )]
    Busy {
        /// apt's line.
        detail: String,
    },
    /// apt failed with words not known here.
    #[error(
        "{what}: apt-get failed ({mirror}):\n{output}\nif the mirror is at fault, give another with `--mirror URL`"
    )]
    Other {
        /// The mirror's URL.
        mirror: String,
        /// What was done.
        what: String,
        /// The end of apt's output.
        output: String,
    },
    /// The cache, the disk.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// Starting a program.
    #[error(transparent)]
    Tool(#[from] tools::Error),
}

/// The kinds of failure apt's output can mean, the surest first: a full disk or a bad signature is
/// often followed by a general "failed to fetch".
const KINDS: &[(Kind, &[&str])] = &[
    (Kind::DiskFull, &["No space left on device", "enough free space", "Disk quota exceeded"]),
    (Kind::Busy, &["Could not get lock", "Unable to lock"]),
    (Kind::Expired, &["is expired (invalid since", "is not valid yet (invalid for"]),
    (Kind::Checksum, &["Hash Sum mismatch", "Hashes of received file", "File has unexpected size"]),
    (
        Kind::NotFound,
        &[
            "404  Not Found",
            "400  Bad Request",
            "403  Forbidden",
            "410  Gone",
            "File not found",
            "does not have a Release file",
        ],
    ),
    // Before signatures: of an index it could not read, apt also says that it is not signed.
    (Kind::Network, &["500  ", "502  ", "503  ", "504  "]),
    (
        Kind::Signature,
        &[
            "is not signed",
            "NO_PUBKEY",
            "couldn't be verified",
            "GPG error",
            "OpenPGP signature",
            "BADSIG",
        ],
    ),
    (
        Kind::Network,
        &[
            "Could not resolve",
            "Temporary failure resolving",
            "Something wicked happened resolving",
            "Unable to connect",
            "Could not connect",
            "Cannot initiate the connection",
            "Connection failed",
            "Connection refused",
            "Connection timed out",
            "Could not handshake",
            "Certificate verification failed",
            "Could not wait for server",
            "Failed to fetch",
        ],
    ),
];

#[derive(Clone, Copy)]
enum Kind {
    DiskFull,
    Busy,
    Expired,
    Checksum,
    NotFound,
    Signature,
    Network,
}

/// The error that apt's `output` means.
pub(super) fn from_output(
    output: &str,
    mirror: &str,
    what: &str,
    private_root: &std::path::Path,
) -> Error {
    let found = KINDS.iter().find_map(|(kind, phrases)| {
        let line =
            output.lines().find(|line| phrases.iter().any(|phrase| line.contains(phrase)))?;
        Some((*kind, line))
    });
    let (mirror, what) = (mirror.to_owned(), what.to_owned());
    let Some((kind, line)) = found else {
        let lines: Vec<&str> = output.trim_end().lines().collect();
        let output = lines[lines.len().saturating_sub(10)..].join("\n");
        return Error::Other { mirror, what, output };
    };
    let detail = line.trim_start_matches(['E', 'W', ':', ' ']).trim_end_matches('.').to_owned();
    match kind {
        Kind::DiskFull => cache::disk_full(private_root, 0).into(),
        Kind::Busy => Error::Busy { detail },
        Kind::Expired => Error::Expired { mirror, what, detail },
        Kind::Checksum => Error::Checksum { mirror, what, detail },
        Kind::NotFound => Error::NotFound { mirror, what, detail },
        Kind::Signature => Error::Signature { mirror, what, detail },
        Kind::Network => Error::Network { mirror, what, detail },
    }
}
