//! SCSI passthrough: SG_IO v4 and uring_cmd on bsg nodes, sg v3 beside them.

mod conformance;
mod ways;
