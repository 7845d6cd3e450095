//! Fixtures, assertions and helpers for tests that run inside the guest.
//!
//! A test starts with [`declare!`], takes logical units from [`Lun`], issues commands through the
//! `bsg` and `ublk` crates, and asserts with literals from the standards. It must not know QEMU or
//! the host: all it has of them is [`bench`].

#![forbid(unsafe_code)]

pub mod assert;
pub mod bench;
pub mod declaration;
pub mod lun;
pub mod modules;
pub mod scsi_debug;
pub mod sysfs;

pub use declaration::{DECLARATIONS, write_manifest};
pub use guest_protocol::needs::{Class, Declaration, Feature, HostShape, Module, Needs, ScsiHost};
#[doc(hidden)]
pub use linkme;
pub use lun::{Lun, ScsiDevice};
pub use wait;
