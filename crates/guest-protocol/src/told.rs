//! A line that a test in the guest has for whoever watches, as a line of its output.

/// What stands before it. libtest may have begun the line.
const MARK: &str = "told: ";

/// The line.
#[must_use]
pub fn line(words: &str) -> String {
    format!("{MARK}{words}")
}

/// The lines among those of an output.
pub fn all(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| line.split_once(MARK)).map(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_between_others() {
        let output = format!("test a ... {}\nother\n{}\nok\n", line("one"), line("  two"));
        assert_eq!(all(&output).collect::<Vec<_>>(), ["one", "  two"]);
    }
}
