//! What a session leaves behind beside its records.

use guest_protocol::message::KernelRecord;

use crate::outcome::Outcome;

/// What a session leaves to do.
#[derive(Debug, Default)]
pub struct Rest {
    /// Tests that were taken and did not start, or were caught in a known culprit's accident.
    pub unrun: Vec<usize>,
    /// Accidents of several tests, each with those among which its culprit has to be found.
    pub suspects: Vec<Suspects>,
    /// Headlines of the splats that a test had announced.
    pub announced: Vec<String>,
    /// What went wrong outside every test.
    pub stray: Vec<Stray>,
    /// Whether anything went wrong, known or not.
    pub bad: bool,
    /// A signal ended the session.
    pub interrupted: bool,
}

/// An accident while several tests ran.
#[derive(Clone, Debug)]
pub struct Suspects {
    /// What happened.
    pub accident: Outcome,
    /// The tests that ran.
    pub members: Vec<usize>,
}

/// Something that went wrong while no test ran.
#[derive(Debug)]
pub struct Stray {
    /// When: before the first test, or after which one.
    pub place: String,
    /// What.
    pub outcome: Outcome,
    /// The kernel's log at that place.
    pub kernel: Vec<KernelRecord>,
}

impl Rest {
    /// Counts a test among those that ran when an accident happened.
    pub(super) fn suspect(&mut self, member: usize, accident: &Outcome) {
        match self.suspects.iter_mut().find(|suspects| suspects.accident == *accident) {
            Some(suspects) => suspects.members.push(member),
            None => {
                self.suspects.push(Suspects { accident: accident.clone(), members: vec![member] });
            }
        }
    }
}
