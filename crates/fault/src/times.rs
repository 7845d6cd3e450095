//! How often a rule fires.

use serde::{Deserialize, Serialize};

/// How often a rule fires, counted over the events it is asked about from its first due one on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Times {
    /// At the first event.
    #[default]
    Once,
    /// At the first so many events.
    First(u64),
    /// At the first event, and at each so-many-th after it.
    Every(u64),
    /// At every event.
    Always,
    /// At each event with the chance of `hits` in `of`, drawn from the seed.
    Ratio {
        /// So many hits,
        hits: u32,
        /// in so many events on average.
        of: u32,
    },
}

impl Times {
    /// Why this can never fire or makes no sense.
    pub(crate) fn problem(self) -> Option<&'static str> {
        match self {
            Times::First(0) => Some("`first = 0` never fires"),
            Times::Every(0) => Some("`every = 0` means nothing; 1 is every event"),
            Times::Ratio { hits: 0, .. } => Some("a ratio without hits never fires"),
            Times::Ratio { hits, of } if hits > of => Some("a ratio has no more hits than events"),
            Times::Once
            | Times::First(_)
            | Times::Every(_)
            | Times::Always
            | Times::Ratio { .. } => None,
        }
    }

    /// Whether it fires at an event: the `due`-th since it is due, counted from 0, with `fired` firings
    /// before.
    pub(crate) fn fires(self, due: u64, fired: u64, random: &mut fastrand::Rng) -> bool {
        match self {
            Times::Once => fired == 0,
            Times::First(count) => fired < count,
            Times::Every(step) => due.is_multiple_of(step),
            Times::Always => true,
            Times::Ratio { hits, of } => random.u32(..of) < hits,
        }
    }
}
