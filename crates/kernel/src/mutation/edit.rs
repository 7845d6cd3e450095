//! A small change of one C function, and finding its place in the file.
//!
//! It must not know kernels, only the coding style they are written in: the braces of a function stand
//! alone at the beginning of a line.

use std::{
    collections::{BTreeMap, btree_map::Entry},
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

/// The defects of those edits that cannot be made in the source below `root`, by their places among all.
pub fn defects<'a>(
    root: &Path,
    edits: impl IntoIterator<Item = &'a Edit>,
) -> Vec<(usize, EditError)> {
    let mut files: BTreeMap<&str, CFile> = BTreeMap::new();
    let mut defect = |edit: &'a Edit| {
        let file = match files.entry(&edit.file) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let read = fs::read_to_string(root.join(&edit.file));
                let error = |source| EditError::Read { file: edit.file.clone(), source };
                entry.insert(CFile::new(&edit.file, read.map_err(error)?))
            }
        };
        file.place(edit).map(drop)
    };
    let edits = edits.into_iter().enumerate();
    edits.filter_map(|(at, edit)| Some((at, defect(edit).err()?))).collect()
}

/// The lines, from 1, of text that is in a function of a file exactly once.
pub fn lines_of(
    text: &str,
    file: &str,
    function: &str,
    find: &str,
) -> Result<RangeInclusive<usize>, EditError> {
    let (_, start) = CFile::new(file, text.to_owned()).find(function, find)?;
    let lines_to = |end: usize| 1 + text[..end].matches('\n').count();
    Ok(lines_to(start)..=lines_to(start + find.trim_end().len()))
}

/// A file, and the functions it defines.
#[derive(Debug)]
pub(super) struct CFile {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) definitions: Vec<Definition>,
}

impl CFile {
    pub(super) fn new(name: &str, text: String) -> CFile {
        CFile { name: name.to_owned(), definitions: definitions(&text), text }
    }

    /// The definition that an edit changes, and where in its body.
    pub(super) fn place(&self, edit: &Edit) -> Result<(&Definition, usize), EditError> {
        let Edit { file, function, find, replace } = edit.clone();
        if find == replace {
            return Err(EditError::Same { file, function, find });
        }
        let (definition, place) = self.find(&function, &find)?;
        if place < definition.body.start || place + find.len() > definition.body.end {
            return Err(EditError::Head { file, function, find });
        }
        Ok((definition, place))
    }

    /// The definition of a function, and where in it is `find`, which is there once.
    fn find(&self, function: &str, find: &str) -> Result<(&Definition, usize), EditError> {
        let definition = self.definition(function, find)?;
        let places = occurrences(&self.text[definition.whole.clone()], find);
        let [place] = places.as_slice() else {
            let (file, function, find) = (self.name.clone(), function.to_owned(), find.to_owned());
            return Err(EditError::Text { file, function, find, count: places.len() });
        };
        Ok((definition, definition.whole.start + place))
    }

    /// The definition of a function that `find` is in: of several, which stand under conditions of the
    /// preprocessor, the one that has it once.
    fn definition(&self, function: &str, find: &str) -> Result<&Definition, EditError> {
        let mut definitions: Vec<&Definition> =
            self.definitions.iter().filter(|one| one.name == function).collect();
        let count = definitions.len();
        if count > 1 {
            definitions.retain(|one| occurrences(&self.text[one.whole.clone()], find).len() == 1);
        }
        let [definition] = definitions.as_slice() else {
            let (file, function) = (self.name.clone(), function.to_owned());
            return Err(EditError::Function { file, function, count });
        };
        Ok(definition)
    }
}

/// Where `wanted` is in `text`, overlaps included. Nothing is nowhere.
fn occurrences(text: &str, wanted: &str) -> Vec<usize> {
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
fn definitions(text: &str) -> Vec<Definition> {
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
    let name = last_word(&head[..head.find('(')?]);
    (!name.is_empty()).then_some(name)
}

/// The word at the end of a text, without the blanks behind it; nothing if there is none.
pub(super) fn last_word(text: &str) -> &str {
    let text = text.trim_end();
    &text[text.trim_end_matches(is_word).len()..]
}

/// Whether a name may have this character.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
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

    fn file(text: &str) -> CFile {
        CFile::new("a.c", text.to_owned())
    }

    fn place_of(edit: &Edit) -> Result<usize, EditError> {
        file(TEXT).place(edit).map(|(_, place)| place)
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
            file(text).definition(function, "a / 2").expect_err("refused").to_string()
        };
        assert_eq!(error(TEXT, "thrice"), "a.c defines a function thrice 0 times, not once");
        assert_eq!(error(TEXT, "ops"), "a.c defines a function ops 0 times, not once");
        let both = format!("{TEXT}{TEXT}");
        assert_eq!(error(&both, "half"), "a.c defines a function half 2 times, not once");
        let two = [TEXT, "int half(int a)\n{\n\treturn 0;\n}\n"].concat();
        let both = file(&two);
        let half = |find| both.definition("half", find).expect("one has it").whole.clone();
        assert!(two[half("a / 2")].contains("a / 2"));
        assert!(two[half("return 0")].contains("return 0"));
        let one = file(TEXT);
        let twice = one.definition("twice", "").expect("one").clone();
        assert!(TEXT[twice.whole.clone()].starts_with("static inline struct thing *\ntwice("));
        assert!(TEXT[twice.whole].ends_with("\treturn a + a;\n}\n"));
        assert!(TEXT[twice.body].starts_with("\tif (a < 0) {\n"));
    }
}
