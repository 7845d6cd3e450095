//! `images/kernel/equivalent.toml`: changes by rule that nobody can see, each with its reason.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kernel::mutation::{self, ByRule};
use serde::Deserialize;

use super::ListError;

/// Where the list is in a checkout.
const LIST: &str = "images/kernel/equivalent.toml";

/// The list.
#[derive(Clone, Debug)]
pub(super) struct Equivalent {
    rows: Vec<Row>,
    path: PathBuf,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(rename = "equivalent")]
    rows: Vec<Row>,
}

/// Some changes of some lines.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Row {
    file: String,
    function: String,
    find: String,
    /// In the words of `--list`.
    changes: Vec<String>,
    reason: String,
}

impl Row {
    /// Takes out its changes of this text. An error if one of them is not there.
    fn take(&self, text: &str, all: &mut Vec<ByRule>) -> Result<(), String> {
        let Row { file, function, find, changes, .. } = self;
        let lines = mutation::lines_of(text, file, function, find).map_err(|e| e.to_string())?;
        let is_there =
            |change: &ByRule| usize::try_from(change.line).is_ok_and(|line| lines.contains(&line));
        for what in changes {
            let before = all.len();
            all.retain(|change| !is_there(change) || change.what != *what);
            if all.len() == before {
                return Err(format!("{file}: {function}: no rule makes {what:?} of {find:?}"));
            }
        }
        Ok(())
    }
}

impl Equivalent {
    /// Reads the list of a checkout.
    pub(super) fn read(checkout: &Path) -> Result<Self, ListError> {
        let path = checkout.join(LIST);
        let error = |detail: String| ListError { path: path.clone(), defects: vec![detail] };
        let text = fs::read_to_string(&path).map_err(|source| error(source.to_string()))?;
        let File { rows } = toml::from_str(&text).map_err(|source| error(source.to_string()))?;
        match rows.iter().find(|row| row.reason.trim().is_empty() || row.changes.is_empty()) {
            Some(row) => {
                Err(error(format!("{}: neither change nor reason is empty", row.function)))
            }
            None => Ok(Equivalent { rows, path }),
        }
    }

    /// An error unless every change can be made by rule in the source below `root`.
    pub(super) fn check(&self, root: &Path) -> Result<(), ListError> {
        let files: BTreeSet<&str> = self.rows.iter().map(|row| row.file.as_str()).collect();
        for file in files {
            let text = fs::read_to_string(root.join(file));
            let text = text.map_err(|error| self.wrong(vec![format!("{file}: {error}")]))?;
            self.take((file, &text), &[], &mut mutation::by_rule(file, &text, &[]))?;
        }
        Ok(())
    }

    /// Takes out of the changes of a file with this text those that nobody can see.
    ///
    /// # Errors
    /// One that is listed is not among them, though its function is one of `functions` or these are all.
    pub(super) fn take(
        &self,
        (file, text): (&str, &str),
        functions: &[String],
        changes: &mut Vec<ByRule>,
    ) -> Result<(), ListError> {
        let is_asked_for = |row: &&Row| {
            row.file == file && (functions.is_empty() || functions.contains(&row.function))
        };
        let rows = self.rows.iter().filter(is_asked_for);
        let defects: Vec<String> = rows.filter_map(|row| row.take(text, changes).err()).collect();
        match defects.is_empty() {
            true => Ok(()),
            false => Err(self.wrong(defects)),
        }
    }

    fn wrong(&self, defects: Vec<String>) -> ListError {
        ListError { path: self.path.clone(), defects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "int f(int a)\n{\n\tif (a)\n\t\treturn -EINVAL;\n\tif (a > 1)\n\t\tg(a);\n\treturn 0;\n}\n";

    /// What is left of the changes by rule, line and words, or what is wrong.
    fn left(rows: &str, functions: &[String]) -> Result<Vec<(u32, String)>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(LIST);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, rows).expect("written");
        let list = Equivalent::read(dir.path()).map_err(|error| error.defects.concat())?;
        let mut changes = mutation::by_rule("a.c", TEXT, functions);
        list.take(("a.c", TEXT), functions, &mut changes)
            .map_err(|error| error.defects.concat())?;
        Ok(changes.into_iter().map(|change| (change.line, change.what)).collect())
    }

    fn row(find: &str, changes: &str, reason: &str) -> String {
        format!(
            "[[equivalent]]\nfile = 'a.c'\nfunction = 'f'\nfind = '{find}'\nchanges = {changes}\n\
             reason = '{reason}'\n"
        )
    }

    #[test]
    fn listed_changes_of_a_line_are_left_out_and_no_others() {
        let all = left("equivalent = []", &[]).expect("valid");
        let rest = left(&row("if (a > 1)", "['never', '>= for >']", "so"), &[]).expect("valid");
        let taken: Vec<_> = all.iter().filter(|one| !rest.contains(one)).collect();
        assert_eq!(taken, [&(5, "never".to_owned()), &(5, ">= for >".to_owned())]);
        assert!(rest.contains(&(3, "never".to_owned())), "{rest:?}");
    }

    #[test]
    fn whole_list_is_held_against_the_source() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(LIST);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, row("if (a)", "['never']", "so")).expect("written");
        let list = Equivalent::read(dir.path()).expect("valid");
        let error = list.check(dir.path()).expect_err("there is no a.c");
        assert!(error.defects[0].starts_with("a.c: No such file"), "{error}");
        fs::write(dir.path().join("a.c"), TEXT).expect("written");
        list.check(dir.path()).expect("it has its place");
        fs::write(dir.path().join("a.c"), TEXT.replace("(a)", "(b)")).expect("written");
        list.check(dir.path()).expect_err("its place is gone");
    }

    #[test]
    fn what_no_rule_makes_is_a_mistake_of_the_list() {
        let error = left(&row("if (a)", "['left out']", "so"), &[]).expect_err("refused");
        assert_eq!(error, "a.c: f: no rule makes \"left out\" of \"if (a)\"");
        let error = left(&row("if (b)", "['never']", "so"), &[]).expect_err("refused");
        assert_eq!(error, "a.c: f has \"if (b)\" 0 times, not once");
        left(&row("if (b)", "['never']", "so"), &["g".to_owned()]).expect("it is not asked for");
        let error = left(&row("if (a)", "['never']", ""), &[]).expect_err("refused");
        assert_eq!(error, "f: neither change nor reason is empty");
    }
}
