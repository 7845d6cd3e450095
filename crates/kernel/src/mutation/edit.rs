//! A small change of one C function, and finding its place in the file.
//!
//! It must not know kernels, only the coding style they are written in: the braces of a function stand
//! alone at the beginning of a line.

use std::{
    fs, io,
    ops::{Range, RangeInclusive},
    path::Path,
};

/// A change of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, below the root of the source.
    pub file: String,
    /// The function in which the text has to be.
    pub function: String,
    /// Text that is in the function exactly once, white space as in the file.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The file does not define the function, or does so more than once.
    #[error("{file} defines a function {function} {count} times, not once")]
    Function {
        /// The file.
        file: String,
        /// The function.
        function: String,
        /// How often it is defined.
        count: usize,
    },
    /// The text is not in the function, or is there more than once.
    #[error("{file}: {function} has {find:?} {count} times, not once")]
    Text {
        /// The file.
        file: String,
        /// The function.
        function: String,
        /// The text.
        find: String,
        /// How often it is there.
        count: usize,
    },
    /// The text is replaced by itself.
    #[error("{file}: {find:?} in {function} is replaced by itself")]
    Same {
        /// The file.
        file: String,
        /// The function.
        function: String,
        /// The text.
        find: String,
    },
}

impl Edit {
    /// The file's text after the change.
    pub fn apply(&self, text: &str) -> Result<String, EditError> {
        if self.find == self.replace {
            let (file, function) = (self.file.clone(), self.function.clone());
            return Err(EditError::Same { file, function, find: self.find.clone() });
        }
        let start = place(text, &self.file, &self.function, &self.find)?;
        let (before, after) = (&text[..start], &text[start + self.find.len()..]);
        Ok([before, &self.replace, after].concat())
    }

    /// Whether the change can be made in the source below `root`.
    pub fn check(&self, root: &Path) -> Result<(), EditError> {
        let read = fs::read_to_string(root.join(&self.file));
        let text = read.map_err(|source| EditError::Read { file: self.file.clone(), source })?;
        self.apply(&text).map(drop)
    }
}

/// The lines, from 1, of text that is in a function of a file exactly once.
pub fn lines_of(
    text: &str,
    file: &str,
    function: &str,
    find: &str,
) -> Result<RangeInclusive<usize>, EditError> {
    let start = place(text, file, function, find)?;
    let lines_to = |end: usize| 1 + text[..end].matches('\n').count();
    Ok(lines_to(start)..=lines_to(start + find.trim_end().len()))
}

/// Where text is in a function of a file that has it exactly once.
fn place(text: &str, file: &str, function: &str, find: &str) -> Result<usize, EditError> {
    let owned = || (file.to_owned(), function.to_owned());
    let definitions = definitions(text, function);
    let [definition] = definitions.as_slice() else {
        let (file, function) = owned();
        return Err(EditError::Function { file, function, count: definitions.len() });
    };
    let places = places(&text[definition.clone()], find);
    let [place] = places.as_slice() else {
        let (file, function) = owned();
        return Err(EditError::Text { file, function, find: find.to_owned(), count: places.len() });
    };
    Ok(definition.start + place)
}

/// Where `wanted` is in `text`, overlaps included. Nothing is nowhere.
fn places(text: &str, wanted: &str) -> Vec<usize> {
    if wanted.is_empty() {
        return Vec::new();
    }
    text.char_indices().map(|(at, _)| at).filter(|at| text[*at..].starts_with(wanted)).collect()
}

/// The definitions of a function, from its name's line to its closing brace.
fn definitions(text: &str, name: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let lines: Vec<Range<usize>> = text
        .split_inclusive('\n')
        .map(|line| {
            let range = start..start + line.len();
            start = range.end;
            range
        })
        .collect();
    let line = |at: usize| text[lines[at].clone()].trim_end();
    let mut definitions: Vec<Range<usize>> = Vec::new();
    for head in (0..lines.len()).filter(|at| names(line(*at), name)) {
        let Some(open) = (head..lines.len()).find(|at| line(*at) == "{") else { continue };
        // A declaration, or a use in an initializer, ends before the next brace.
        if (head..open).any(|at| line(at).ends_with(';') || line(at).starts_with('}')) {
            continue;
        }
        let Some(close) = (open..lines.len()).find(|at| line(*at).starts_with('}')) else {
            continue;
        };
        let end = lines[close].end;
        // What comes before the head at the margin, for example in a comment, is no head.
        definitions.retain(|earlier| earlier.end != end);
        definitions.push(lines[head].start..end);
    }
    definitions
}

/// Whether a line at the margin has `name` with its parameters.
fn names(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.starts_with(is_word)
        && line.match_indices(name).any(|(at, _)| {
            !line[..at].ends_with(is_word) && line[at + name.len()..].starts_with('(')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
static int twice(int a);
static int half(int a)
{
\treturn a / 2;
}

/* twice() of what
twice(nothing) */
static inline struct thing *
twice(int a,
      int b)
\t__must_hold(lock)
{
\tif (a < 0) {
\t\treturn twice(-a, b);
\t}
\treturn a + a;
}

static const struct ops ops = {
\t.twice = twice,
};
";

    fn edit(function: &str, find: &str, replace: &str) -> Edit {
        let [function, find, replace] = [function, find, replace].map(str::to_owned);
        Edit { file: "a.c".to_owned(), function, find, replace }
    }

    #[test]
    fn lines_are_those_the_text_stands_in() {
        let lines = |find: &str| lines_of(TEXT, "a.c", "twice", find).expect("once");
        assert_eq!(lines("if (a < 0) {"), 14..=14);
        assert_eq!(lines("\t\treturn twice(-a, b);\n\t}\n"), 15..=16);
        let missing = lines_of(TEXT, "a.c", "half", "return a + a;").expect_err("of another");
        assert_eq!(missing.to_string(), "a.c: half has \"return a + a;\" 0 times, not once");
    }

    #[test]
    fn a_text_is_replaced_in_its_function_only() {
        let changed = edit("twice", "return a", "return 1 + a").apply(TEXT).expect("once");
        assert_eq!(changed, TEXT.replace("return a + a", "return 1 + a + a"));
        let lines = edit("twice", "< 0) {\n\t\treturn", "<= 0) {\n\t\treturn");
        assert_eq!(lines.apply(TEXT).expect("once"), TEXT.replace("a < 0", "a <= 0"));
    }

    #[test]
    fn text_that_is_not_there_once_is_an_error_that_says_how_often() {
        let error = |function, find| edit(function, find, "x").apply(TEXT).expect_err("refused");
        assert_eq!(error("half", "b").to_string(), "a.c: half has \"b\" 0 times, not once");
        assert_eq!(error("half", "").to_string(), "a.c: half has \"\" 0 times, not once");
        let twice = error("twice", "return").to_string();
        assert_eq!(twice, "a.c: twice has \"return\" 2 times, not once");
        let same = edit("half", "2", "2").apply(TEXT).expect_err("refused");
        assert_eq!(same.to_string(), "a.c: \"2\" in half is replaced by itself");
    }

    #[test]
    fn a_function_is_its_definition_and_no_declaration_or_use() {
        let error = |function| edit(function, "a", "x").apply(TEXT).expect_err("refused");
        assert_eq!(error("thrice").to_string(), "a.c defines a function thrice 0 times, not once");
        assert_eq!(error("ops").to_string(), "a.c defines a function ops 0 times, not once");
        let both = format!("{TEXT}{TEXT}");
        let error = edit("half", "2", "3").apply(&both).expect_err("refused");
        assert_eq!(error.to_string(), "a.c defines a function half 2 times, not once");
    }
}
