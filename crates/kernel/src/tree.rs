//! Kernels of source trees that are the user's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use host::cache::at;

use crate::{
    Error, Kernel,
    build::{Build, Configuration},
    fragments::{self, Fragments},
    manifest::{Manifest, manifest_path},
    mirror,
    request::{Context, STOCK},
    series::{self, Series},
    workspace::{Workspace, digest},
};

/// The value of a configuration that means the bench's own.
pub const OWN_CONFIG: &str = "bench";
/// The bench's own fragments, for trees without a configuration.
const OWN_FRAGMENTS: [&str; 3] = ["machine", "required", "suite"];

/// A source tree of the user's, which is never written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its root.
    pub dir: PathBuf,
    /// `VARIABLE=VALUE` words for make. With `O=DIR` the build is the user's own, in that directory.
    pub variables: Vec<String>,
    /// A configuration instead of the tree's `.config`; [`OWN_CONFIG`] for the bench's own.
    pub config: Option<PathBuf>,
}

/// The kernel of a user's tree, with a posted series on top if there is one.
pub(crate) fn get(
    context: Context<'_>,
    tree: &Tree,
    posted: Option<(&Path, &Series)>,
) -> Result<Kernel, Error> {
    let Context { cache, checkout, progress, .. } = context;
    let dir = fs::canonicalize(&tree.dir).map_err(|error| Error::Input {
        what: tree.dir.display().to_string(),
        detail: format!("{error}; give the top directory of a kernel source tree"),
    })?;
    let label = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let identity = digest([dir.display().to_string(), tree.variables.join(" ")]);
    let kind = if posted.is_some() { "series-on-tree" } else { "tree" };
    let workspace = Workspace::open(cache, &format!("{kind}-{label}-{identity}"), progress)?;
    // Before anything is copied: whether the patches apply.
    let patched = posted.map(|(_, series)| series::apply(series, &dir)).transpose()?;
    let arch = Manifest::read(&manifest_path(checkout))?.get(STOCK)?.arch;
    let mut kbuild = workspace.kbuild(arch, &tree.variables);
    // Before anything is copied, too.
    kbuild.prepare_compiler(progress)?;
    let mut notes = patched.as_ref().map_or_else(Vec::new, |patched| patched.notes.clone());
    let overlay = patched.as_ref().map(|patched| &patched.overlay);
    let own_objects = tree.variables.iter().find_map(|word| word.strip_prefix("O="));
    let configured = match own_objects {
        Some(objects) if posted.is_some() => {
            return Err(Error::Input {
                what: format!("--make O={objects}"),
                detail: "a series is built on a copy of the tree, in the cache; leave O= out"
                    .to_owned(),
            });
        }
        Some(objects) => {
            kbuild.source.clone_from(&dir);
            kbuild.objects = std::path::absolute(objects).map_err(at("resolve", &dir))?;
            kbuild.variables.retain(|word| !word.starts_with("O="));
            workspace.begin()?;
            kbuild.objects.join(".config")
        }
        None => {
            let changes = mirror::update(&dir, overlay, &workspace.source(), progress)?;
            if !changes.is_empty() {
                progress.note(&format!("{}: {changes}", dir.display()));
                workspace.begin()?;
            }
            notes.extend(changes.notes);
            dir.join(".config")
        }
    };
    let fragments = Fragments::read(checkout)?;
    let (configuration, note) = configuration(checkout, tree, &configured)?;
    let mut name = tree.dir.display().to_string();
    if let Some((posting, _)) = posted {
        name.push_str(&format!(" + {}", posting.display()));
    }
    let build = Build {
        cache,
        progress,
        name,
        origin: dir.display().to_string(),
        source: dir.display().to_string(),
        workspace: &workspace,
        kbuild,
        configuration,
        fragments: &fragments,
    };
    let kernel = build.run()?;
    notes.extend(note.into_iter().chain(kernel.note.clone()));
    Ok(Kernel { note: (!notes.is_empty()).then(|| notes.join("; ")), ..kernel })
}

/// The configuration for a tree: the one given, the tree's own, or the bench's.
fn configuration(
    checkout: &Path,
    tree: &Tree,
    configured: &Path,
) -> Result<(Configuration, Option<String>), Error> {
    let own = || {
        let names = OWN_FRAGMENTS.map(str::to_owned);
        fragments::merged(checkout, &names).map(Configuration::Fragments)
    };
    let whole = |path: &Path| {
        let text = fs::read_to_string(path).map_err(at("read", path))?;
        Ok::<_, Error>(Configuration::Whole { from: path.to_owned(), text })
    };
    match &tree.config {
        Some(name) if name == Path::new(OWN_CONFIG) => Ok((own()?, None)),
        Some(path) => Ok((whole(path)?, None)),
        None if configured.exists() => Ok((whole(configured)?, None)),
        None => {
            let note = format!(
                "{} has no .config: the bench's own small configuration is used",
                tree.dir.display()
            );
            Ok((own()?, Some(note)))
        }
    }
}

#[cfg(test)]
mod tests;
