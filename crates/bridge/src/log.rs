//! What a bridge saw.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rustix::io::Errno;
use scsi::{Command, Sense, Status};
use ublk::Op;

use crate::verdict::{HostStatus, Verdict};

/// Something that happened to a request.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// The queue it came on.
    pub queue: u16,
    /// Its tag there.
    pub tag: u16,
    /// What.
    pub what: Seen,
}

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The driver delivered it.
    Delivered {
        /// What it wants.
        op: Op,
        /// Where it starts, in sectors of 512 bytes.
        start_sector: u64,
        /// How long it is, in sectors.
        sectors: u32,
    },
    /// A command went to the disk.
    Sent {
        /// The CDB.
        cdb: Vec<u8>,
    },
    /// The command came back.
    Answered {
        /// The host byte.
        host_status: u8,
        /// The STATUS byte.
        status: u8,
        /// Sense data; empty without.
        sense: Vec<u8>,
        /// Bytes that were not transferred.
        residual: u32,
        /// What became of it.
        verdict: Verdict,
    },
    /// The kernel did not send the command.
    Refused(Errno),
    /// The driver was told so many bytes, or this errno.
    Committed(Result<u32, Errno>),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Delivered { op, start_sector, sectors } => {
                write!(f, "{op:?}, {sectors} sectors at {start_sector}")
            }
            Seen::Sent { cdb } => match Command::lookup(cdb) {
                Some(command) => write!(f, "sends {}", command.name()),
                None => write!(f, "sends {cdb:02x?}"),
            },
            Seen::Answered { host_status, status, sense, residual, verdict } => {
                match HostStatus::from(*host_status) {
                    HostStatus::Ok => f.write_str(&ended(*status, sense, *residual))?,
                    host => write!(f, "host status {host:?}")?,
                }
                match verdict {
                    Verdict::Done(_) => Ok(()),
                    Verdict::Failed(failure) => {
                        write!(f, ": fails with {}", name(failure.errno))?;
                        match failure.good {
                            0 => Ok(()),
                            good => write!(f, " behind {good} good bytes"),
                        }
                    }
                    Verdict::Retried(_) => f.write_str(": worth another attempt"),
                    Verdict::Passes { .. } => f.write_str(": will pass"),
                }
            }
            Seen::Refused(errno) => write!(f, "the kernel refuses the command: {}", name(*errno)),
            Seen::Committed(Ok(bytes)) => write!(f, "commits {bytes} bytes"),
            Seen::Committed(Err(errno)) => write!(f, "commits {}", name(*errno)),
        }
    }
}

/// How a command ended, in words: its status, sense data and residual.
#[must_use]
pub fn ended(status: u8, sense: &[u8], residual: u32) -> String {
    let mut words = match Status::from_code(status) {
        Some(status) => status.name().to_owned(),
        None => format!("status {status:02x}h"),
    };
    if let Ok(sense) = Sense::decode(sense) {
        words += &format!(", {sense}");
    }
    if residual > 0 {
        words += &format!(", {residual} bytes missing");
    }
    words
}

/// The errno's name, of those there are here.
#[must_use]
pub fn name(errno: Errno) -> String {
    let names = [
        (Errno::IO, "EIO"),
        (Errno::NODATA, "ENODATA"),
        (Errno::REMOTEIO, "EREMOTEIO"),
        (Errno::BADE, "EBADE"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::ILSEQ, "EILSEQ"),
        (Errno::NOLINK, "ENOLINK"),
        (Errno::TIME, "ETIME"),
        (Errno::TOOMANYREFS, "ETOOMANYREFS"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    ];
    let known = names.iter().find(|(known, _)| *known == errno);
    known.map_or_else(|| format!("errno {}", errno.raw_os_error()), |(_, name)| (*name).to_owned())
}

/// Events in their order.
#[derive(Debug, Default)]
pub struct Log(Mutex<Vec<Event>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, event: Event) {
        self.lock().push(event);
    }

    /// Takes what has happened since the last time.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.lock())
    }
}
