//! Fixtures, assertions and helpers for tests that run inside the guest.
//!
//! A test starts with [`declare!`], takes what it needs from [`lun`], issues commands through the
//! `bsg` and `ublk` crates, and asserts with literals from the standards. It must not know QEMU or
//! the host: all it has of the bench is [`bench`].

#![forbid(unsafe_code)]

pub mod modules;
pub mod wait;
