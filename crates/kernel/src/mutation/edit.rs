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
    /// The file does not define the function, or does so more than once and not one of them has the text.
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
    /// The text is in the function's head.
    #[error("{file}: {find:?} is not between the braces of {function}")]
    Head {
        /// The file.
        file: String,
        /// The function.
        function: String,
        /// The text.
        find: String,
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
    /// Where the text that changes is in a definition of the function, in its body.
    pub(super) fn place_in_body(
        &self,
        text: &str,
        definition: &Definition,
    ) -> Result<usize, EditError> {
        let Edit { file, function, find, replace } = self.clone();
        if find == replace {
            return Err(EditError::Same { file, function, find });
        }
        let place = place_in(text, &file, definition, &find)?;
        if place < definition.body.start || place + find.len() > definition.body.end {
            return Err(EditError::Head { file, function, find });
        }
        Ok(place)
    }

    /// Whether the change can be made in the source below `root`.
    pub fn check(&self, root: &Path) -> Result<(), EditError> {
        let read = fs::read_to_string(root.join(&self.file));
        let text = read.map_err(|source| EditError::Read { file: self.file.clone(), source })?;
        let definition = definition(&text, &self.file, &self.function, &self.find)?;
        self.place_in_body(&text, &definition).map(drop)
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
    place_in(text, file, &definition(text, file, function, find)?, find)
}

fn place_in(
    text: &str,
    file: &str,
    definition: &Definition,
    find: &str,
) -> Result<usize, EditError> {
    let places = occurrences(&text[definition.whole.clone()], find);
    let [place] = places.as_slice() else {
        let (file, function) = (file.to_owned(), definition.name.clone());
        return Err(EditError::Text { file, function, find: find.to_owned(), count: places.len() });
    };
    Ok(definition.whole.start + place)
}

/// The definition of a function that `find` is in: of several, which stand under conditions of the
/// preprocessor, the one that has it once.
pub(super) fn definition(
    text: &str,
    file: &str,
    function: &str,
    find: &str,
) -> Result<Definition, EditError> {
    let mut definitions = definitions(text);
    definitions.retain(|definition| definition.name == function);
    let count = definitions.len();
    if count > 1 {
        definitions.retain(|one| occurrences(&text[one.whole.clone()], find).len() == 1);
    }
    match <[Definition; 1]>::try_from(definitions) {
        Ok([definition]) => Ok(definition),
        Err(_) => {
            let (file, function) = (file.to_owned(), function.to_owned());
            Err(EditError::Function { file, function, count })
        }
    }
}

/// Where `wanted` is in `text`, overlaps included. Nothing is nowhere.
pub(super) fn occurrences(text: &str, wanted: &str) -> Vec<usize> {
    if wanted.is_empty() {
        return Vec::new();
    }
    text.char_indices().map(|(at, _)| at).filter(|at| text[*at..].starts_with(wanted)).collect()
}

/// A function's definition in a file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: String,
    /// From the beginning of its head to the end of the line of its closing brace.
    pub(super) whole: Range<usize>,
    /// What is between its braces: whole lines.
    pub(super) body: Range<usize>,
}

/// All functions that a file defines.
pub(super) fn definitions(text: &str) -> Vec<Definition> {
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
    let opening = (0..lines.len()).filter(|at| line(*at) == "{");
    let definition = opening.filter_map(|open| {
        // What ends a declaration, a comment or another function ends before this one's head.
        let is_before = |at: &usize| {
            let line = line(*at);
            line.is_empty() || line.starts_with('#') || line.ends_with([';', '}', '/'])
        };
        let head = (0..open).rev().find(is_before).map_or(0, |before| before + 1);
        let close = (open..lines.len()).find(|at| line(*at).starts_with('}'))?;
        let whole = lines[head].start..lines[close].end;
        let body = lines[open].end..lines[close].start;
        let name = called(&text[whole.start..lines[open].start])?.to_owned();
        Some(Definition { name, whole, body })
    });
    definition.collect()
}

/// The name in a function's head: the word before the first parenthesis.
fn called(head: &str) -> Option<&str> {
    let before = head[..head.find('(')?].trim_end();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &before[before.trim_end_matches(is_word).len()..];
    (!name.is_empty()).then_some(name)
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

    fn place_of(edit: &Edit) -> Result<usize, EditError> {
        edit.place_in_body(TEXT, &definition(TEXT, &edit.file, &edit.function, &edit.find)?)
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
    fn a_text_is_found_in_its_function_only() {
        let place = place_of(&edit("twice", "return a", "return 1 + a")).expect("once");
        assert_eq!(place, TEXT.find("return a + a").expect("there"));
        let lines = edit("twice", "< 0) {\n\t\treturn", "<= 0) {\n\t\treturn");
        assert_eq!(place_of(&lines).expect("once"), TEXT.find("< 0)").expect("there"));
    }

    #[test]
    fn text_that_is_not_there_once_is_an_error_that_says_how_often() {
        let error =
            |function, find| place_of(&edit(function, find, "x")).expect_err("refused").to_string();
        assert_eq!(error("half", "b"), "a.c: half has \"b\" 0 times, not once");
        assert_eq!(error("half", ""), "a.c: half has \"\" 0 times, not once");
        assert_eq!(error("twice", "return"), "a.c: twice has \"return\" 2 times, not once");
        let head = "a.c: \"int a)\" is not between the braces of half";
        assert_eq!(error("half", "int a)"), head);
        let same = place_of(&edit("half", "2", "2")).expect_err("refused").to_string();
        assert_eq!(same, "a.c: \"2\" in half is replaced by itself");
    }

    #[test]
    fn a_function_is_its_definition_and_no_declaration_or_use() {
        let error = |text, function| {
            definition(text, "a.c", function, "a / 2").expect_err("refused").to_string()
        };
        assert_eq!(error(TEXT, "thrice"), "a.c defines a function thrice 0 times, not once");
        assert_eq!(error(TEXT, "ops"), "a.c defines a function ops 0 times, not once");
        let both = format!("{TEXT}{TEXT}");
        assert_eq!(error(&both, "half"), "a.c defines a function half 2 times, not once");
        let two = [TEXT, "int half(int a)\n{\n\treturn 0;\n}\n"].concat();
        let half = |find| definition(&two, "a.c", "half", find).expect("one has it").whole;
        assert!(two[half("a / 2")].contains("a / 2"));
        assert!(two[half("return 0")].contains("return 0"));
        let twice = definition(TEXT, "a.c", "twice", "").expect("one");
        assert!(TEXT[twice.whole.clone()].starts_with("static inline struct thing *\ntwice("));
        assert!(TEXT[twice.whole].ends_with("\treturn a + a;\n}\n"));
        assert!(TEXT[twice.body].starts_with("\tif (a < 0) {\n"));
    }
}
