//! Nothing in the repository names the machine it was written on.

use crate::files::{self, assert_none};

/// Directories of one person or one machine, in pieces so that this file does not contain them.
const DIRECTORIES: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

/// Hosts anybody can reach, or that are nobody's (RFC 2606, RFC 5735).
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "docs.rs",
    "github.com",
    "keepachangelog.com",
    "localhost",
    "rustup.rs",
    "semver.org",
    "sh.rustup.rs",
    "www.apache.org",
    "www.kernel.org",
    "www.w3.org",
];

fn is_public(host: &str) -> bool {
    HOSTS.contains(&host) || host.ends_with(".example") || host.ends_with(".invalid")
}

/// Hosts of the URLs in a line. `{` begins a placeholder, for which the code that fills it answers.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-');
        let host = &rest[..end.unwrap_or(rest.len())];
        (!host.is_empty()).then_some(host.trim_end_matches('.'))
    })
}

fn breaches(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for directory in DIRECTORIES {
            if line.contains(directory) {
                breaches.push(format!("{name}:{number}: {directory}"));
            }
        }
        for host in hosts(line).filter(|host| !is_public(host)) {
            breaches.push(format!("{name}:{number}: host {host}"));
        }
    }
    breaches
}

#[test]
fn no_file_names_a_machine() {
    let mut found = Vec::new();
    for file in files::all() {
        if let Some(text) = files::text(&file) {
            found.extend(breaches(&file.display().to_string(), &text));
        }
    }
    assert_none("A path or host that others do not have:", &found);
}

#[test]
fn machines_are_recognised() {
    let count = |line: &str| breaches("x", line).len();
    assert_eq!(count(&format!("see {}me/x", DIRECTORIES[0])), 1);
    assert_eq!(count(concat!("sparse+https:", "//registry.internal:8080/")), 1);
    assert_eq!(
        count("https://github.com/x and http://m.example:80/ and http://127.0.0.1:{port}"),
        0
    );
}
