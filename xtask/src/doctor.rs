//! `cargo xtask doctor`.
#![expect(clippy::print_stdout, reason = "the report is the task")]

use std::path::PathBuf;

use bench::{
    accel, doctor, exit,
    qemu::{self, Lookup},
};
use host::{apt, cache::Cache};

/// Tells what this machine has and lacks for a run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 if runs work, 10 if something is missing.")]
pub(crate) struct Args {
    /// First find out whether KVM works, by a run of one small test; fetches what that needs.
    #[arg(long)]
    probe: bool,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Keyring that signs the mirror's indexes [default: the host's Debian keyring].
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    if args.probe {
        // What becomes of the test itself is for vm-test to judge; the verdict on KVM stays.
        crate::vm_test::run(&crate::test::vm_test_args(&["--exact", "planted::passes"]))?;
        println!();
    }
    let cache = Cache::open()?;
    // Without a QEMU there is no verdict; the report says what is wrong with QEMU.
    let verdict = match qemu::find(&cache) {
        Ok(Lookup::Found(qemu)) => accel::without_probe(&cache, &qemu),
        Ok(Lookup::NoProgram | Lookup::NoFirmware(_)) | Err(_) => None,
    };
    let options = apt::Options { mirror: args.mirror.clone(), keyring: args.keyring.clone() };
    let checks = doctor::examine(&cache, &crate::workspace(), &options, verdict.as_ref());
    print!("{}", doctor::render(&checks));
    Ok(if doctor::is_ready(&checks) { exit::PASS } else { exit::BENCH_ERROR })
}
