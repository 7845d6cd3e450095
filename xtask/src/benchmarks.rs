//! `cargo xtask bench`.

use clap::Subcommand;

use crate::{bench_passthrough, bench_target};

/// Benchmarks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Target(Box<bench_target::Args>),
    Passthrough(Box<bench_passthrough::Args>),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.what {
        What::Target(args) => bench_target::run(args),
        What::Passthrough(args) => bench_passthrough::run(args),
    }
}
