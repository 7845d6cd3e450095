//! Which crate sees which: the list in `ARCHITECTURE.md` is what cargo finds, and what must never see
//! what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use crate::files;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Written down here as well, so that nobody widens the list without meeting the reason.
const NEVER: &[(&[&str], &[&str], &str)] = &[
    (
        &["bench", "target-bench", "xtask"],
        &["scsi", "device-server", "vhost-user-scsi", "bsg", "ublk", "uring-cmd", "harness"],
        "the supervisor knows sockets and messages; it builds in seconds and outlives any target",
    ),
    (
        &["harness", "bsg", "ublk", "uring-cmd"],
        &["scsi", "device-server", "vhost-user-scsi", "bench"],
        "tests expect literals of the standards, not what our own tables say",
    ),
    (
        &["kernel", "host"],
        &["bench", "guest-protocol", "control"],
        "a kernel is fetched, built and read without a machine to boot it in",
    ),
    (
        &["scsi", "device-server"],
        &["control", "vhost-user-scsi"],
        "the standards and the device server know no transport",
    ),
];

/// What is looked at from outside: who sees one of these cannot name what it is made of. The bridge is under test, and
/// speaks SCSI as any initiator has to.
const OPAQUE: &[&str] = &["bridge"];

/// Dependencies between the crates of this repository, those of tests and build scripts included.
fn of_cargo() -> Arrows {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(files::root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let ours = |package: &Value| {
        let dependencies = list(&package["dependencies"]);
        let local = dependencies.iter().filter(|dependency| dependency["path"].is_string());
        (name(package), local.map(name).collect())
    };
    list(&metadata["packages"]).iter().map(ours).collect()
}

/// The lines `name → names` of the list in `ARCHITECTURE.md`.
fn of_document() -> Arrows {
    let text = files::text("ARCHITECTURE.md".as_ref()).expect("text");
    let list = text.split("```arrows\n").nth(1).expect("ARCHITECTURE.md has a block `arrows`");
    let list = list.split("```").next().expect("the block ends");
    let arrow = |line: &str| {
        let (name, seen) = line.split_once('→').expect("a line is `name → names`");
        let seen = seen.split(',').map(|name| name.trim().to_owned());
        (name.trim().to_owned(), seen.filter(|name| name != "nothing").collect())
    };
    list.lines().map(arrow).collect()
}

/// Everything a crate sees, directly or through another that is not opaque.
fn reach(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(name) = next.pop() {
        for other in arrows.get(&name).into_iter().flatten() {
            if seen.insert(other.clone()) && !OPAQUE.contains(&other.as_str()) {
                next.push(other.clone());
            }
        }
    }
    seen
}

#[test]
fn architecture_lists_the_arrows_that_are() {
    assert_eq!(of_document(), of_cargo(), "ARCHITECTURE.md on the left, Cargo.toml on the right");
}

#[test]
fn nobody_sees_what_it_must_not_know() {
    let arrows = of_cargo();
    let mut breaches = Vec::new();
    for (crates, forbidden, reason) in NEVER {
        for name in *crates {
            assert!(arrows.contains_key(*name), "there is no crate {name}");
            let seen = reach(&arrows, name);
            for other in forbidden.iter().filter(|other| seen.contains(**other)) {
                breaches.push(format!("{name} sees {other}: {reason}"));
            }
        }
    }
    files::assert_none("Forbidden arrows:", &breaches);
}

#[test]
fn architecture_tells_of_every_crate() {
    let text = files::text("ARCHITECTURE.md".as_ref()).expect("text");
    let missing: Vec<String> =
        of_cargo().into_keys().filter(|name| !text.contains(&format!("**`{name}`**"))).collect();
    files::assert_none("ARCHITECTURE.md has no paragraph about", &missing);
}
