//! Kernels the manifest describes as built: their source, their patches, their configuration.

use std::path::{Path, PathBuf};

use crate::{
    Error, Kernel,
    build::{Build, Configuration},
    fragments::{self, Fragments},
    manifest::{Entry, Manifest, Recipe, manifest_path},
    mirror::{self, OBJECTS},
    request::Context,
    series::{self, Series},
    source::{self, SourceTree},
    workspace::{Workspace, digest},
};

/// Where our own series are in a checkout.
pub const PATCHES: &str = "images/kernel/patches";

/// The kernel `name`, whose entry has a source or a base.
pub(crate) fn get(context: Context<'_>, manifest: &Manifest, name: &str) -> Result<Kernel, Error> {
    Cook::new(context, manifest, name)?.kernel(None)
}

/// The kernel `name` with a posted series on top of its own.
pub(crate) fn with_series(
    context: Context<'_>,
    name: &str,
    posting: &Path,
    series: &Series,
) -> Result<Kernel, Error> {
    let manifest = Manifest::read(&manifest_path(context.checkout))?;
    let entry = manifest.get(name)?;
    if entry.packages.is_some() {
        return Err(Error::Input {
            what: format!("--base {name}"),
            detail: "it is fetched ready built, so no patch can be applied to it; give one that is \
                     built, for example `--base source` (`cargo xtask kernels` lists them), or a tree"
                .to_owned(),
        });
    }
    Cook::new(context, &manifest, name)?.kernel(Some((posting, series)))
}

/// Making one entry.
struct Cook<'a> {
    context: Context<'a>,
    name: &'a str,
    entry: &'a Entry,
    recipe: Recipe,
    tree: SourceTree,
    /// The patches of the entry's own series.
    own: Series,
}

impl<'a> Cook<'a> {
    fn new(context: Context<'a>, manifest: &'a Manifest, name: &'a str) -> Result<Self, Error> {
        let entry = manifest.get(name)?;
        let recipe = manifest.recipe(name).map_err(|detail| Error::Input {
            what: format!("kernel {name} of images/kernels.toml"),
            detail,
        })?;
        let Context { cache, options, progress, .. } = context;
        let tree = source::get(cache, &recipe.source, entry.arch, options, progress)?;
        let own = own_patches(context.checkout, &recipe.series)?;
        Ok(Cook { context, name, entry, recipe, tree, own })
    }

    /// The kernel, with a posted series on top if there is one.
    fn kernel(&self, posted: Option<(&Path, &Series)>) -> Result<Kernel, Error> {
        let Context { cache, checkout, progress, .. } = self.context;
        let mut patches = self.own.clone();
        let mut origin = [vec![self.tree.key.clone()], self.recipe.series.clone()].concat();
        let mut name = self.name.to_owned();
        if let Some((posting, series)) = posted {
            patches.patches.extend(series.patches.iter().cloned());
            patches.notes.extend(series.notes.iter().cloned());
            origin.push(posting.display().to_string());
            name = format!("{name} + {}", posting.display());
        }
        let (workspace, mut notes) = self.workspace(posted.is_some(), &patches)?;
        let fragments = Fragments::read(checkout)?;
        let diffs = patches.patches.iter().map(|patch| patch.diff.as_slice());
        let build = Build {
            cache,
            progress,
            name,
            origin: origin.join(" + "),
            source: digest(std::iter::once(self.tree.key.as_bytes()).chain(diffs)),
            workspace: &workspace,
            kbuild: workspace.kbuild(self.entry.arch, &[]),
            configuration: Configuration::Fragments(fragments::merged(
                checkout,
                &self.recipe.config,
            )?),
            fragments: &fragments,
        };
        let kernel = build.run()?;
        notes.extend(self.tree.note.iter().chain(&kernel.note).cloned());
        Ok(Kernel { note: (!notes.is_empty()).then(|| notes.join("; ")), ..kernel })
    }

    /// The workspace with the patched source in it, and what is to be told of the patches. All posted
    /// series on one base share a workspace: the next one rebuilds only what differs.
    fn workspace(
        &self,
        is_posted: bool,
        patches: &Series,
    ) -> Result<(Workspace, Vec<String>), Error> {
        let Context { cache, progress, .. } = self.context;
        // Before anything is prepared: whether the patches apply.
        let patched = (!patches.patches.is_empty())
            .then(|| series::apply(patches, &self.tree.dir))
            .transpose()?;
        let use_ = if is_posted { "series-on-" } else { "" };
        let key = digest([&self.tree.key]);
        let workspace = Workspace::open(cache, &format!("{use_}{}-{key}", self.name), progress)?;
        let is_root = self.recipe.root == self.name && !is_posted;
        let root = match is_root {
            true => None,
            false => Some(self.root_workspace(&key, is_posted)?),
        };
        let built: Option<PathBuf> = root.as_ref().map(|root| root.source().join(OBJECTS));
        workspace.seed(&self.tree.dir, built.as_deref(), progress)?;
        let Some(patched) = patched else { return Ok((workspace, Vec::new())) };
        let overlay = Some(&patched.overlay);
        mirror::update(&self.tree.dir, overlay, &workspace.source(), progress)?;
        Ok((workspace, patched.notes))
    }

    /// The workspace whose objects save this one a build from nothing: that of the base itself, or of
    /// the entry all variations start from.
    fn root_workspace(&self, key: &str, is_posted: bool) -> Result<Workspace, Error> {
        let Context { cache, progress, .. } = self.context;
        let name = if is_posted { self.name } else { &self.recipe.root };
        Workspace::open(cache, &format!("{name}-{key}"), progress)
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
