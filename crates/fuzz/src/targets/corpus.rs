//! What valid input looks like.

use std::{fs, path::Path};

use anyhow::Context as _;
use scsi_fault::Scenario;

/// The texts of this repository's scenarios.
pub(super) fn scenarios() -> anyhow::Result<Vec<String>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness/scenarios");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        paths.push(entry?.path());
    }
    // So that a seed means the same everywhere.
    paths.sort();
    let texts: Vec<String> = paths.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
    anyhow::ensure!(!texts.is_empty(), "no scenario in {}", directory.display());
    Ok(texts)
}

/// The same as rules, without what ends the daemon or makes it lie, which then is what it is told to do.
pub(super) fn rules() -> anyhow::Result<Vec<Vec<scsi_fault::Rule>>> {
    let texts = scenarios()?;
    let mut all = Vec::new();
    for text in texts {
        let mut rules = Scenario::parse(&text)?.rules;
        rules.retain(|rule| rule.effect.die.is_none() && rule.effect.hostile.is_none());
        all.push(rules);
    }
    all.retain(|rules| !rules.is_empty());
    Ok(all)
}

/// Words of scenarios and of the control socket.
pub(super) const WORDS: &[&str] = &[
    "[[rule]]",
    "name",
    "when",
    "effect",
    "times",
    "nth",
    "after",
    "format",
    "words",
    "seed",
    "target",
    "lun",
    "nexus",
    "command",
    "service-action",
    "cdb",
    "value",
    "mask",
    "lba",
    "first",
    "last",
    "direction",
    "task-management",
    "delay-us",
    "delay-up-to-us",
    "hold",
    "order",
    "until-released",
    "for-ever",
    "execute",
    "data-in",
    "limit",
    "extend",
    "corrupt-from",
    "data-out-limit",
    "write",
    "lost",
    "torn",
    "stale",
    "misdirected",
    "status",
    "status-qualifier",
    "sense",
    "raw",
    "key",
    "asc",
    "ascq",
    "deferred",
    "information",
    "field-pointer",
    "progress",
    "truncate",
    "residual",
    "response",
    "vanish",
    "ratio",
    "hits",
    "of",
    "every",
    "once",
    "always",
    "READ(10)",
    "INQUIRY",
    "BUSY",
    "CHECK CONDITION",
    "TASK SET FULL",
    "true",
    "false",
    "null",
    "-1",
    "1e400",
    "0x7f",
    "nan",
    "1979-05-27T07:32:00Z",
    "\"",
    "\"\"\"",
    "'''",
    "\\u0000",
    "\\ud800",
    "\\",
    "#",
    "=",
    ",",
    "[",
    "]",
    "{",
    "}",
    ":",
    "18446744073709551615",
    "18446744073709551616",
    "ABORT TASK",
    "LOGICAL UNIT RESET",
    "address",
    "spec",
    "silent",
    "blocks",
    "reset-lun",
    "faults",
    "release",
    "plug",
    "unplug",
    "resize",
    "unit-attention",
    "readiness",
    "event",
    "abort-held",
    "journal",
    "statistics",
    "hello",
    "version",
    "thin",
    "full",
    "id",
];
