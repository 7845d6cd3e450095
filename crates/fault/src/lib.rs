//! Faults as rules: *when* something happens, an *effect*, so many *times*.
//!
//! A [`Rule`] is data: written in Rust, or in a [`Scenario`] file in TOML, or sent over a socket. An
//! [`Engine`] holds the rules of one place (a logical unit, a queue of a block device) and decides for
//! each event what goes wrong. It has no clock, no I/O and no chance but its seed: the same rules, seed
//! and events give the same decisions.
//!
//! This crate must not know what events and effects are, nor who carries an effect out. Whoever does
//! brings two types of words, one that says [`When`], and one for the effect.

#![forbid(unsafe_code)]

mod engine;
mod rule;
mod scenario;
mod times;

pub use engine::{Engine, Fired, RuleCount};
pub use rule::{Rule, RuleError, When, check};
pub use scenario::{FORMAT, Scenario, ScenarioError, Words};
pub use times::Times;
