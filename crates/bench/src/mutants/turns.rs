//! The turns of a run: mutants side by side, each on machines of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::{Mutex, MutexGuard, mpsc},
    thread,
    time::{Duration, Instant},
};

use host::interrupt;
use kernel::{Kernel, mutation::Mutator};

use super::{
    Error,
    finding::{Ending, Finding, Tally, Verdict, median},
    list::{List, Mutant},
};
use crate::{
    exit,
    memory::Memory,
    outcome,
    plan::{self, Test},
    rig::{self, Rig},
};

/// The key of the kernel with no change in force.
const BASE: &str = "base";

/// How many turns share a processor: much of their time they wait, for a hang to be one above all.
const WAITING: usize = 2;

/// A run under way.
pub(super) struct Run {
    pub(super) rig: Rig,
    pub(super) mutator: Mutator,
    pub(super) list: List,
    pub(super) tests: Vec<Test>,
    pub(super) memory: Memory<Finding>,
    /// Whether what is known of the mutants asked for counts for nothing.
    pub(super) again: bool,
}

/// What is done in a turn.
struct Turn<'a> {
    at: usize,
    mutant: &'a Mutant,
    killer: Option<String>,
}

impl Turn<'_> {
    fn key(&self) -> String {
        self.mutant.key(self.killer.as_deref())
    }
}

impl Run {
    /// Tries the mutants at these places of the list, and returns the exit code.
    pub(super) fn run(mut self, wanted: &[usize], start: Instant) -> Result<u8, Error> {
        self.rig.terminal.mute();
        if let Some(code) = self.base()? {
            return Ok(code);
        }
        let (list, tests) = (self.list.clone(), self.tests.clone());
        let plan =
            Plan { kernel: self.mutator.kernel.clone(), tests: &tests, noticed: Mutex::default() };
        for mutant in &list.mutants {
            mutant.killer.iter().for_each(|killer| plan.learn(mutant, killer));
        }
        let turns: Vec<Turn<'_>> = wanted.iter().map(|at| self.turn(*at, &list)).collect();
        let mut verdicts: Vec<Option<Verdict>> =
            turns.iter().map(|turn| self.without_a_run(turn)).collect();
        for (turn, verdict) in iter::zip(&turns, &verdicts) {
            if let Some(verdict) = verdict {
                self.tell(turn.mutant, verdict, true);
            }
        }
        let open: Vec<usize> = (0..turns.len()).filter(|at| verdicts[*at].is_none()).collect();
        let mut times = Vec::new();
        self.side_by_side(&plan, &turns, &open, |run, at, finding| {
            times.push(finding.tests);
            run.memory.put(turns[at].key(), finding.clone())?;
            let verdict = Verdict::Found(finding);
            run.tell(turns[at].mutant, &verdict, false);
            verdicts[at] = Some(verdict);
            Ok(())
        })?;
        let mut tally = Tally::default();
        for (turn, verdict) in iter::zip(turns, verdicts) {
            let Some(verdict) = verdict else { return Ok(exit::INTERRUPTED) };
            tally.entries.push((turn.mutant.clone(), turn.killer, verdict));
        }
        self.finish(&tally, times, start);
        Ok(tally.exit_code())
    }

    /// Runs the tests with no change in force. If one fails then, what it says of a mutant is worth
    /// nothing: the exit code of a run that ends here.
    fn base(&mut self) -> Result<Option<u8>, Error> {
        let kernel = self.mutator.kernel.clone();
        let name = format!("{} {} with no change in force", self.list.base, kernel.release);
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
            self.rig.terminal.line(&format!("{advice} {}`", self.list.base));
            return Ok(Some(code));
        }
        let tests = start.elapsed();
        let ran = plan::distinct_executed(&results.records);
        self.rig
            .terminal
            .line(&format!("    base  {:>5.1} s  {ran} tests on {name}", tests.as_secs_f64()));
        self.memory.put(BASE.to_owned(), Finding { ending: Ending::Survived, tests })?;
        Ok(None)
    }

    fn known(&self, key: &str) -> Option<Finding> {
        self.memory.get(key).filter(|_| !self.again).cloned()
    }

    fn turn<'a>(&self, at: usize, list: &'a List) -> Turn<'a> {
        let mutant = &list.mutants[at];
        // Unless it is not among those that run.
        let runs = |killer: &String| self.tests.iter().any(|test| test.name == *killer);
        Turn { at, mutant, killer: mutant.killer.clone().filter(runs) }
    }

    /// The verdict on a mutant that needs no run for it.
    fn without_a_run(&self, turn: &Turn<'_>) -> Option<Verdict> {
        let refused = self.mutator.refused.get(&turn.at).cloned().map(Verdict::NotBuilt);
        refused.or_else(|| self.known(&turn.key()).map(Verdict::Found))
    }

    /// Does the turns at `open`, [`WAITING`] times as many at a time as machines are worth it, and tells
    /// of each as it ends. After an interrupt or an error no other begins.
    fn side_by_side(
        &mut self,
        plan: &Plan<'_>,
        turns: &[Turn<'_>],
        open: &[usize],
        mut done: impl FnMut(&mut Run, usize, Finding) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let count = (WAITING * self.rig.options().machines).min(open.len());
        let rigs: Vec<Rig> = (0..count).map(|_| self.rig.beside()).collect();
        let next = Mutex::new(open.iter().copied());
        let (ended, endings) = mpsc::channel();
        thread::scope(|scope| {
            for mut rig in rigs {
                let (next, ended) = (&next, ended.clone());
                scope.spawn(move || {
                    let take = || next.lock().expect("never held over a panic").next();
                    while let Some(at) = take() {
                        let ending = plan.turn(&mut rig, &turns[at]).transpose();
                        let Some(ending) = ending.filter(|_| !interrupt::pending()) else { break };
                        // Nobody listens after an error.
                        let stop = ending.is_err();
                        if ended.send((at, ending)).is_err() || stop {
                            break;
                        }
                    }
                });
            }
            drop(ended);
            for (at, ending) in endings {
                done(self, at, ending?)?;
            }
            Ok(())
        })
    }

    fn tell(&self, mutant: &Mutant, verdict: &Verdict, is_known: bool) {
        let id = &mutant.id;
        let line = match verdict {
            Verdict::NotBuilt(error) => format!("no build  {id}: {error}"),
            Verdict::Found(Finding { ending, tests }) => {
                let word = if *ending == Ending::Survived { "survived" } else { "killed" };
                let ending =
                    if *ending == Ending::Survived { String::new() } else { format!(": {ending}") };
                let time = match is_known {
                    true => "  known".to_owned(),
                    false => format!("{:>5.1} s", tests.as_secs_f64()),
                };
                format!("{word:>8}  {time}  {id}{ending}")
            }
        };
        self.rig.terminal.line(&line);
    }

    fn finish(&self, tally: &Tally, times: Vec<Duration>, start: Instant) {
        let count = times.len();
        if let Some(time) = median(times) {
            let time = time.as_secs_f64();
            self.rig.terminal.line(&format!("a turn (median of {count}): {time:.1} s"));
        }
        self.rig.terminal.line(&format!("{:.1} s", start.elapsed().as_secs_f64()));
        for line in tally.summary() {
            self.rig.terminal.line(&line);
        }
    }
}

/// How turns are done: on which kernel, and with which tests first.
struct Plan<'a> {
    kernel: Kernel,
    tests: &'a [Test],
    /// The tests known to notice a mistake in a function, by file and function.
    noticed: Mutex<BTreeMap<(String, String), BTreeSet<String>>>,
}

impl Plan<'_> {
    /// Runs the tests on a mutant until one fails. `None` if interrupted.
    fn turn(&self, rig: &mut Rig, turn: &Turn<'_>) -> Result<Option<Finding>, rig::Error> {
        let start = Instant::now();
        let word = Mutator::word(turn.at);
        let mut ending = Ending::Survived;
        for mut tests in self.groups(turn) {
            ending = loop {
                let Some(ending) = self.ending(rig, &tests, &word)? else { return Ok(None) };
                let Ending::Killed { test, .. } = &ending else { break ending };
                let (doubted, others): (Vec<Test>, Vec<Test>) =
                    tests.iter().cloned().partition(|one| one.name == *test);
                if doubted.is_empty() || turn.killer.as_deref() == Some(test) {
                    break ending;
                }
                // Beside others a test may fail for want of time. What fails twice fails of the mutant.
                match self.ending(rig, &doubted, &word)? {
                    None => return Ok(None),
                    Some(Ending::Killed { .. }) => break ending,
                    Some(Ending::Survived) => tests = others,
                }
            };
            if let Ending::Killed { test, .. } = &ending {
                self.learn(turn.mutant, test);
                break;
            }
        }
        Ok(Some(Finding { ending, tests: start.elapsed() }))
    }

    /// What becomes of some tests. `None` if interrupted.
    fn ending(
        &self,
        rig: &mut Rig,
        tests: &[Test],
        word: &str,
    ) -> Result<Option<Ending>, rig::Error> {
        let results = rig.run_with(&self.kernel, tests, word)?;
        let ending = Ending::of(&results).unwrap_or(Ending::Survived);
        Ok((!results.interrupted).then_some(ending))
    }

    /// The tests in the order they are worth trying: the killer; without one those that noticed other
    /// mistakes in the same function; all others.
    fn groups(&self, turn: &Turn<'_>) -> Vec<Vec<Test>> {
        let mut first: BTreeSet<String> = turn.killer.iter().cloned().collect();
        if first.is_empty()
            && let Some(tests) = self.noticed().get(&place(turn.mutant))
        {
            first.clone_from(tests);
        }
        let is_first = |test: &Test| first.contains(&test.name);
        let (first, others) = self.tests.iter().cloned().partition(is_first);
        [first, others].into_iter().filter(|tests: &Vec<Test>| !tests.is_empty()).collect()
    }

    fn noticed(&self) -> MutexGuard<'_, BTreeMap<(String, String), BTreeSet<String>>> {
        self.noticed.lock().expect("never held over a panic")
    }

    fn learn(&self, mutant: &Mutant, test: &str) {
        self.noticed().entry(place(mutant)).or_default().insert(test.to_owned());
    }
}

/// The file and the function of a mutant.
fn place(mutant: &Mutant) -> (String, String) {
    (mutant.edit.file.clone(), mutant.edit.function.clone())
}
