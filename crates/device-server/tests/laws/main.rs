//! The device server against literals from SPC-4, SBC-3 and SAM-5: one module per subject.

mod absent;
mod any_command;
mod block;
mod configuration;
mod fixture;
mod inquiry;
mod medium;
mod mode;
mod opcodes;
mod primary;
mod reservation;
mod residual;
mod sparse;
mod task_management;
mod unit_attention;
