//! Userspace block devices.

mod control;
mod data;
mod death;
mod lifecycle;
mod raw;
mod recorder;
mod results;
