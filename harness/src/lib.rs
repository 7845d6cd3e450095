//! Fixtures, assertions and helpers for tests that run inside the guest.
//!
//! A test starts with [`declare!`], takes logical units from [`Lun`], issues commands through the
//! `bsg` and `ublk` crates, and asserts with literals from the standards. It must not know QEMU or
//! the host: all it has of them is [`mod@bench`].

#![deny(unsafe_code)]

pub mod assert;
pub mod bench;
#[expect(unsafe_code, reason = "BLKDISCARD has no safe call")]
pub mod block;
#[expect(unsafe_code, reason = "a user namespace has to be entered between fork and exec")]
pub mod child;
pub mod declaration;
pub mod kernel;
pub mod kmemleak;
pub mod lun;
#[expect(unsafe_code, reason = "the promise a ring asks for about memory")]
mod metadata;
pub mod modules;
#[expect(unsafe_code, reason = "NVMe passthrough has no safe call")]
pub mod nvme;
pub mod privilege;
pub mod program;
pub mod property;
pub mod scsi_debug;
pub mod slab;
pub mod sysfs;
pub mod timeline;
pub mod ublk_device;

pub use block::{BlockDevice, ZoneCommand, ZoneReport};
pub use child::Child;
pub use declaration::{DECLARATIONS, write_manifest};
pub use guest_protocol::needs::{Class, Declaration, Feature, HostShape, Module, Needs, ScsiHost};
#[doc(hidden)]
pub use linkme;
pub use lun::{Lun, ScsiDevice};
pub use timeline::Timeline;
pub use ublk_device::UblkDevice;
pub use wait;
