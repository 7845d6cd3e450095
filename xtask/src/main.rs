//! `cargo xtask`: the command line of the bench. Each task has a file; what they do lives in `bench`.

mod bench_bridge;
mod bench_passthrough;
mod bench_target;
mod bench_ublk;
mod benchmarks;
mod ci;
mod command;
mod coverage;
mod demo;
mod doctor;
mod fuzz;
mod kernel_args;
mod kernel_data;
mod kernels;
mod matrix;
mod mutants;
mod self_test;
mod test;
mod vm_test;
mod workflows;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// A full-system test bench for Linux SCSI passthrough (bsg) and userspace block devices (ublk).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Test(test::Args),
    Ci(ci::Args),
    Doctor(doctor::Args),
    Kernels(kernels::Args),
    VmTest(Box<vm_test::Args>),
    Coverage(Box<coverage::Args>),
    SelfTest(self_test::Args),
    Fuzz(fuzz::Args),
    Mutants(mutants::Args),
    Matrix(matrix::Args),
    Bench(benchmarks::Args),
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code =
        host::interrupt::install().context("cannot handle signals").and_then(|()| match cli.task {
            Task::Test(args) => test::run(&args),
            Task::Ci(args) => Ok(ci::run(&args)),
            Task::Doctor(args) => doctor::run(&args),
            Task::Kernels(args) => kernels::run(&args),
            Task::VmTest(args) => vm_test::run(&args),
            Task::Coverage(args) => coverage::run(&args),
            Task::SelfTest(args) => self_test::run(&args),
            Task::Fuzz(args) => fuzz::run(&args),
            Task::Mutants(args) => mutants::run(&args),
            Task::Matrix(args) => matrix::run(&args),
            Task::Bench(args) => benchmarks::run(&args),
            Task::Demo(args) => demo::run(&args),
        });
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a command line tool")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::from(bench::exit::BENCH_ERROR)
        }
    }
}

/// The checkout this xtask was built in.
fn workspace() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().map_or(package.clone(), PathBuf::from)
}
