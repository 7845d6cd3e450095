//! What becomes of a request, with every name looked up.

use rustix::process::{Signal, getpid, kill_process};
use scsi::{Sense, SenseFormat};
use scsi_fault::{DataIn, DiePoint, Hostile, WriteFault};

/// What becomes of a command or a task management function.
#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    pub(crate) wait: Option<Wait>,
    pub(crate) execute: bool,
    pub(crate) data_in: Option<DataIn>,
    pub(crate) data_out_limit: Option<u64>,
    pub(crate) write: Option<WriteFault>,
    pub(crate) answer: AnswerFault,
    pub(crate) vanish: bool,
    pub(crate) drop_socket: bool,
    pub(crate) hostile: Option<Hostile>,
    pub(crate) die: Option<DiePoint>,
}

/// What a request waits for before it begins.
#[derive(Clone, Debug)]
pub(crate) enum Wait {
    /// A time between these, in microseconds.
    Delay {
        from: u64,
        to: u64,
    },
    UntilReleased,
    ForEver,
    /// As many as there are positions, to be carried out in that order.
    Order(Vec<u32>),
}

/// What an answer says instead of what happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerFault {
    pub(crate) status: Option<u8>,
    pub(crate) status_qualifier: Option<u16>,
    pub(crate) sense: Option<SenseAnswer>,
    pub(crate) residual: Option<u32>,
    pub(crate) response: Option<u8>,
}

/// Sense data to be sent.
#[derive(Clone, Debug)]
pub(crate) enum SenseAnswer {
    Coded {
        sense: Sense,
        /// Left out: the unit's.
        format: Option<SenseFormat>,
        truncate: Option<usize>,
    },
    Raw(Vec<u8>),
}

impl SenseAnswer {
    /// The bytes, for a unit with this format.
    pub(crate) fn bytes(&self, of_unit: SenseFormat) -> Vec<u8> {
        match self {
            SenseAnswer::Raw(bytes) => bytes.clone(),
            SenseAnswer::Coded { sense, format, truncate } => {
                let mut bytes = sense.encode(format.unwrap_or(of_unit));
                bytes.truncate(truncate.unwrap_or(usize::MAX));
                bytes
            }
        }
    }
}

impl Wait {
    /// How long a delay is, given a number drawn at random.
    pub(crate) fn delay_us(from: u64, to: u64, draw: u64) -> u64 {
        from + draw % (to - from + 1)
    }
}

/// Ends the daemon as `kill -9` does: no destructor, no flush, no word to anybody.
pub(crate) fn die() -> ! {
    // Whether the kernel took the signal does not matter: this thread does not come back either way.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
