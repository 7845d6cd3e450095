//! The supervisor: images, virtual machines, scheduler, expectations, reports.
//!
//! It must not know the SCSI device server, only the daemon's control socket; nor libtest beyond the
//! lines it prints; nor how a kernel was made; nor a command line.

#![deny(unsafe_code)]

pub mod accel;
pub mod agenda;
pub mod cargo;
pub mod compare;
pub mod coverage;
pub mod decode;
pub mod doctor;
pub mod exit;
pub mod expectations;
pub mod image;
pub mod matrix;
mod memory;
pub mod mutants;
pub mod outcome;
pub mod outputs;
pub mod passthrough;
pub mod plan;
pub mod programs;
pub mod qemu;
pub mod report;
pub mod rig;
pub mod run_dir;
pub mod scheduler;
pub mod self_test;
pub mod session;
pub mod splat;
pub mod target;
pub mod vm;
pub mod vm_test;
