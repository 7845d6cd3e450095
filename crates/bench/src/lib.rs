//! The supervisor: kernels, images, virtual machines, scheduler, expectations, reports.

pub mod apt;
pub mod cache;
pub mod exit;
pub mod interrupt;
pub mod kernel;
pub mod progress;
pub mod qemu;
pub mod tools;
