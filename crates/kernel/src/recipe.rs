//! Kernels the manifest describes as built: their source, their patches, their configuration.

use crate::{
    Error, Kernel,
    build::{Build, Configuration},
    fragments::{self, Fragments},
    manifest::{Entry, Manifest, Recipe},
    mirror::OBJECTS,
    request::Context,
    source::{self, SourceTree},
    workspace::{Workspace, digest},
};

/// The kernel `name`, whose entry has a source or a base.
pub(crate) fn get(
    context: Context<'_>,
    manifest: &Manifest,
    name: &str,
    entry: &Entry,
) -> Result<Kernel, Error> {
    Recipes { context, manifest }.kernel(name, entry)
}

/// Building what the manifest describes.
struct Recipes<'a> {
    context: Context<'a>,
    manifest: &'a Manifest,
}

impl Recipes<'_> {
    fn recipe(&self, name: &str) -> Result<Recipe, Error> {
        self.manifest.recipe(name).map_err(|detail| Error::Input {
            what: format!("kernel {name} of images/kernels.toml"),
            detail,
        })
    }

    fn kernel(&self, name: &str, entry: &Entry) -> Result<Kernel, Error> {
        let Context { cache, checkout, progress, .. } = self.context;
        let recipe = self.recipe(name)?;
        let (workspace, tree) = self.prepared(name, entry, &recipe)?;
        let fragments = Fragments::read(checkout)?;
        let mut origin = tree.key.clone();
        for series in &recipe.series {
            origin.push_str(&format!(" + {series}"));
        }
        let build = Build {
            cache,
            progress,
            name: name.to_owned(),
            origin,
            source: tree.key,
            workspace: &workspace,
            kbuild: workspace.kbuild(entry.arch, &[]),
            configuration: Configuration::Fragments(fragments::merged(checkout, &recipe.config)?),
            fragments: &fragments,
        };
        Ok(Kernel { note: tree.note, ..build.run()? })
    }

    /// The workspace of a kernel with its source in it, and what that source is.
    fn prepared(
        &self,
        name: &str,
        entry: &Entry,
        recipe: &Recipe,
    ) -> Result<(Workspace, SourceTree), Error> {
        let Context { cache, options, progress, .. } = self.context;
        let tree = source::get(cache, &recipe.source, entry.arch, options, progress)?;
        let pristine = tree.dir.clone();
        let workspace =
            Workspace::open(cache, &format!("{name}-{}", digest([&tree.key])), progress)?;
        let built = self.built(name, entry, recipe)?;
        workspace.seed(
            &pristine,
            built.as_ref().map(|root| root.source().join(OBJECTS)).as_deref(),
            |_| Ok(()),
            progress,
        )?;
        Ok((workspace, tree))
    }

    /// The workspace of the kernel this one varies, if it was built: its objects save a build from
    /// nothing.
    fn built(
        &self,
        name: &str,
        entry: &Entry,
        recipe: &Recipe,
    ) -> Result<Option<Workspace>, Error> {
        if recipe.root == name {
            return Ok(None);
        }
        let Context { cache, options, progress, .. } = self.context;
        let tree = source::get(cache, &recipe.source, entry.arch, options, progress)?;
        let place = format!("{}-{}", recipe.root, digest([&tree.key]));
        Workspace::open(cache, &place, progress).map(Some)
    }
}
