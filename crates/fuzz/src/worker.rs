//! The process that sends the input. It may die of it: what it was at stands in a file.

use std::{
    fmt,
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fastrand::Rng;

use crate::{Enough, targets::Target};

/// What a session draws from, and what it tells.
pub(crate) struct Session {
    pub(crate) rng: Rng,
    /// Inputs sent.
    pub(crate) executions: u64,
    tells: bool,
}

impl Session {
    /// Each is another's for each seed and number.
    fn new(seed: u64, number: u64, tells: bool) -> Self {
        // Weyl's sequence, so that neighbours have little in common.
        let seed =
            seed.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Session { rng: Rng::with_seed(seed), executions: 0, tells }
    }

    /// Counts an input; to be called before it is sent, with words for it.
    pub(crate) fn send<T: fmt::Display>(&mut self, words: impl FnOnce() -> T) {
        self.executions += 1;
        self.tell(words);
    }

    /// Says what else there is to know.
    pub(crate) fn tell<T: fmt::Display>(&self, words: impl FnOnce() -> T) {
        if self.tells {
            let mut line = words().to_string();
            line.push('\n');
            // At once and unbuffered: the next thing may be the end. Nobody listening is no matter.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// A file with what a worker is at: session, and inputs sent before it.
#[derive(Debug)]
pub(crate) struct Progress(File);

impl Progress {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        Ok(Progress(file.with_context(|| path.display().to_string())?))
    }

    fn write(&self, session: u64, executions: u64) -> anyhow::Result<()> {
        let words = [session.to_le_bytes(), executions.to_le_bytes()].concat();
        Ok(self.0.write_all_at(&words, 0)?)
    }

    pub(crate) fn read(&self) -> anyhow::Result<(u64, u64)> {
        let (mut session, mut executions) = ([0; 8], [0; 8]);
        self.0.read_exact_at(&mut session, 0)?;
        self.0.read_exact_at(&mut executions, 8)?;
        Ok((u64::from_le_bytes(session), u64::from_le_bytes(executions)))
    }
}

/// A panic on any thread is the end: one that serves a queue would be missed by nobody else.
fn die_of_panics() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

/// Sends until it is enough.
pub(crate) fn run(
    target: &Target,
    seed: u64,
    enough: Enough,
    progress: &Path,
) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    die_of_panics();
    let progress = Progress::open(progress)?;
    let mut once = (target.prepare)()?;
    let start = Instant::now();
    let mut executions = 0;
    for number in 0.. {
        let goes_on = match enough {
            Enough::Executions(wanted) => executions < wanted,
            Enough::After(limit) => start.elapsed() < limit,
        };
        progress.write(number, executions)?;
        if !goes_on {
            break;
        }
        let mut session = Session::new(seed, number, false);
        once(&mut session);
        executions += session.executions;
    }
    Ok(())
}

/// Sends one session's input again, and tells it.
pub(crate) fn repeat(target: &Target, seed: u64, number: u64) -> anyhow::Result<()> {
    die_of_panics();
    let mut session = Session::new(seed, number, true);
    (target.prepare)()?(&mut session);
    let sent = session.executions;
    session.tell(|| format!("{sent} inputs survived"));
    Ok(())
}

/// How long a session may take. The slowest takes a few milliseconds on an idle machine.
pub(crate) const SESSION_LIMIT: Duration = Duration::from_secs(20);
