//! A list of rules as a file.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Rule, RuleError, check};

/// The format's number, in a scenario's `format`.
pub const FORMAT: u32 = 1;

/// Words to say rules in.
pub trait Words {
    /// Their name, in a scenario's `words`.
    const NAME: &'static str;
}

/// A scenario: rules, and the seed of what they leave to chance. As a file it is TOML:
///
/// ```toml
/// format = 1
/// words = "scsi"
/// seed = 7
///
/// [[rule]]
/// name = "…"
/// when = { … }
/// effect = { … }
/// times = { first = 3 }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[serde(bound(deserialize = "W: Deserialize<'de> + Default, E: Deserialize<'de>"))]
pub struct Scenario<W, E> {
    /// [`FORMAT`].
    pub format: u32,
    /// Which words the rules are said in, see [`Words`].
    pub words: String,
    /// Where chance comes from.
    #[serde(default)]
    pub seed: u64,
    /// The rules, in the order they are asked.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule<W, E>>,
}

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML, or has a key or a value that nobody knows.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// The format is another.
    #[error("format {0} is not known here, only {FORMAT}")]
    Format(u32),
    /// The rules are said in other words.
    #[error("the rules are said in words of `{found}`, not of `{expected}`")]
    Words {
        /// What the file says.
        found: String,
        /// What was wanted.
        expected: &'static str,
    },
    /// The rules make no sense.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl<W: Words, E> Scenario<W, E> {
    /// A scenario of these rules.
    #[must_use]
    pub fn new(seed: u64, rules: Vec<Rule<W, E>>) -> Self {
        Scenario { format: FORMAT, words: W::NAME.to_owned(), seed, rules }
    }
}

impl<W: Words + Default + DeserializeOwned, E: DeserializeOwned> Scenario<W, E> {
    /// Reads a scenario.
    ///
    /// # Errors
    /// It is none; keys that nobody knows are named with those that are known.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        /// Asked first, so that whoever has the wrong file does not hear of unknown keys.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            words: String,
        }
        let head: Head = toml::from_str(text)?;
        if head.format != FORMAT {
            return Err(ScenarioError::Format(head.format));
        }
        if head.words != W::NAME {
            return Err(ScenarioError::Words { found: head.words, expected: W::NAME });
        }
        let scenario: Self = toml::from_str(text)?;
        check(&scenario.rules)?;
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Times;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Weather {
        sky: String,
    }

    impl Words for Weather {
        const NAME: &'static str = "weather";
    }

    type Forecast = Scenario<Weather, String>;

    const TEXT: &str = r#"
        format = 1
        words = "weather"
        seed = 7

        [[rule]]
        name = "rain"
        when = { sky = "grey" }
        effect = "wet"
        times = { ratio = { hits = 1, of = 3 } }

        [[rule]]
        name = "flood"
        effect = "very wet"
        nth = 4
        after = "rain"
    "#;

    #[test]
    fn a_file_says_what_rust_says() {
        let rain = Rule::new("rain", "wet".to_owned())
            .when(Weather { sky: "grey".into() })
            .times(Times::Ratio { hits: 1, of: 3 });
        let flood = Rule::new("flood", "very wet".to_owned()).nth(4).after("rain");
        let expected = Forecast::new(7, vec![rain, flood]);
        let parsed = Forecast::parse(TEXT).expect("a sound scenario");
        assert_eq!(parsed, expected);
        let written = toml::to_string(&parsed).expect("TOML");
        assert_eq!(Forecast::parse(&written).expect("what was written"), expected);
    }

    #[test]
    fn every_way_to_write_times_is_read() {
        for (text, times) in [
            ("times = \"once\"", Times::Once),
            ("times = \"always\"", Times::Always),
            ("times = { first = 3 }", Times::First(3)),
            ("times = { every = 4 }", Times::Every(4)),
            ("", Times::Once),
        ] {
            let rule = format!("name = \"r\"\neffect = \"x\"\n{text}\n");
            let rule: Rule<Weather, String> = toml::from_str(&rule).expect("a sound rule");
            assert_eq!(rule.times, times, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_with_what_is_known() {
        for (from, to, words) in [
            ("format = 1", "format = 2", "format 2 is not known here, only 1"),
            ("\"weather\"", "\"scsi\"", "words of `scsi`, not of `weather`"),
            ("nth = 4", "nht = 4", "unknown field `nht`, expected one of `name`, `when`"),
            ("{ sky =", "{ skye =", "unknown field `skye`, expected `sky`"),
            ("{ ratio =", "{ rotia =", "unknown variant `rotia`, expected one of `once`, `first`"),
            ("hits = 1, of", "hit = 1, of", "available keys: hits, of"),
            ("seed = 7", "sede = 7", "unknown field `sede`, expected one of `format`, `words`"),
            ("after = \"rain\"", "after = \"snow\"", "after `snow`"),
            ("name = \"flood\"", "", "missing field `name`"),
        ] {
            assert!(TEXT.contains(from), "{from}");
            let error = Forecast::parse(&TEXT.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(words), "{to}: {error}");
        }
    }
}
