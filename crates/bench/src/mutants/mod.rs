//! `cargo xtask mutants`: do the tests notice a small mistake in the code under test?
//!
//! One mistake at a time is built into a kernel and the tests run on it, first the one that is to
//! notice, until one fails.

mod finding;
mod list;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use host::{apt, cache, interrupt};
use kernel::{
    mutation::{self, Mutator},
    request::Context,
};

use self::{
    finding::{Ending, Finding, Tally, Verdict, median},
    list::{List, Mutant},
};
use crate::{
    accel::Wish,
    exit,
    memory::{self, Memory},
    outcome,
    plan::{self, Test},
    rig::{self, Rig},
    scheduler::Options,
    vm_test::CASES,
};

pub use self::list::ListError;

/// Above what any test needs here, and low enough for a mutant that hangs.
const DEADLINE: Duration = Duration::from_secs(6);
/// Every run is the same.
const SEED: u64 = 1;
/// Where findings are in the cache.
const MEMORY: &str = "mutants";
/// The key of the kernel without a change.
const BASE: &str = "base";

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The checkout.
    pub workspace: PathBuf,
    /// Files whose mutants are wanted; empty for all.
    pub files: Vec<String>,
    /// Names of mutants; empty for all.
    pub ids: Vec<String>,
    /// Parts of names of the tests to run; empty for all.
    pub tests: Vec<String>,
    /// Whether to list the mutants instead of building them.
    pub list: bool,
    /// Whether to try again what earlier runs have found out.
    pub again: bool,
    /// Where packages come from.
    pub apt: apt::Options,
    /// How to execute guests.
    pub accel: Wish,
}

/// Why mutants could not be tried. Each says the next step.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the stage it is named after")]
pub enum Error {
    #[error(transparent)]
    List(#[from] ListError),
    #[error("{0}; `cargo xtask mutants --list` shows them")]
    Selection(String),
    #[error(transparent)]
    Rig(#[from] rig::Error),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Apt(#[from] apt::Error),
}

/// Checks without building anything that every change has its place in the source; returns how many
/// there are.
pub fn check(context: Context<'_>) -> Result<usize, Error> {
    let list = List::read(context.checkout)?;
    list.check(&mutation::pristine(context, &list.base)?)?;
    Ok(list.mutants.len())
}

/// Does it, and returns the exit code.
pub fn run(request: &Request) -> Result<u8, Error> {
    let start = Instant::now();
    let list = List::read(&request.workspace)?;
    let mutants = list.select(&request.files, &request.ids).map_err(Error::Selection)?;
    let mut rig = Rig::new(&rig_request(request))?;
    if request.list {
        show(&rig, &mutants);
        return Ok(exit::PASS);
    }
    rig.begin()?;
    list.check_killers(&rig.tests.iter().map(|test| test.name.as_str()).collect())?;
    list.check(&mutation::pristine(rig.context(), &list.base)?)?;
    let files: BTreeSet<String> = list.mutants.iter().map(|m| m.edit.file.clone()).collect();
    let mutator = Mutator::open(rig.context(), &list.base, files)?;
    let tests: Vec<Test> =
        rig.tests.iter().filter(|test| is_wanted(request, test)).cloned().collect();
    if tests.is_empty() {
        return Err(rig::Error::NoMatch { filters: request.tests.clone() }.into());
    }
    let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    // Its place in the cache says what the kernel without a change was built from.
    let image = mutator.base.image.display().to_string();
    let words = std::iter::once(image.as_str()).chain(names);
    let world = memory::world(rig.deciding_files(), words)?;
    let memory = Memory::open(rig.context().cache, MEMORY, &world);
    rig.terminal.mute();
    Run { rig, mutator, tests, memory, again: request.again, tally: Tally::default() }
        .run(&mutants, start)
}

fn rig_request(request: &Request) -> rig::Request {
    let options = Options {
        fail_fast: true,
        seed: SEED,
        cases: CASES,
        deadline: DEADLINE,
        boot_deadline: DEADLINE,
        ..Options::default()
    };
    rig::Request {
        workspace: request.workspace.clone(),
        filters: Vec::new(),
        exact: false,
        apt: request.apt.clone(),
        accel: request.accel,
        released_ublk: false,
        options,
        expectations: None,
    }
}

fn is_wanted(request: &Request, test: &Test) -> bool {
    request.tests.is_empty() || request.tests.iter().any(|part| test.name.contains(part.as_str()))
}

fn show(rig: &Rig, mutants: &[Mutant]) {
    for Mutant { id, edit, killer, why } in mutants {
        rig.terminal.line(&format!("{id}  {}:{}\n    {why}", edit.file, edit.function));
        let killer = killer.as_deref().unwrap_or("no test yet");
        rig.terminal.line(&format!("    killer: {killer}"));
    }
    rig.terminal.line(&format!("{} mutants", mutants.len()));
}

/// A run under way.
struct Run {
    rig: Rig,
    mutator: Mutator,
    tests: Vec<Test>,
    memory: Memory<Finding>,
    /// Whether what is known of the mutants asked for counts for nothing.
    again: bool,
    tally: Tally,
}

impl Run {
    fn run(mut self, mutants: &[Mutant], start: Instant) -> Result<u8, Error> {
        if let Some(code) = self.base()? {
            return Ok(code);
        }
        let mut turns = Vec::new();
        for mutant in mutants {
            let killer = self.killer(mutant);
            let key = mutant.key(killer.as_deref());
            let known = self.known(&key);
            let is_known = known.is_some();
            let verdict = match known {
                Some(finding) => Some(Verdict::Found(finding)),
                None => self.turn(mutant, killer.as_deref())?,
            };
            let Some(verdict) = verdict else { return Ok(exit::INTERRUPTED) };
            if let (Verdict::Found(finding), false) = (&verdict, is_known) {
                turns.push((finding.build, finding.tests));
                self.memory.put(key, finding.clone())?;
            }
            self.tell(mutant, &verdict, is_known);
            self.tally.entries.push((mutant.clone(), killer, verdict));
        }
        self.finish(&turns, start);
        Ok(self.tally.exit_code())
    }

    /// Runs the tests on the kernel without a change. If one fails there, what it says of a mutant is
    /// worth nothing: the exit code of a run that ends here.
    fn base(&mut self) -> Result<Option<u8>, Error> {
        let kernel = self.mutator.base.clone();
        let name = format!("{} {} without a change", kernel.name, kernel.release);
        if self.known(BASE).is_some() {
            self.rig.terminal.line(&format!("    base  known from an earlier run: {name}"));
            return Ok(None);
        }
        let start = Instant::now();
        let results = self.rig.run_these(&kernel, &self.tests)?;
        if results.interrupted {
            return Ok(Some(exit::INTERRUPTED));
        }
        let code = outcome::exit_code(&results.records);
        if code != exit::PASS {
            let words =
                Ending::of(&results).map_or("no test ran".to_owned(), |end| end.to_string());
            self.rig.terminal.line(&format!("    base  {name}: {words}"));
            let advice =
                "the tests have to pass without a change first: `cargo xtask vm-test --kernel";
            self.rig.terminal.line(&format!("{advice} {}`", kernel.name));
            return Ok(Some(code));
        }
        let tests = start.elapsed();
        let ran = plan::distinct_executed(&results.records);
        self.rig
            .terminal
            .line(&format!("    base  {:>5.1} s  {ran} tests on {name}", seconds(tests)));
        let finding = Finding { ending: Ending::Survived, build: Duration::ZERO, tests };
        self.memory.put(BASE.to_owned(), finding)?;
        Ok(None)
    }

    fn known(&self, key: &str) -> Option<Finding> {
        self.memory.get(key).filter(|_| !self.again).cloned()
    }

    /// The test that is to notice a mutant, if it is among those that run.
    fn killer(&self, mutant: &Mutant) -> Option<String> {
        mutant.killer.clone().filter(|killer| self.tests.iter().any(|test| test.name == *killer))
    }

    /// Builds a mutant and runs the tests, its killer first, until one fails. `None` if interrupted.
    fn turn(&mut self, mutant: &Mutant, killer: Option<&str>) -> Result<Option<Verdict>, Error> {
        if interrupt::pending() {
            return Ok(None);
        }
        let start = Instant::now();
        let kernel = match self.mutator.build(self.rig.context(), &mutant.id, &mutant.edit) {
            Ok(kernel) => kernel,
            Err(_) if interrupt::pending() => return Ok(None),
            Err(kernel::Error::Build { detail, .. }) => {
                let line = detail.lines().next().unwrap_or_default().to_owned();
                return Ok(Some(Verdict::NotBuilt(line)));
            }
            Err(error) => return Err(error.into()),
        };
        let build = start.elapsed();
        let start = Instant::now();
        let is_killer = |test: &Test| Some(test.name.as_str()) == killer;
        let (first, others): (Vec<Test>, Vec<Test>) =
            self.tests.iter().cloned().partition(is_killer);
        let mut ending = Ending::Survived;
        for tests in [first, others].iter().filter(|tests| !tests.is_empty()) {
            let results = self.rig.run_these(&kernel, tests)?;
            if results.interrupted {
                return Ok(None);
            }
            if let Some(killed) = Ending::of(&results) {
                ending = killed;
                break;
            }
        }
        Ok(Some(Verdict::Found(Finding { ending, build, tests: start.elapsed() })))
    }

    fn tell(&self, mutant: &Mutant, verdict: &Verdict, is_known: bool) {
        let id = &mutant.id;
        let line = match verdict {
            Verdict::NotBuilt(error) => format!("no build  {id}: {error}"),
            Verdict::Found(Finding { ending, build, tests }) => {
                let word = if *ending == Ending::Survived { "survived" } else { "killed" };
                let ending =
                    if *ending == Ending::Survived { String::new() } else { format!(": {ending}") };
                let times = match is_known {
                    true => "known from an earlier run     ".to_owned(),
                    false => format!(
                        "build {:>5.1} s, tests {:>5.1} s",
                        seconds(*build),
                        seconds(*tests)
                    ),
                };
                format!("{word:>8}  {times}  {id}{ending}")
            }
        };
        self.rig.terminal.line(&line);
    }

    fn finish(&self, turns: &[(Duration, Duration)], start: Instant) {
        let of = |part: fn(&(Duration, Duration)) -> Duration| {
            median(turns.iter().map(part).collect()).map(seconds)
        };
        if let (Some(build), Some(tests), Some(whole)) =
            (of(|turn| turn.0), of(|turn| turn.1), of(|turn| turn.0 + turn.1))
        {
            self.rig.terminal.line(&format!(
                "a turn (median of {}): build {build:.1} s, tests {tests:.1} s, together {whole:.1} s",
                turns.len()
            ));
        }
        self.rig.terminal.line(&format!("{:.1} s", seconds(start.elapsed())));
        for line in self.tally.summary() {
            self.rig.terminal.line(&line);
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
