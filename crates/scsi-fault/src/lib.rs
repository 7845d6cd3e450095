//! The words that faults of SCSI logical units are said in: which commands and task management
//! functions, and what goes wrong with them. They are the words of a scenario file, of the control
//! socket and of tests alike.
//!
//! Commands, sense, statuses and responses are said by their standard's name or by number; what the
//! names mean is looked up where a rule is installed. So this crate must not know the standards'
//! tables, nor who carries an effect out, nor how.

#![forbid(unsafe_code)]

mod code;
mod effect;
mod sense;
mod when;

pub use code::Code;
pub use effect::{DataIn, DiePoint, Effect, Hold, Hostile, RawEvent, WriteFault};
pub use sense::{FieldPointer, Sense, SenseFormat};
pub use when::{BlockRange, CdbBytes, Direction, When};

/// A rule about a logical unit.
pub type Rule = fault::Rule<When, Effect>;
/// A scenario for logical units.
pub type Scenario = fault::Scenario<When, Effect>;

impl fault::Words for When {
    const NAME: &'static str = "scsi";
}
