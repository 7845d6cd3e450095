//! `cargo xtask self-test`.

use anyhow::Context as _;

/// Plants defects and checks what the bench says of them, its exit codes, and that it leaves nothing
/// behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make the checks whose name contains this [default: all].
    #[arg(default_value = "")]
    filter: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let xtask = std::env::current_exe().context("cannot find this program")?;
    Ok(bench::self_test::run(&xtask, &crate::workspace(), &args.filter)?)
}
