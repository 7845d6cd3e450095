//! What the supervisor on the host and the agent in the guest say to each other, and what a test
//! declares of itself before it runs.
//!
//! This crate must not know QEMU, SCSI commands or libtest: it is only the words both sides share.
//!
//! * [`needs`] is what a test asks for: its class, its virtual machine, its SCSI host.
//! * [`message`] is the conversation on the virtio-serial port.
//! * [`figure`] is what a test has measured, [`told`] what it has to tell.
//! * [`frame`] puts messages on a byte stream.

#![forbid(unsafe_code)]

pub mod figure;
pub mod frame;
pub mod message;
pub mod needs;
pub mod told;

/// Version of everything in this crate. Supervisor and agent are always built from one tree; a
/// difference means a stale guest image, and the supervisor says so instead of guessing.
pub const PROTOCOL_VERSION: u32 = 6;
