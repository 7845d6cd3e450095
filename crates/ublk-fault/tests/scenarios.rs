//! The scenarios of this repository, which users start from.

use std::{fs, path::Path};

use ublk_fault::{Engine, Scenario};

#[test]
fn scenarios_of_this_repository_are_sound() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness/ublk-scenarios");
    let files: Vec<_> = fs::read_dir(directory)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let scenario =
            Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(!scenario.rules.is_empty(), "{}", file.display());
        assert!(text.starts_with("# "), "{}: the first line says what it does", file.display());
        Engine::new(scenario.rules, scenario.seed).expect("rules that can be decided by");
    }
}
