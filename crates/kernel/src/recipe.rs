//! Kernels the manifest describes as built: their source, their patches, their configuration.

use std::path::{Path, PathBuf};

use crate::{
    Error, Kernel,
    build::{self, Build, Configuration},
    fragments::{self, Fragments},
    kbuild::Kbuild,
    manifest::{Entry, Manifest, Recipe, manifest_path},
    mirror::{self, OBJECTS},
    request::Context,
    series::{self, Series},
    source::{self, SourceTree},
    workspace::{Done, Workspace, digest},
};

/// Where our own series are in a checkout.
pub const PATCHES: &str = "images/kernel/patches";

/// The kernel `name`, whose entry has a source or a base.
pub(crate) fn get(context: Context<'_>, manifest: &Manifest, name: &str) -> Result<Kernel, Error> {
    Cook::new(context, manifest, name)?.kernel()
}

/// The kernel `name` with a posted series on top of its own.
pub(crate) fn with_series(
    context: Context<'_>,
    name: &str,
    posting: &Path,
    series: &Series,
) -> Result<Kernel, Error> {
    let manifest = Manifest::read(&manifest_path(context.checkout))?;
    has_source(&manifest, name)?;
    let mut cook = Cook::new(context, &manifest, name)?;
    cook.add(posting, series);
    cook.kernel()
}

/// Whether a posted series applies to the kernel `name`; builds nothing.
pub(crate) fn check(context: Context<'_>, name: &str, series: &Series) -> Result<(), Error> {
    let manifest = Manifest::read(&manifest_path(context.checkout))?;
    has_source(&manifest, name)?;
    let mut cook = Cook::new(context, &manifest, name)?;
    cook.add(Path::new(""), series);
    let Context { cache, options, progress, .. } = context;
    let tree = source::get(cache, &cook.recipe.source, cook.entry.arch, options, progress)?;
    series::apply(&cook.patches, &tree.dir).map(drop).map_err(Error::from)
}

fn has_source(manifest: &Manifest, name: &str) -> Result<(), Error> {
    if manifest.get(name)?.packages.is_none() {
        return Ok(());
    }
    Err(Error::Input {
        what: format!("--base {name}"),
        detail:
            "it is fetched ready built, so no patch can be applied to it; give one that is built, \
                 for example `--base source` (`cargo xtask kernels` lists them), or a tree"
                .to_owned(),
    })
}

/// The name of the workspace in which the kernel `name` is built from the source `key`.
pub(crate) fn workspace_of(name: &str, key: &str) -> String {
    format!("{name}-{}", digest([key]))
}

/// Making one entry.
struct Cook<'a> {
    context: Context<'a>,
    entry: &'a Entry,
    recipe: Recipe,
    /// The name in the manifest.
    base: &'a str,
    /// What the kernel is called in reports.
    name: String,
    /// What it is made of besides its source.
    parts: Vec<String>,
    /// Our own patches, and then the posted ones.
    patches: Series,
    is_posted: bool,
}

impl<'a> Cook<'a> {
    fn new(context: Context<'a>, manifest: &'a Manifest, base: &'a str) -> Result<Self, Error> {
        let entry = manifest.get(base)?;
        let recipe = manifest.recipe(base).map_err(|detail| Error::Input {
            what: format!("kernel {base} of images/kernels.toml"),
            detail,
        })?;
        let patches = own_patches(context.checkout, &recipe.series)?;
        let (name, parts) = (base.to_owned(), recipe.series.clone());
        Ok(Cook { context, entry, recipe, base, name, parts, patches, is_posted: false })
    }

    /// Puts a posted series on top.
    fn add(&mut self, posting: &Path, series: &Series) {
        self.patches.patches.extend(series.patches.iter().cloned());
        self.patches.notes.extend(series.notes.iter().cloned());
        self.parts.push(posting.display().to_string());
        self.name = format!("{} + {}", self.base, posting.display());
        self.is_posted = true;
    }

    fn kernel(&self) -> Result<Kernel, Error> {
        let Context { cache, checkout, options, progress } = self.context;
        let fragments = Fragments::read(checkout)?;
        let merged = fragments::merged(checkout, &self.recipe.config)?;
        let configuration = Configuration::Fragments(merged);
        let source = &self.recipe.source;
        // A kernel that is built needs its source no more.
        if let Some(key) = source::locked_key(source)
            && let Some(kernel) = self.finished(&key, &configuration)?
        {
            return Ok(kernel);
        }
        let tree = source::get(cache, source, self.entry.arch, options, progress)?;
        let (workspace, mut notes) = self.workspace(&tree)?;
        let origin = [std::slice::from_ref(&tree.key), &self.parts].concat().join(" + ");
        let build = Build {
            cache,
            progress,
            name: self.name.clone(),
            origin,
            source: self.identity(&tree.key),
            workspace: &workspace,
            kbuild: workspace.kbuild(self.entry.arch, &[]),
            configuration,
            fragments: &fragments,
        };
        let kernel = build.run()?;
        notes.extend(tree.note.iter().chain(&kernel.note).cloned());
        Ok(Kernel { note: (!notes.is_empty()).then(|| notes.join("; ")), ..kernel })
    }

    /// The kernel, if it was built from the source `key` and is still in the cache.
    fn finished(&self, key: &str, configuration: &Configuration) -> Result<Option<Kernel>, Error> {
        let cache = self.context.cache;
        let place = self.place(key);
        let kbuild = Kbuild::compiling(self.entry.arch);
        kbuild.prepare_compiler(self.context.progress)?;
        let inputs = build::inputs(&self.identity(key), configuration, &kbuild)?;
        match Done::look(cache, &place, &inputs) {
            Some(done) => Kernel::cached(cache, &self.name, &done.kernel),
            None => Ok(None),
        }
    }

    /// The identity of the patched source.
    fn identity(&self, key: &str) -> String {
        let diffs = self.patches.patches.iter().map(|patch| patch.diff.as_slice());
        digest(std::iter::once(key.as_bytes()).chain(diffs))
    }

    /// The name of the workspace. All posted series on one base share one: the next rebuilds only what
    /// differs.
    fn place(&self, key: &str) -> String {
        let kind = if self.is_posted { "series-on-" } else { "" };
        format!("{kind}{}", workspace_of(self.base, key))
    }

    /// The workspace with the patched source in it, and what is to be told of the patches.
    fn workspace(&self, tree: &SourceTree) -> Result<(Workspace, Vec<String>), Error> {
        let Context { cache, progress, .. } = self.context;
        // Before anything is prepared: whether the patches apply.
        let patched = (!self.patches.patches.is_empty())
            .then(|| series::apply(&self.patches, &tree.dir))
            .transpose()?;
        let workspace = Workspace::open(cache, &self.place(&tree.key), progress)?;
        let base = self.base_workspace(&tree.key)?;
        let built: Option<PathBuf> = base.as_ref().map(|base| base.source().join(OBJECTS));
        workspace.seed(&tree.dir, built.as_deref(), progress)?;
        let Some(patched) = patched else { return Ok((workspace, Vec::new())) };
        mirror::update(&tree.dir, Some(&patched.overlay), &workspace.source(), progress)?;
        Ok((workspace, patched.notes))
    }

    /// The workspace whose objects save this one a build from nothing: of a posted series that of its
    /// base, of a variation that of the entry it varies in the end.
    fn base_workspace(&self, key: &str) -> Result<Option<Workspace>, Error> {
        let Context { cache, progress, .. } = self.context;
        let base = if self.is_posted { self.base } else { &self.recipe.root };
        if base == self.base && !self.is_posted {
            return Ok(None);
        }
        Workspace::open(cache, &workspace_of(base, key), progress).map(Some)
    }
}

/// Our own series `names`, one after the other.
pub fn own_patches(checkout: &Path, names: &[String]) -> Result<Series, Error> {
    let mut all = Series { patches: Vec::new(), base_commit: None, notes: Vec::new() };
    for name in names {
        let series = series::read(&checkout.join(PATCHES).join(name))?;
        all.patches.extend(series.patches);
        all.notes.extend(series.notes);
    }
    Ok(all)
}
