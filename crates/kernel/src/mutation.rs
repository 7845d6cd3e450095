//! Kernels that differ from another in a small change of one C function.
//!
//! One kernel has all of the changes, and its command line says which is in force. So a change costs no
//! build of its own, and every other one the build of the files that have any.

mod edit;
mod rules;
mod switched;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use host::cache::{self, at};

use self::{edit::CFile, switched::Switched};
pub use self::{
    edit::{Edit, EditError, defects, lines_of},
    rules::{ByRule, by_rule},
};
use crate::{
    Error, Kernel,
    build::{self, Build, Configuration},
    fragments::{self, Fragments},
    manifest::{Arch, Manifest, Recipe, manifest_path},
    mirror::OBJECTS,
    recipe,
    request::Context,
    source::{self, SourceTree},
    workspace::{Workspace, digest},
};

/// Where a workspace says which files an earlier build changed.
const CHANGED: &str = "changed";

/// The source of the kernel `base`, from the cache or else from the mirror.
pub fn pristine(context: Context<'_>, base: &str) -> Result<PathBuf, Error> {
    Base::find(context, base).map(|base| base.tree.dir)
}

/// The kernel that is changed, as the manifest describes it.
struct Base {
    arch: Arch,
    recipe: Recipe,
    tree: SourceTree,
}

impl Base {
    fn find(context: Context<'_>, name: &str) -> Result<Base, Error> {
        let manifest = Manifest::read(&manifest_path(context.checkout))?;
        let arch = manifest.get(name)?.arch;
        let input = |detail: String| Error::Input {
            what: format!("kernel {name} of images/kernels.toml"),
            detail,
        };
        let recipe = manifest.recipe(name).map_err(input)?;
        if recipe.root != name || !recipe.series.is_empty() {
            return Err(input("only a kernel with a source of its own is changed".to_owned()));
        }
        let Context { cache, options, progress, .. } = context;
        let tree = source::get(cache, &recipe.source, arch, options, progress)?;
        Ok(Base { arch, recipe, tree })
    }
}

/// A kernel with many changes in it, of which none or one is in force.
#[derive(Debug)]
pub struct Mutator {
    /// The kernel; without a word none of its changes is in force.
    pub kernel: Kernel,
    /// Stands for the kernel without its changes: source, configuration, compiler.
    pub world: String,
    /// The changes that the compiler did not take, by their places among those given, and what it said.
    pub refused: BTreeMap<usize, String>,
}

impl Mutator {
    /// Builds the kernel `base` with all of `edits` in it. Waits for another run that does so. A change
    /// that the compiler does not take is left out.
    ///
    /// # Errors
    /// Besides what a build ends with, a change without its place in the source.
    pub fn build(context: Context<'_>, base: &str, edits: &[Edit]) -> Result<Mutator, Error> {
        let Context { cache, checkout, progress, .. } = context;
        let Base { arch, recipe, tree } = Base::find(context, base)?;
        let name = recipe::workspace_of(base, &tree.key);
        let workspace = Workspace::open(cache, &format!("mutants-{name}"), progress)?;
        // Held while its objects are copied, if there are any.
        let built = Workspace::open(cache, &name, progress)?;
        let objects = built.source().join(OBJECTS);
        workspace.seed(&tree.dir, Some(&objects), progress)?;
        drop(built);
        let configuration = Configuration::Fragments(fragments::merged(checkout, &recipe.config)?);
        let fragments = Fragments::read(checkout)?;
        let kbuild = workspace.kbuild(arch, &[]);
        let world = build::inputs(&tree.key, &configuration, &kbuild)?;
        // An object of an interrupted build may be newer than its source and yet not be whole.
        let mut always = !workspace.is_sound();
        let known = Known::of(&workspace, &world, edits);
        let mut refused = known.read();
        loop {
            let files = Files::of(&tree.dir, edits, &refused)?;
            let build = Build {
                cache,
                progress,
                name: format!("{base} with changes"),
                origin: format!("{} + changes", tree.key),
                source: format!("{} + {}", tree.key, files.digest()),
                workspace: &workspace,
                kbuild: workspace.kbuild(arch, &[]),
                configuration: configuration.clone(),
                fragments: &fragments,
            };
            files.put(&workspace, &tree.dir, std::mem::take(&mut always))?;
            match build.run() {
                Ok(kernel) => {
                    known.write(&refused)?;
                    return Ok(Mutator { kernel, world, refused });
                }
                Err(Error::Build { what, detail, log }) => {
                    let text = fs::read_to_string(&log).map_err(at("read", &log))?;
                    let more = files.refused(&text);
                    if more.is_empty() {
                        return Err(Error::Build { what, detail, log });
                    }
                    refused.extend(more);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The word of the kernel's command line that puts a change in force, by its place among those
    /// given.
    pub fn word(change: usize) -> String {
        format!("{}={}", switched::SWITCH, number(change))
    }
}

/// What an earlier build of the same changes found out about them.
struct Known {
    path: PathBuf,
    /// Stands for the changes and the kernel.
    key: String,
}

impl Known {
    fn of(workspace: &Workspace, world: &str, edits: &[Edit]) -> Known {
        let parts = edits.iter().flat_map(|edit| {
            let Edit { file, function, find, replace } = edit;
            [file, function, find, replace].map(String::as_str)
        });
        Known {
            path: workspace.file("refused.json"),
            key: digest(std::iter::once(world).chain(parts)),
        }
    }

    /// The changes that the compiler did not take; none if nothing is known, which costs time only.
    fn read(&self) -> BTreeMap<usize, String> {
        let stored = fs::read(&self.path).ok();
        let stored: Option<(String, BTreeMap<usize, String>)> =
            stored.and_then(|text| serde_json::from_slice(&text).ok());
        stored.filter(|(key, _)| *key == self.key).map(|(_, refused)| refused).unwrap_or_default()
    }

    fn write(&self, refused: &BTreeMap<usize, String>) -> Result<(), Error> {
        let json = serde_json::to_vec(&(&self.key, refused)).expect("plain data has a JSON form");
        Ok(fs::write(&self.path, json).map_err(at("write", &self.path))?)
    }
}

/// What a change is called in a kernel: 0 is none.
fn number(change: usize) -> u32 {
    u32::try_from(change + 1).expect("fewer changes than that")
}

/// The files with changes, and one more that has the switch.
struct Files(BTreeMap<String, Switched>);

/// The file that gets the switch: part of every kernel, and itself not worth a change.
const MAIN: &str = "init/main.c";

impl Files {
    /// The files of a source with all `edits` but those refused.
    fn of(
        source: &Path,
        edits: &[Edit],
        refused: &BTreeMap<usize, String>,
    ) -> Result<Files, Error> {
        let mut changes: BTreeMap<&str, Vec<(u32, &Edit)>> = BTreeMap::new();
        changes.insert(MAIN, Vec::new());
        for (at, edit) in edits.iter().enumerate().filter(|(at, _)| !refused.contains_key(at)) {
            changes.entry(&edit.file).or_default().push((number(at), edit));
        }
        let mut files = BTreeMap::new();
        for (file, changes) in changes {
            let path = source.join(file);
            let mut text = fs::read_to_string(&path).map_err(at("read", &path))?;
            if file == MAIN {
                text.push_str(switched::SETUP);
            }
            let file = CFile::new(file, text);
            let switched = Switched::of(&file, &changes).map_err(|error| Error::Input {
                what: "a change of the kernel".to_owned(),
                detail: error.to_string(),
            })?;
            files.insert(file.name, switched);
        }
        Ok(Files(files))
    }

    fn digest(&self) -> String {
        let parts = self.0.iter().flat_map(|(file, switched)| [file.as_str(), &switched.text]);
        digest(parts)
    }

    /// Puts them into a workspace, and back what an earlier build changed and this one does not.
    /// Those that are right already only if `always`.
    fn put(&self, workspace: &Workspace, original: &Path, always: bool) -> Result<(), Error> {
        let list = workspace.file(CHANGED);
        let earlier = fs::read_to_string(&list).unwrap_or_default();
        let files: BTreeSet<&str> =
            earlier.lines().chain(self.0.keys().map(String::as_str)).collect();
        let lines: String = files.iter().flat_map(|file| [*file, "\n"]).collect();
        fs::write(&list, lines).map_err(at("write", &list))?;
        for file in files {
            let path = original.join(file);
            let place = workspace.source().join(file);
            match self.0.get(file) {
                Some(switched) => put(&place, &switched.text, always)?,
                None => {
                    let text = fs::read_to_string(&path).map_err(at("read", &path))?;
                    put(&place, &text, always)?;
                }
            }
        }
        Ok(())
    }

    /// The changes that the compiler did not take, by its messages: each is about a line, or about
    /// what is inlined into the function named before.
    fn refused(&self, log: &str) -> BTreeMap<usize, String> {
        let mut refused = BTreeMap::new();
        let mut inlining = None;
        for line in log.lines() {
            if line.contains("In function") {
                inlining = switched::number_in(line);
            }
            let Some((place, said)) = line.split_once(": error: ") else { continue };
            let number = self.change_at(place).or(inlining).and_then(|n| usize::try_from(n).ok());
            if let Some(number) = number {
                // The first message about each says most.
                refused.entry(number - 1).or_insert_with(|| said.to_owned());
            }
        }
        refused
    }

    /// The change that a place in a message, `PATH:LINE:COLUMN`, is in.
    fn change_at(&self, place: &str) -> Option<u32> {
        let mut place = place.split(':');
        let (path, line) = (place.next()?, place.next()?.parse().ok()?);
        let (_, switched) = self.0.iter().find(|(file, _)| path.ends_with(file.as_str()))?;
        switched.change_at(line)
    }
}

/// Makes a file what it has to be. A new file takes the place of one that differs, or of any if
/// `always`: the old one may be a hard link to the original. Its time is now, so that what was built from
/// the old one is built again.
fn put(path: &Path, text: &str, always: bool) -> Result<(), cache::Error> {
    if !always && fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let aside = path.with_extension("new");
    fs::write(&aside, text).map_err(at("write", &aside))?;
    fs::rename(&aside, path).map_err(at("rename into", path))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, time::SystemTime};

    use super::*;

    const TEXT: &str = "int f(void)\n{\n\treturn 1;\n}\n";

    fn edit(find: &str) -> Edit {
        let [file, function, find, replace] = ["a.c", "f", find, "2"].map(str::to_owned);
        Edit { file, function, find, replace }
    }

    /// A source of two files.
    fn source() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("init")).expect("made");
        for (file, text) in [(MAIN, ""), ("a.c", TEXT)] {
            fs::write(dir.path().join(file), text).expect("written");
        }
        dir
    }

    #[test]
    fn a_file_that_differs_is_replaced_and_never_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let [original, copy] = ["a.c", "b.c"].map(|name| dir.path().join(name));
        fs::write(&original, TEXT).expect("written");
        let opened = fs::File::options().append(true).open(&original).expect("opened");
        opened.set_modified(SystemTime::UNIX_EPOCH).expect("dated");
        fs::hard_link(&original, &copy).expect("linked");
        let mtime = || fs::metadata(&copy).expect("there").mtime();
        put(&copy, TEXT, false).expect("put");
        assert_eq!(mtime(), 0, "what is right is left alone");
        put(&copy, "other", false).expect("put");
        assert_eq!(fs::read_to_string(&original).expect("read"), TEXT);
        assert_eq!(fs::read_to_string(&copy).expect("read"), "other");
        assert!(mtime() > 0, "make has to see that it changed");
        let present = fs::metadata(&copy).expect("there").ino();
        put(&copy, "other", true).expect("put");
        assert_ne!(fs::metadata(&copy).expect("there").ino(), present);
    }

    #[test]
    fn what_the_compiler_says_is_of_a_change_or_of_none() {
        let dir = source();
        let edits = [edit("1"), edit("return")];
        let files = Files::of(dir.path(), &edits, &BTreeMap::new()).expect("read");
        let said = "../a.c:9:2: error: expected expression\n../a.c:9:9: error: and so on\n\
                    ../a.c:1:2: error: of none\n../a.c:4:2: warning: a warning\nmake: *** Error 1\n";
        let refused = files.refused(said);
        assert_eq!(refused, BTreeMap::from([(1, "expected expression".to_owned())]));
        let said = "In function ‘f__mutant_1’,\n    inlined from ‘f’ at ../a.c:15:2:\n\
                    ../b.h:7:3: error: size\nIn function ‘g’:\n../b.h:7:3: error: other\n";
        assert_eq!(files.refused(said), BTreeMap::from([(0, "size".to_owned())]));
        let others = Files::of(dir.path(), &edits, &refused).expect("read");
        assert!(others.0["a.c"].text.contains("f__mutant_1"));
        assert!(!others.0["a.c"].text.contains("f__mutant_2"));
        assert_ne!(others.digest(), files.digest());
    }

    #[test]
    fn a_change_without_its_place_is_named() {
        let dir = source();
        let error = Files::of(dir.path(), &[edit("3")], &BTreeMap::new()).err().expect("refused");
        assert_eq!(error.to_string(), "a change of the kernel: a.c: f has \"3\" 0 times, not once");
    }
}
