//! What a command costs on each way into the kernel: figures of the test that measures it.

pub use guest_protocol::figure::Figure;

use kernel::request::Wanted;

use crate::{
    outputs::{self, Outputs},
    rig,
};

/// The test that measures one round.
pub const TEST: &str = "measured::passthrough";

/// Figures of all rounds.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The kernel, by name and release.
    pub kernel: String,
    /// In order of rounds.
    pub rounds: Vec<Vec<Figure>>,
}

impl Measured {
    /// Every figure, for programs.
    ///
    /// # Panics
    /// Never: names and numbers can be said in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.rounds).expect("names and numbers")
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Ending {
    /// Every round was measured.
    Measured(Measured),
    /// A round failed, which the terminal has shown; the exit code.
    Failed(u8),
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the stage it is named after")]
pub enum Error {
    #[error(transparent)]
    Rig(#[from] rig::Error),
    #[error("a figure of the guest cannot be read: {0}")]
    Figure(#[from] serde_json::Error),
}

/// Measures as often as the options say that the test is run, in one guest.
pub fn run(request: &rig::Request, kernel: &Wanted) -> Result<Ending, Error> {
    let (kernel, outputs) = match outputs::of(request, kernel)? {
        Outputs::Of { kernel, outputs } => (kernel, outputs),
        Outputs::Failed(code) => return Ok(Ending::Failed(code)),
    };
    let rounds = outputs.iter().map(|output| Figure::all(output));
    Ok(Ending::Measured(Measured { kernel, rounds: rounds.collect::<Result<_, _>>()? }))
}
