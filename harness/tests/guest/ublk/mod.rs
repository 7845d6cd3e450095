//! Userspace block devices.

mod control;
mod data;
mod death;
mod faults;
mod flags;
mod lifecycle;
mod modes;
mod privilege;
mod program;
mod promises;
mod protocol;
mod raw;
mod recorder;
mod recovery;
mod results;
mod shared;
