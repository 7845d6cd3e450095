//! `images/kernel/mutants.toml`: the changes, and the tests that are to notice them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use kernel::mutation::{self, ByRule, Edit};
use serde::Deserialize;

use crate::memory;

/// Where the list is in a checkout.
const LIST: &str = "images/kernel/mutants.toml";

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}; correct the file", path.display(), defects.join("\n  "))]
pub struct ListError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, each with the mutant's name.
    pub defects: Vec<String>,
}

/// One mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mutant {
    /// Its name.
    pub id: String,
    /// The change.
    pub edit: Edit,
    /// The test that is to notice it, if there is one yet.
    pub killer: Option<String>,
    /// What behaves otherwise, and how that can be seen.
    pub why: String,
}

impl Mutant {
    /// Stands for it as far as its ending depends on it.
    pub(super) fn key(&self, killer: Option<&str>) -> String {
        let Edit { file, function, find, replace } = &self.edit;
        memory::key([file, function, find, replace, killer.unwrap_or_default()])
    }
}

/// All mutants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// The kernel of `images/kernels.toml` that is changed.
    pub base: String,
    /// The mutants, those by rule last.
    pub mutants: Vec<Mutant>,
    /// How many somebody thought of.
    listed: usize,
    path: PathBuf,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    base: String,
    #[serde(rename = "mutant")]
    mutants: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Row {
    id: String,
    file: String,
    function: String,
    find: String,
    replace: String,
    killer: Option<String>,
    why: String,
}

impl List {
    /// Reads the list of a checkout.
    pub(super) fn read(checkout: &Path) -> Result<List, ListError> {
        let path = checkout.join(LIST);
        let error = |detail: String| ListError { path: path.clone(), defects: vec![detail] };
        let text = fs::read_to_string(&path).map_err(|source| error(source.to_string()))?;
        List::parse(&text, path)
    }

    fn parse(text: &str, path: PathBuf) -> Result<List, ListError> {
        let file: File = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => return Err(ListError { path, defects: vec![error.to_string()] }),
        };
        let mut defects = Vec::new();
        let mut seen = BTreeSet::new();
        for row in &file.mutants {
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if row.id.is_empty() || !row.id.chars().all(is_name) {
                defects.push(format!("{:?} is no name: a-z, 0-9 and - make one", row.id));
            }
            if !seen.insert(&row.id) {
                defects.push(format!("two mutants are called {}", row.id));
            }
            if row.why.trim().is_empty() || row.why.contains('\n') {
                defects.push(format!("{}: why is one line", row.id));
            }
        }
        if !defects.is_empty() {
            return Err(ListError { path, defects });
        }
        let mutants = file.mutants.into_iter().map(|row| {
            let Row { id, file, function, find, replace, killer, why } = row;
            Mutant { id, edit: Edit { file, function, find, replace }, killer, why }
        });
        let mutants: Vec<Mutant> = mutants.collect();
        Ok(List { base: file.base, listed: mutants.len(), mutants, path })
    }

    /// Adds mutants by rule, which nobody chose and nobody knows a killer for. They are named after file,
    /// line and number within the line.
    pub(super) fn add(&mut self, changes: Vec<ByRule>) {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for ByRule { edit, line, what } in changes {
            let file = Path::new(&edit.file).file_name().unwrap_or_default().to_string_lossy();
            let place = format!("{file}:{line}");
            let count = counts.entry(place.clone()).or_default();
            *count += 1;
            let id = format!("{place}.{count}");
            self.mutants.push(Mutant { id, edit, killer: None, why: what });
        }
    }

    /// An error unless every change can be made in the source below `root`.
    pub(super) fn check(&self, root: &Path) -> Result<(), ListError> {
        let defects = mutation::defects(root, self.mutants.iter().map(|mutant| &mutant.edit));
        self.without(defects.into_iter().map(|(at, error)| (at, error.to_string())))
    }

    /// An error unless every killer is one of `tests`.
    pub(super) fn check_killers(&self, tests: &BTreeSet<&str>) -> Result<(), ListError> {
        let unknown = self.mutants.iter().enumerate().filter_map(|(at, mutant)| {
            let killer = mutant.killer.as_deref().filter(|killer| !tests.contains(killer))?;
            Some((at, format!("no test is called {killer}")))
        });
        self.without(unknown)
    }

    /// The tests named as killers of mutants in the files of those at `places`.
    pub(super) fn killers(&self, places: &[usize]) -> BTreeSet<&str> {
        let files: BTreeSet<&str> =
            places.iter().map(|at| self.mutants[*at].edit.file.as_str()).collect();
        let of_files = self.mutants.iter().filter(|m| files.contains(m.edit.file.as_str()));
        of_files.filter_map(|mutant| mutant.killer.as_deref()).collect()
    }

    /// An error if there are any of these defects, each with its mutant's place.
    fn without(&self, defects: impl Iterator<Item = (usize, String)>) -> Result<(), ListError> {
        let defects: Vec<String> =
            defects.map(|(at, defect)| format!("{}: {defect}", self.mutants[at].id)).collect();
        if defects.is_empty() {
            Ok(())
        } else {
            Err(ListError { path: self.path.clone(), defects })
        }
    }

    /// The places of the mutants of these files (each a path or its end) with these names, all if none is
    /// given: of those by rule or of the others.
    ///
    /// # Errors
    /// A file or a name that no mutant has.
    pub(super) fn select(
        &self,
        by_rule: bool,
        files: &[String],
        ids: &[String],
    ) -> Result<Vec<usize>, String> {
        let is_of = |mutant: &Mutant, file: &String| Path::new(&mutant.edit.file).ends_with(file);
        if let Some(file) = files.iter().find(|file| !self.mutants.iter().any(|m| is_of(m, file))) {
            return Err(format!("no mutant changes {file}"));
        }
        if let Some(id) = ids.iter().find(|id| !self.mutants.iter().any(|m| m.id == **id)) {
            return Err(format!("no mutant is called {id}"));
        }
        let is_wanted = |mutant: &Mutant| {
            (files.is_empty() || files.iter().any(|file| is_of(mutant, file)))
                && (ids.is_empty() || ids.contains(&mutant.id))
        };
        let mutants = self.mutants.iter().enumerate();
        let of_kind = mutants.filter(|(at, _)| (*at >= self.listed) == by_rule);
        Ok(of_kind.filter(|(_, mutant)| is_wanted(mutant)).map(|(at, _)| at).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, file: &str) -> String {
        format!(
            "[[mutant]]\nid = \"{id}\"\nfile = \"{file}\"\nfunction = \"f\"\nfind = 'a'\n\
             replace = 'b'\nwhy = \"it is so\"\nkiller = \"a::{id}\"\n"
        )
    }

    fn parse(rows: &[String]) -> Result<List, ListError> {
        List::parse(&format!("base = \"source\"\n{}", rows.concat()), "list.toml".into())
    }

    #[test]
    fn the_checked_in_list_is_valid_and_covers_six_files() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let list = List::read(&checkout).expect("valid");
        assert!(list.mutants.len() >= 24, "{}", list.mutants.len());
        let count = |file: &str| list.select(false, &[file.to_owned()], &[]).expect("known").len();
        let files = [
            "block/bsg.c",
            "scsi_bsg.c",
            "scsi_ioctl.c",
            "virtio_scsi.c",
            "ublk_drv.c",
            "io_uring/rsrc.c",
        ];
        let counts = files.map(count);
        assert_eq!(counts.iter().sum::<usize>(), list.mutants.len());
        assert!(counts.iter().all(|count| *count >= 3), "{counts:?}");
    }

    #[test]
    fn a_name_given_twice_and_a_bad_one_are_both_told() {
        let error = parse(&[row("one", "x.c"), row("one", "y.c"), row("Two", "x.c")]);
        let text = error.expect_err("refused").to_string();
        assert!(text.contains("two mutants are called one"), "{text}");
        assert!(text.contains("\"Two\" is no name"), "{text}");
        let unknown = row("one", "x.c").replace("why", "because");
        let text = parse(&[unknown]).expect_err("refused").to_string();
        assert!(text.contains("unknown field `because`"), "{text}");
    }

    #[test]
    fn mutants_are_chosen_by_the_end_of_a_path_and_by_name() {
        let list = parse(&[row("one", "block/bsg.c"), row("two", "drivers/scsi/scsi_bsg.c")]);
        let list = list.expect("valid");
        let ids = |files: &[&str], ids: &[&str]| {
            let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
            let chosen = list.select(false, &words(files), &words(ids))?;
            Ok::<_, String>(
                chosen.into_iter().map(|at| list.mutants[at].id.clone()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(ids(&["bsg.c"], &[]).expect("known"), ["one"]);
        assert_eq!(ids(&["drivers/scsi/scsi_bsg.c"], &[]).expect("known"), ["two"]);
        assert_eq!(ids(&[], &["two"]).expect("known"), ["two"]);
        assert_eq!(ids(&[], &[]).expect("known"), ["one", "two"]);
        assert_eq!(ids(&["sg.c"], &[]).expect_err("refused"), "no mutant changes sg.c");
        assert_eq!(ids(&[], &["three"]).expect_err("refused"), "no mutant is called three");
    }

    #[test]
    fn a_killer_has_to_be_a_test() {
        let list = parse(&[row("one", "x.c"), row("two", "x.c")]).expect("valid");
        list.check_killers(&["a::one", "a::two"].into()).expect("both are tests");
        let error = list.check_killers(&["a::two"].into()).expect_err("refused").to_string();
        assert_eq!(error, "list.toml: one: no test is called a::one; correct the file");
    }

    /// What is wrong with a list of these rows, in the words a person reads.
    fn refused(text: &str) -> String {
        let error = List::parse(text, "list.toml".into()).expect_err("refused").to_string();
        assert!(
            error.starts_with("list.toml: ") && error.ends_with("; correct the file"),
            "{error}"
        );
        error
    }

    #[test]
    fn every_key_of_a_mutant_is_needed_but_its_killer() {
        let good = format!("base = \"source\"\n{}", row("one", "x.c"));
        let without = |key: &str| -> String {
            good.lines().filter(|line| !line.starts_with(key)).map(|l| format!("{l}\n")).collect()
        };
        for key in ["base", "id", "file", "function", "find", "replace", "why"] {
            let text = refused(&without(&format!("{key} =")));
            assert!(text.contains(&format!("missing field `{key}`")), "{text}");
        }
        let list = List::parse(&without("killer"), "list.toml".into()).expect("valid");
        assert_eq!(list.mutants[0].killer, None);
        assert!(refused("base = \"source\"\n").contains("missing field `mutant`"));
        assert!(refused(&format!("kernel = \"x\"\n{good}")).contains("unknown field `kernel`"));
        // Where a mistake of the syntax is.
        assert!(refused(&good.replace("find = 'a'", "find = 'a")).contains("line 6"));
    }

    #[test]
    fn reason_is_one_line_and_a_name_is_not_empty() {
        let with = |from: &str, to: &str| {
            refused(&format!("base = \"source\"\n{}", row("one", "x.c").replace(from, to)))
        };
        assert!(with("it is so", " ").contains("one: why is one line"));
        assert!(with("it is so", "it is\\nso").contains("one: why is one line"));
        assert!(with("id = \"one\"", "id = \"\"").contains("\"\" is no name"));
        assert!(with("id = \"one\"", "id = \"a_b\"").contains("\"a_b\" is no name"));
    }

    #[test]
    fn list_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = List::read(dir.path()).expect_err("there is none").to_string();
        assert!(error.contains("images/kernel/mutants.toml: No such file"), "{error}");
    }

    #[test]
    fn all_changes_without_a_place_are_told_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("x.c"), "int f(void)\n{\n\treturn a;\n}\n").expect("written");
        fs::write(dir.path().join("y.c"), "int f(void)\n{\n\treturn 1;\n}\n").expect("written");
        let list = parse(&[row("one", "x.c"), row("two", "y.c"), row("three", "z.c")]);
        let error = list.expect("valid").check(dir.path()).expect_err("refused");
        let told = "two: y.c: f has \"a\" 0 times, not once";
        assert_eq!(error.defects.len(), 2, "{error}");
        assert_eq!(error.defects[0], told);
        assert!(error.defects[1].starts_with("three: cannot read z.c: No such file"), "{error}");
        parse(&[row("one", "x.c")]).expect("valid").check(dir.path()).expect("it has its place");
    }

    #[test]
    fn mutants_by_rule_are_chosen_apart() {
        let mut list = parse(&[row("one", "x.c")]).expect("valid");
        let change = |line, what: &str| {
            let [file, function, find, replace] = ["a/y.c", "f", "1", what].map(str::to_owned);
            ByRule { edit: Edit { file, function, find, replace }, line, what: what.to_owned() }
        };
        list.add(vec![change(7, "never"), change(7, "always"), change(8, "left out")]);
        let ids = |by_rule, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let chosen = list.select(by_rule, &[], &ids).expect("known");
            chosen.into_iter().map(|at| list.mutants[at].id.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(ids(false, &[]), ["one"]);
        assert_eq!(ids(true, &[]), ["y.c:7.1", "y.c:7.2", "y.c:8.1"]);
        assert_eq!(ids(true, &["y.c:7.2"]), ["y.c:7.2"]);
        assert_eq!(list.mutants[3].why, "left out");
    }

    #[test]
    fn mutant_is_another_when_its_text_or_its_killer_is() {
        let mutant = |[file, function, find, replace]: [&str; 4], id: &str, why: &str| {
            let [file, function, find, replace] =
                [file, function, find, replace].map(str::to_owned);
            let edit = Edit { file, function, find, replace };
            Mutant { id: id.to_owned(), edit, killer: None, why: why.to_owned() }
        };
        let texts = ["a.c", "f", "x < 1", "x <= 1"];
        let known = mutant(texts, "m", "why").key(Some("t"));
        // What it is called has no part in what becomes of it.
        assert_eq!(mutant(texts, "n", "because").key(Some("t")), known);
        for at in 0..4 {
            let mut texts = texts;
            texts[at] = "other";
            assert_ne!(mutant(texts, "m", "why").key(Some("t")), known, "{at}");
        }
        assert_ne!(mutant(texts, "m", "why").key(Some("u")), known);
        assert_ne!(mutant(texts, "m", "why").key(None), known);
    }
}
