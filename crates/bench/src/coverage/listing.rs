//! Coverage as text.

use super::report::Measured;

/// A line for each file: how much of it was reached.
pub(super) fn table(files: &[Measured]) -> String {
    let width = files.iter().map(|file| file.coverage.path.len()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:width$}  {:>20}  {:>20}  {:>20}\n",
        "coverage", "lines", "functions", "error codes"
    );
    for file in files {
        let coverage = &file.coverage;
        let lines = share(coverage.lines.values().map(Option::is_some));
        let functions = share(coverage.functions.iter().map(|function| function.first.is_some()));
        let errors = match file.source {
            Some(_) => share(file.errors.values().map(Option::is_some)),
            None => "no source".to_owned(),
        };
        text.push_str(&format!(
            "{:width$}  {lines:>20}  {functions:>20}  {errors:>20}\n",
            coverage.path
        ));
    }
    text
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

/// The functions and error codes of a file that were not reached.
pub(super) fn gaps(file: &Measured) -> String {
    let mut text = format!("{}: not reached\n", file.coverage.path);
    for function in file.coverage.functions.iter().filter(|function| function.first.is_none()) {
        text.push_str(&format!("{:>6}  function {}\n", function.line, function.name));
    }
    let source = file.source.as_deref().unwrap_or_default();
    for (line, _) in file.errors.iter().filter(|(_, first)| first.is_none()) {
        text.push_str(&format!("{line:>6}  {}\n", line_of(source, *line).trim()));
    }
    if !file.errors_without_code.is_empty() {
        let lines: Vec<String> = file.errors_without_code.iter().map(u32::to_string).collect();
        text.push_str(&format!(
            "        not counted, for the compiler left them no instruction of their own: {}\n",
            lines.join(", ")
        ));
    }
    text
}

/// The whole file: `+` was reached, `-` was not, `!` was not and hands out an error code. Before the
/// lines that a test was first to reach stands its name.
pub(super) fn annotated(file: &Measured, source: &[String]) -> String {
    let mut text = format!("{}:\n", file.coverage.path);
    let mut named: Option<&String> = None;
    for (number, line) in (1..).zip(source) {
        let first = file.coverage.lines.get(&number);
        let mark = match first {
            Some(Some(_)) => '+',
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
    use crate::coverage::{FileCoverage, FunctionCoverage};

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
}
