//! Programs that a test's needs put into the guest, run as a user would.

use std::process::Command;

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output, and after it its standard error: where a program says what is not alike.
    pub said: String,
}

/// Runs a program of the image to its end. The end of the test ends it too.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> Ran {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    Ran {
        command: [&[program], arguments].concat().join(" "),
        code: output.status.code(),
        said: String::from_utf8_lossy(&said).into_owned(),
    }
}

impl Ran {
    /// What it said, if it ended with this exit code.
    #[track_caller]
    pub fn ended_with(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "exit code of `{}`\n{}", self.command, self.said);
        &self.said
    }

    /// Asserts that it ended well and said all these things in this order; white space counts as one
    /// blank.
    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        let text = flat(self.ended_with(0));
        let mut rest = text.as_str();
        for word in words {
            let found = rest.split_once(&flat(word));
            let (_, behind) = found.unwrap_or_else(|| {
                panic!("`{}` did not say {word:?} (in this order):\n{}", self.command, self.said)
            });
            rest = behind;
        }
    }
}

/// Words with one blank between them.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(code: i32) -> Ran {
        Ran { command: "tool -x".into(), code: Some(code), said: "one  two\n three\n".into() }
    }

    #[test]
    fn words_are_found_across_lines_and_in_order() {
        ran(0).says(&["one two three"]);
        ran(0).says(&["one", "three"]);
    }

    #[test]
    #[should_panic(expected = "did not say \"one\" (in this order)")]
    fn words_in_another_order_are_not_found() {
        ran(0).says(&["two", "one"]);
    }

    #[test]
    #[should_panic(expected = "exit code of `tool -x`")]
    fn another_exit_code_is_told_with_the_command() {
        ran(3).says(&["one"]);
    }
}
