//! The conversation in README.md is one the daemon has.

#![forbid(unsafe_code)]

use control::{CONTROL_VERSION, Command, Request};

#[test]
fn the_readmes_example_is_of_this_version() {
    // As the shell reads it: a backslash joins two lines.
    let readme = include_str!("../../../README.md").replace("\\\n", "");
    let lines = readme.lines().filter(|line| line.starts_with("{\"id\":"));
    let requests: Vec<Request> =
        lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let [hello, faults, again, journal] = &requests[..] else { panic!("{requests:?}") };
    for hello in [hello, again] {
        assert_eq!(hello.command, Command::Hello { version: CONTROL_VERSION });
    }
    assert!(matches!(faults.command, Command::Faults { .. }));
    assert!(matches!(journal.command, Command::Journal { .. }));
}
