//! A bridge from ublk to bsg: a block device of userspace whose medium is a SCSI disk.
//!
//! ```text
//! application → /dev/ublkbN → server → /dev/bsg/H:C:T:L → disk
//! ```
//!
//! The requests of the device and the commands for the disk are on one ring. In the modes without a copy
//! ([`ublk::DataMode::AutoBuf`], [`ublk::DataMode::ZeroCopy`]) the memory of a request is a buffer in that ring's table,
//! and the command's data is that buffer: it goes between the application's pages and the disk, and this process has no
//! address of it.
//!
//! [`Disk::ask`] asks the disk what it is, [`Route::of`] the kernel what a command may carry, and [`Disk::config`] makes
//! a device of that. [`Bridge`] is its target. What a SCSI outcome means to the application says [`verdict::verdict`].
//!
//! This crate must not know who made the disk, how commands travel to it, nor the bench: what it has of SCSI it has from
//! the standards, and what it has of the kernel from its interfaces.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//!
//! use bridge::{Bridge, Disk, Patience, Route};
//! use ublk::{DataMode, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Path::new("/dev/bsg/0:0:0:0");
//! let disk = Disk::ask(node)?;
//! let config = disk.config(&Route::of(node)?, DataMode::AutoBuf, 64);
//! let bridge = Bridge::new(node, disk, Patience::default())?;
//! let mut server = Server::start(&config, Arc::new(bridge))?;
//! println!("{}", server.block_path().display());
//! server.wait()?;
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod bridge;
mod config;
mod disk;
mod error;
pub mod log;
mod order;
#[expect(unsafe_code, reason = "the promise a ring asks for about memory")]
mod relay;
mod route;
pub mod verdict;

pub use bridge::{Bridge, Patience};
pub use disk::{Disk, Unmapping};
pub use error::Error;
pub use log::Log;
pub use route::Route;
