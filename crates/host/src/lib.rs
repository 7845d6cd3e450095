//! The machine the bench runs on: its programs and packages, the cache, children, signals, progress.
//!
//! It must not know kernels, guests or tests.

#![deny(unsafe_code)]

pub mod apt;
pub mod cache;
pub mod child;
pub mod interrupt;
pub mod progress;
pub mod tools;
