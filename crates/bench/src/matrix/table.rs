//! The table that is made of the results: Markdown for whoever asks what a release changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::record::{Cell, Column, Record, Row};

/// What changes for a test from one kernel to the next, with the reason if there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step<'a> {
    FailsNew(&'a str),
    Fails(&'a str),
    PassesAgain(&'a str),
    AccidentEnds,
    AccidentBegins,
    Runs(&'a str),
    Skipped(&'a str),
    Other,
}

impl Record {
    /// The whole table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a String takes everything");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        text.push_str(
            "# Kernels, as the tests see them\n\n\
             <!-- Made by `cargo xtask matrix` of kernels.json beside it; not to be edited. -->\n\n\
             The same tests on one kernel after the other, each beside its neighbour. *Known* is a defect of the\n\
             kernel, listed with its evidence in [harness/expectations.toml](../harness/expectations.toml);\n\
             *failed* is what nobody has looked into; *otherwise* is behaviour that is free to change, and has.\n",
        );
        self.releases(text)?;
        self.steps(text)?;
        self.reasons(
            text,
            "Known defects",
            "defect",
            |cell| match cell {
                Cell::Known { reason, kernel } => Some(format!("{reason} ({kernel})")),
                _ => None,
            },
            names,
        )?;
        self.reasons(
            text,
            "Skipped",
            "reason",
            |cell| match cell {
                Cell::Skip(reason) => Some(reason.clone()),
                _ => None,
            },
            subjects,
        )?;
        self.subjects(text)
    }

    /// Kernels and their counts.
    fn releases(&self, text: &mut String) -> std::fmt::Result {
        text.push_str("\n## Releases\n\n");
        text.push_str(
            "| Linux | release | made of | passed | known | failed | otherwise | skipped |\n",
        );
        text.push_str("|---|---|---|--:|--:|--:|--:|--:|\n");
        for (place, Column { name, release, origin }) in self.kernels.iter().enumerate() {
            let count = |wanted: fn(&Cell) -> bool| {
                let rows = self.rows.iter().filter(|row| wanted(&row.outcomes[place]));
                rows.map(Row::count).sum::<usize>()
            };
            writeln!(
                text,
                "| {name} | `{release}` | {origin} | {} | {} | {} | {} | {} |",
                count(|cell| *cell == Cell::Pass),
                count(|cell| matches!(cell, Cell::Known { .. })),
                count(|cell| matches!(cell, Cell::New(_))),
                count(|cell| *cell == Cell::Accident),
                count(|cell| matches!(cell, Cell::Skip(_))),
            )?;
        }
        let tests: usize = self.rows.iter().map(Row::count).sum();
        let same = self.rows.iter().filter(|row| !row.differs()).map(Row::count).sum::<usize>();
        writeln!(text, "\n{tests} tests, {same} of which end alike on each kernel.")?;
        for series in &self.missing {
            writeln!(text, "{series} is not among them: the mirror had no kernel of the series.")?;
        }
        Ok(())
    }

    /// What changes from one kernel to the next.
    fn steps(&self, text: &mut String) -> std::fmt::Result {
        text.push_str("\n## From one kernel to the next\n");
        for (place, pair) in self.kernels.windows(2).enumerate() {
            writeln!(text, "\n### {} → {}\n", pair[0].name, pair[1].name)?;
            let mut steps: BTreeMap<Step<'_>, Vec<&Row>> = BTreeMap::new();
            let mut same = 0;
            for row in &self.rows {
                match step(&row.outcomes[place], &row.outcomes[place + 1]) {
                    None => same += row.count(),
                    Some(step) => steps.entry(step).or_default().push(row),
                }
            }
            if steps.is_empty() {
                writeln!(text, "No test tells them apart.")?;
                continue;
            }
            text.push_str("| change | tests | which |\n|---|--:|---|\n");
            for (step, rows) in &steps {
                let count: usize = rows.iter().map(|row| row.count()).sum();
                writeln!(text, "| {} | {count} | {} |", step.words(), step.which(rows))?;
            }
            writeln!(text, "\n{same} tests end alike on both.")?;
        }
        Ok(())
    }

    /// Reasons, with the number of tests on each kernel.
    fn reasons(
        &self,
        text: &mut String,
        title: &str,
        word: &str,
        reason_of: impl Fn(&Cell) -> Option<String>,
        which: impl Fn(&[&Row]) -> String,
    ) -> std::fmt::Result {
        let mut reasons: BTreeMap<String, (Vec<usize>, Vec<&Row>)> = BTreeMap::new();
        for row in &self.rows {
            let mut of_row = BTreeSet::new();
            for (place, reason) in row.outcomes.iter().map(&reason_of).enumerate() {
                let Some(reason) = reason else { continue };
                let empty = || (vec![0; self.kernels.len()], Vec::new());
                let (counts, rows) = reasons.entry(reason.clone()).or_insert_with(empty);
                counts[place] += row.count();
                if of_row.insert(reason) {
                    rows.push(row);
                }
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        writeln!(text, "\n## {title}\n")?;
        self.head(text, word, "which")?;
        for (reason, (counts, rows)) in &reasons {
            write!(text, "| {} |", escaped(reason))?;
            for count in counts {
                match count {
                    0 => text.push_str(" |"),
                    _ => write!(text, " {count} |")?,
                }
            }
            writeln!(text, " {} |", which(rows))?;
        }
        Ok(())
    }

    /// How many tests of each subject pass, where that differs.
    fn subjects(&self, text: &mut String) -> std::fmt::Result {
        let mut subjects: BTreeMap<&str, (Vec<usize>, usize, bool)> = BTreeMap::new();
        for row in &self.rows {
            for (function, cases) in &row.tests {
                let empty = || (vec![0; self.kernels.len()], 0, false);
                let (passed, all, differs) =
                    subjects.entry(subject(function)).or_insert_with(empty);
                *all += cases.len();
                *differs |= row.differs();
                for (place, cell) in row.outcomes.iter().enumerate() {
                    passed[place] += if *cell == Cell::Pass { cases.len() } else { 0 };
                }
            }
        }
        subjects.retain(|_, (_, _, differs)| *differs);
        if subjects.is_empty() {
            return Ok(());
        }
        text.push_str(
            "\n## Passed, by subject\n\nSubjects that are the same everywhere are left out.\n\n",
        );
        self.head(text, "subject", "tests")?;
        for (subject, (passed, all, _)) in &subjects {
            write!(text, "| `{subject}` |")?;
            for count in passed {
                write!(text, " {count} |")?;
            }
            writeln!(text, " {all} |")?;
        }
        Ok(())
    }

    fn head(&self, text: &mut String, first: &str, last: &str) -> std::fmt::Result {
        let kernels: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        writeln!(text, "| {first} | {} | {last} |", kernels.join(" | "))?;
        writeln!(text, "|---|{}---|", "--:|".repeat(kernels.len()))
    }
}

/// What differs between two endings of a test, if anything.
fn step<'a>(before: &'a Cell, after: &'a Cell) -> Option<Step<'a>> {
    Some(match (before, after) {
        _ if before == after => return None,
        // For another reason: nothing of the kernel was seen on either.
        (Cell::Skip(_), Cell::Skip(_)) => return None,
        (_, Cell::New(outcome)) => Step::FailsNew(outcome),
        (_, Cell::Known { reason, .. }) => Step::Fails(reason),
        (Cell::Known { reason, .. }, Cell::Pass) => Step::PassesAgain(reason),
        (Cell::Skip(reason), Cell::Pass) => Step::Runs(reason),
        (_, Cell::Skip(reason)) => Step::Skipped(reason),
        (Cell::Accident, Cell::Pass) => Step::AccidentEnds,
        (_, Cell::Accident) => Step::AccidentBegins,
        _ => Step::Other,
    })
}

impl Step<'_> {
    fn words(&self) -> String {
        match self {
            Step::Fails(reason) => format!("**fail**: {}", escaped(reason)),
            Step::FailsNew(outcome) => {
                format!("**fail**, and nobody has looked into it: {outcome}")
            }
            Step::PassesAgain(reason) => format!("pass again: {}", escaped(reason)),
            Step::AccidentEnds => "are as the test expects".to_owned(),
            Step::AccidentBegins => "are otherwise than the test expects".to_owned(),
            Step::Runs(reason) => format!("run: {}", escaped(reason)),
            Step::Skipped(reason) => format!("are skipped: {}", escaped(reason)),
            Step::Other => "end in another way".to_owned(),
        }
    }

    /// Names where behaviour changed, numbers where tests came or went.
    fn which(&self, rows: &[&Row]) -> String {
        match self {
            Step::Runs(_) | Step::Skipped(_) => subjects(rows),
            _ => names(rows),
        }
    }
}

/// The module of a test function.
fn subject(function: &str) -> &str {
    function.rsplit_once("::").map_or(function, |(subject, _)| subject)
}

/// Subjects with the number of their tests.
fn subjects(rows: &[&Row]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (function, cases) in rows.iter().flat_map(|row| &row.tests) {
        *counts.entry(subject(function)).or_default() += cases.len();
    }
    let words = counts.iter().map(|(subject, count)| format!("`{subject}` {count}"));
    words.collect::<Vec<_>>().join(", ")
}

/// Functions, with the number of cases where there are several.
fn names(rows: &[&Row]) -> String {
    let tests = rows.iter().flat_map(|row| &row.tests);
    let words = tests.map(|(function, cases)| match cases.as_slice() {
        [case] if case.is_empty() => format!("`{function}`"),
        [case] => format!("`{function}::{case}`"),
        _ => format!("`{function}` ({} cases)", cases.len()),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// As Markdown has it inside a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<").replace('*', "\\*").replace('_', "\\_")
}

#[cfg(test)]
mod tests;
