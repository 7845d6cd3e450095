//! A whole run with coverage: from a checkout to the report.

use std::time::Instant;

use kernel::request::{self, Wanted};

use super::{Coverage, Error, Report, Unreachable, Wish, build_plugin};
use crate::{
    exit, outcome,
    rig::{self, Rig},
};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which tests, and how they are run.
    pub rig: rig::Request,
    /// The kernel.
    pub kernel: Wanted,
    /// What is shown.
    pub wish: Wish,
}

/// Does it, and returns the exit code: that of the tests.
pub fn run(request: &Request) -> Result<u8, Error> {
    let start = Instant::now();
    let unreachable = Unreachable::read(&request.rig.workspace)?;
    let mut rig = Rig::new(&request.rig)?;
    rig.begin()?;
    let coverage = Coverage::new(build_plugin(&request.rig.workspace)?);
    let kernel = rig.kernel(&request.kernel)?;
    // Before the run: what cannot be told afterwards need not be measured.
    let stage = Instant::now();
    let debug = request::debug_files(rig.context(), &kernel)?;
    rig.terminal.stage("debug", stage.elapsed(), "");

    let results = rig.run_recorded(&kernel, Some(&coverage))?;
    if results.interrupted {
        rig.terminal.note("interrupted");
        return Ok(exit::INTERRUPTED);
    }
    let stage = Instant::now();
    let report = Report::of(&coverage, &request.wish, &unreachable, debug, &kernel.name)?;
    rig.terminal.stage("coverage", stage.elapsed(), "");
    rig.terminal.text(&report.text());
    rig.terminal.summary(&results.records, start.elapsed());
    Ok(outcome::exit_code(&results.records))
}
