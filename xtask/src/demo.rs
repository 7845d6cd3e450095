//! `cargo xtask demo`.
#![expect(clippy::print_stdout, reason = "the timelines are the task")]

use std::time::Duration;

use bench::{
    accel::Wish,
    exit,
    outputs::{self, Outputs, told},
    rig,
    scheduler::Options,
    vm_test::{self, Subject},
};
use host::apt;

use crate::kernel_args::KernelArgs;

/// The tests that tell.
const TESTS: &str = "bridge::story::";

const EXAMPLES: &str = "\
A block device of userspace whose medium is a SCSI disk meets faults of the disk, in a guest. Each is told as one
timeline: what the application asked and got, what the server saw, what the target did. The tests hold every line.
  cargo xtask demo bad_block
Exit codes: 0 told, 130 interrupted, others as vm-test has them.";

/// Tells what an application, a server and a SCSI target see of faults.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The test that tells it, or a part of its name.
    #[arg(default_value = TESTS)]
    filter: String,

    #[command(flatten)]
    kernel: KernelArgs,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let Subject::Kernel(kernel) = args.kernel.subject()? else {
        anyhow::bail!("one kernel tells at a time: give --kernel instead of --compare");
    };
    let told = match outputs::of(&request(args), &kernel) {
        Err(_) if host::interrupt::pending() => return Ok(exit::INTERRUPTED),
        result => result?,
    };
    let outputs = match told {
        Outputs::Of { outputs, .. } => outputs,
        Outputs::Failed(code) => return Ok(code),
    };
    for lines in outputs.iter().map(|output| told::all(output).collect::<Vec<_>>()) {
        println!("\n{}", lines.join("\n"));
    }
    Ok(exit::PASS)
}

fn request(args: &Args) -> rig::Request {
    rig::Request {
        workspace: crate::workspace(),
        filters: vec![args.filter.clone()],
        exact: false,
        apt: apt::Options { mirror: args.mirror.clone(), keyring: None },
        accel: Wish::Auto,
        released_ublk: false,
        options: Options {
            seed: vm_test::seed_from_clock(),
            cases: 1,
            deadline: Duration::from_secs(60),
            ..Options::default()
        },
        expectations: None,
    }
}
