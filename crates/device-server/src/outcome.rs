//! How a command ended.

use scsi::{SenseFormat, Status};

use crate::{data::Moved, error::CommandError};

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
        }
    }

    /// From what a handler returned and what had moved by then.
    pub(crate) fn new(
        result: Result<(), CommandError>,
        moved: Moved,
        sense_format: SenseFormat,
    ) -> Self {
        let sense = result.err().map(|error| error.sense().encode(sense_format));
        Outcome {
            status: if sense.is_some() { Status::CheckCondition } else { Status::Good },
            sense,
            status_qualifier: 0,
            data_in_len: moved.data_in,
            data_out_len: moved.data_out,
            overrun: moved.overrun,
        }
    }
}
