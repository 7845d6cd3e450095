//! `cargo xtask vm-test`.

use std::{path::PathBuf, time::Duration};

use bench::{
    accel::Wish,
    exit, rig,
    scheduler::Options,
    vm::Accel,
    vm_test::{self, Request},
};
use clap::ValueEnum;
use host::{apt, progress::Progress};

use crate::kernel_args::KernelArgs;

const EXIT_CODES: &str = "\
Exit codes, the gravest outcome deciding:
   0  every test passed, was known to fail, or showed another kernel's accident
   2  the command line was not understood
  10  the bench could not do its part
  11  an assertion failed
  12  the kernel logged a WARN, BUG, Oops or sanitizer report
  13  the guest kernel panicked
  14  a test did not end
  15  a target daemon died
  16  QEMU died
  17  the guest did not come up
  18  no test ran
 130  interrupted";

/// Runs the tests inside a guest kernel.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Run tests whose name contains this [default: all].
    filter: Vec<String>,

    /// Take the filters for whole names.
    #[arg(long)]
    exact: bool,

    /// List the tests with class and needs, and run none.
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    kernel: KernelArgs,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Keyring that signs the mirror's indexes [default: the host's Debian keyring].
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,

    /// How to execute the guest.
    #[arg(long, value_enum, default_value_t = AccelArg::Auto)]
    accel: AccelArg,

    /// Run each test this often.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,

    /// Repeat until a test fails.
    #[arg(long)]
    until_fail: bool,

    /// Stop after the first test that fails.
    #[arg(long)]
    fail_fast: bool,

    /// Run the tests in an order drawn from the seed.
    #[arg(long)]
    shuffle: bool,

    /// Seed of the order and of proptest [default: from the clock, and shown].
    #[arg(long)]
    seed: Option<u64>,

    /// Cases that each property is tried on.
    #[arg(long, value_name = "N", default_value_t = vm_test::CASES, value_parser = clap::value_parser!(u32).range(1..))]
    cases: u32,

    /// Words appended to the kernel command line.
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    append: String,

    /// Virtual CPUs, where a test does not say.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
    smp: u16,

    /// Guest memory in MiB, where a test does not say.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    mem: u32,

    /// Guests that run side by side [default: one for each CPU of the host, up to 4; one with --keep].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    machines: Option<u16>,

    /// Tests that run side by side in a guest; more than one pays with several virtual CPUs only.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    jobs: u16,

    /// Seconds a test may run if it declares nothing; emulation stretches it by 3.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    deadline: u32,

    /// Seconds a guest may take to come up; emulation stretches it by 3.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    boot_deadline: u32,

    /// Leave a guest with a failed test running until Ctrl-C.
    #[arg(long)]
    keep: bool,

    /// Write JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write KTAP.
    #[arg(long, value_name = "FILE")]
    ktap: Option<PathBuf>,

    /// Known defects of kernels [default: harness/expectations.toml].
    #[arg(long, value_name = "FILE")]
    expectations: Option<PathBuf>,

    /// Fail if fewer different tests were executed.
    #[arg(long, value_name = "N")]
    expect_tests: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccelArg {
    /// KVM where a guest boots under it, else TCG.
    Auto,
    /// KVM.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    if args.repeat > 1 && args.until_fail {
        anyhow::bail!("--repeat and --until-fail exclude each other");
    }
    let accel = match args.accel {
        AccelArg::Auto => Wish::Auto,
        AccelArg::Kvm => Wish::Only(Accel::Kvm),
        AccelArg::Tcg => Wish::Only(Accel::Tcg),
    };
    let options = Options {
        repeat: args.repeat,
        until_fail: args.until_fail,
        fail_fast: args.fail_fast,
        shuffle: args.shuffle,
        seed: args.seed.unwrap_or_else(vm_test::seed_from_clock),
        cases: args.cases,
        repro: repro(args),
        append: args.append.clone(),
        cpus: args.smp,
        memory_mib: args.mem,
        machines: args.machines.map_or_else(|| Options::default().machines, usize::from),
        jobs: args.jobs.into(),
        keep: args.keep,
        deadline: Duration::from_secs(args.deadline.into()),
        boot_deadline: Duration::from_secs(args.boot_deadline.into()),
    };
    let rig = rig::Request {
        workspace: crate::workspace(),
        filters: args.filter.clone(),
        exact: args.exact,
        apt: apt::Options { mirror: args.mirror.clone(), keyring: args.keyring.clone() },
        accel,
        released_ublk: false,
        options,
        expectations: args.expectations.clone(),
    };
    let request = Request {
        rig,
        list: args.list,
        subject: args.kernel.subject()?,
        junit: args.junit.clone(),
        ktap: args.ktap.clone(),
        expect_tests: args.expect_tests,
    };
    match vm_test::run(&request) {
        Err(error) if host::interrupt::pending() => {
            Progress::auto().note(&error.to_string());
            Ok(exit::INTERRUPTED)
        }
        result => Ok(result?),
    }
}

/// The arguments that make a difference to a single test, as they were given.
fn repro(args: &Args) -> String {
    let mut words = args.kernel.words();
    let mut add = |name: &str, value: String, usual: bool| {
        if !usual {
            words.push_str(&format!(" --{name} {value}"));
        }
    };
    let accel =
        args.accel.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    add("accel", accel, matches!(args.accel, AccelArg::Auto));
    add("cases", args.cases.to_string(), args.cases == vm_test::CASES);
    add("smp", args.smp.to_string(), args.smp == 1);
    add("mem", args.mem.to_string(), args.mem == 512);
    add("append", format!("'{}'", args.append), args.append.is_empty());
    words
}
