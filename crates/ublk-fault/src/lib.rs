//! The words that faults of userspace block devices are said in: which requests, and what their server does wrong. They
//! are the words of a scenario file (`words = "ublk"`) and of tests alike.
//!
//! This crate must not know the driver's numbers beyond those of its operations and errors, nor who carries an effect
//! out, nor how.

#![forbid(unsafe_code)]

mod effect;
mod when;

pub use effect::{DiePoint, Effect, ErrorName, Hold, WrongBuffer};
pub use when::{Event, OpName, SectorRange, When};

/// A rule about a device.
pub type Rule = fault::Rule<When, Effect>;
/// A scenario for a device.
pub type Scenario = fault::Scenario<When, Effect>;
/// What decides by the rules of a device.
pub type Engine = fault::Engine<When, Effect>;

impl fault::Words for When {
    const NAME: &'static str = "ublk";
}
