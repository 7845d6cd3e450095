//! `cargo xtask mutants`.

use bench::{
    accel::Wish,
    exit,
    mutants::{self, Request},
};
use host::apt;

const EXIT_CODES: &str = "\
Exit codes:
   0  every mutant was killed by the test named as its killer, if one is
   2  the command line was not understood
  10  a mutant did not build, or the bench could not do its part
  11  a test named as a killer did not kill
 130  interrupted; the next run goes on from there
A test that fails on the kernel without a change ends the run with vm-test's code for it.";

/// Builds small mistakes into a kernel and runs the tests with one at a time in force: which notice?
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Try the mutants of this file, a path in the kernel or its end [default: all].
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,

    /// Try the mutant of this name [default: all].
    #[arg(long, value_name = "ID")]
    id: Vec<String>,

    /// Try what rules make of this file, a path in the kernel, instead of the list: conditions that
    /// always or never hold or lack a part, operators and constants for their likes, statements left out,
    /// other errors. What images/kernel/unreachable.toml and equivalent.toml name is left as it is.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    by_rule: Vec<String>,

    /// With --by-rule, of this function only [default: all].
    #[arg(long, value_name = "NAME", requires = "by_rule")]
    function: Vec<String>,

    /// Run the tests whose name contains this [default: all].
    #[arg(long, value_name = "FILTER")]
    tests: Vec<String>,

    /// Run only the tests that the list names as killers of mutants of the same files: quicker by far,
    /// and what survives them may yet be noticed by another.
    #[arg(long)]
    killers: bool,

    /// List the mutants, and build none.
    #[arg(long)]
    list: bool,

    /// Try again what earlier runs have found out.
    #[arg(long)]
    again: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let request = Request {
        workspace: crate::workspace(),
        files: args.file.clone(),
        ids: args.id.clone(),
        by_rule: args.by_rule.clone(),
        functions: args.function.clone(),
        tests: args.tests.clone(),
        killers: args.killers,
        list: args.list,
        again: args.again,
        apt: apt::Options::default(),
        accel: Wish::Auto,
    };
    match mutants::run(&request) {
        Err(_) if host::interrupt::pending() => Ok(exit::INTERRUPTED),
        result => Ok(result?),
    }
}
