//! A figure that a test in the guest has measured, as a line of its output.

use serde::{Deserialize, Serialize};

/// What stands before it. libtest may have begun the line.
const MARK: &str = "figure: ";

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Figure {
    /// What was done.
    pub what: String,
    /// In which of several ways.
    pub way: String,
    /// How long it took, in microseconds for each.
    pub micros: f64,
    /// How often in a hundred the kernel had to copy on the way, where that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounced: Option<f64>,
    /// CPU time of the server in microseconds for each, where that is a process of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_micros: Option<f64>,
    /// CPU time of application and server in microseconds for each, with what the kernel does for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_micros: Option<f64>,
}

impl Figure {
    /// The line.
    ///
    /// # Panics
    /// Never: names and a number can be said in JSON.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).expect("names and a number"))
    }

    /// The figures among the lines of an output.
    ///
    /// # Errors
    /// A line that is marked as one and is none.
    pub fn all(output: &str) -> Result<Vec<Figure>, serde_json::Error> {
        output
            .lines()
            .filter_map(|line| line.split_once(MARK))
            .map(|(_, json)| serde_json::from_str(json))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_between_other_lines() {
        let figure = |micros| Figure {
            what: "INQUIRY".into(),
            way: "bsg v4".into(),
            micros,
            ..Figure::default()
        };
        let output = format!(
            "running 1 test\ntest a ... {}\nfigures\n{}\nok\n",
            figure(1.5).line(),
            figure(2.0).line()
        );
        assert_eq!(Figure::all(&output).expect("sound"), [figure(1.5), figure(2.0)]);
        assert!(Figure::all("figure: {}").is_err());
    }
}
