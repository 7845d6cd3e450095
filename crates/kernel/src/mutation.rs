//! Kernels that differ from a built one in a small change of one C function.
//!
//! They are built one after the other in a workspace of their own: the files that changes touch are put
//! right, one of them is changed, and make does what follows from that. Nothing is kept but the objects.

mod edit;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use host::cache::{self, at};

pub use self::edit::{Edit, EditError, lines_of};
use crate::{
    Error, Kernel,
    build::{self, Build, Configuration},
    fragments::{self, Fragments},
    manifest::{Arch, Manifest, Recipe, manifest_path},
    mirror::OBJECTS,
    recipe,
    request::{self, Context, Wanted},
    source::{self, SourceTree},
    workspace::{Done, Workspace},
};

/// What the file of a finished build says in this workspace: that nothing was left half done.
const FINISHED: &str = "finished";

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

/// Builds changed kernels.
#[derive(Debug)]
pub struct Mutator {
    /// The kernel without a change.
    pub base: Kernel,
    arch: Arch,
    tree: SourceTree,
    configuration: Configuration,
    fragments: Fragments,
    workspace: Workspace,
    files: BTreeSet<String>,
}

impl Mutator {
    /// Gets the kernel `base`, and a place to build changes of `files` in. Waits for another run that
    /// does so.
    pub fn open(
        context: Context<'_>,
        base: &str,
        files: BTreeSet<String>,
    ) -> Result<Mutator, Error> {
        let Context { cache, checkout, progress, .. } = context;
        let kernel = request::get(context, &Wanted::Named(base.to_owned()))?;
        let Base { arch, recipe, tree } = Base::find(context, base)?;
        let name = recipe::workspace_of(base, &tree.key);
        let workspace = Workspace::open(cache, &format!("mutants-{name}"), progress)?;
        // Held while its objects are copied.
        let built = Workspace::open(cache, &name, progress)?;
        let objects = built.source().join(OBJECTS);
        workspace.seed(&tree.dir, Some(&objects), progress)?;
        Ok(Mutator {
            base: kernel,
            arch,
            tree,
            configuration: Configuration::Fragments(fragments::merged(checkout, &recipe.config)?),
            fragments: Fragments::read(checkout)?,
            workspace,
            files,
        })
    }

    /// The kernel with one change, called `name` in reports. It lasts until the next one is built.
    pub fn build(&self, context: Context<'_>, name: &str, edit: &Edit) -> Result<Kernel, Error> {
        let build = Build {
            cache: context.cache,
            progress: context.progress,
            name: name.to_owned(),
            origin: format!("{} + {name}", self.base.origin),
            source: self.tree.key.clone(),
            workspace: &self.workspace,
            kbuild: self.workspace.kbuild(self.arch, &[]),
            configuration: self.configuration.clone(),
            fragments: &self.fragments,
        };
        // An object of an interrupted build may be newer than its source and yet not be whole.
        let is_sound = self.workspace.done(FINISHED).is_some();
        self.workspace.begin()?;
        let mut files = self.files.clone();
        files.insert(edit.file.clone());
        for file in &files {
            let change = (*file == edit.file).then_some(edit);
            put(&self.tree.dir, &self.workspace.source(), file, change, !is_sound)
                .map_err(|error| error.of(name))?;
        }
        build.kbuild.prepare(context.progress)?;
        build.configure()?;
        build.make(&["vmlinux"], &[], &format!("building {name}"))?;
        let kernel = String::new();
        self.workspace.finish(&Done { inputs: FINISHED.to_owned(), kernel })?;
        let image = self.workspace.file("vmlinux");
        build::strip(&self.workspace.source().join(OBJECTS).join("vmlinux"), &image)?;
        let (name, origin) = (build.name, build.origin);
        Ok(Kernel { name, origin, image, note: None, debug: None, ..self.base.clone() })
    }
}

/// Why a file of a workspace cannot be put right.
#[derive(Debug)]
enum PutError {
    File(cache::Error),
    Edit(EditError),
}

impl PutError {
    /// The error for the kernel `name`.
    fn of(self, name: &str) -> Error {
        match self {
            PutError::File(error) => error.into(),
            PutError::Edit(error) => {
                Error::Input { what: name.to_owned(), detail: error.to_string() }
            }
        }
    }
}

/// Makes a file of the copy what it is in the original, with a change if there is one. A new file takes
/// the place of one that differs, or of any if `always`: the old one may be a hard link to the
/// original. Its time is now, so that what was built from the old one is built again.
fn put(
    original: &Path,
    copy: &Path,
    file: &str,
    change: Option<&Edit>,
    always: bool,
) -> Result<(), PutError> {
    let path = original.join(file);
    let mut text = fs::read_to_string(&path).map_err(|e| PutError::File(at("read", &path)(e)))?;
    if let Some(edit) = change {
        text = edit.apply(&text).map_err(PutError::Edit)?;
    }
    let path = copy.join(file);
    if !always && fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let aside = path.with_extension("new");
    fs::write(&aside, text).map_err(|error| PutError::File(at("write", &aside)(error)))?;
    fs::rename(&aside, &path).map_err(|error| PutError::File(at("rename into", &path)(error)))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, time::SystemTime};

    use super::*;

    const TEXT: &str = "int f(void)\n{\n\treturn 1;\n}\n";

    /// An original file of long ago, and a copy of its directory with a hard link to it.
    fn trees() -> (tempfile::TempDir, tempfile::TempDir) {
        let [original, copy] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let file = original.path().join("a.c");
        fs::write(&file, TEXT).expect("written");
        let opened = fs::File::options().append(true).open(&file).expect("opened");
        opened.set_modified(SystemTime::UNIX_EPOCH).expect("dated");
        fs::hard_link(&file, copy.path().join("a.c")).expect("linked");
        (original, copy)
    }

    fn edit(find: &str) -> Edit {
        let [file, function, find, replace] = ["a.c", "f", find, "2"].map(str::to_owned);
        Edit { file, function, find, replace }
    }

    #[test]
    fn a_change_comes_and_goes_and_never_reaches_the_original() {
        let (original, copy) = trees();
        let (source, file) = (original.path(), copy.path().join("a.c"));
        let put_it = |change, always| {
            put(source, copy.path(), "a.c", change, always).expect("put");
            let present = fs::metadata(&file).expect("there");
            (fs::read_to_string(&file).expect("read"), present.ino(), present.mtime() > 0)
        };
        let (text, link, is_new) = put_it(None, false);
        assert_eq!((text.as_str(), is_new), (TEXT, false), "what is right is left alone");

        let change = edit("1");
        let (text, changed, is_new) = put_it(Some(&change), false);
        assert_eq!((text, is_new), (TEXT.replace('1', "2"), true));
        assert_ne!(changed, link);
        assert_eq!(fs::read_to_string(source.join("a.c")).expect("read"), TEXT);

        let (text, restored, is_new) = put_it(None, false);
        assert_eq!((text.as_str(), is_new), (TEXT, true), "make has to see that it changed");
        assert_eq!(put_it(None, false).1, restored);
        assert_ne!(put_it(None, true).1, restored, "after an interrupted build");
    }

    #[test]
    fn a_change_without_its_place_names_the_kernel_and_changes_nothing() {
        let (original, copy) = trees();
        let refused = put(original.path(), copy.path(), "a.c", Some(&edit("3")), true);
        let error = refused.expect_err("the text is not there").of("m");
        assert_eq!(error.to_string(), "m: a.c: f has \"3\" 0 times, not once");
        assert_eq!(fs::read_to_string(copy.path().join("a.c")).expect("read"), TEXT);
    }
}
