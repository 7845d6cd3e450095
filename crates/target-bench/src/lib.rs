//! A benchmark of vhost-user-scsi daemons, from the other end of the socket: a front end in this
//! process shares memory with them and drives their rings as a guest's virtio_scsi does, and their CPU
//! time is read from the kernel.
//!
//! It must not know how a daemon does it, so that any other one can be measured beside ours: it sees
//! programs, a socket, and blocks.
//!
//! * `memory`, `ring`, `session` are the guest: its memory, a split virtqueue, commands in flight.
//! * `workload` is what is measured, `statistics` what is made of it, `aim` what it should come to.
//! * `daemon` and `peer` are the programs measured, `cpus` where they run.
//! * `rounds` measures, `report` says it.

#![forbid(unsafe_code)]

pub mod aim;
mod cpus;
mod daemon;
mod error;
mod image;
mod life;
mod memory;
pub mod peer;
pub mod report;
mod ring;
mod rounds;
mod session;
pub mod statistics;
pub mod table;
mod workload;

pub use cpus::Cpus;
pub use error::Error;
pub use rounds::{Peer, Request, run};
pub use session::Wait;
