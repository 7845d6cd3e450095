//! `cargo xtask vm-test`: from a checkout to results.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    compare::Comparison,
    exit, outcome, plan, report,
    rig::{self, Rig},
    scheduler::Results,
};
use kernel::{Kernel, request::Wanted};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What does not depend on the kernel.
    pub rig: rig::Request,
    /// Whether to list the tests instead of running them.
    pub list: bool,
    /// What is tested.
    pub subject: Subject,
    /// Where JUnit XML goes.
    pub junit: Option<PathBuf>,
    /// Where KTAP goes.
    pub ktap: Option<PathBuf>,
    /// How many tests have to be executed at least once; fewer is an error of the bench.
    pub expect_tests: Option<usize>,
}

/// What is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One kernel.
    Kernel(Wanted),
    /// What the second does otherwise than the first.
    Change(Wanted, Wanted),
}

/// Why there are no results. Each says the next step.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the stage it is named after")]
pub enum Error {
    #[error(transparent)]
    Rig(#[from] rig::Error),
    #[error("cannot write {}: {source}", path.display())]
    Report { path: PathBuf, source: io::Error },
    #[error("cannot write JUnit: {0}")]
    Junit(#[from] quick_junit::SerializeError),
    #[error(
        "{ran} tests were executed, {expected} were expected: has a module lost its `mod` line?"
    )]
    TooFew { ran: usize, expected: usize },
}

/// Cases a property is tried on where nobody says: a few seconds' worth under emulation.
pub const CASES: u32 = 100;

/// A seed nobody chose; small enough to type again.
pub fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 1_000_000
}

/// Does it, and returns the exit code.
pub fn run(request: &Request) -> Result<u8, Error> {
    let start = Instant::now();
    let mut rig = Rig::new(&request.rig)?;
    if request.list {
        rig.terminal.list_tests(&rig.tests);
        return Ok(exit::PASS);
    }
    rig.begin()?;
    match &request.subject {
        Subject::Kernel(wanted) => {
            let kernel = rig.kernel(wanted)?;
            let results = rig.run(&kernel)?;
            finish(request, &kernel, &rig, &results, start.elapsed())
        }
        Subject::Change(before, after) => {
            // A patch that does not apply is told before anything is built, one that does not compile
            // before anything runs.
            kernel::request::check(rig.context(), after).map_err(rig::Error::Kernel)?;
            let (before, after) = (rig.kernel(before)?, rig.kernel(after)?);
            let old = rig.run(&before)?;
            if old.interrupted {
                return finish(request, &before, &rig, &old, start.elapsed());
            }
            let new = rig.run(&after)?;
            write_reports(request, &after, &new)?;
            let comparison = Comparison::of(&old, &new);
            rig.terminal.comparison(&before, &after, &comparison, start.elapsed());
            Ok(comparison.exit_code())
        }
    }
}

/// The files that were asked for; of two kernels, those of the second.
fn write_reports(request: &Request, kernel: &Kernel, results: &Results) -> Result<(), Error> {
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|source| Error::Report { path: path.to_owned(), source })
    };
    if let Some(path) = &request.junit {
        write(path, report::junit(&results.records, &kernel.name)?)?;
    }
    if let Some(path) = &request.ktap {
        write(path, report::ktap(&results.records))?;
    }
    Ok(())
}

fn finish(
    request: &Request,
    kernel: &Kernel,
    rig: &Rig,
    results: &Results,
    took: Duration,
) -> Result<u8, Error> {
    // First: a report that cannot be written must not take the summary with it.
    rig.terminal.summary(&results.records, took);
    write_reports(request, kernel, results)?;
    if results.interrupted {
        rig.terminal.note("interrupted");
        return Ok(exit::INTERRUPTED);
    }
    let code = outcome::exit_code(&results.records);
    let ran = plan::distinct_executed(&results.records);
    match request.expect_tests {
        Some(expected) if ran < expected && code == exit::PASS => {
            Err(Error::TooFew { ran, expected })
        }
        _ => Ok(code),
    }
}
