//! Userspace block devices.

mod control;
mod data;
mod death;
mod faults;
mod lifecycle;
mod modes;
mod protocol;
mod raw;
mod recorder;
mod recovery;
mod results;
