//! What random input is sent to.

mod cdb;
mod chain;
mod commands;
mod control;
mod corpus;
mod protocol;
mod rings;
mod scenarios;

use crate::worker::Session;

/// Runs a session.
pub(crate) type Sessions = Box<dyn FnMut(&mut Session)>;

/// Something that takes input.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Makes ready what all sessions share, which is nothing that remembers; what it gives runs one.
    pub(crate) prepare: fn() -> anyhow::Result<Sessions>,
}

/// All targets.
pub(crate) const ALL: &[Target] = &[
    Target { name: "commands", prepare: commands::prepare },
    Target { name: "rings", prepare: rings::prepare },
    Target { name: "scenarios", prepare: scenarios::prepare },
    Target { name: "control", prepare: control::prepare },
    Target { name: "protocol", prepare: protocol::prepare },
];

/// Their names.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|target| target.name).collect()
}

/// The target of this name, which is one of [`names`].
pub(crate) fn named(name: &str) -> &'static Target {
    ALL.iter().find(|target| target.name == name).expect("the command line has been checked")
}
