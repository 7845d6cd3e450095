//! SCSI passthrough: SG_IO v4 and uring_cmd on bsg nodes, sg v3 beside them.

mod block;
mod buffers;
mod cdb;
mod changes;
mod disk;
mod events;
mod faults;
mod filter;
mod fixed;
mod flight;
mod inquiry;
mod journal;
mod life;
mod links;
mod model;
mod parameters;
mod residual;
mod residual_table;
mod restart;
mod rings;
mod scsi_debug;
mod sense;
mod sg_io_v4;
mod timeouts;
mod unmapped;
mod uring;
pub(crate) mod ways;
