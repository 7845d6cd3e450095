//! Why a patch does not apply, in terms of the patch and the file.

use std::{fmt, fs, path::Path};

use super::{
    Patch,
    diff::{self, Hunk},
};

/// Lines that are shown of what a patch expects and of what a file has.
const SHOWN_MAX: usize = 4;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its change is there already.
    AlreadyApplied,
    /// It changes a file that is not there.
    FileMissing {
        /// The file.
        file: String,
    },
    /// It makes a file that is there.
    FileExists {
        /// The file.
        file: String,
    },
    /// A file is different where it changes something.
    Differs {
        /// The file.
        file: String,
        /// The hunk, from 1.
        hunk: usize,
        /// The line the hunk begins at, by its own word.
        line: usize,
        /// Lines of the hunk, from the first that does not fit.
        expected: Vec<String>,
        /// The line of the file that is most like the hunk's place, and the lines there; `None` if
        /// nothing is like it.
        found: Option<(usize, Vec<String>)>,
    },
    /// Something else, in git's words.
    Other(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AlreadyApplied => f.write_str("its change is in the tree already"),
            Reason::FileMissing { file } => {
                write!(f, "it changes {file}, which the tree does not have")
            }
            Reason::FileExists { file } => write!(f, "it adds {file}, which the tree has already"),
            Reason::Differs { file, hunk, line, expected, found } => {
                write!(f, "{file} is different at its hunk {hunk} (line {line})")?;
                write!(f, "\n  the patch expects:")?;
                expected.iter().try_for_each(|line| write!(f, "\n    {line}"))?;
                match found {
                    Some((line, found)) => {
                        write!(f, "\n  the file has at line {line}:")?;
                        found.iter().try_for_each(|line| write!(f, "\n    {line}"))
                    }
                    None => write!(f, "\n  the file has nothing like it"),
                }
            }
            Reason::Other(words) => f.write_str(words),
        }
    }
}

/// The reason behind git's words about a patch that it did not apply in `root`.
pub(super) fn reason(words: &str, patch: &Patch, root: &Path) -> Reason {
    let errors = || words.lines().filter_map(|line| line.strip_prefix("error: "));
    for error in errors() {
        let file = |end| error.strip_suffix(end).map(str::to_owned);
        if let Some(file) = file(": No such file or directory") {
            return Reason::FileMissing { file };
        }
        if let Some(file) = file(": already exists in working directory") {
            return Reason::FileExists { file };
        }
        let failed = error.strip_prefix("patch failed: ").and_then(|rest| rest.rsplit_once(':'));
        if let Some((file, line)) = failed
            && let Ok(line) = line.parse::<usize>()
        {
            let hunks = diff::hunks(&patch.diff, patch.strip);
            if let Some(hunk) = hunks.iter().find(|hunk| hunk.file == file && hunk.start == line) {
                return differs(hunk, &fs::read(root.join(file)).unwrap_or_default());
            }
        }
    }
    let words: Vec<&str> = errors().collect();
    Reason::Other(words.join("; "))
}

fn differs(hunk: &Hunk, content: &[u8]) -> Reason {
    let content = String::from_utf8_lossy(content);
    let lines: Vec<&str> = content.lines().collect();
    let place = most_alike(&hunk.old, &lines, hunk.start);
    let fits = |at: usize, i: usize| lines.get(at + i) == Some(&hunk.old[i].as_str());
    let first = place.and_then(|at| (0..hunk.old.len()).find(|i| !fits(at, *i))).unwrap_or(0);
    let shown = |line: &str| line.replace('\t', "        ").trim_end().to_owned();
    let expected = hunk.old.iter().skip(first).take(SHOWN_MAX).map(|line| shown(line)).collect();
    let found = place.map(|at| {
        let lines = lines.iter().skip(at + first).take(SHOWN_MAX).map(|line| shown(line)).collect();
        (at + first + 1, lines)
    });
    let (file, hunk, line) = (hunk.file.clone(), hunk.number, hunk.start);
    Reason::Differs { file, hunk, line, expected, found }
}

/// Where, counted from 0, most of the lines of `old` stand in `lines`: of several such places the one
/// nearest to line `near`. Blank lines and lone braces are everywhere and prove nothing.
fn most_alike(old: &[String], lines: &[&str], near: usize) -> Option<usize> {
    let tells = |line: &str| line.bytes().filter(u8::is_ascii_alphanumeric).count() >= 3;
    let score = |at: usize| {
        old.iter()
            .zip(&lines[at..])
            .filter(|(old, line)| old.as_str() == **line && tells(line))
            .count()
    };
    let best = (0..lines.len()).map(|at| (score(at), at)).filter(|(score, _)| *score > 0);
    best.max_by_key(|(score, at)| (*score, std::cmp::Reverse((at + 1).abs_diff(near))))
        .map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn patch(diff: &str) -> Patch {
        Patch {
            number: None,
            subject: "x".to_owned(),
            author: String::new(),
            files: vec![PathBuf::from("x.c")],
            strip: 1,
            diff: diff.as_bytes().to_vec(),
        }
    }

    /// The reason why `diff` fails at line 1 of `x.c`.
    fn told(diff: &str, content: &str) -> String {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("x.c"), content).expect("write");
        let words =
            "Checking patch x.c...\nerror: while searching for:\nerror: patch failed: x.c:1\n";
        reason(words, &patch(diff), dir.path()).to_string()
    }

    #[test]
    fn words_that_are_not_known_are_passed_on() {
        let root = Path::new("/nonexistent");
        let words = "Checking patch x.c...\nerror: x.c: wrong type\nhint: no\nerror: that is all\n";
        let other = Reason::Other("x.c: wrong type; that is all".to_owned());
        assert_eq!(reason(words, &patch(""), root), other);
        // A line at which the patch has no hunk.
        let words = "error: patch failed: x.c:9\n";
        let other = Reason::Other("patch failed: x.c:9".to_owned());
        assert_eq!(reason(words, &patch("--- a/x.c\n+++ b/x.c\n@@ -1 +1 @@\n-a\n"), root), other);
    }

    #[test]
    fn tabs_are_shown_as_wide_as_they_are() {
        let diff = "--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@\n common\n-\treturn 0;\t\n+\treturn 1;\n";
        assert_eq!(
            told(diff, "common\n\treturn 2;\t\n"),
            "x.c is different at its hunk 1 (line 1)\n  the patch expects:\n            return 0;\n  \
             the file has at line 2:\n            return 2;"
        );
    }

    /// Short statements tell a place as well as long ones.
    #[test]
    fn line_of_three_letters_is_a_likeness_and_one_of_two_is_none() {
        let diff =
            |line: &str| format!("--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@\n {line}\n-gone\n+new\n");
        let place = "the file has at line 3:";
        assert!(told(&diff("\tfoo();"), "a\n\tfoo();\nb\n").contains(place));
        let nothing = "the file has nothing like it";
        assert!(told(&diff("\tif {"), "a\n\tif {\nb\n").contains(nothing));
    }
}
