//! `cargo xtask matrix`: the tests on one kernel after the other, and what differs between them.
//!
//! What came of a kernel is remembered test by test, so that a run goes on where another was cut short.
//! Failures are not remembered: they are tried again.

mod choice;
mod record;
mod remembered;
mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use host::{apt, cache, interrupt};
use kernel::{Kernel, request::Wanted};

use self::{
    choice::{Choice, Subject},
    record::{Record, Run},
    remembered::Remembered,
};
use crate::{
    exit, image,
    memory::{self, Memory},
    outcome::{self, TestRecord, Verdict},
    plan::Test,
    rig::{self, Rig},
};

/// Where results are in the cache.
const MEMORY: &str = "matrix";
/// The file of results, and the table that is made of it.
const FILES: [&str; 2] = ["kernels.json", "kernels.md"];

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which tests, and how they are run.
    pub rig: rig::Request,
    /// The kernels; empty for those of `images/kernels.toml`.
    pub kernels: Vec<Wanted>,
    /// Whether to list the kernels instead of running anything.
    pub list: bool,
    /// Whether to run again what earlier runs have found out.
    pub again: bool,
    /// The directory the results and their table are written to; without it the table is shown.
    pub output: Option<PathBuf>,
}

/// Why there is no table. Each says the next step.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the stage it is named after")]
pub enum Error {
    #[error(transparent)]
    Rig(#[from] rig::Error),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Apt(#[from] apt::Error),
    #[error(
        "the mirror has none of the kernels that images/kernels.toml wants; name some with `--kernel`, \
         or another Debian mirror with `--mirror URL`"
    )]
    NoKernel,
    #[error("cannot read {}: {source}; `cargo xtask matrix` makes it", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}; `cargo xtask matrix` makes it anew", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Does it, and returns the exit code.
pub fn run(request: &Request) -> Result<u8, Error> {
    let start = Instant::now();
    let mut rig = Rig::new(&request.rig)?;
    let choice = Choice::make(&rig, &request.kernels)?;
    if request.list {
        choice.words().iter().for_each(|line| rig.terminal.line(line));
        return Ok(exit::PASS);
    }
    rig.begin()?;
    let subjects = choice.subjects(&rig)?;
    let mut runs = Vec::new();
    for subject in &subjects {
        match turn(&mut rig, subject, request.again)? {
            Some(records) => runs.push(records),
            None => {
                rig.terminal.line("interrupted; the next run goes on from here");
                return Ok(exit::INTERRUPTED);
            }
        }
    }
    let kernels = subjects.iter().map(|subject| &subject.kernel).zip(&runs);
    let runs: Vec<Run<'_>> = kernels.map(|(kernel, records)| Run { kernel, records }).collect();
    let record = Record::of(&rig.tests, &runs, &choice.missing, rig.expectations());
    match &request.output {
        Some(directory) => {
            write(directory, &record)?;
            rig.terminal.line(&format!("written: {}", directory.join(FILES[1]).display()));
        }
        None => rig.terminal.text(&record.table()),
    }
    finish(&rig, &runs, start.elapsed());
    let failures = runs.iter().flat_map(|run| run.records.iter().filter(|r| is_new(r)));
    Ok(match runs.iter().flat_map(|run| run.records).all(|r| r.verdict == Verdict::Skipped) {
        true => exit::NOTHING_RAN,
        false => outcome::gravest(failures.map(|record| &record.outcome)),
    })
}

/// Makes the table anew of results that were written earlier.
pub fn write_table(directory: &Path) -> Result<(), Error> {
    write(directory, &read(directory)?)
}

fn read(directory: &Path) -> Result<Record, Error> {
    let path = directory.join(FILES[0]);
    let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::Parse { path, source })
}

fn write(directory: &Path, record: &Record) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(cache::at("make", directory))?;
    for (name, text) in FILES.into_iter().zip([record.json(), record.table()]) {
        let path = directory.join(name);
        // Whole or not at all, as the user's editor would leave it.
        let write = || {
            let file = tempfile::Builder::new().permissions(readable()).tempfile_in(directory)?;
            fs::write(file.path(), text)?;
            file.persist(&path).map_err(|error| error.error)
        };
        write().map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    Ok(())
}

/// What a new file of a checkout may be, less what the user's umask takes.
fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn is_new(record: &TestRecord) -> bool {
    record.verdict == Verdict::New
}

/// Runs on one kernel what is not known yet. `None` if interrupted; what was found is kept all the same.
fn turn(rig: &mut Rig, subject: &Subject, again: bool) -> Result<Option<Vec<TestRecord>>, Error> {
    if interrupt::pending() {
        return Ok(None);
    }
    let start = Instant::now();
    let Subject { kernel, identity, word } = subject;
    let cases = rig.options().cases.to_string();
    let world = memory::world(rig.executables(), [identity.as_str(), cases.as_str()])?;
    let mut memory = Memory::<Remembered>::open(rig.context().cache, MEMORY, &world);
    let (mut records, mut unknown) = (Vec::new(), Vec::<Test>::new());
    for test in &rig.tests {
        match memory.get(&test.name).filter(|_| !again) {
            Some(remembered) => records.push(remembered.record(test)),
            None => unknown.push(test.clone()),
        }
    }
    let known = records.len();
    if !unknown.is_empty() {
        let title = format!("Linux {}", kernel.release);
        rig.repeat_with(format!(" --kernel {word}"));
        rig.count(&title, unknown.len());
        let results = rig.run_these(kernel, &unknown);
        rig.terminal.counted();
        let results = results?;
        let findings = results.records.iter().filter_map(Remembered::of);
        memory.put_all(findings)?;
        if results.interrupted {
            return Ok(None);
        }
        records.extend(results.records);
    }
    for record in &mut records {
        rig.expectations().judge(record, kernel);
    }
    tell(rig, kernel, &records, known, start.elapsed());
    Ok(Some(records))
}

/// One line about a kernel.
fn tell(rig: &Rig, kernel: &Kernel, records: &[TestRecord], known: usize, took: Duration) {
    let of = |wanted: fn(&Verdict) -> bool| {
        records.iter().filter(|record| wanted(&record.verdict)).count()
    };
    let earlier = match known {
        0 => String::new(),
        _ => format!(", {known} of them from earlier runs"),
    };
    rig.terminal.line(&format!(
        "{:>8.1} s  {}: {} passed, {} failed, {} known, {} accidents, {} skipped{earlier}",
        took.as_secs_f64(),
        kernel.release,
        of(|verdict| matches!(verdict, Verdict::Passed | Verdict::Fixed(_))),
        of(|verdict| *verdict == Verdict::New),
        of(|verdict| matches!(verdict, Verdict::Known(_))),
        of(|verdict| *verdict == Verdict::Accident),
        of(|verdict| *verdict == Verdict::Skipped),
    ));
}

/// The end: what failed, and what the expectations say that is no longer so. The last line is for
/// programs as well as for people.
fn finish(rig: &Rig, runs: &[Run<'_>], took: Duration) {
    let mut failed = 0;
    for Run { kernel, records } in runs {
        for record in *records {
            let (name, release) = (&record.name, &kernel.release);
            match &record.verdict {
                Verdict::New => {
                    failed += 1;
                    let (word, reason) = (record.outcome.name(), record.outcome.reason());
                    rig.terminal.line(&format!("new on {release}: {name}: {word} {reason}"));
                }
                Verdict::Fixed(reason) => rig.terminal.line(&format!(
                    "fixed on {release} (correct its range in the expectations): {name}: {reason}"
                )),
                _ => {}
            }
        }
    }
    rig.terminal.line(&format!("{:.1} s", took.as_secs_f64()));
    let tests = rig.tests.len();
    rig.terminal.line(&format!("{tests} tests on {} kernels, {failed} failed", runs.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_checkout_is_what_its_results_make() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let record = read(&docs).expect("docs/kernels.json");
        let stored = |name: &str| fs::read_to_string(docs.join(name)).expect("the file");
        let advice = "is not what `cargo xtask matrix --table` writes: call it";
        assert!(stored(FILES[1]) == record.table(), "docs/{} {advice}", FILES[1]);
        assert!(stored(FILES[0]) == record.json(), "docs/{} {advice}", FILES[0]);
    }

    #[test]
    fn files_are_written_whole_and_readable_and_their_table_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let docs = dir.path().join("new");
        write(&docs, &Record::default()).expect("written");
        let table = docs.join(FILES[1]);
        fs::write(&table, "edited").expect("written");
        write_table(&docs).expect("written");
        assert_eq!(fs::read_to_string(&table).expect("the table"), Record::default().table());
        let names = fs::read_dir(&docs).expect("a directory").count();
        assert_eq!(names, FILES.len(), "nothing else is left");
        fs::write(docs.join(FILES[0]), "{").expect("written");
        let error = write_table(&docs).expect_err("half a file").to_string();
        assert!(error.contains("kernels.json") && error.contains("cargo xtask matrix"), "{error}");
    }
}
