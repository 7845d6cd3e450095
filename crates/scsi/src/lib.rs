//! The SCSI standards as data: commands, CDBs, sense, status, VPD and mode pages, LUN addressing.
//!
//! This crate must not know who sends a command, what executes it or how it travels: no I/O, no
//! threads, no state. Whatever a standard says once is written here once, and everything else is
//! derived from it.
//!
//! Directions are the initiator's: *data-in* travels to the initiator, *data-out* from it. All
//! multi-byte fields are big-endian on the wire. Clauses are cited by standard and title, because
//! clause numbers move from revision to revision; SPC is SPC-4, SBC is SBC-3, SAM is SAM-5.

#![forbid(unsafe_code)]

pub mod lun;
pub mod status;
pub mod task;

pub use lun::LunAddress;
pub use status::Status;
