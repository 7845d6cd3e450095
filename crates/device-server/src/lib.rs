//! A SAM device server over a medium.
//!
//! This crate must not know any transport: no virtio, no sockets, no queues. It sees a nexus, an
//! address, a CDB and buffers, and answers with an [`Outcome`]. Whatever an initiator sends, the
//! outcome is data; nothing here panics, blocks on another command, or allocates without bound.
//!
//! A [`Device`] is shared by all queue workers of a transport. No lock is held while data moves.

pub mod config;
pub mod data;
pub mod device;
pub mod outcome;

pub use config::{ConfigError, DeviceConfig, DeviceType, LuConfig, MediumConfig};
pub use data::{DataBuffers, SgList};
pub use device::{Device, Lookup, NexusId, TaskContext, TmfResponse};
pub use outcome::Outcome;
pub use scsi::LunAddress;
