//! Waiting until the kernel has said what a run made it say.

use rustix::thread::{MembarrierCommand, membarrier};

/// Waits for an RCU grace period, so that what the kernel deferred to its end has its turn, and its
/// say in the log, within the run that caused it. `MEMBARRIER_CMD_GLOBAL` is the one system call
/// whose whole effect is that wait (kernel/sched/membarrier.c).
pub(crate) fn rcu() {
    // nohz_full or a kernel without CONFIG_MEMBARRIER refuses; late words may then fall into the
    // next run, which the supervisor treats like any other splat between two runs.
    if let Err(error) = membarrier(MembarrierCommand::Global) {
        eprintln!("agent: membarrier refused: {error}");
    }
}
