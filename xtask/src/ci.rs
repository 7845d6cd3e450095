//! `cargo xtask ci`: what the workflows call. Nothing of a check lives in a workflow file.

use std::fs;

use anyhow::Context as _;
use bench::exit;
use clap::ValueEnum;

use crate::test::{self, Place, STEPS, Step};

/// Runs one part of the checks, as the workflows do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which part.
    part: Part,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// All that boots no guest.
    Host,
    /// All that boots guests, under KVM. A host without working KVM is an error.
    Kvm,
    /// All that boots guests, emulated.
    Tcg,
    /// The guest tests on kernels that are built here: `source` and `patched`.
    Kernels,
    /// The guest tests with two thousand cases for each property, and those that take long.
    Nightly,
    /// The guest tests on each kernel that the mirror has of the series of interest.
    Matrix,
    /// What `cargo xtask test` does.
    All,
}

/// The guest tests on kernels that are built here.
const BUILT: &[Step] = &[
    Step { name: "source", place: Place::Guest, run: || built("source") },
    Step { name: "patched", place: Place::Guest, run: || built("patched") },
];

/// What takes longer than anybody waits for.
const NIGHTLY: &[Step] = &[
    Step {
        name: "many cases",
        place: Place::Guest,
        run: || guest_tests(&["--cases", "2000"], "nightly"),
    },
    Step { name: "long tests", place: Place::Guest, run: || guest_tests(&["long::"], "long") },
];

/// What the kernels do otherwise than each other; the table is kept by the workflow.
const MATRIX: &[Step] = &[Step { name: "matrix", place: Place::Guest, run: matrix }];

pub(crate) fn run(args: &Args) -> u8 {
    let at = |place| STEPS.iter().filter(move |step| step.place == place).copied();
    let with_guests = |vm_tests: fn() -> anyhow::Result<()>| {
        let replace = |step: Step| match step.name {
            test::VM_TESTS => Step { run: vm_tests, ..step },
            _ => step,
        };
        at(Place::Guest).map(replace).collect::<Vec<_>>()
    };
    test::run_steps(&match args.part {
        Part::Host => at(Place::Host).collect(),
        Part::Kvm => with_guests(|| guest_tests(&["--accel", "kvm"], "vm-tests")),
        Part::Tcg => with_guests(|| guest_tests(&["--accel", "tcg"], "vm-tests")),
        Part::Kernels => BUILT.to_vec(),
        Part::Nightly => NIGHTLY.to_vec(),
        Part::Matrix => MATRIX.to_vec(),
        Part::All => STEPS.to_vec(),
    })
}

/// The VM tests, with a report that a workflow can keep.
fn guest_tests(options: &[&str], report: &str) -> anyhow::Result<()> {
    let directory = crate::workspace().join("target/ci");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let junit = directory.join(format!("{report}.xml"));
    let junit = junit.to_str().context("the checkout's path is not UTF-8")?;
    test::guest_tests(&[options, &["--junit", junit]].concat())
}

fn matrix() -> anyhow::Result<()> {
    let output = crate::workspace().join("target/ci");
    let output = output.to_str().context("the checkout's path is not UTF-8")?;
    match crate::matrix::run(&crate::matrix::args(&["--output", output]))? {
        exit::PASS => Ok(()),
        code => anyhow::bail!("matrix ended with exit code {code}"),
    }
}

/// The guest tests on a kernel that is built first.
fn built(kernel: &str) -> anyhow::Result<()> {
    test::guest_tests(&["--kernel", kernel])
}
