//! Messages on the control socket of the target daemon: JSON, one message a line.
//!
//! A client connects to the Unix socket, sends [`Request`] lines and reads one [`Response`] line for
//! each, in order. The first request of a connection is [`Command::Hello`]; a version the daemon does
//! not speak is refused there. A refused request has changed nothing.
//!
//! **Barrier.** The answer to a command that changes a logical unit means that every descriptor
//! fetched from any virtqueue after the answer was written sees the change, and that no command
//! fetched before it is still running on that unit. A command that is held does not run.
//!
//! This crate must not know how the daemon does it, nor what the bench wants it for.

#![forbid(unsafe_code)]

pub mod client;
pub mod message;

pub use client::{Client, ClientError};
pub use message::{
    Command, DeviceType, Event, Faults, HeldEntry, Hello, JournalEntry, JournalPage, LunAddress,
    LunSpec, LunState, Medium, PhysicalBlocks, Provisioning, Readiness, Reply, Request, Response,
    Statistics, TaskManagementEntry,
};

/// Version of the messages in this crate, sent in [`Command::Hello`].
pub const CONTROL_VERSION: u32 = 5;
