//! Random input for whatever reads what a guest, a scenario file, a control client or a front end wrote.
//!
//! Input comes in *sessions*: what happens in one depends on its seed and number alone, so that a session
//! that fails can be had again. `supervisor` runs a target's sessions in a process of its own, `worker` is
//! that process.
//!
//! This crate must not know how input is read, only what one can say and what always holds of the answers.

#![forbid(unsafe_code)]

mod mutate;
mod supervisor;
mod targets;
mod worker;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

/// Some input was not survived.
const FAILED: u8 = 1;
/// The work could not be done.
const NO_WORK: u8 = 2;

/// Sends random input until enough was sent or something goes wrong.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Args {
    /// The target [default: all, one after another].
    #[arg(value_parser = targets::names())]
    target: Option<String>,

    /// How many inputs each target gets at least [default: as many as it takes in `--seconds`].
    #[arg(long, value_name = "N")]
    executions: Option<u64>,

    /// How long each target is worked on.
    #[arg(long, value_name = "S", default_value_t = 10.0, conflicts_with = "executions")]
    seconds: f64,

    /// Where chance comes from.
    #[arg(long, value_name = "X", default_value_t = 1)]
    seed: u64,

    /// Runs this session alone, and prints each input before it is sent.
    #[arg(long, value_name = "N", requires = "target")]
    session: Option<u64>,

    /// Where the input that was not survived is written.
    #[arg(long, value_name = "DIR", default_value = "target/fuzz")]
    artifacts: PathBuf,

    /// Be the process that does the work, and note its progress in this file.
    #[arg(long, hide = true)]
    worker: Option<PathBuf>,
}

/// When a target has had enough.
#[derive(Clone, Copy, Debug)]
enum Enough {
    Executions(u64),
    After(Duration),
}

impl Args {
    fn enough(&self) -> Enough {
        match self.executions {
            Some(executions) => Enough::Executions(executions),
            None => Enough::After(Duration::from_secs_f64(self.seconds.clamp(0.0, 1e6))),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match (&args.worker, &args.target, args.session) {
        (Some(progress), Some(target), None) => {
            worker::run(targets::named(target), args.seed, args.enough(), progress).map(|()| true)
        }
        (_, Some(target), Some(session)) => {
            worker::repeat(targets::named(target), args.seed, session).map(|()| true)
        }
        _ => supervisor::run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a program")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(NO_WORK)
        }
    }
}
