//! The way to a logical unit.

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// SAM status code.
    pub status: u8,
    /// Sense data; empty if there is none.
    pub sense: Vec<u8>,
    /// Data-in that arrived.
    pub data: Vec<u8>,
    /// Bytes of the buffer offered, in either direction, that were not moved.
    pub residual: u64,
}

/// Something that executes commands on one logical unit.
pub trait Transport {
    /// Executes a command to its end: `data_out` is sent, or room for `data_in_len` bytes is offered.
    /// Nothing is retried and no status hidden.
    ///
    /// # Panics
    /// If the transport itself fails, or there is no such nexus.
    fn execute(&self, nexus: usize, cdb: &[u8], data_out: &[u8], data_in_len: usize) -> Completion;

    /// Sends LOGICAL UNIT RESET and waits for its answer.
    ///
    /// # Panics
    /// If it is not FUNCTION COMPLETE.
    fn logical_unit_reset(&self, nexus: usize);
}
