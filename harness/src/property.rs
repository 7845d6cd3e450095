//! Laws that hold for any input: proptest, and what has broken a law before kept in the repository.
//!
//! The bench gives seed and number of cases in proptest's own environment variables. A guest has no
//! checkout to write to, so a failure says which line to add to which file; the seeds of that file are
//! built in, and tried before anything else.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, FailurePersistence, PersistedSeed, TestRunner},
};

/// Shrinking ends by then, and what was found is told: a test has a deadline.
const SHRINK_MS: u32 = 15_000;

/// The seeds of cases that have failed before: a file of `harness/regressions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regressions {
    /// Name of the file, without its ending.
    pub name: &'static str,
    /// The file: `cc` and a seed in hex on each line, as proptest writes them; behind `#` anything.
    pub text: &'static str,
}

/// The file `harness/regressions/NAME.txt`.
#[macro_export]
macro_rules! regressions {
    ($name:literal) => {
        $crate::property::Regressions {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/", $name, ".txt")),
        }
    };
}

impl Regressions {
    /// # Panics
    /// If a line is neither a seed nor a comment.
    fn seeds(self) -> Vec<PersistedSeed> {
        let seeds = (1..).zip(self.text.lines()).filter_map(|(number, line)| {
            let seed = line.split('#').next().unwrap_or_default().trim();
            let parsed = || {
                seed.parse().unwrap_or_else(|()| {
                    panic!("harness/regressions/{}.txt:{number}: no seed: {line}", self.name)
                })
            };
            (!seed.is_empty()).then(parsed)
        });
        seeds.collect()
    }
}

/// Reads the file's seeds, and remembers the line for a new one.
#[derive(Clone, Debug)]
struct Keeper {
    regressions: Regressions,
    line: Arc<Mutex<Option<String>>>,
}

impl Keeper {
    fn line(&self) -> Option<String> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl FailurePersistence for Keeper {
    fn load_persisted_failures2(&self, _source_file: Option<&'static str>) -> Vec<PersistedSeed> {
        self.regressions.seeds()
    }

    fn save_persisted_failure2(
        &mut self,
        _source_file: Option<&'static str>,
        seed: PersistedSeed,
        shrunken: &dyn fmt::Debug,
    ) {
        let line = format!("{seed} # {shrunken:?}");
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    fn box_clone(&self) -> Box<dyn FailurePersistence> {
        Box::new(self.clone())
    }

    fn eq(&self, other: &dyn FailurePersistence) -> bool {
        let other = other.as_any().downcast_ref::<Keeper>();
        other.is_some_and(|other| other.regressions == self.regressions)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Tries the law, which panics where it does not hold, on the cases that have failed before and then on new
/// ones.
///
/// # Panics
/// If the law does not hold, with the smallest case found and the line that keeps it.
#[track_caller]
pub fn check<S: Strategy>(regressions: Regressions, strategy: &S, law: impl Fn(S::Value)) {
    let keeper = Keeper { regressions, line: Arc::default() };
    let config = Config {
        failure_persistence: Some(Box::new(keeper.clone())),
        max_shrink_time: SHRINK_MS,
        ..Config::default()
    };
    let held = TestRunner::new(config).run(strategy, |case| {
        law(case);
        Ok(())
    });
    if let Err(error) = held {
        let name = regressions.name;
        match keeper.line() {
            Some(line) => panic!("{error}\nkeep it in harness/regressions/{name}.txt:\n{line}"),
            None => panic!("{error}\nit has failed before: harness/regressions/{name}.txt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const NONE: Regressions = Regressions { name: "none", text: "# nothing yet\n\n" };

    fn message(check: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(check)).expect_err("the law does not hold");
        *panic.downcast::<String>().expect("a formatted message")
    }

    #[test]
    fn a_failure_is_kept_by_its_line_and_tried_first() {
        let law = |number: u32| assert!(number < 1000, "too big");
        let told = message(|| check(NONE, &(0_u32..), law));
        assert!(told.contains("minimal failing input: 1000"), "{told}");
        let (before, line) = told.rsplit_once('\n').expect("several lines");
        assert!(before.ends_with("keep it in harness/regressions/none.txt:"), "{told}");
        assert!(line.starts_with("cc ") && line.ends_with("# 1000"), "{told}");

        let text = Box::leak(line.to_owned().into_boxed_str());
        let first = Mutex::new(None);
        let remember = |number| {
            first.lock().expect("no panic").get_or_insert(number);
        };
        check(Regressions { name: "one", text }, &(0_u32..), remember);
        let first = first.into_inner().expect("no panic").expect("a case");
        assert!(first >= 1000, "{first}");
        let told = message(|| check(Regressions { name: "one", text }, &(0_u32..), law));
        assert!(told.ends_with("it has failed before: harness/regressions/one.txt"), "{told}");
    }

    #[test]
    fn a_line_that_is_no_seed_is_refused() {
        let told = message(|| drop(Regressions { name: "bad", text: "\ncc xyz # why" }.seeds()));
        assert_eq!(told, "harness/regressions/bad.txt:2: no seed: cc xyz # why");
    }
}
