//! `cargo xtask matrix`.

use std::path::PathBuf;

use bench::{
    accel::Wish,
    exit,
    matrix::{self, Request},
    rig,
    scheduler::Options,
};
use clap::Parser;
use host::{apt, progress::Progress};
use kernel::request::Wanted;

/// Where the results of the checkout are.
const DOCS: &str = "docs";
/// Every run is the same, so that only the kernels differ.
const SEED: u64 = 1;

const AFTER_HELP: &str = "\
Without --kernel the mirror is asked: of each series that [matrix] in images/kernels.toml names, and of whatever
is newer, the newest version is run, of late series the oldest too; what the mirror lacks is named. A kernel that has two
names runs once. What came of each test is remembered, so that a run goes on where another was cut short;
only failures nobody knows are tried again.

A run of all tests on these kernels writes docs/kernels.json and docs/kernels.md; a run of some tests, or of
chosen kernels, shows its table instead, unless --output is given.

Exit codes are those of vm-test, the gravest outcome on any kernel deciding; failures are named at the end.
Most likely:
   0  every test passed on each kernel, was known to fail, or showed another kernel's accident
   2  the command line was not understood
  10  the bench could not do its part, or a kernel cannot be had
  11  an assertion failed
 130  interrupted; the next run goes on from there";

/// Runs the tests on one kernel after the other and tells what differs.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Run tests whose name contains this [default: all].
    filter: Vec<String>,

    /// Run on this kernel: a name of images/kernels.toml, a version (7.2.9, 7.2), or the path of a bzImage,
    /// vmlinux or tree; several times for several [default: what the mirror has].
    #[arg(long, value_name = "NAME|VERSION|FILE|DIR")]
    kernel: Vec<String>,

    /// List the kernels, and run nothing.
    #[arg(long)]
    list: bool,

    /// Run again what earlier runs have found out.
    #[arg(long)]
    again: bool,

    /// Make the table of docs/ anew from the results beside it, and run nothing.
    #[arg(long, conflicts_with_all = ["filter", "kernel", "list", "again", "mirror", "keyring"])]
    table: bool,

    /// Write results and table into this directory [default: docs, for a whole run].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Keyring that signs the mirror's indexes [default: the host's Debian keyring].
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let docs = || crate::workspace().join(DOCS);
    if args.table {
        matrix::write_table(&args.output.clone().unwrap_or_else(docs))?;
        return Ok(exit::PASS);
    }
    let is_whole = args.filter.is_empty() && args.kernel.is_empty();
    let request = Request {
        rig: rig::Request {
            workspace: crate::workspace(),
            filters: args.filter.clone(),
            exact: false,
            apt: apt::Options { mirror: args.mirror.clone(), keyring: args.keyring.clone() },
            accel: Wish::Auto,
            released_ublk: false,
            options: options(),
            expectations: None,
        },
        kernels: args.kernel.iter().map(|word| Wanted::of_word(word)).collect(),
        list: args.list,
        again: args.again,
        output: args.output.clone().or_else(|| is_whole.then(docs)),
    };
    match matrix::run(&request) {
        Err(error) if host::interrupt::pending() => {
            Progress::auto().note(&error.to_string());
            Ok(exit::INTERRUPTED)
        }
        result => Ok(result?),
    }
}

/// What `cargo xtask matrix` with these words means.
pub(crate) fn args(words: &[&str]) -> Args {
    Line::parse_from(["matrix"].iter().chain(words)).args
}

/// The task without the others.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn options() -> Options {
    Options { seed: SEED, ..Options::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_of_results_and_takes_no_choice() {
        let parse = |words: &[&str]| Line::try_parse_from([&["matrix"], words].concat());
        assert!(parse(&["--table", "--output", "elsewhere"]).expect("understood").args.table);
        for words in [&["--table", "bsg::"][..], &["--table", "--kernel", "7.2"]] {
            parse(words).expect_err("they contradict each other");
        }
        let two = parse(&["--kernel", "7.2.6", "--kernel", "7.3"]).expect("understood").args;
        assert_eq!(two.kernel, ["7.2.6", "7.3"]);
    }
}
