//! `images/kernel/unreachable.toml`: lines that no test can reach, each with its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use kernel::mutation;
use serde::Deserialize;

use super::Error;

/// Where the list is in a checkout.
const LIST: &str = "images/kernel/unreachable.toml";

/// The list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unreachable {
    #[serde(rename = "unreachable")]
    rows: Vec<Row>,
}

/// Some lines of a function.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Row {
    file: String,
    function: String,
    find: String,
    reason: String,
    /// Some runs reach them.
    #[serde(default)]
    by_luck: bool,
}

/// What the list says of one file of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfFile {
    /// Its lines, with and without code, and why they cannot be reached.
    pub(crate) reasons: BTreeMap<u32, String>,
    /// Those of them that are reached now and then, which is no mistake of the list.
    pub(crate) by_luck: BTreeSet<u32>,
    /// What has no place in this kernel's source.
    pub(super) strays: Vec<String>,
}

impl Unreachable {
    /// Reads the list of a checkout.
    pub fn read(checkout: &Path) -> Result<Unreachable, Error> {
        let path = checkout.join(LIST);
        let error = |detail: String| Error::Unreachable { path: path.clone(), detail };
        let text = fs::read_to_string(&path).map_err(|source| error(source.to_string()))?;
        let list = toml::from_str(&text).map_err(|source| error(source.to_string()));
        let list: Unreachable = list?;
        match list.rows.iter().find(|row| row.reason.trim().is_empty()) {
            Some(row) => Err(error(format!("{}: a line without a reason", row.function))),
            None => Ok(list),
        }
    }

    /// What it says of a file with this text.
    pub(crate) fn of(&self, file: &str, text: &str) -> OfFile {
        let mut of_file = OfFile::default();
        for row in self.rows.iter().filter(|row| row.file == file) {
            match mutation::lines_of(text, file, &row.function, &row.find) {
                Ok(lines) => {
                    for line in lines.map(|line| u32::try_from(line).expect("files are short")) {
                        of_file.reasons.insert(line, row.reason.clone());
                        if row.by_luck {
                            of_file.by_luck.insert(line);
                        }
                    }
                }
                Err(error) => of_file.strays.push(error.to_string()),
            }
        }
        of_file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "int f(void)\n{\n\tif (x)\n\t\treturn -EIO;\n\treturn 0;\n}\n";

    fn list(text: &str) -> Result<Unreachable, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(LIST);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
        Unreachable::read(dir.path()).map_err(|error| error.to_string())
    }

    fn row(find: &str, reason: &str) -> String {
        format!(
            "[[unreachable]]\nfile = 'a.c'\nfunction = 'f'\nfind = '{find}'\nreason = '{reason}'\n"
        )
    }

    #[test]
    fn lines_have_their_reason_and_strays_are_told() {
        let lucky = row("return 0;", "x") + "by-luck = true\n";
        let list = list(&[row("return -EIO;", "no x"), row("return 1;", "so"), lucky].concat());
        let of_file = list.clone().expect("valid").of("a.c", TEXT);
        let reasons = [(4, "no x".to_owned()), (5, "x".to_owned())];
        assert_eq!((of_file.reasons, of_file.by_luck), (reasons.into(), [5].into()));
        assert_eq!(of_file.strays, ["a.c: f has \"return 1;\" 0 times, not once"]);
        assert_eq!(list.expect("valid").of("b.c", TEXT), OfFile::default());
    }

    #[test]
    fn list_without_a_reason_or_with_another_key_is_refused() {
        let error = list(&row("return 0;", " ")).expect_err("refused");
        assert!(error.contains("f: a line without a reason"), "{error}");
        let error = list(&row("return 0;", "so").replace("reason", "why")).expect_err("refused");
        assert!(error.contains("unknown field `why`"), "{error}");
    }

    #[test]
    fn the_checked_in_list_can_be_read() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert!(!Unreachable::read(&checkout).expect("valid").rows.is_empty());
    }
}
