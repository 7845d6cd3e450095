//! Which lines of a source file hand out an error code.
//!
//! Tests find their way along successes by themselves; whether each failure was ever seen is what a
//! reader wants to know. A line counts if its statement returns, assigns or passes on `-E…`, not if
//! it compares with one.

use std::collections::BTreeSet;

/// The numbers, from one, of the lines that hand out an error code.
pub(super) fn lines(source: &str) -> BTreeSet<u32> {
    let code = without_comments(source);
    let mut found = BTreeSet::new();
    for (number, line) in (1..).zip(code.lines()) {
        let is_directive = line.trim_start().starts_with('#');
        if !is_directive && codes(line).any(|at| !is_compared(&line[..at])) {
            found.insert(number);
        }
    }
    found
}

/// The lines of the statement that line `number` is part of, from that one back to the statement's
/// first. A condition is a statement of its own: that it was looked at says nothing of its branch.
pub(super) fn statement(source: &[&str], number: u32) -> Vec<u32> {
    let line = |number: u32| {
        let index = usize::try_from(number - 1).expect("a line number");
        source.get(index).map_or("", |line| line.trim())
    };
    let goes_on = |at: u32| {
        let (above, this) = (line(at - 1), line(at));
        above.ends_with(['=', ',', '(', '?', '|', '&', '+'])
            || this.starts_with(['?', ':', '|', '&'])
    };
    let mut lines = vec![number];
    let mut at = number;
    while at > 1 && goes_on(at) {
        at -= 1;
        lines.push(at);
    }
    lines
}

/// Where in `line` there is a negative error code.
fn codes(line: &str) -> impl Iterator<Item = usize> {
    line.match_indices("-E").map(|(at, _)| at).filter(|at| {
        let name = &line[at + 1..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &name[..end.unwrap_or(name.len())];
        let is_upper = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        let is_unary = !line[..*at]
            .trim_end()
            .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ')' || c == ']');
        let after_return = line[..*at].trim_end().ends_with("return");
        name.len() > 2 && is_upper && (is_unary || after_return)
    })
}

/// Whether what stands before the code makes it one side of a comparison.
fn is_compared(before: &str) -> bool {
    let before = before.trim_end();
    ["==", "!=", "<", ">", "<=", ">=", "case"].iter().any(|word| before.ends_with(word))
}

/// The source with comments and strings blanked, its lines kept.
fn without_comments(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let end = if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if next == '"' {
            string_end(rest)
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        code.extend(rest[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[end..];
    }
    code
}

/// The length of the string literal that `text` begins with.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            _ => is_escaped = c == '\\' && !is_escaped,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_hands_out_a_code_counts_and_one_that_compares_does_not() {
        for (line, expected) in [
            ("\t\treturn -EINVAL;", true),
            ("\tret = -ENOMEM;", true),
            ("\treturn ERR_PTR(-ENODEV);", true),
            ("\tio_uring_cmd_done(cmd, -EIO, flags);", true),
            ("\treturn ok ? 0 : -E2BIG;", true),
            ("\tif (ret == -EAGAIN)", false),
            ("\tif (ret != -EAGAIN) return -EIO;", true),
            ("\tcase -EBUSY:", false),
            ("\treturn size-ELEMENTS;", false),
            ("\treturn 0; /* never -EINVAL */", false),
            ("\treturn 0; // -EINVAL", false),
            ("\tpr_warn(\"gives \\\" -EINVAL\");", false),
            ("#define NOT_NOW -EAGAIN", false),
            ("\treturn -Einval;", false),
        ] {
            assert_eq!(!lines(line).is_empty(), expected, "{line}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let source = "/* a\n * -EIO\n */\nchar *s = \"\\\"\";\nint f(void)\n{\n\treturn -EIO;\n}\n";
        assert_eq!(lines(source), BTreeSet::from([7]));
    }

    #[test]
    fn a_statement_goes_back_to_the_one_before() {
        let source = ["a = 1;", "b(c,", "  d,", "  -EIO);", "e();"];
        assert_eq!(statement(&source, 4), [4, 3, 2]);
        assert_eq!(statement(&source, 1), [1]);
        assert_eq!(statement(&source, 5), [5]);
        assert_eq!(statement(&["return a", "  ? 0", "  : -EIO;"], 3), [3, 2, 1]);
    }

    #[test]
    fn a_condition_is_not_part_of_its_branch() {
        let source = ["if (a &&", "    b)", "\treturn -EIO;"];
        assert_eq!(statement(&source, 3), [3]);
    }
}
