//! `cargo xtask vm-test`: from a checkout to results.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    exit, outcome, plan, report,
    rig::{self, Rig},
    scheduler::Results,
};
use kernel::request::Wanted;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What does not depend on the kernel.
    pub rig: rig::Request,
    /// Whether to list the tests instead of running them.
    pub list: bool,
    /// The kernel.
    pub kernel: Wanted,
    /// Where JUnit XML goes.
    pub junit: Option<PathBuf>,
    /// Where KTAP goes.
    pub ktap: Option<PathBuf>,
    /// How many tests have to be executed at least once; fewer is an error of the bench.
    pub expect_tests: Option<usize>,
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
    let kernel = rig.kernel(&request.kernel)?;
    let results = rig.run(&kernel)?;
    finish(request, &kernel.name, &rig, &results, start.elapsed())
}

fn finish(
    request: &Request,
    kernel: &str,
    rig: &Rig,
    results: &Results,
    took: Duration,
) -> Result<u8, Error> {
    // First: a report that cannot be written must not take the summary with it.
    rig.terminal.summary(&results.records, took);
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|source| Error::Report { path: path.to_owned(), source })
    };
    if let Some(path) = &request.junit {
        write(path, report::junit(&results.records, kernel)?)?;
    }
    if let Some(path) = &request.ktap {
        write(path, report::ktap(&results.records))?;
    }
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
