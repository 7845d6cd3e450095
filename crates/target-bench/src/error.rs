//! Why there is nothing to report.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why a measurement came to nothing. Each says the next step where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No two CPUs for this process, or not those asked for.
    #[error("{0}")]
    Cpus(String),
    /// A CPU cannot be read or chosen.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A daemon did not start.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// The daemon.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A daemon did not answer on its socket.
    #[error("{name}: {source}{said}")]
    NotReady {
        /// The daemon.
        name: String,
        /// How long it was waited for.
        source: wait::Timeout,
        /// The end of its standard error, on lines of their own.
        said: String,
    },
    /// A daemon ended while it was needed.
    #[error("{name} ended{}{said}", status.map(|status| format!(" ({status})")).unwrap_or_default())]
    Ended {
        /// The daemon.
        name: String,
        /// How, if that is known.
        status: Option<ExitStatus>,
        /// The end of its standard error, on lines of their own.
        said: String,
    },
    /// A message of the vhost-user protocol failed.
    #[error("{name}: the vhost-user message {message} failed: {source}")]
    Protocol {
        /// The daemon.
        name: String,
        /// The message.
        message: &'static str,
        /// What went wrong.
        source: vhost::Error,
    },
    /// A daemon lacks what the measurement takes for granted.
    #[error("{name} does not offer {what}")]
    Lacks {
        /// The daemon.
        name: String,
        /// What is missing.
        what: &'static str,
    },
    /// A command stayed unanswered.
    #[error("{name}: {in_flight} command(s) got no answer within {seconds} s")]
    Silent {
        /// The daemon.
        name: String,
        /// Commands in flight.
        in_flight: u16,
        /// Patience.
        seconds: u64,
    },
    /// A command ended other than with GOOD: whatever was measured, it is not what it is called.
    #[error("{name}: {what} ended with response {response}, status {status:#04x}")]
    Refused {
        /// The daemon.
        name: String,
        /// The command.
        what: String,
        /// Response of the transport.
        response: u8,
        /// SAM status.
        status: u8,
    },
    /// A read brought something else than what is on the medium.
    #[error("{name} answers wrong: {0}", what)]
    Wrong {
        /// The daemon.
        name: String,
        /// What and where.
        what: String,
    },
    /// Nothing has that name.
    #[error("nothing is called `{filter}`; there are {}", names.join(", "))]
    NoSuch {
        /// What was asked for.
        filter: String,
        /// What there is.
        names: Vec<String>,
    },
    /// The user has had enough.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For use in `map_err`.
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { action, source }
    }

    /// For use in `map_err`.
    pub(crate) fn file(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::File { action, path: path.to_owned(), source }
    }
}
