//! Changes made by rule: each thing that a small mistake gets wrong, everywhere it is.
//!
//! It must not know what the code does; many of the changes nobody could ever notice.

use std::ops::Range;

use super::edit::{CFile, Definition, Edit, is_word};

/// A change and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByRule {
    /// The change.
    pub edit: Edit,
    /// The line, from 1, where it begins.
    pub line: u32,
    /// What was done, in a few words.
    pub what: String,
}

/// All changes by rule of the functions of a file with this text, of those called `functions` only unless
/// there are none.
pub fn by_rule(file: &str, text: &str, functions: &[String]) -> Vec<ByRule> {
    let (file, code) = (CFile::new(file, text.to_owned()), code_of(text));
    let wanted = file
        .definitions
        .iter()
        .filter(|definition| functions.is_empty() || functions.contains(&definition.name));
    wanted
        .flat_map(|definition| Function { file: &file, code: &code, definition }.changes())
        .collect()
}

/// What is compared, and with what it is mistaken.
const SWAPPED: [(&str, &str); 17] = [
    (" == ", " != "),
    (" != ", " == "),
    (" < ", " <= "),
    (" <= ", " < "),
    (" > ", " >= "),
    (" >= ", " > "),
    (" + ", " - "),
    (" - ", " + "),
    (" | ", " & "),
    (" & ", " | "),
    (" << ", " >> "),
    (" >> ", " << "),
    (" |= ", " = "),
    (" &= ", " = "),
    ("++;", "--;"),
    ("true", "false"),
    ("false", "true"),
];

/// Statements that no behaviour hangs on, and beginnings of what is no statement of its own.
const LEFT_ALONE: [&str; 22] = [
    "return", "goto", "case ", "default", "}", "{", "else", "if ", "for ", "while ", "do ", "pr_",
    "WARN", "BUG", "BUILD_", "lockdep", "trace_", "might_", "guard(", "static ", "const ", "__",
];

/// A change before it has its place: what is replaced, by what, and what was done.
type Change = (Range<usize>, String, String);

struct Function<'a> {
    file: &'a CFile,
    /// The text with blanks for comments, strings and directives.
    code: &'a str,
    definition: &'a Definition,
}

impl Function<'_> {
    fn changes(&self) -> Vec<ByRule> {
        let mut changes = self.swapped();
        changes.extend(self.conditions());
        changes.extend(self.left_out());
        changes.extend(self.errors());
        changes.sort_by_key(|(range, ..)| range.start);
        changes.into_iter().filter_map(|change| self.placed(change)).collect()
    }

    fn body(&self) -> &str {
        &self.code[self.definition.body.clone()]
    }

    /// Where `wanted` is in the body, as places in the text.
    fn find(&self, wanted: &str) -> impl Iterator<Item = Range<usize>> {
        let start = self.definition.body.start;
        let found: Vec<usize> =
            self.body().match_indices(wanted).map(|(at, _)| start + at).collect();
        let len = wanted.len();
        found.into_iter().map(move |at| at..at + len)
    }

    /// Operators and constants for their likes.
    fn swapped(&self) -> Vec<Change> {
        let change = |(from, to): (&str, &str)| {
            let what = format!("{} for {}", to.trim(), from.trim());
            let is_whole = |range: &Range<usize>| {
                let near = |at: Option<char>| at.is_some_and(is_word);
                !from.starts_with(char::is_alphabetic)
                    || !(near(self.code[..range.start].chars().next_back())
                        || near(self.code[range.end..].chars().next()))
            };
            let to = to.to_owned();
            let ranges: Vec<_> = self.find(from).filter(is_whole).collect();
            ranges.into_iter().map(move |range| (range, to.clone(), what.clone())).collect()
        };
        SWAPPED.into_iter().flat_map(|pair| -> Vec<Change> { change(pair) }).collect()
    }

    /// Conditions that always or never hold, and without one of their parts.
    fn conditions(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for open in self.find("if (") {
            let Some(inner) = self.enclosed(open.end) else { continue };
            let condition = &self.file.text[inner.clone()];
            changes.push((inner.clone(), format!("false && ({condition})"), "never".to_owned()));
            changes.push((inner.clone(), format!("true || ({condition})"), "always".to_owned()));
            for (operator, neutral) in [("||", "false"), ("&&", "true")] {
                let parts = self.parts(&inner, operator);
                for part in parts.iter().filter(|_| parts.len() > 1) {
                    let what = format!("without {}", self.file.text[part.clone()].trim());
                    changes.push((part.clone(), format!(" {neutral} "), what));
                }
            }
        }
        changes
    }

    /// What is between the parenthesis before `start` and its partner.
    fn enclosed(&self, start: usize) -> Option<Range<usize>> {
        let mut depth = 1;
        for (at, c) in self.code[start..self.definition.body.end].char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(start..start + at);
            }
        }
        None
    }

    /// The parts of a condition between operators that are in no parentheses.
    fn parts(&self, condition: &Range<usize>, operator: &str) -> Vec<Range<usize>> {
        let code = &self.code[condition.clone()];
        let (mut depth, mut start) = (0, 0);
        let mut parts = Vec::new();
        for (at, c) in code.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 && code[at..].starts_with(operator) {
                parts.push(condition.start + start..condition.start + at);
                start = at + operator.len();
            }
        }
        parts.push(condition.start + start..condition.end);
        parts
    }

    /// Statements that are not there.
    fn left_out(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut start = self.definition.body.start;
        for (at, c) in self.body().char_indices() {
            let at = self.definition.body.start + at;
            match c {
                ';' => {
                    let statement = start..at;
                    if let Some(range) = self.statement(&statement) {
                        changes.push((range, String::new(), "left out".to_owned()));
                    }
                    start = at + 1;
                }
                '{' | '}' => start = at + 1,
                ':' if self.code[at..].starts_with(":\n") => start = at + 1,
                _ => {}
            }
        }
        changes
    }

    /// What of `range` is a call or an assignment, after the heads it is under.
    fn statement(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let mut start = range.start;
        loop {
            let code = &self.code[start..range.end];
            start += code.len() - code.trim_start().len();
            let code = &self.code[start..range.end];
            if code.starts_with("else\n") {
                start += "else".len();
                continue;
            }
            let head =
                ["if (", "else if (", "while ("].iter().find(|head| code.starts_with(**head));
            let Some(head) = head else { break };
            start = self.enclosed(start + head.len())?.end + 1;
        }
        let code = self.code[start..range.end].trim_end();
        let is_one = code.contains('(')
            || code.contains('=')
            || code.contains("++")
            || matches!(code, "break" | "continue");
        let is_left_alone = LEFT_ALONE.iter().any(|word| code.starts_with(word));
        (is_one && !is_left_alone && !is_declaration(code)).then_some(start..range.end)
    }

    /// Other errors, and errors for success.
    fn errors(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for minus in self.find("-E") {
            let rest = &self.code[minus.start + 1..];
            let len = rest.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit());
            let end = minus.start + 1 + len.unwrap_or(rest.len());
            let error = &self.code[minus.start..end];
            let other = if error == "-EIO" { "-EINVAL" } else { "-EIO" };
            changes.push((minus.start..end, other.to_owned(), format!("{other} for {error}")));
        }
        for zero in self.find("return 0;") {
            changes.push((zero, "return -EIO;".to_owned(), "-EIO for 0".to_owned()));
        }
        changes
    }

    /// The change as an edit: with as many lines before it as make it the only one.
    fn placed(&self, (range, with, what): Change) -> Option<ByRule> {
        let (text, body) = (&self.file.text, &self.definition.body);
        let end = text[range.end..].find('\n').map_or(body.end, |at| range.end + at);
        let mut start = range.start;
        loop {
            start = text[body.start - 1..start].rfind('\n').map(|at| body.start - 1 + at)?;
            let find = &text[start + 1..end];
            let replace = [&text[start + 1..range.start], &with, &text[range.end..end]].concat();
            let (file, function) = (self.file.name.clone(), self.definition.name.clone());
            let edit = Edit { file, function, find: find.to_owned(), replace };
            if self.file.place(&edit).is_ok_and(|(found, _)| found == self.definition) {
                let line = 1 + text[..range.start].matches('\n').count();
                let line = u32::try_from(line).expect("files are short");
                return Some(ByRule { edit, line, what });
            }
        }
    }
}

/// Whether a statement is a declaration: it begins with two words, or a word and a pointer.
fn is_declaration(code: &str) -> bool {
    let rest = code.trim_start_matches(is_word);
    let after = rest.trim_start();
    rest.len() < code.len()
        && rest.len() != after.len()
        && (after.starts_with(is_word) || after.starts_with('*'))
}

/// The text with blanks for what is no code of a function: comments, strings, directives.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_line_start = code.is_empty() || code.ends_with('\n');
        let len = match first {
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '#' if is_line_start => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => quoted(rest, first),
            _ => 0,
        };
        if len == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..len].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = &rest[len..];
        }
    }
    code
}

/// How long what begins with a quotation mark is, with its end.
fn quoted(text: &str, mark: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == mark && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
static int f(struct a *a, int n)
{
	int ret = n + 1;

	/* if (never) this; */
	if (n < 0 || (n == 7 && a) ||
	    !a)
		return -EINVAL;
	if (ret)
		stop(a,
		     \"x; y\");
	else
		a->on = true_of(a);
	pr_debug(\"n < 0\");
#if N == 1
	return 0;
}
";

    fn made() -> Vec<(u32, String, String)> {
        let changes = by_rule("a.c", TEXT, &[]);
        let made = changes.into_iter().map(|change| {
            let ByRule { edit: Edit { find, replace, .. }, line, what } = change;
            assert_eq!(TEXT.matches(&find).count(), 1, "{find}");
            (line, what, TEXT.replace(&find, &replace))
        });
        made.collect()
    }

    fn of_line(line: u32) -> Vec<String> {
        made().into_iter().filter(|change| change.0 == line).map(|change| change.1).collect()
    }

    #[test]
    fn changes_are_made_in_code_and_nowhere_else() {
        for line in [1, 2, 4, 5, 11, 14, 15, 17] {
            assert_eq!(of_line(line), [""; 0], "{line}");
        }
        assert_eq!(of_line(3), ["- for +"], "a declaration is not left out");
        assert_eq!(of_line(16), ["-EIO for 0"]);
        assert_eq!(of_line(8), ["-EIO for -EINVAL"]);
    }

    #[test]
    fn conditions_hold_always_or_never_or_lack_a_part() {
        let whats = of_line(6);
        for what in ["never", "always", "without n < 0", "without (n == 7 && a)", "<= for <"] {
            assert!(whats.iter().any(|made| made == what), "{what}: {whats:?}");
        }
        let without = made().into_iter().find(|change| change.1 == "without !a").expect("made");
        assert!(without.2.contains("(n == 7 && a) || false )"), "{}", without.2);
        let never = made().into_iter().find(|change| change.1 == "never").expect("made");
        assert!(
            never.2.contains("if (false && (n < 0 || (n == 7 && a) ||\n\t    !a))"),
            "{}",
            never.2
        );
    }

    #[test]
    fn statements_are_left_out_whole() {
        assert_eq!(of_line(10), ["left out"]);
        let made = made();
        let call = made.iter().find(|change| change.0 == 10).expect("made");
        assert!(call.2.contains("if (ret)\n\t\t;\n\telse\n"), "{}", call.2);
        assert_eq!(of_line(13), ["left out"], "a word that begins like a constant is none");
    }

    #[test]
    fn only_functions_asked_for_change() {
        assert!(by_rule("a.c", TEXT, &["g".to_owned()]).is_empty());
        assert!(!by_rule("a.c", TEXT, &["f".to_owned()]).is_empty());
    }
}
