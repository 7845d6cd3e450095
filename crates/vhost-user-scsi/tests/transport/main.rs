//! The transport, driven by a vhost-user front end in the same process.

mod commands;
mod control_socket;
mod driver;
mod events;
mod faults;
mod guest;
mod held;
mod inflight;
mod killed;
mod malformed;
mod memory;
mod nexuses;
mod sessions;
mod standing;
mod storage;
mod task_management;
mod task_set;
