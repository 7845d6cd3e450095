//! Programs of the kernel's own tests (`tools/testing/selftests`), compiled from the source of a kernel that is built.
//!
//! They are linked statically, to run in a guest that has no libraries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use host::cache::at;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    kbuild::Kbuild,
    manifest::{Arch, Manifest, Source, manifest_path},
    recipe::workspace_of,
    request::Context,
    source,
    workspace::Workspace,
};

/// Which of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Selftest {
    /// A kernel of `images/kernels.toml` that is built, whose source has them.
    pub kernel: String,
    /// The directory below `tools/testing/selftests`.
    pub directory: String,
}

/// What identifies the source they are compiled from, as far as the manifest says it.
pub fn identity(checkout: &Path, selftest: &Selftest) -> Result<Option<String>, Error> {
    let (_, source) = source_of(checkout, selftest)?;
    Ok(source::locked_key(&source))
}

/// Compiles `programs` as their Makefile has it, with the headers and libraries of the packages unpacked in `root`, and
/// puts them into its `usr/bin`. Says what the reader of a report must know of the source.
pub fn build(
    context: Context<'_>,
    selftest: &Selftest,
    programs: &[String],
    root: &Path,
) -> Result<Option<String>, Error> {
    let Context { cache, checkout, options, progress } = context;
    let (arch, source) = source_of(checkout, selftest)?;
    let tree = source::get(cache, &source, arch, options, progress)?;
    let workspace = Workspace::open(cache, &workspace_of("selftests", &tree.key), progress)?;
    let made = |name: &str| {
        let dir = workspace.file(name);
        fs::create_dir_all(&dir).map_err(at("make", &dir)).map(|()| dir)
    };
    let headers = Kbuild {
        source: tree.dir.clone(),
        objects: made("headers")?,
        ..workspace.kbuild(arch, &[])
    };
    headers.prepare(progress)?;
    headers.make(&["headers"], &[], "making the kernel's headers", workspace.lock(), progress)?;

    let tests = Kbuild {
        source: tree.dir.join("tools/testing/selftests").join(&selftest.directory),
        objects: made(&selftest.directory)?,
        ..headers.clone()
    };
    // Words for the compiler; the Makefile has its own besides.
    let include = [headers.objects.join("usr/include"), root.join("usr/include")];
    let include = include.map(|dir| format!("-I{}", dir.display())).join(" ");
    let libraries = root.join("usr/lib").join(arch.libraries());
    let link = format!("-static -L{}", libraries.display());
    let environment = [
        ("OUTPUT", tests.objects.clone()),
        ("CFLAGS", PathBuf::from(include)),
        ("LDFLAGS", PathBuf::from(link)),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_path()));
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin).map_err(at("make", &bin))?;
    for program in programs {
        let path = tests.objects.join(program);
        // Nothing tells make that the packages are others than last time.
        if path.exists() {
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
        let target = path.display().to_string();
        let what = format!("compiling {program} of the kernel's own tests");
        tests.make(&[&target], &environment, &what, workspace.lock(), progress)?;
        let to = bin.join(program);
        fs::copy(&path, &to).map_err(at("copy to", &to))?;
    }
    Ok(tree.note)
}

fn source_of(checkout: &Path, selftest: &Selftest) -> Result<(Arch, Source), Error> {
    let manifest = Manifest::read(&manifest_path(checkout))?;
    let arch = manifest.get(&selftest.kernel)?.arch;
    let recipe = manifest.recipe(&selftest.kernel).map_err(|detail| Error::Input {
        what: format!("kernel {} of images/kernels.toml", selftest.kernel),
        detail,
    })?;
    Ok((arch, recipe.source))
}
