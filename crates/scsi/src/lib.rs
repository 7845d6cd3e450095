//! The SCSI standards as data: commands, CDBs, sense, status, VPD and mode pages, LUN addressing.
//!
//! This crate must not know who sends a command, what executes it or how it travels: no I/O, no
//! threads, no state. Whatever a standard says is written here once, and everything else is derived
//! from it.
//!
//! Directions are the initiator's: *data-in* travels to the initiator, *data-out* from it. All
//! multi-byte fields are big-endian on the wire. Clauses are cited by standard and title, because
//! clause numbers move from revision to revision; SPC is SPC-4, SBC is SBC-3, SAM is SAM-5.
//!
//! * [`command`] is the table of commands; [`cdb`] is how their CDBs lie in memory.
//! * [`sense`] is sense data and its codecs; [`sense::table`] names the additional sense codes.
//! * [`inquiry`], [`vpd`], [`mode`], [`mod@log`], [`opcodes`], [`capacity`], [`provisioning`],
//!   [`reservation`] and [`lun`] are parameter data.
//! * [`status`] and [`task`] are SAM's words; [`lba`] are block numbers and lengths, [`extent`] the
//!   blocks a CDB is about.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod cdb;
pub mod command;
pub mod extent;
pub mod inquiry;
pub mod lba;
pub mod log;
pub mod lun;
pub mod mode;
pub mod opcodes;
pub mod provisioning;
pub mod reservation;
pub mod sense;
pub mod status;
pub mod task;
pub mod vpd;

pub use command::{Command, DataDirection};
pub use lba::{BlockLen, BlockRange, Lba};
pub use lun::LunAddress;
pub use sense::{FieldPointer, Sense, SenseFormat, SenseKey};
pub use status::Status;
