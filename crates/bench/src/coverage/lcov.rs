//! The tracefile format of lcov, as geninfo(1) describes it.

use std::fmt::Write;

use super::FileCoverage;

/// The name of the test, of which lcov allows letters, digits and underscores.
const TEST: &str = "sensecheck";

/// A tracefile. `path` says where a source file is. How often something ran is not known: it is one
/// or zero.
pub(super) fn tracefile(files: &[FileCoverage], path: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.write_fmt(words).expect("a String takes all");
        text.push('\n');
    };
    for file in files {
        line(format_args!("TN:{TEST}"));
        line(format_args!("SF:{}", path(&file.path)));
        for function in &file.functions {
            line(format_args!("FN:{},{}", function.line, function.name));
        }
        for function in &file.functions {
            let count = u8::from(function.first.is_some());
            line(format_args!("FNDA:{count},{}", function.name));
        }
        let hit = file.functions.iter().filter(|function| function.first.is_some()).count();
        line(format_args!("FNF:{}", file.functions.len()));
        line(format_args!("FNH:{hit}"));
        for (number, first) in &file.lines {
            line(format_args!("DA:{number},{}", u8::from(first.is_some())));
        }
        let hit = file.lines.values().filter(|first| first.is_some()).count();
        line(format_args!("LF:{}", file.lines.len()));
        line(format_args!("LH:{hit}"));
        line(format_args!("end_of_record"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::coverage::FunctionCoverage;

    #[test]
    fn records_stand_in_the_order_of_geninfo() {
        let function = |name: &str, line, first: Option<&str>| FunctionCoverage {
            name: name.to_owned(),
            line,
            first: first.map(str::to_owned),
        };
        let file = FileCoverage {
            path: "block/bsg.c".to_owned(),
            lines: BTreeMap::from([(3, Some("t".to_owned())), (4, None), (9, None)]),
            functions: vec![function("a", 3, Some("t")), function("b", 8, None)],
        };
        let text = tracefile(&[file], |path| format!("/src/{path}"));
        let expected = "TN:sensecheck\nSF:/src/block/bsg.c\nFN:3,a\nFN:8,b\nFNDA:1,a\nFNDA:0,b\n\
                        FNF:2\nFNH:1\nDA:3,1\nDA:4,0\nDA:9,0\nLF:3\nLH:1\nend_of_record\n";
        assert_eq!(text, expected);
    }
}
