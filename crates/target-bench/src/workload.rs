//! What is measured.

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// TEST UNIT READY: no data, what a command costs at the least.
    TestUnitReady,
    /// READ(10) of random blocks.
    Read,
    /// WRITE(10) of random blocks.
    Write,
}

/// One kind of command, and how many are in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) operation: Operation,
    /// Bytes a command moves.
    pub(crate) len: usize,
    /// Bytes of a data descriptor.
    pub(crate) segment_len: usize,
    pub(crate) queue_depth: u16,
}

/// In the order of the report. Up to 128 KiB a descriptor is a page, as for buffers of user space; more
/// than 126 of them do not fit a command, so 1 MiB comes from huge pages, and the block layer cuts
/// them at 64 KiB (`BLK_MAX_SEGMENT_SIZE`).
pub(crate) const WORKLOADS: &[Workload] = &[
    workload("tur-qd1", Operation::TestUnitReady, 0, 1),
    workload("tur-qd32", Operation::TestUnitReady, 0, 32),
    workload("read-4k-qd1", Operation::Read, 4 << 10, 1),
    workload("read-4k-qd32", Operation::Read, 4 << 10, 32),
    workload("read-128k-qd8", Operation::Read, 128 << 10, 8),
    workload("read-1m-qd4", Operation::Read, 1 << 20, 4),
    workload("write-4k-qd1", Operation::Write, 4 << 10, 1),
    workload("write-4k-qd32", Operation::Write, 4 << 10, 32),
    workload("write-128k-qd8", Operation::Write, 128 << 10, 8),
    workload("write-1m-qd4", Operation::Write, 1 << 20, 4),
];

const fn workload(
    name: &'static str,
    operation: Operation,
    len: usize,
    queue_depth: u16,
) -> Workload {
    let segment_len = if len > 128 << 10 { 64 << 10 } else { 4 << 10 };
    Workload { name, operation, len, segment_len, queue_depth }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::DATA_MAX, ring::RING_LEN};

    #[test]
    fn every_workload_fits_the_guest() {
        for workload in WORKLOADS {
            assert!(workload.queue_depth <= RING_LEN, "{}", workload.name);
            assert!(workload.len * usize::from(workload.queue_depth) <= DATA_MAX);
            assert_eq!(workload.len % workload.segment_len, 0);
            assert!(workload.len / workload.segment_len <= 126);
        }
    }
}
