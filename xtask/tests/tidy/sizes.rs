//! `small-files`: a file has one subject, a function fits a screen.

use crate::{
    files::{self, assert_none},
    tokens,
};

const FILE_LINES_MAX: usize = 600;
const TEST_FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn files_are_short() {
    let mut breaches = Vec::new();
    for file in files::rust() {
        let is_test = file.components().any(|part| part.as_os_str() == "tests")
            || file.file_name().is_some_and(|name| name == "tests.rs");
        let limit = if is_test { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
        let lines = files::text(&file).expect("Rust sources are UTF-8").lines().count();
        if lines > limit {
            breaches.push(format!("{}: {lines} lines, {limit} are allowed", file.display()));
        }
    }
    assert_none("Find the noun that hides in the file, and give it one of its own.", &breaches);
}

#[test]
fn functions_fit_a_screen() {
    let (mut breaches, mut seen) = (Vec::new(), 0);
    for file in files::rust() {
        let functions = tokens::functions(tokens::of(&file));
        seen += functions.len();
        for function in functions {
            if function.len_lines > FUNCTION_LINES_MAX {
                breaches.push(format!(
                    "{}:{}: {} has {} lines, {FUNCTION_LINES_MAX} are allowed",
                    file.display(),
                    function.line,
                    function.name,
                    function.len_lines
                ));
            }
        }
    }
    assert!(seen > 1000, "only {seen} functions were found");
    assert_none("Give a part of the function a name.", &breaches);
}
