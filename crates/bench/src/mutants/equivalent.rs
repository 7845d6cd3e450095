//! `images/kernel/equivalent.toml`: changes by rule that nobody can see, each with its reason.

use std::{fs, path::Path};

use kernel::mutation::{self, ByRule};
use serde::Deserialize;

use super::ListError;

/// Where the list is in a checkout.
const LIST: &str = "images/kernel/equivalent.toml";

/// The list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Equivalent {
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
        let list: Equivalent = toml::from_str(&text).map_err(|source| error(source.to_string()))?;
        match list.rows.iter().find(|row| row.reason.trim().is_empty() || row.changes.is_empty()) {
            Some(row) => {
                Err(error(format!("{}: neither change nor reason is empty", row.function)))
            }
            None => Ok(list),
        }
    }

    /// Takes out of the changes of a file with this text those that nobody can see.
    ///
    /// # Errors
    /// One that is listed is not among them, though its function is one of `functions` or these are all.
    pub(super) fn take(
        &self,
        checkout: &Path,
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
            false => Err(ListError { path: checkout.join(LIST), defects }),
        }
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
        list.take(dir.path(), ("a.c", TEXT), functions, &mut changes)
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
