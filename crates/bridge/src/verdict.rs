//! What a SCSI outcome means for a request of the block layer.
//!
//! The measure is what an application gets from the kernel's own disk driver: `drivers/scsi/scsi_error.c`
//! (`scsi_decide_disposition`, `scsi_check_sense`) says what is tried again, `scsi_lib.c` (`scsi_io_completion_action`,
//! `scsi_result_to_blk_status`) with which block status the rest fails, `block/blk-core.c:blk_errors` which errno that
//! is, and `sd.c` (`sd_done`, `sd_completed_bytes`) how much is good. ublk takes the errno and turns it into the same
//! status (`errno_to_blk_status`).
//!
//! Three things differ, so that an application is never told more than happened: a residual counts under RECOVERED
//! ERROR too, COMMAND TERMINATED is no success, and sense data beside another host status than 0 is not looked at, as
//! bsg does not deliver it.

use rustix::io::Errno;
use scsi::{Sense, SenseKey, Status};

/// How the driver of the host bus adapter and the midlayer saw a command end, `include/scsi/scsi_status.h`
/// (`enum scsi_host_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostStatus {
    /// `DID_OK`.
    Ok,
    /// `DID_NO_CONNECT`.
    NoConnect,
    /// `DID_BUS_BUSY`.
    BusBusy,
    /// `DID_TIME_OUT`.
    TimeOut,
    /// `DID_BAD_TARGET`.
    BadTarget,
    /// `DID_ABORT`.
    Abort,
    /// `DID_PARITY`.
    Parity,
    /// `DID_ERROR`.
    Error,
    /// `DID_RESET`.
    Reset,
    /// `DID_BAD_INTR`.
    BadIntr,
    /// `DID_PASSTHROUGH`.
    Passthrough,
    /// `DID_SOFT_ERROR`.
    SoftError,
    /// `DID_IMM_RETRY`.
    ImmRetry,
    /// `DID_REQUEUE`.
    Requeue,
    /// `DID_TRANSPORT_DISRUPTED`.
    TransportDisrupted,
    /// `DID_TRANSPORT_FAILFAST`.
    TransportFailfast,
    /// `DID_TRANSPORT_MARGINAL`.
    TransportMarginal,
    /// A number without a name.
    Unknown(u8),
}

impl From<u8> for HostStatus {
    fn from(code: u8) -> Self {
        match code {
            0x00 => HostStatus::Ok,
            0x01 => HostStatus::NoConnect,
            0x02 => HostStatus::BusBusy,
            0x03 => HostStatus::TimeOut,
            0x04 => HostStatus::BadTarget,
            0x05 => HostStatus::Abort,
            0x06 => HostStatus::Parity,
            0x07 => HostStatus::Error,
            0x08 => HostStatus::Reset,
            0x09 => HostStatus::BadIntr,
            0x0a => HostStatus::Passthrough,
            0x0b => HostStatus::SoftError,
            0x0c => HostStatus::ImmRetry,
            0x0d => HostStatus::Requeue,
            0x0e => HostStatus::TransportDisrupted,
            0x0f => HostStatus::TransportFailfast,
            0x14 => HostStatus::TransportMarginal,
            other => HostStatus::Unknown(other),
        }
    }
}

/// What a command was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its first logical block.
    pub lba: u64,
    /// Bytes of data of the request's that it moves; 0 for a command that moves none.
    pub len: u32,
    /// Length of a logical block in bytes.
    pub block_len: u32,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The host byte.
    pub host_status: u8,
    /// The STATUS byte.
    pub status: u8,
    /// Sense data; empty without.
    pub sense: &'a [u8],
    /// Bytes that were not transferred.
    pub residual: u32,
}

/// A failure, and what was good before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the block layer is told.
    pub errno: Errno,
    /// Bytes from the beginning that were transferred nevertheless, in whole blocks.
    pub good: u32,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many bytes from the beginning are done, whole blocks and not necessarily all; of a command that moves no
    /// data, all is done.
    Done(u32),
    /// It failed for good.
    Failed(Failure),
    /// It is sent again a limited number of times, then it has failed.
    Retried(Failure),
    /// It passes: it is sent again as long as there is time, then it has failed.
    Passes {
        /// Whether the unit needs a pause.
        pause: bool,
        /// What it is if it does not pass.
        failure: Failure,
    },
}

/// Nothing is good.
fn all(errno: Errno) -> Failure {
    Failure { errno, good: 0 }
}

fn passes(pause: bool, errno: Errno) -> Verdict {
    Verdict::Passes { pause, failure: all(errno) }
}

/// What becomes of a command that ended so.
#[must_use]
pub fn verdict(asked: &Asked, answer: &Answer<'_>) -> Verdict {
    let by_status = || of_status(asked, answer);
    match HostStatus::from(answer.host_status) {
        HostStatus::Ok | HostStatus::Passthrough => by_status(),
        HostStatus::Error if answer.status == Status::ReservationConflict.code() => by_status(),
        HostStatus::NoConnect | HostStatus::BadTarget | HostStatus::Abort => {
            Verdict::Failed(all(Errno::IO))
        }
        HostStatus::TransportFailfast | HostStatus::TransportMarginal => {
            Verdict::Failed(all(Errno::NOLINK))
        }
        // The error handler has dealt with the last two kinds when they come here.
        HostStatus::BusBusy
        | HostStatus::Parity
        | HostStatus::Error
        | HostStatus::SoftError
        | HostStatus::TransportDisrupted
        | HostStatus::TimeOut
        | HostStatus::BadIntr
        | HostStatus::Unknown(_) => Verdict::Retried(all(Errno::IO)),
        HostStatus::Reset | HostStatus::ImmRetry => passes(false, Errno::IO),
        HostStatus::Requeue => passes(true, Errno::IO),
    }
}

fn of_status(asked: &Asked, answer: &Answer<'_>) -> Verdict {
    match Status::from_code(answer.status) {
        Some(Status::Good | Status::ConditionMet) => done(asked, transferred(asked, answer)),
        Some(Status::CheckCondition) => match Sense::decode(answer.sense) {
            Ok(sense) => of_sense(asked, answer, &sense),
            // Nobody knows what happened, not even the error handler, which has asked and reset.
            Err(_) => Verdict::Retried(all(Errno::IO)),
        },
        Some(Status::Busy | Status::TaskSetFull) => passes(true, Errno::IO),
        Some(Status::ReservationConflict) => Verdict::Failed(all(Errno::BADE)),
        Some(Status::AcaActive) => Verdict::Failed(all(Errno::IO)),
        Some(Status::TaskAborted) | None => Verdict::Retried(all(Errno::IO)),
    }
}

/// So many bytes are done; if it is none of those that were asked for, they are asked for again.
fn done(asked: &Asked, bytes: u32) -> Verdict {
    match bytes {
        0 if asked.len > 0 => passes(false, Errno::IO),
        bytes => Verdict::Done(bytes),
    }
}

/// Whole blocks that were transferred (`sd.c:sd_done`).
fn transferred(asked: &Asked, answer: &Answer<'_>) -> u32 {
    let bytes = asked.len.saturating_sub(answer.residual);
    bytes - bytes % asked.block_len.max(1)
}

/// Whole blocks before the one in error (`sd.c:sd_completed_bytes`).
fn before_the_error(asked: &Asked, answer: &Answer<'_>, sense: &Sense) -> u32 {
    let block = u64::from(asked.block_len);
    let bytes = sense
        .information
        .filter(|_| asked.len > asked.block_len)
        .and_then(|bad| bad.checked_sub(asked.lba))
        .and_then(|blocks| blocks.checked_mul(block))
        .filter(|bytes| *bytes < asked.len.into());
    let bytes = bytes.map_or(0, |bytes| u32::try_from(bytes).expect("less than the length"));
    bytes.min(transferred(asked, answer))
}

fn of_sense(asked: &Asked, answer: &Answer<'_>, sense: &Sense) -> Verdict {
    let partly = |errno| Failure { errno, good: before_the_error(asked, answer, sense) };
    if sense.deferred {
        return Verdict::Retried(all(Errno::IO));
    }
    match sense.key {
        // A false alarm, but how much has moved is not known.
        SenseKey::NoSense => passes(false, Errno::IO),
        SenseKey::RecoveredError => done(asked, transferred(asked, answer)),
        SenseKey::NotReady => match (sense.asc, sense.ascq) {
            // In the order of the standard: it becomes ready, formats, rebuilds, recalculates, works, writes, tests
            // itself, changes its asymmetric access state, waits for power, allocates space, starts or stops, sanitizes,
            // is configured.
            (0x04, 0x01 | 0x04..=0x0a | 0x11 | 0x14 | 0x1a | 0x1b | 0x1d) => {
                passes(true, Errno::IO)
            }
            _ => Verdict::Failed(all(Errno::IO)),
        },
        SenseKey::UnitAttention => passes(false, Errno::IO),
        SenseKey::MediumError => match sense.asc {
            // UNRECOVERED READ ERROR, ADDRESS MARK NOT FOUND, RECORDED ENTITY NOT FOUND.
            0x11 | 0x13 | 0x14 => Verdict::Failed(partly(Errno::NODATA)),
            _ => Verdict::Retried(partly(Errno::IO)),
        },
        SenseKey::HardwareError => Verdict::Failed(partly(Errno::REMOTEIO)),
        SenseKey::IllegalRequest => match sense.asc {
            0x10 => Verdict::Failed(partly(Errno::ILSEQ)),
            // The operation code, the LBA, the function, a field of the CDB or of a parameter, write protection.
            0x20 | 0x21 | 0x22 | 0x24 | 0x26 | 0x27 => Verdict::Failed(all(Errno::REMOTEIO)),
            _ => Verdict::Failed(all(Errno::IO)),
        },
        SenseKey::DataProtect => match (sense.asc, sense.ascq) {
            // SPACE ALLOCATION FAILED WRITE PROTECT.
            (0x27, 0x07) => Verdict::Failed(all(Errno::NOSPC)),
            // INSUFFICIENT ZONE RESOURCES, twice.
            (0x0c, 0x12) | (0x55, 0x0e | 0x0f) => Verdict::Failed(all(Errno::TOOMANYREFS)),
            _ => Verdict::Failed(all(Errno::REMOTEIO)),
        },
        SenseKey::BlankCheck
        | SenseKey::CopyAborted
        | SenseKey::VolumeOverflow
        | SenseKey::Miscompare => Verdict::Failed(all(Errno::REMOTEIO)),
        SenseKey::AbortedCommand => match (sense.asc, sense.ascq) {
            // The guard, application or reference tag check of the device.
            (0x10, _) => Verdict::Failed(partly(Errno::ILSEQ)),
            // COMMAND TIMEOUT before or during processing, for a limit of its duration.
            (0x2e, 0x01..=0x03) => Verdict::Failed(all(Errno::TIME)),
            _ => Verdict::Retried(all(Errno::IO)),
        },
        // DATA CURRENTLY UNAVAILABLE, for a limit of its duration.
        SenseKey::Completed if (sense.asc, sense.ascq) == (0x55, 0x0a) => {
            Verdict::Failed(all(Errno::TIME))
        }
        SenseKey::Completed | SenseKey::VendorSpecific | SenseKey::Reserved => {
            Verdict::Failed(all(Errno::IO))
        }
    }
}

/// The errno of a command that the kernel refused to send: a device that is gone is told as such
/// (`BLK_STS_OFFLINE`), all else is a failure nobody could do anything about.
#[must_use]
pub fn refused(errno: Errno) -> Errno {
    match errno {
        Errno::NODEV | Errno::NXIO => Errno::NODEV,
        Errno::NOMEM => Errno::NOMEM,
        _ => Errno::IO,
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
