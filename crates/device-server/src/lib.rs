//! A SAM device server over a medium.
//!
//! This crate must not know any transport: no virtio, no sockets, no queues. It sees a nexus, an
//! address, a CDB and buffers, and answers with an [`Outcome`]. Whatever an initiator sends, the
//! outcome is data; nothing here panics, blocks on another command, or allocates without bound.
//!
//! A [`Device`] is shared by all queue workers of a transport. No lock is held while data moves.
//!
//! * [`device`] finds the logical unit and runs the command; `unit` is what a unit is made of.
//! * `admission` is what stands before a command: unit attention conditions (`attention`),
//!   `reservations`, readiness, write protection.
//! * `handlers` has one function for each row of the command table.
//! * `error` is the one map from what went wrong to sense data.
//! * [`data`] moves parameter data and counts; [`medium`] keeps the blocks; a [`wait`] is for those of a slow one.

mod admission;
mod attention;
mod block_locks;
pub mod config;
pub mod data;
pub mod device;
mod echo_buffer;
mod error;
mod handlers;
mod health;
mod inventory;
pub mod medium;
mod mode_values;
pub mod outcome;
mod readiness;
mod reservations;
mod unit;
pub mod wait;

pub use config::{
    ConfigError, DeviceConfig, DeviceType, LuConfig, MediumConfig, PhysicalBlocks, Provisioning,
};
pub use data::{DataBuffers, SgList};
pub use device::{Device, Lookup, NexusId, Nexuses, TaskContext, TmfResponse};
pub use health::Health;
pub use outcome::{Aborts, Outcome};
pub use readiness::Readiness;
pub use scsi::LunAddress;
pub use wait::{Begun, Wait};
