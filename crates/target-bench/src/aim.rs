//! What is aimed at, in CPU per I/O against the peer and otherwise.

use crate::workload::Operation;

/// Where blocks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Medium {
    /// Memory of the daemon.
    Ram,
    /// A file in a tmpfs.
    File,
}

impl Medium {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Medium::Ram => "ram",
            Medium::File => "file",
        }
    }
}

/// Most CPU per command, the peer's being 1.
pub(crate) fn ratio(operation: Operation, medium: Medium, len: usize) -> f64 {
    match (medium, operation) {
        (Medium::Ram, _) => 0.5,
        (Medium::File, Operation::TestUnitReady) => 1.0,
        (Medium::File, _) if len >= 1 << 20 => 0.5,
        (Medium::File, _) if len <= 4 << 10 => 0.8,
        (Medium::File, _) => 1.0,
    }
}

/// Most CPU time that the journal takes, in nanoseconds for each command.
pub(crate) const JOURNAL_NS: f64 = 150.0;
/// Most resident memory with 256 idle units, in MB.
pub const IDLE_MB: f64 = 20.0;
/// Most seconds from start to the first answer with 16384 units.
pub const START_SECONDS: f64 = 1.0;
