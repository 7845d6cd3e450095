//! What tests that pass have printed.

pub use guest_protocol::told;
use kernel::request::Wanted;

use crate::{
    exit, outcome,
    rig::{self, Rig},
};

/// What became of a run.
#[derive(Clone, Debug)]
pub enum Outputs {
    /// Every test passed.
    Of {
        /// The kernel, by name and release.
        kernel: String,
        /// What each test printed, in order.
        outputs: Vec<String>,
    },
    /// A test failed, which the terminal has shown; the exit code.
    Failed(u8),
}

/// Runs tests in a guest.
///
/// # Errors
/// The rig could not be made, or not run.
pub fn of(request: &rig::Request, kernel: &Wanted) -> Result<Outputs, rig::Error> {
    let mut rig = Rig::new(request)?;
    rig.begin()?;
    let kernel = rig.kernel(kernel)?;
    let results = rig.run(&kernel)?;
    if results.interrupted {
        return Ok(Outputs::Failed(exit::INTERRUPTED));
    }
    let code = outcome::exit_code(&results.records);
    if code != exit::PASS {
        return Ok(Outputs::Failed(code));
    }
    let outputs = results.records.into_iter().map(|record| record.output).collect();
    Ok(Outputs::Of { kernel: format!("{}, Linux {}", kernel.name, kernel.release), outputs })
}
