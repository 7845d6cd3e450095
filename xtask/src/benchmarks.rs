//! `cargo xtask bench`.

use clap::Subcommand;

use crate::{bench_bridge, bench_passthrough, bench_target, bench_ublk};

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
    Bridge(Box<bench_bridge::Args>),
    Ublk(Box<bench_ublk::Args>),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.what {
        What::Target(args) => bench_target::run(args),
        What::Passthrough(args) => bench_passthrough::run(args),
        What::Bridge(args) => bench_bridge::run(args),
        What::Ublk(args) => bench_ublk::run(args),
    }
}
