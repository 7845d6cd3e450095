//! How a command ended.

use scsi::{
    Status,
    mode::{QERR_ABORT_ALL, QERR_ABORT_NEXUS},
};

use crate::{NexusId, data::Moved, error::CommandError, mode_values::ModeValues};

/// How a command ended. The transport computes residuals from it: offered minus moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// SAM status.
    pub status: Status,
    /// Sense data of at most 252 bytes; present exactly with CHECK CONDITION.
    pub sense: Option<Vec<u8>>,
    /// STATUS QUALIFIER (SAM); 0 means no information.
    pub status_qualifier: u16,
    /// Bytes written to the Data-In Buffer, from its beginning.
    pub data_in_len: u64,
    /// Bytes taken from the Data-Out Buffer, from its beginning.
    pub data_out_len: u64,
    /// The command had more data to move than the buffers hold: the transport reports it, and the
    /// status means nothing. A read has filled the Data-In Buffer; a write has moved nothing, and
    /// the medium is as before. Truncation by ALLOCATION LENGTH is no overrun.
    pub overrun: bool,
    /// Other commands on the logical unit that end with this one.
    pub aborts: Aborts,
}

/// Commands on a logical unit that are aborted because another one has ended as it did. The transport
/// holds the commands, so it is the transport that ends them, without a status (TAS is zero).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Aborts {
    /// None.
    #[default]
    Nothing,
    /// All others of the same nexus: QERR is 11b.
    SameNexus,
    /// All others: QERR is 01b. Initiators whose commands were among them learn of it by
    /// [`crate::Device::commands_cleared`].
    TaskSet,
    /// All of these nexuses: PREEMPT AND ABORT. Their unit attention condition is established.
    Nexuses(Vec<NexusId>),
}

impl Outcome {
    /// GOOD with nothing moved.
    #[must_use]
    pub const fn good() -> Self {
        Outcome {
            status: Status::Good,
            sense: None,
            status_qualifier: 0,
            data_in_len: 0,
            data_out_len: 0,
            overrun: false,
            aborts: Aborts::Nothing,
        }
    }

    /// From what a handler returned and what had moved by then, on a unit with these mode parameters.
    pub(crate) fn new(
        result: Result<(), CommandError>,
        moved: Moved,
        aborts: Aborts,
        mode: ModeValues,
    ) -> Self {
        let (status, sense) = result.err().map_or((Status::Good, None), CommandError::end);
        let aborts = match (status, mode.queue_error()) {
            (Status::CheckCondition, QERR_ABORT_ALL) => Aborts::TaskSet,
            (Status::CheckCondition, QERR_ABORT_NEXUS) => Aborts::SameNexus,
            _ => aborts,
        };
        Outcome {
            status,
            sense: sense.map(|sense| sense.encode(mode.sense_format())),
            status_qualifier: 0,
            data_in_len: moved.data_in,
            data_out_len: moved.data_out,
            overrun: moved.overrun,
            aborts,
        }
    }
}
