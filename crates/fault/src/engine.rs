//! Decides what goes wrong.

use std::{collections::HashMap, sync::Arc};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::{Rule, RuleError, When, check};

/// The rules of one place and what has become of them. Each rule counts for itself: every event it
/// matches, whether or not another rule fires there.
#[derive(Debug)]
pub struct Engine<W, E> {
    rules: Vec<State<W, E>>,
}

#[derive(Debug)]
struct State<W, E> {
    rule: Arc<Rule<W, E>>,
    /// Index of the rule it waits for.
    after: Option<usize>,
    seen: u64,
    fired: u64,
    random: Rng,
}

/// A rule fired: its effect is to be carried out.
#[derive(Debug)]
pub struct Fired<W, E> {
    /// Which rule.
    pub rule: Arc<Rule<W, E>>,
    /// How often it has fired by now, this time included.
    pub count: u64,
    /// A number drawn for this firing, for effects that leave something to chance.
    pub draw: u64,
}

impl<W, E> Clone for Fired<W, E> {
    fn clone(&self) -> Self {
        Fired { rule: Arc::clone(&self.rule), ..*self }
    }
}

/// What has become of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RuleCount {
    /// Its name.
    pub name: String,
    /// Events it matched while it was not waiting for another rule.
    pub seen: u64,
    /// Times it fired.
    pub fired: u64,
}

impl<W, E> Default for Engine<W, E> {
    /// Nothing goes wrong.
    fn default() -> Self {
        Engine { rules: Vec::new() }
    }
}

impl<W: When, E> Engine<W, E> {
    /// An engine that decides by these rules. Chance is drawn from the seed, for each rule apart, so that
    /// one more rule does not change what another does.
    ///
    /// # Errors
    /// If the list makes no sense, see [`check`].
    pub fn new(rules: Vec<Rule<W, E>>, seed: u64) -> Result<Self, RuleError> {
        check(&rules)?;
        let index_of: HashMap<_, _> =
            rules.iter().enumerate().map(|(index, rule)| (rule.name.clone(), index)).collect();
        let rules = rules.into_iter().map(|rule| State {
            after: rule.after.as_ref().map(|name| index_of[name]),
            seen: 0,
            fired: 0,
            random: Rng::with_seed(seed ^ hash(&rule.name)),
            rule: Arc::new(rule),
        });
        Ok(Engine { rules: rules.collect() })
    }

    /// Whether there is no rule at all, so that nobody need ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What goes wrong at this event: the first rule that is due and fires. The others have counted it.
    pub fn decide(&mut self, event: &W::Event<'_>) -> Option<Fired<W, E>> {
        let mut decision = None;
        // A rule is behind another's firing from the next event on.
        let fired_before: Vec<bool> = self.rules.iter().map(|state| state.fired > 0).collect();
        for state in &mut self.rules {
            if state.after.is_some_and(|other| !fired_before[other])
                || !state.rule.when.matches(event)
            {
                continue;
            }
            state.seen += 1;
            let Some(due) = state.seen.checked_sub(state.rule.nth) else { continue };
            // Asked in any case: what a rule draws does not depend on the others.
            if !state.rule.times.fires(due, state.fired, &mut state.random) {
                continue;
            }
            let draw = state.random.u64(..);
            if decision.is_none() {
                state.fired += 1;
                decision = Some(Fired { rule: Arc::clone(&state.rule), count: state.fired, draw });
            }
        }
        decision
    }

    /// What has become of each rule, in their order.
    #[must_use]
    pub fn counts(&self) -> Vec<RuleCount> {
        let count = |state: &State<W, E>| RuleCount {
            name: state.rule.name.clone(),
            seen: state.seen,
            fired: state.fired,
        };
        self.rules.iter().map(count).collect()
    }
}

/// FNV-1a, which is the same on every machine and in every version.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Times;

    /// Matches multiples of a number; 0 stands for all.
    #[derive(Clone, Debug, Default)]
    struct Multiple(u32);

    impl When for Multiple {
        type Event<'a> = u32;

        fn matches(&self, event: &u32) -> bool {
            self.0 == 0 || event.is_multiple_of(self.0)
        }
    }

    type TestRule = Rule<Multiple, &'static str>;

    fn decisions(rules: Vec<TestRule>, seed: u64, events: u32) -> Vec<(u32, &'static str)> {
        let mut engine = Engine::new(rules, seed).expect("sound rules");
        (1..=events).filter_map(|event| Some((event, engine.decide(&event)?.rule.effect))).collect()
    }

    #[test]
    fn times_are_counted_over_the_events_that_match() {
        let third = || Rule::new("r", "x").when(Multiple(3));
        for (rule, expected) in [
            (third(), vec![3]),
            (third().times(Times::First(2)), vec![3, 6]),
            (third().times(Times::Every(2)), vec![3, 9, 15]),
            (third().times(Times::Always), vec![3, 6, 9, 12, 15]),
            (third().nth(2), vec![6]),
            (third().nth(2).times(Times::First(2)), vec![6, 9]),
            (third().nth(2).times(Times::Every(2)), vec![6, 12]),
            (third().times(Times::Ratio { hits: 1, of: 1 }), vec![3, 6, 9, 12, 15]),
        ] {
            let text = format!("{rule:?}");
            let events: Vec<_> = decisions(vec![rule], 0, 15).iter().map(|(at, _)| *at).collect();
            assert_eq!(events, expected, "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_is_due_fires_and_the_others_have_counted() {
        let rules = vec![
            Rule::new("even", "even").when(Multiple(2)).times(Times::Always),
            Rule::new("third", "third").nth(3),
            Rule::new("fourth", "fourth").nth(4),
        ];
        let mut engine = Engine::new(rules, 0).expect("sound rules");
        let effects: Vec<_> =
            (1..=5).map(|event| engine.decide(&event).map(|fired| fired.rule.effect)).collect();
        // At 4 two are due; `fourth` is behind and fires at its next event.
        assert_eq!(effects, [None, Some("even"), Some("third"), Some("even"), Some("fourth")]);
        let counts: Vec<_> = engine
            .counts()
            .into_iter()
            .map(|count| (count.name, count.seen, count.fired))
            .collect();
        let expected = [("even", 2, 2), ("third", 5, 1), ("fourth", 5, 1)];
        assert_eq!(counts, expected.map(|(name, seen, fired)| (name.to_owned(), seen, fired)));
    }

    #[test]
    fn after_another_rule_is_from_the_next_event_on() {
        let rules = vec![
            Rule::new("second", "second").after("first").times(Times::First(2)),
            Rule::new("first", "first").nth(3),
        ];
        assert_eq!(decisions(rules, 0, 8), [(3, "first"), (4, "second"), (5, "second")]);
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let rule = |name: &str| Rule::<Multiple, _>::new(name, "x");
        for (rules, words) in [
            (vec![rule("a"), rule(" ")], "rule 2 has no name"),
            (vec![rule("a"), rule("a")], "two rules are called `a`"),
            (vec![rule("a").times(Times::First(0))], "`first = 0` never fires"),
            (vec![rule("a").times(Times::Every(0))], "`every = 0`"),
            (vec![rule("a").times(Times::Ratio { hits: 0, of: 2 })], "without hits"),
            (vec![rule("a").times(Times::Ratio { hits: 3, of: 2 })], "no more hits"),
            (vec![rule("a").nth(0)], "`nth = 0`"),
            (vec![rule("a").after("b")], "after `b`, which is no other rule"),
            (vec![rule("a").after("a")], "after `a`, which is no other rule"),
        ] {
            let error = Engine::new(rules, 0).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_ratio_hits_about_as_often_as_it_says() {
        let rule = Rule::new("r", "x").times(Times::Ratio { hits: 1, of: 4 });
        let hits = decisions(vec![rule], 7, 4000).len();
        // Six standard deviations of a binomial distribution around 1000.
        assert!((836..=1164).contains(&hits), "{hits}");
    }

    proptest! {
        /// Whatever else is in the list, a rule that is first draws the same.
        #[test]
        fn chance_is_the_seed_s_alone(seed: u64, other in 1u32..9) {
            let rule = || Rule::new("r", "x").times(Times::Ratio { hits: 1, of: 3 });
            let alone = decisions(vec![rule()], seed, 200);
            prop_assert_eq!(&alone, &decisions(vec![rule()], seed, 200));
            let noise = Rule::new("n", "n").when(Multiple(other)).times(Times::Always);
            let mut beside = decisions(vec![rule(), noise], seed, 200);
            beside.retain(|(_, effect)| *effect == "x");
            prop_assert_eq!(alone, beside);
        }

        /// A rule before it takes firings away and changes none of the others, nor what is drawn for them.
        #[test]
        fn chance_is_the_seed_s_alone_behind_another_rule(seed: u64, other in 1u32..9) {
            let draws = |rules: Vec<TestRule>| -> Vec<(u32, u64)> {
                let mut engine = Engine::new(rules, seed).expect("sound rules");
                let fired = (1..=200).filter_map(|event| Some((event, engine.decide(&event)?)));
                fired.filter(|(_, fired)| fired.rule.effect == "x").map(|(at, fired)| (at, fired.draw)).collect()
            };
            let rule = || Rule::new("r", "x").times(Times::Ratio { hits: 1, of: 3 });
            let noise = Rule::new("n", "n").when(Multiple(other)).times(Times::Always);
            let mut alone = draws(vec![rule()]);
            alone.retain(|(event, _)| !event.is_multiple_of(other));
            prop_assert_eq!(alone, draws(vec![noise, rule()]));
        }
    }

    #[test]
    fn another_seed_is_another_chance() {
        let rule = || vec![Rule::new("r", "x").times(Times::Ratio { hits: 1, of: 3 })];
        assert_ne!(decisions(rule(), 1, 200), decisions(rule(), 2, 200));
    }
}
