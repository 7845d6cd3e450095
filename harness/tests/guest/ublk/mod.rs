//! Userspace block devices.

mod answers;
mod batch;
mod batch_server;
mod control;
mod data;
mod death;
mod faults;
mod flags;
pub(crate) mod killed;
mod lifecycle;
mod limits;
mod lost_ring;
pub(crate) mod modes;
mod moves;
mod patience;
mod privilege;
mod program;
mod promises;
pub(crate) mod protocol;
mod raw;
pub(crate) mod recorder;
mod recovery;
mod results;
mod shapes;
mod shared;
mod shared_data;
mod zoned;
