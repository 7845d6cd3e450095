//! Faults as this target carries them out: the words of `scsi-fault` with their names looked up and their
//! contradictions refused.
//!
//! `compile` does that where rules are installed; `condition` says which events a rule is about,
//! `conduct` what becomes of them. Who carries it out is where the steps of a request are:
//! the unit lets it wait, the queues execute and answer it.

mod compile;
mod condition;
mod conduct;
mod names;

pub use compile::RuleProblem;
pub(crate) use compile::{compile, is_permutation};
pub(crate) use condition::{Condition, Event};
use conduct::{AnswerFault, SenseAnswer};
pub(crate) use conduct::{Conduct, Wait, die};

/// The rules of one logical unit.
pub(crate) type Engine = fault::Engine<Condition, Conduct>;
/// A rule of one logical unit that fired.
pub(crate) type Fired = fault::Fired<Condition, Conduct>;
