//! `cargo xtask test`: everything that has to hold, in one command.
#![expect(clippy::print_stdout, reason = "the heads of the steps and the summary")]

use std::time::{Duration, Instant};

use bench::exit;
use clap::Parser;
use host::{
    interrupt,
    progress::Progress,
    tools::{self, Installer},
};

use crate::{
    command::{cargo, run as run_command},
    vm_test,
};

/// How many tests the guest executes at least. It goes up with every new test and never down without
/// a reason: a module that lost its `mod` line would otherwise take its tests along unseen.
pub(crate) const GUEST_TESTS: &str = "1573";

/// A step failed.
const STEP_FAILED: u8 = 1;

const EXIT_CODES: &str = "\
Exit codes: 0 every step passed, 1 a step failed, 2 the command line was not understood,
130 interrupted. The first run installs what is missing (QEMU, gnupg, python3-venv) if it may.";

/// Runs host tests, lints, self-test and VM tests.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Run only the steps whose name contains this [default: all].
    step: Vec<String>,

    /// Leave out all that boots a guest.
    #[arg(long)]
    no_vm: bool,
}

/// What a step needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This machine alone.
    Host,
    /// A guest.
    Guest,
}

/// One thing to check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// What it is called in the summary.
    pub(crate) name: &'static str,
    /// Where it happens.
    pub(crate) place: Place,
    /// Does it, and prints as it goes.
    pub(crate) run: fn() -> anyhow::Result<()>,
}

/// Name of the step that a workflow runs with its own options.
pub(crate) const VM_TESTS: &str = "VM tests";

/// In order of execution: the quick ones first.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "format", place: Place::Host, run: format },
    Step { name: "workflows", place: Place::Host, run: crate::workflows::check },
    Step { name: "kernel data", place: Place::Host, run: crate::kernel_data::check },
    Step { name: "lints", place: Place::Host, run: lints },
    Step { name: "documentation", place: Place::Host, run: documentation },
    Step { name: "host tests", place: Place::Host, run: host_tests },
    Step { name: "fuzz", place: Place::Host, run: crate::fuzz::briefly },
    Step { name: VM_TESTS, place: Place::Guest, run: vm_tests },
    Step { name: "self-test", place: Place::Guest, run: self_test },
];

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let wanted = |step: &&Step| {
        let named = |name: &String| step.name.contains(name.as_str());
        (!args.no_vm || step.place == Place::Host)
            && (args.step.is_empty() || args.step.iter().any(named))
    };
    let steps: Vec<Step> = STEPS.iter().filter(wanted).copied().collect();
    let names = || STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!steps.is_empty(), "no step is called so; the steps are {}", names());
    Ok(run_steps(&steps))
}

/// Runs all steps, whatever becomes of each, and returns the exit code.
pub(crate) fn run_steps(steps: &[Step]) -> u8 {
    let mut results = Vec::new();
    for step in steps {
        println!("\n== {}", step.name);
        let start = Instant::now();
        let result = (step.run)();
        if interrupt::pending() {
            println!("interrupted");
            return exit::INTERRUPTED;
        }
        if let Err(error) = &result {
            println!("{}", in_words(error));
        }
        results.push((step.name, start.elapsed(), result));
    }
    summary(&results)
}

/// An error with its causes; many of them already say theirs.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.contains(&cause) {
            true => text,
            false if text.is_empty() => cause,
            false => format!("{text}: {cause}"),
        }
    })
}

fn summary(results: &[(&str, Duration, anyhow::Result<()>)]) -> u8 {
    println!();
    for (name, took, result) in results {
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{word:>8}  {:>7.1} s  {name}", took.as_secs_f64());
    }
    let failed: Vec<&str> =
        results.iter().filter(|(_, _, result)| result.is_err()).map(|(name, ..)| *name).collect();
    if failed.is_empty() {
        println!("{0} of {0} steps passed", results.len());
        return exit::PASS;
    }
    println!("{} of {} steps failed: {}", failed.len(), results.len(), failed.join(", "));
    STEP_FAILED
}

fn format() -> anyhow::Result<()> {
    run_command(cargo(&["fmt", "--all", "--check"]))
}

fn lints() -> anyhow::Result<()> {
    run_command(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // What runs inside the guest is no test of the host's, and not among all targets therefore.
    run_command(cargo(&["clippy", "-p", "harness", "--test", "guest", "--", "-D", "warnings"]))
}

fn documentation() -> anyhow::Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run_command(command)
}

fn host_tests() -> anyhow::Result<()> {
    // The tests of package signatures sign packages of their own.
    if tools::find("gpg").is_none() {
        tools::install(&["gnupg"], "gpg", Installer::here(), &Progress::auto())?;
    }
    run_command(cargo(&["test", "--workspace", "--no-fail-fast", "--", "--quiet"]))
}

fn vm_tests() -> anyhow::Result<()> {
    guest_tests(&[])
}

/// In a process of its own: it starts xtask again and again by its path, and the host tests may have
/// put another build in the place of the one that runs here.
fn self_test() -> anyhow::Result<()> {
    run_command(cargo(&["run", "--quiet", "--package", "xtask", "--", "self-test"]))
}

/// The whole of `cargo xtask vm-test`, with the number of tests pinned.
pub(crate) fn guest_tests(options: &[&str]) -> anyhow::Result<()> {
    let mut words = vec!["--expect-tests", GUEST_TESTS];
    words.extend(options);
    match vm_test::run(&vm_test_args(&words))? {
        exit::PASS => Ok(()),
        code => anyhow::bail!("vm-test ended with exit code {code}"),
    }
}

/// What `cargo xtask vm-test` with these words means.
pub(crate) fn vm_test_args(words: &[&str]) -> vm_test::Args {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: vm_test::Args,
    }
    Line::parse_from(["vm-test"].iter().chain(words)).args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_run_after_all_have_run() {
        let step = |name, run| Step { name, place: Place::Host, run };
        let good = step("good", || Ok(()));
        let bad = step("bad", || anyhow::bail!("planted"));
        assert_eq!(run_steps(&[good, good]), 0);
        assert_eq!(run_steps(&[bad, good]), 1);
    }

    #[test]
    fn causes_are_told_once() {
        let io = || std::io::Error::other("the cause");
        let told = |error: anyhow::Error| in_words(&error);
        assert_eq!(told(anyhow::Error::new(io()).context("the step")), "the step: the cause");
        assert_eq!(
            told(anyhow::Error::new(io()).context("it failed, the cause")),
            "it failed, the cause"
        );
    }

    #[test]
    fn words_of_the_steps_are_understood() {
        vm_test_args(&["--expect-tests", GUEST_TESTS, "--accel", "kvm", "--junit", "x"]);
        GUEST_TESTS.parse::<usize>().expect("a number");
    }
}
