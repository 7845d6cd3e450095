//! `cargo xtask fuzz`.

use crate::command::{cargo, run as run_command};

/// Sends random input to whatever reads what a guest, a scenario or a control client wrote.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// `[TARGET] [--executions N | --seconds S] [--seed X] [--session N]`; `--help` tells all.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    with(&words)?;
    Ok(bench::exit::PASS)
}

/// A second for each target, as a check that nothing common is wrong.
pub(crate) fn briefly() -> anyhow::Result<()> {
    with(&["--seconds", "1"])
}

/// The program is built for it alone: as quick as the daemon, but with the checks of a debug build.
fn with(words: &[&str]) -> anyhow::Result<()> {
    let mut arguments = vec!["run", "--quiet", "--profile", "fuzz", "--package", "fuzz", "--"];
    arguments.extend(words);
    run_command(cargo(&arguments))
}
