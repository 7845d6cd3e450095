//! A rule, and what is wrong with a list of them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::Times;

/// The condition of a rule.
pub trait When {
    /// What happens.
    type Event<'a>;

    /// Whether this event is meant.
    fn matches(&self, event: &Self::Event<'_>) -> bool;
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule<W, E> {
    /// What it is called in journals, counts and other rules' `after`; no two of a list share it.
    pub name: String,
    /// Which events it is about. Left out: all.
    #[serde(default)]
    pub when: W,
    /// What happens then.
    pub effect: E,
    /// How often it happens.
    #[serde(default)]
    pub times: Times,
    /// It is first due at its so-many-th event; the ones before pass. 1 is the first.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub nth: u64,
    /// It is due only behind the first firing of the rule with this name; events before are none of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

const fn first() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_first(nth: &u64) -> bool {
    *nth == first()
}

impl<W: Default, E> Rule<W, E> {
    /// A rule about every event, that fires once.
    pub fn new(name: impl Into<String>, effect: E) -> Self {
        Rule {
            name: name.into(),
            when: W::default(),
            effect,
            times: Times::Once,
            nth: first(),
            after: None,
        }
    }
}

impl<W, E> Rule<W, E> {
    /// The same, about these events.
    #[must_use]
    pub fn when(self, when: W) -> Self {
        Rule { when, ..self }
    }

    /// The same, so often.
    #[must_use]
    pub fn times(self, times: Times) -> Self {
        Rule { times, ..self }
    }

    /// The same, first due at its `nth` event.
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        Rule { nth, ..self }
    }

    /// The same, due only after the first firing of another rule.
    #[must_use]
    pub fn after(self, rule: impl Into<String>) -> Self {
        Rule { after: Some(rule.into()), ..self }
    }
}

/// What is wrong with a list of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A rule has no name.
    #[error("rule {0} has no name")]
    Nameless(usize),
    /// Two rules share a name.
    #[error("two rules are called `{0}`")]
    Duplicate(String),
    /// A rule can never fire, or its count makes no sense.
    #[error("rule `{rule}`: {problem}")]
    Times {
        /// Its name.
        rule: String,
        /// Why.
        problem: &'static str,
    },
    /// A rule waits for one that is not there, or for itself.
    #[error("rule `{rule}` is to come after `{after}`, which is no other rule of the list")]
    After {
        /// Its name.
        rule: String,
        /// What it waits for.
        after: String,
    },
}

/// Whether a list of rules can be decided by.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check<W, E>(rules: &[Rule<W, E>]) -> Result<(), RuleError> {
    let mut names = HashSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if rule.name.trim().is_empty() {
            return Err(RuleError::Nameless(index + 1));
        }
        if !names.insert(rule.name.as_str()) {
            return Err(RuleError::Duplicate(rule.name.clone()));
        }
        let nth = (rule.nth == 0).then_some("`nth = 0` means nothing; 1 is the first event");
        if let Some(problem) = rule.times.problem().or(nth) {
            return Err(RuleError::Times { rule: rule.name.clone(), problem });
        }
    }
    for rule in rules {
        if let Some(after) = &rule.after
            && (*after == rule.name || !names.contains(after.as_str()))
        {
            return Err(RuleError::After { rule: rule.name.clone(), after: after.clone() });
        }
    }
    Ok(())
}
