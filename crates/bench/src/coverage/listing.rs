//! Coverage as text.

use std::collections::BTreeMap;

use super::report::Measured;

/// A line for each file: how much of it was reached, of what can be.
pub(super) fn table(files: &[Measured]) -> String {
    let width = files.iter().map(|file| file.coverage.path.len()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:width$}  {:>20}  {:>20}  {:>20}\n",
        "coverage", "lines", "functions", "error codes"
    );
    for file in files {
        let coverage = &file.coverage;
        let lines = share(reachable(file, &coverage.lines));
        let functions = share(coverage.functions.iter().map(|function| function.first.is_some()));
        let errors = match file.source {
            Some(_) => share(reachable(file, &file.errors)),
            None => "no source".to_owned(),
        };
        text.push_str(&format!(
            "{:width$}  {lines:>20}  {functions:>20}  {errors:>20}\n",
            coverage.path
        ));
    }
    text
}

/// Whether lines were reached, but for those that cannot be and were not.
fn reachable<'a>(
    file: &'a Measured,
    lines: &'a BTreeMap<u32, Option<String>>,
) -> impl Iterator<Item = bool> + 'a {
    let counts =
        |(line, first): &(&u32, &Option<String>)| first.is_some() || file.reason(**line).is_none();
    lines.iter().filter(counts).map(|(_, first)| first.is_some())
}

/// How many of all are true: `12 of 16  75.0 %`.
fn share(of: impl Iterator<Item = bool>) -> String {
    let (mut hit, mut all) = (0_u32, 0_u32);
    for is_hit in of {
        all += 1;
        hit += u32::from(is_hit);
    }
    if all == 0 {
        return "none".to_owned();
    }
    format!("{hit} of {all} {:>6.1} %", f64::from(hit) * 100.0 / f64::from(all))
}

/// What a list says of lines that cannot be reached: which those are, and where it is wrong.
fn excused(file: &Measured) -> String {
    let mut text = String::new();
    let with_code = |line: &u32| file.coverage.lines.get(line);
    let mut said = None;
    for (line, reason) in &file.unreachable.reasons {
        let Some(first) = with_code(line) else { continue };
        match first {
            Some(_) if file.unreachable.by_luck.contains(line) => {}
            Some(who) => text.push_str(&format!(
                "{line:>6}  was reached by {who}, and is said to be out of reach: {reason}\n"
            )),
            None if said == Some(reason) => text.push_str(&format!("{line:>6}  as above\n")),
            None => {
                text.push_str(&format!("{line:>6}  cannot be reached: {reason}\n"));
                said = Some(reason);
            }
        }
    }
    for stray in &file.unreachable.strays {
        text.push_str(&format!("        said to be out of reach, and not there: {stray}\n"));
    }
    text
}

/// The functions and error codes of a file that were not reached.
pub(super) fn gaps(file: &Measured) -> String {
    let mut text = format!("{}: not reached\n", file.coverage.path);
    for function in file.coverage.functions.iter().filter(|function| function.first.is_none()) {
        text.push_str(&format!("{:>6}  function {}\n", function.line, function.name));
    }
    let source = file.source.as_deref().unwrap_or_default();
    let missed =
        |(line, first): &(&u32, &Option<String>)| first.is_none() && file.reason(**line).is_none();
    for (line, _) in file.errors.iter().filter(missed) {
        text.push_str(&format!("{line:>6}  {}\n", line_of(source, *line).trim()));
    }
    if !file.errors_without_code.is_empty() {
        let lines: Vec<String> = file.errors_without_code.iter().map(u32::to_string).collect();
        text.push_str(&format!(
            "        not counted, for the compiler left them no instruction of their own: {}\n",
            lines.join(", ")
        ));
    }
    text.push_str(&excused(file));
    text
}

/// The whole file: `+` was reached, `-` was not, `!` was not and hands out an error code, `x` cannot be. Before the
/// lines that a test was first to reach stands its name.
pub(super) fn annotated(file: &Measured, source: &[String]) -> String {
    let mut text = format!("{}:\n", file.coverage.path);
    let mut named: Option<&String> = None;
    for (number, line) in (1..).zip(source) {
        let first = file.coverage.lines.get(&number);
        let mark = match first {
            Some(Some(_)) => '+',
            Some(None) if file.reason(number).is_some() => 'x',
            Some(None) if file.errors.contains_key(&number) => '!',
            Some(None) => '-',
            None => ' ',
        };
        if let Some(Some(who)) = first
            && named != Some(who)
        {
            text.push_str(&format!("        | {who}\n"));
            named = Some(who);
        }
        text.push_str(format!("{number:>6} {mark} {line}").trim_end());
        text.push('\n');
    }
    text.push_str(&excused(file));
    text
}

fn line_of(source: &[String], number: u32) -> &str {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    index.and_then(|index| source.get(index)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::coverage::{FileCoverage, FunctionCoverage, unreachable::OfFile};

    fn file() -> Measured {
        let who = |name: &str| Some(name.to_owned());
        let function =
            |name: &str, line, first| FunctionCoverage { name: name.to_owned(), line, first };
        let source = "int a(void)\n{\n\treturn 0;\n}\nint b(int x)\n{\n\tif (x)\n\t\treturn -EIO;\n\treturn x;\n}";
        Measured {
            coverage: FileCoverage {
                path: "block/x.c".to_owned(),
                lines: BTreeMap::from([(3, who("t1")), (7, who("t2")), (8, None), (9, None)]),
                functions: vec![
                    function("a", 1, who("t1")),
                    function("b", 5, who("t2")),
                    function("c", 99, None),
                ],
            },
            source: Some(source.lines().map(str::to_owned).collect()),
            errors: BTreeMap::from([(8, None)]),
            errors_without_code: BTreeSet::from([12]),
            unreachable: OfFile::default(),
        }
    }

    #[test]
    fn the_table_counts_what_was_reached() {
        let text = table(&[file()]);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(
            row,
            [
                "block/x.c",
                "2",
                "of",
                "4",
                "50.0",
                "%",
                "2",
                "of",
                "3",
                "66.7",
                "%",
                "0",
                "of",
                "1",
                "0.0",
                "%"
            ]
        );
        let without = Measured { source: None, errors: BTreeMap::new(), ..file() };
        assert!(table(&[without]).contains("no source"));
    }

    #[test]
    fn gaps_name_functions_and_error_codes() {
        let text = gaps(&file());
        assert_eq!(
            text,
            "block/x.c: not reached\n    99  function c\n     8  return -EIO;\n        not counted, \
             for the compiler left them no instruction of their own: 12\n"
        );
    }

    #[test]
    fn the_listing_names_who_was_first() {
        let file = file();
        let text = annotated(&file, file.source.as_deref().expect("source"));
        let expected = "block/x.c:\n     1   int a(void)\n     2   {\n        | t1\n     3 + \treturn 0;\n     4   }\n     5   int b(int x)\n     6   {\n        | t2\n     7 + \tif (x)\n     8 ! \t\treturn -EIO;\n     9 - \treturn x;\n    10   }\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn lines_out_of_reach_do_not_count_and_one_that_was_reached_is_told() {
        let reasons = [(3, "no a"), (8, "no x"), (9, "no x")];
        let unreachable = OfFile {
            reasons: reasons.map(|(line, reason)| (line, reason.to_owned())).into(),
            by_luck: BTreeSet::new(),
            strays: vec!["it".to_owned()],
        };
        let file = Measured { unreachable, ..file() };
        let row = table(std::slice::from_ref(&file));
        let words: Vec<&str> = row.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(words[1..4], ["2", "of", "2"]);
        assert_eq!(words.last(), Some(&"none"), "the only error code cannot be reached");
        let said = "     3  was reached by t1, and is said to be out of reach: no a\n     8  cannot be \
                    reached: no x\n     9  as above\n        said to be out of reach, and not \
                    there: it\n";
        assert!(gaps(&file).ends_with(said), "{}", gaps(&file));
        assert!(!gaps(&file).contains("return -EIO;"), "{}", gaps(&file));
        let lucky = OfFile { by_luck: BTreeSet::from([3]), ..file.unreachable.clone() };
        let lucky = Measured { unreachable: lucky, ..file.clone() };
        assert!(!gaps(&lucky).contains("no a"), "{}", gaps(&lucky));
        let listed = annotated(&file, file.source.as_deref().expect("source"));
        assert!(listed.contains("     8 x \t\treturn -EIO;\n"), "{listed}");
    }
}
