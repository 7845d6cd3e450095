//! `cargo xtask coverage`.

use std::path::PathBuf;

use bench::{
    accel::Wish,
    coverage::{self, Request},
    exit, rig,
    scheduler::Options,
    vm::Accel,
    vm_test::{self, Subject},
};
use host::apt;

use crate::kernel_args::KernelArgs;

const LIMITS: &str = "\
Guests are emulated, and their kernel stays where it was linked. A line counts as reached if code of it
was translated; a line that the compiler left no code does not count. How often a line ran is not known.
Debug information comes with a kernel that was built here, or from Debian's package (350 MB, once).";

/// Runs tests and says which lines of the kernel they reach.
#[derive(Debug, clap::Args)]
#[command(after_help = LIMITS)]
pub(crate) struct Args {
    /// Run tests whose name contains this [default: all].
    filter: Vec<String>,

    /// Take the filters for whole names.
    #[arg(long)]
    exact: bool,

    /// List this source file of the kernel line by line, with the test that reached each line first
    /// [default: the sums of the files this project tests].
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,

    /// Write a tracefile for lcov and genhtml.
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,

    #[command(flatten)]
    kernel: KernelArgs,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Keyring that signs the mirror's indexes [default: the host's Debian keyring].
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    // Who was first is known only if tests of a guest run one after the other, as they do by default.
    let options = Options { seed: vm_test::seed_from_clock(), ..Options::default() };
    let Subject::Kernel(kernel) = args.kernel.subject()? else {
        anyhow::bail!("coverage is measured on one kernel: give --kernel instead of --compare");
    };
    let rig = rig::Request {
        workspace: crate::workspace(),
        filters: args.filter.clone(),
        exact: args.exact,
        apt: apt::Options { mirror: args.mirror.clone(), keyring: args.keyring.clone() },
        accel: Wish::Only(Accel::Tcg),
        released_ublk: false,
        options,
        expectations: None,
    };
    let wish = coverage::Wish { files: args.file.clone(), lcov: args.lcov.clone() };
    match coverage::run(&Request { rig, kernel, wish }) {
        Err(_) if host::interrupt::pending() => Ok(exit::INTERRUPTED),
        result => Ok(result?),
    }
}
