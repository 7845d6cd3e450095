//! Words that stand in no source, or in few. clippy knows most of them; it does not see code that is
//! configured out, and an `#[expect]` quiets it.

use std::collections::BTreeSet;

use crate::{
    files::{self, assert_none},
    tokens,
};

/// The files that contain `unsafe`. A new one is a decision: `SAFETY` comments are easier to believe
/// the fewer there are.
const UNSAFE: &[&str] = &[
    "crates/host/src/child.rs",
    "crates/bridge/src/relay.rs",
    "crates/bsg/src/ioctl.rs",
    "crates/coverage-plugin/src/lib.rs",
    "crates/coverage-plugin/src/map.rs",
    "crates/device-server/src/medium/bus_error.rs",
    "crates/device-server/src/medium/pages.rs",
    "crates/device-server/src/medium/vectored.rs",
    "crates/ublk/src/command.rs",
    "crates/ublk/src/descriptors.rs",
    "crates/ublk/src/transfer.rs",
    "crates/uring-cmd/src/entrance.rs",
    "crates/uring-cmd/src/fixed.rs",
    "crates/uring-cmd/src/mapped.rs",
    "crates/uring-cmd/src/memory.rs",
    "crates/uring-cmd/src/region.rs",
    "crates/uring-cmd/src/ring.rs",
    "crates/uring-cmd/tests/ring.rs",
    "crates/vhost-user-scsi/src/storage.rs",
    "crates/vhost-user-scsi/tests/transport/guest.rs",
    "harness/src/block.rs",
    "harness/src/child.rs",
    "harness/src/metadata.rs",
    "harness/src/nvme.rs",
];

/// The one place that sleeps, between two looks at a condition.
const SLEEPS: &[&str] = &["crates/wait/src/lib.rs"];

/// The files in which these tokens stand one after the other.
fn files_with(words: &[&str]) -> BTreeSet<String> {
    let contains = |file: &std::path::PathBuf| {
        !tokens::lines_with(&tokens::flat(tokens::of(file)), words).is_empty()
    };
    files::rust().iter().filter(|file| contains(file)).map(|f| f.display().to_string()).collect()
}

/// An entry that is no longer needed is a breach too: it would cover the next one.
#[track_caller]
fn assert_files(rule: &str, found: &BTreeSet<String>, allowed: &[&str]) {
    let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
    let mut breaches: Vec<String> =
        found.difference(&allowed).map(|file| format!("{file} is not on the list")).collect();
    breaches.extend(allowed.difference(found).map(|file| format!("{file} need not be listed")));
    assert_none(rule, &breaches);
}

#[test]
fn unsafe_stands_in_few_files() {
    assert_files("Which files contain `unsafe`:", &files_with(&["unsafe"]), UNSAFE);
}

#[test]
fn nobody_sleeps() {
    assert_files("Wait for a condition with `wait::until`:", &files_with(&["sleep"]), SLEEPS);
}

#[test]
fn nothing_is_left_to_do_later() {
    let banned: &[(&[&str], &str)] = &[
        (&["todo", "!"], "write it, or leave it out"),
        (&["unimplemented", "!"], "write it, or leave it out"),
        (&["dbg", "!"], "tracing, or nothing"),
        (&["[", "allow", "("], "#[expect(…, reason = \"…\")]"),
    ];
    let mut breaches = Vec::new();
    for file in files::rust() {
        let tokens = tokens::flat(tokens::of(&file));
        for (words, instead) in banned {
            for line in tokens::lines_with(&tokens, words) {
                breaches.push(format!("{}:{line}: {}: {instead}", file.display(), words.concat()));
            }
        }
    }
    assert_none("Words that stand in no source:", &breaches);
}
