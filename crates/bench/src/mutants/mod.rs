//! `cargo xtask mutants`: do the tests notice a small mistake in the code under test?
//!
//! One kernel is built with all mistakes in it. With one at a time in force it is booted and the tests run
//! on it, first the one that is to notice, until one fails.

mod equivalent;
mod finding;
mod list;
mod turns;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use host::{apt, cache};
use kernel::{
    mutation::{self, ByRule, Edit, Mutator},
    request::Context,
};

use self::{
    equivalent::Equivalent,
    finding::Finding,
    list::{List, Mutant},
    turns::Run,
};
use crate::{
    accel::Wish,
    coverage::{self, OfFile, Unreachable},
    exit,
    memory::{self, Memory},
    plan::Test,
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

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The checkout.
    pub workspace: PathBuf,
    /// Files whose mutants are wanted; empty for all.
    pub files: Vec<String>,
    /// Names of mutants; empty for all.
    pub ids: Vec<String>,
    /// Files of the kernel whose mutants by rule are wanted instead of those of the list.
    pub by_rule: Vec<String>,
    /// The functions of these files that are meant; empty for all.
    pub functions: Vec<String>,
    /// Parts of names of the tests to run; empty for all.
    pub tests: Vec<String>,
    /// Whether to run only tests that are named as killers of mutants of the same files.
    pub killers: bool,
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
    #[error(transparent)]
    Unreachable(#[from] coverage::Error),
}

/// Checks without building anything that every change has its place in the source; returns how many
/// there are.
pub fn check(context: Context<'_>) -> Result<usize, Error> {
    let list = List::read(context.checkout)?;
    let source = mutation::pristine(context, &list.base)?;
    list.check(&source)?;
    Equivalent::read(context.checkout)?.check(&source)?;
    Ok(list.mutants.len())
}

/// Does it, and returns the exit code.
pub fn run(request: &Request) -> Result<u8, Error> {
    let start = Instant::now();
    let mut list = List::read(&request.workspace)?;
    let rig = Rig::new(&rig_request(request))?;
    add_by_rule(&mut list, request, rig.context())?;
    let wanted = list
        .select(!request.by_rule.is_empty(), &request.files, &request.ids)
        .map_err(Error::Selection)?;
    if request.list {
        let mutants: Vec<&Mutant> = wanted.iter().map(|at| &list.mutants[*at]).collect();
        show(&rig, &mutants);
        return Ok(exit::PASS);
    }
    rig.begin()?;
    list.check_killers(&rig.tests.iter().map(|test| test.name.as_str()).collect())?;
    list.check(&mutation::pristine(rig.context(), &list.base)?)?;
    let killers = request.killers.then(|| list.killers(&wanted));
    let is_one = |test: &&Test| {
        killers.as_ref().is_none_or(|killers| killers.contains(test.name.as_str()))
            && is_wanted(request, test)
    };
    let tests: Vec<Test> = rig.tests.iter().filter(is_one).cloned().collect();
    if tests.is_empty() {
        return Err(rig::Error::NoMatch { filters: request.tests.clone() }.into());
    }
    let build = Instant::now();
    let edits: Vec<Edit> = list.mutants.iter().map(|mutant| mutant.edit.clone()).collect();
    let mutator = Mutator::build(rig.context(), &list.base, &edits)?;
    let remark = format!("{} {}, {} changes", list.base, mutator.kernel.release, edits.len());
    rig.terminal.stage("kernel", build.elapsed(), &remark);
    let names = tests.iter().map(|test| test.name.as_str());
    let words = std::iter::once(mutator.world.as_str()).chain(names);
    let world = memory::world(rig.deciding_files(), words)?;
    let memory: Memory<Finding> = Memory::open(rig.context().cache, MEMORY, &world);
    let again = request.again;
    Run { rig, mutator, list, tests, memory, again }.run(&wanted, start)
}

/// Adds the mutants by rule that are asked for, but for changes that nobody can see and lines that no test
/// reaches.
fn add_by_rule(list: &mut List, request: &Request, context: Context<'_>) -> Result<(), Error> {
    if request.by_rule.is_empty() {
        return Ok(());
    }
    let source = mutation::pristine(context, &list.base)?;
    let unreachable = Unreachable::read(&request.workspace)?;
    let equivalent = Equivalent::read(&request.workspace)?;
    for file in &request.by_rule {
        let path = source.join(file);
        let text = fs::read_to_string(&path).map_err(cache::at("read", &path))?;
        let unreachable = unreachable.of(file, &text);
        let mut changes = mutation::by_rule(file, &text, &request.functions);
        equivalent.take((file, &text), &request.functions, &mut changes)?;
        changes.retain(|change| can_be_reached(change, &text, &unreachable));
        list.add(changes);
    }
    Ok(())
}

/// Whether a test could come to what was changed in this text. Where a condition guards nothing but a line that none
/// reaches it never holds as it is, and to leave it out is to leave out what it calls.
fn can_be_reached(change: &ByRule, text: &str, unreachable: &OfFile) -> bool {
    let is_out_of_reach = |line: u32| unreachable.reasons.contains_key(&line);
    let next = change.line + 1;
    let guards = is_out_of_reach(next) && !unreachable.by_luck.contains(&next);
    let line = text.lines().nth(usize::try_from(change.line - 1).expect("files are short"));
    let calls = line.is_none_or(|line| line.matches('(').count() != 1);
    !is_out_of_reach(change.line) && (change.what != "never" || !guards || calls)
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

fn show(rig: &Rig, mutants: &[&Mutant]) {
    for Mutant { id, edit, killer, why } in mutants.iter().copied() {
        rig.terminal.line(&format!("{id}  {}:{}\n    {why}", edit.file, edit.function));
        let killer = killer.as_deref().unwrap_or("no test yet");
        rig.terminal.line(&format!("    killer: {killer}"));
    }
    rig.terminal.line(&format!("{} mutants", mutants.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_no_test_reaches_are_left_as_they_are() {
        let text = "int f(int a)\n{\n\tif (a)\n\t\treturn -EINVAL;\n\tif (g(a))\n\t\treturn -EINVAL;\n\tif (b)\n\t\treturn 1;\n\treturn 0;\n}\n";
        let reasons = [4, 6, 8].map(|line| (line, "so".to_owned())).into();
        let mut unreachable = OfFile::default();
        (unreachable.reasons, unreachable.by_luck) = (reasons, [8].into());
        let mut changes = mutation::by_rule("a.c", text, &[]);
        let lines = |changes: &[ByRule]| -> Vec<(u32, String)> {
            changes.iter().map(|change| (change.line, change.what.clone())).collect()
        };
        let all = lines(&changes);
        assert!(all.contains(&(3, "never".to_owned())) && all.iter().any(|(line, _)| *line == 4));
        changes.retain(|change| can_be_reached(change, text, &unreachable));
        let left = lines(&changes);
        assert!(left.iter().all(|(line, _)| ![4, 6, 8].contains(line)), "{left:?}");
        assert!(!left.contains(&(3, "never".to_owned())), "{left:?}");
        assert!(left.contains(&(3, "always".to_owned())), "{left:?}");
        // What it calls does something, and what is reached by luck is reached.
        assert!(left.contains(&(5, "never".to_owned())), "{left:?}");
        assert!(left.contains(&(7, "never".to_owned())), "{left:?}");
    }
}
