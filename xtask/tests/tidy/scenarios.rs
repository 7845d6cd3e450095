//! A scenario file that no test in the guest names promises a fault that nobody has seen.

use std::path::Path;

use crate::files;

#[test]
fn each_scenario_is_named_by_a_test_in_the_guest() {
    let tests = files::rust().into_iter().filter(|file| file.starts_with("harness/tests/guest"));
    let tests = tests.filter_map(|file| files::text(&file));
    // rustfmt may put the name on a line of its own.
    let tests: Vec<_> = tests.map(|text| text.split_whitespace().collect::<String>()).collect();
    let mut files = files::all();
    files.retain(|file| file.parent() == Some(Path::new("harness/scenarios")));
    assert!(files.len() > 30, "these are not all: {files:?}");
    let is_named = |name: &str| {
        let (macro_word, path) =
            (format!("scenario!(\"{name}\""), format!("scenarios/{name}.toml\""));
        tests.iter().any(|text| text.contains(&macro_word) || text.contains(&path))
    };
    let name = |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let breaches = files.iter().filter(|file| !is_named(&name(file)));
    let breaches: Vec<_> = breaches.map(|file| file.display().to_string()).collect();
    files::assert_none("no test in the guest names these scenarios:", &breaches);
}
