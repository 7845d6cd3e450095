//! Userspace block devices.

mod answers;
mod batch;
mod control;
mod data;
mod death;
mod faults;
mod flags;
pub(crate) mod killed;
mod lost_ring;
mod lifecycle;
mod limits;
pub(crate) mod modes;
mod patience;
mod privilege;
mod program;
mod promises;
pub(crate) mod protocol;
mod raw;
pub(crate) mod recorder;
mod recovery;
mod results;
mod shared;
mod shared_data;
mod zoned;
