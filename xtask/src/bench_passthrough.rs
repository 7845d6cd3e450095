//! `cargo xtask bench passthrough`.
#![expect(clippy::print_stdout, reason = "the report is the task")]

use std::{fs, path::PathBuf, time::Duration};

use bench::{
    accel::Wish,
    exit,
    passthrough::{self, Ending, Figure, Measured},
    rig,
    scheduler::Options,
    vm_test::{self, Subject},
};
use host::apt;
use target_bench::{
    statistics::Spread,
    table::{columns, number, with_spread},
};

use crate::kernel_args::KernelArgs;

/// What the others are held against.
const REFERENCE: &str = "bsg v4";

const EXAMPLES: &str = "\
Wall-clock time of a command, one after the other or 64 at once, on a logical unit in memory; the ways take
turns in one guest, beginning with another one in each round. Under emulation absolute figures mean little
and ratios something: compare ways within a run, and kernels by the ratios of two runs.
Figures are no verdict. Exit codes: 0 measured, 130 interrupted, others as vm-test has them.";

/// Measures what a command costs over sg v3, bsg v4 and uring_cmd, in a guest.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How often each is measured, in turns.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Virtual CPUs of the guest.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    smp: u16,

    /// Write every figure to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    kernel: KernelArgs,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Keyring that signs the mirror's indexes [default: the host's Debian keyring].
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
}

impl Args {
    /// Where packages come from.
    pub(crate) fn apt(&self) -> apt::Options {
        apt::Options { mirror: self.mirror.clone(), keyring: self.keyring.clone() }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    measure(args, passthrough::TEST, false, table)
}

/// Runs a test that measures, round by round, and prints a table of its figures. `released_ublk` is whether it measures
/// the program `sensecheck-ublk`.
pub(crate) fn measure(
    args: &Args,
    test: &str,
    released_ublk: bool,
    table: impl Fn(&Measured) -> String,
) -> anyhow::Result<u8> {
    let Subject::Kernel(kernel) = args.kernel.subject()? else {
        anyhow::bail!("one kernel is measured at a time: give --kernel instead of --compare");
    };
    let ending = match passthrough::run(&request(args, test, released_ublk), &kernel) {
        Err(_) if host::interrupt::pending() => return Ok(exit::INTERRUPTED),
        result => result?,
    };
    let measured = match ending {
        Ending::Measured(measured) => measured,
        Ending::Failed(code) => return Ok(code),
    };
    print!("{}", table(&measured));
    if let Some(path) = &args.json {
        fs::write(path, measured.json())
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    }
    Ok(exit::PASS)
}

fn request(args: &Args, test: &str, released_ublk: bool) -> rig::Request {
    rig::Request {
        workspace: crate::workspace(),
        filters: vec![test.to_owned()],
        exact: true,
        apt: args.apt(),
        accel: Wish::Auto,
        released_ublk,
        options: Options {
            repeat: args.rounds,
            fail_fast: true,
            seed: vm_test::seed_from_clock(),
            cases: 1,
            cpus: args.smp,
            deadline: Duration::from_secs(60),
            // Another machine would be measured too.
            machines: 1,
            ..Options::default()
        },
        expectations: None,
    }
}

/// A block for each command, a row for each way.
fn table(measured: &Measured) -> String {
    let Measured { kernel, rounds } = measured;
    let mut text = format!(
        "{kernel}; {} rounds. Microseconds a command, medians with quartiles in brackets; the ratio is to \
         {REFERENCE}, round by round.\n",
        rounds.len()
    );
    let first = rounds.first().map_or(&[][..], Vec::as_slice);
    let mut rows = vec![["", "µs/command", "ratio"].map(String::from).to_vec()];
    for Figure { what, way, .. } in first {
        let of = |way: &str| -> Vec<f64> {
            let figures = rounds.iter().flatten();
            figures.filter(|f| f.what == *what && f.way == way).map(|f| f.micros).collect()
        };
        let (micros, reference) = (of(way), of(REFERENCE));
        let ratio = Spread::of_ratios(&micros, &reference);
        rows.push(vec![
            format!("{what:<15} {way}"),
            Spread::of(micros).map_or("-".into(), with_spread),
            ratio.map_or("-".into(), |ratio| number(ratio.median)),
        ]);
    }
    text.push_str(&columns(&rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_held_against_the_reference_of_the_same_round_and_command() {
        let figure = |what: &str, way: &str, micros| Figure {
            what: what.into(),
            way: way.into(),
            micros,
            ..Figure::default()
        };
        let round = |factor: f64| {
            vec![
                figure("A", "uring_cmd", 50.0 * factor),
                figure("A", REFERENCE, 100.0 * factor),
                figure("B", "uring_cmd", 30.0 * factor),
                figure("B", REFERENCE, 10.0 * factor),
            ]
        };
        let rounds = vec![round(1.0), round(3.0), round(2.0)];
        let text = table(&Measured { kernel: "stock, Linux 7.2".into(), rounds });
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert!(text.starts_with("stock, Linux 7.2; 3 rounds."), "{text}");
        assert!(lines[0].starts_with("A               uring_cmd "), "{text}");
        assert!(lines[0].ends_with("100 [75.0 125]   0.50"), "{text}");
        assert!(lines[1].ends_with("   1.00"), "{text}");
        assert!(
            lines[2].starts_with("B ") && lines[2].ends_with("60.0 [45.0 75.0]   3.00"),
            "{text}"
        );
    }
}
