//! What the user is shown of a run's coverage, and the file that is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use kernel::debug_info::{DebugFiles, DebugInfo};

use super::{
    Coverage, DEFAULT_FILES, Error, FileCoverage, Unreachable, errno, lcov, listing, measure,
    unreachable::OfFile,
};

/// What the user wants to see.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Source files to be listed line by line; empty asks for the sums of [`DEFAULT_FILES`].
    pub files: Vec<String>,
    /// Where a tracefile for lcov goes.
    pub lcov: Option<PathBuf>,
}

impl Wish {
    /// The files to be measured.
    fn measured(&self) -> Vec<String> {
        if self.files.is_empty() {
            DEFAULT_FILES.map(str::to_owned).to_vec()
        } else {
            self.files.clone()
        }
    }
}

/// A run's coverage, ready to be shown.
#[derive(Debug)]
pub struct Report {
    files: Vec<Measured>,
    /// Blocks that found no room in a log.
    lost: u64,
    is_listed: bool,
}

/// One file with its source.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) coverage: FileCoverage,
    /// Its lines, if the source is at hand.
    pub(super) source: Option<Vec<String>>,
    /// Lines that hand out an error code, with the line whose code it is and who reached that first.
    pub(super) errors: BTreeMap<u32, Option<String>>,
    /// Lines that hand out an error code and have no instruction of their own.
    pub(super) errors_without_code: BTreeSet<u32>,
    /// Lines that cannot be reached.
    pub(super) unreachable: OfFile,
}

impl Report {
    /// Reads what the machines recorded, and writes the tracefile if one is wanted.
    pub fn of(
        run: &Coverage,
        wish: &Wish,
        unreachable: &Unreachable,
        debug: DebugFiles,
        kernel: &str,
    ) -> Result<Report, Error> {
        let machines = run.machines();
        let source = debug.source.clone();
        let files = measure(&machines, &mut DebugInfo::new(debug), &wish.measured(), kernel)?;
        let mut lost = 0;
        for machine in &machines {
            let log = |source| Error::Log { path: machine.path().to_owned(), source };
            lost += machine.lost().map_err(log)?;
        }
        if let Some(path) = &wish.lcov {
            let place = |file: &str| match &source {
                Some(root) => root.join(file).display().to_string(),
                None => file.to_owned(),
            };
            let text = lcov::tracefile(&files, place);
            fs::write(path, text).map_err(|source| Error::Lcov { path: path.clone(), source })?;
        }
        let files = files.into_iter();
        let files = files.map(|file| Measured::new(file, source.as_deref(), unreachable));
        Ok(Report { files: files.collect(), lost, is_listed: !wish.files.is_empty() })
    }

    /// The text for the screen.
    pub fn text(&self) -> String {
        let mut text = listing::table(&self.files);
        if self.lost > 0 {
            text.push_str(&format!(
                "{} blocks found no room in a machine's log: what was reached late may be missing; \
                 run fewer tests at once\n",
                self.lost
            ));
        }
        for file in &self.files {
            let part = match &file.source {
                Some(source) if self.is_listed => listing::annotated(file, source),
                _ => listing::gaps(file),
            };
            text.push('\n');
            text.push_str(&part);
        }
        text
    }
}

impl Measured {
    fn new(coverage: FileCoverage, root: Option<&Path>, list: &Unreachable) -> Measured {
        let source = root.and_then(|root| fs::read_to_string(root.join(&coverage.path)).ok());
        let text = source.as_deref().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let mut errors = BTreeMap::new();
        let mut errors_without_code = BTreeSet::new();
        for number in errno::lines(text) {
            let statement = errno::statement(&lines, number);
            match statement.iter().find_map(|line| coverage.lines.get(line)) {
                Some(first) => drop(errors.insert(number, first.clone())),
                None => drop(errors_without_code.insert(number)),
            }
        }
        let unreachable = match &source {
            Some(text) => list.of(&coverage.path, text),
            None => OfFile::default(),
        };
        let source = source.as_ref().map(|text| text.lines().map(str::to_owned).collect());
        Measured { coverage, source, errors, errors_without_code, unreachable }
    }

    /// Why a line cannot be reached, if so.
    pub(super) fn reason(&self, line: u32) -> Option<&str> {
        self.unreachable.reasons.get(&line).map(String::as_str)
    }
}
