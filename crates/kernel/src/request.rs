//! Which kernel is wanted, and getting it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use host::{
    apt,
    cache::{Cache, at},
    progress::Progress,
};

use crate::{
    Error, Kernel,
    build::{Build, Configuration},
    debian,
    fragments::{self, Fragments},
    image::{self, ImageFiles},
    manifest::{Entry, Manifest, Packages, Recipe, Version, manifest_path},
    source::{self, SourceTree},
    workspace::{OBJECTS, Workspace, digest},
};

/// The entry of the manifest whose packages a version given as a name means.
const STOCK: &str = "stock";
/// The value of a configuration that means the bench's own.
pub const OWN_CONFIG: &str = "bench";
/// The bench's own fragments, for trees without a configuration.
const OWN_FRAGMENTS: [&str; 3] = ["machine", "required", "suite"];

/// A kernel somebody wants to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A name of `images/kernels.toml`, or a version.
    Named(String),
    /// A file.
    Image(ImageFiles),
    /// A source tree.
    Tree(Tree),
}

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

/// What every way to a kernel needs.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where it is kept.
    pub cache: &'a Cache,
    /// The checkout with `images/`.
    pub checkout: &'a Path,
    /// Where packages come from.
    pub options: &'a apt::Options,
    /// Where progress goes.
    pub progress: &'a Progress,
}

impl Wanted {
    /// What a word of the command line means: an existing directory is a tree, an existing file an
    /// image, anything else a name.
    pub fn of_word(word: &str) -> Wanted {
        let path = Path::new(word);
        let looks_like_path = word.contains('/') || word == ".";
        if looks_like_path && path.is_dir() {
            let (variables, config) = (Vec::new(), None);
            Wanted::Tree(Tree { dir: path.to_owned(), variables, config })
        } else if looks_like_path {
            let (modules, config) = (None, None);
            Wanted::Image(ImageFiles { image: path.to_owned(), modules, config })
        } else {
            Wanted::Named(word.to_owned())
        }
    }
}

/// Gets the kernel: from the cache, from a mirror, or by building it.
pub fn get(context: Context<'_>, wanted: &Wanted) -> Result<Kernel, Error> {
    match wanted {
        Wanted::Named(name) => named(context, name),
        Wanted::Image(files) => {
            let fragments = Fragments::read(context.checkout)?;
            image::get(context.cache, files, &fragments, context.progress)
        }
        Wanted::Tree(tree) => of_tree(context, tree),
    }
}

/// The kernel `name` if it is at hand and locked. Never touches the network, never builds.
pub fn cached(cache: &Cache, checkout: &Path, name: &str) -> Result<Option<Kernel>, Error> {
    let manifest = Manifest::read(&manifest_path(checkout))?;
    match &manifest.get(name)?.packages {
        Some(packages) => debian::cached(cache, name, packages),
        None => Ok(None),
    }
}

fn named(context: Context<'_>, name: &str) -> Result<Kernel, Error> {
    let Context { cache, checkout, options, progress } = context;
    let manifest = Manifest::read(&manifest_path(checkout))?;
    if let Some(kernel) = of_version(context, &manifest, name)? {
        return Ok(kernel);
    }
    let entry = manifest.get(name)?;
    match &entry.packages {
        Some(packages) => {
            let wanted = debian::Wanted { name, arch: entry.arch, entry: packages, options };
            debian::get(cache, wanted, progress)
        }
        None => Recipes { context, manifest: &manifest }.kernel(name, entry),
    }
}

/// The packaged kernel of a version: `7.2.9`, or `7.2` for the newest of a series.
fn of_version(
    context: Context<'_>,
    manifest: &Manifest,
    name: &str,
) -> Result<Option<Kernel>, Error> {
    let Ok(version) = name.parse::<Version>() else { return Ok(None) };
    let stock = manifest.get(STOCK)?;
    let Some(packages) = &stock.packages else { return Ok(None) };
    let entries = manifest.kernel.values().filter_map(|entry| entry.packages.as_ref());
    let mut suites: Vec<String> = entries.flat_map(|entry| entry.suites.clone()).collect();
    suites.sort();
    suites.dedup();
    let series = Some(version);
    let entry = Packages { suites, minimum: version, series, lock: None, ..packages.clone() };
    let options = context.options;
    let wanted = debian::Wanted { name, arch: stock.arch, entry: &entry, options };
    debian::get(context.cache, wanted, context.progress).map(Some)
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

/// The kernel of a user's tree.
fn of_tree(context: Context<'_>, tree: &Tree) -> Result<Kernel, Error> {
    let Context { cache, checkout, progress, .. } = context;
    let dir = fs::canonicalize(&tree.dir).map_err(at("find", &tree.dir))?;
    let label = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let identity = digest([dir.display().to_string(), tree.variables.join(" ")]);
    let workspace = Workspace::open(cache, &format!("tree-{label}-{identity}"), progress)?;
    let arch = Manifest::read(&manifest_path(checkout))?.get(STOCK)?.arch;
    let mut kbuild = workspace.kbuild(arch, &tree.variables);
    let own_objects = tree.variables.iter().find_map(|word| word.strip_prefix("O="));
    let configured = match own_objects {
        Some(objects) => {
            kbuild.source.clone_from(&dir);
            kbuild.objects = std::path::absolute(objects).map_err(at("resolve", &dir))?;
            kbuild.variables.retain(|word| !word.starts_with("O="));
            workspace.begin()?;
            kbuild.objects.join(".config")
        }
        None => dir.join(".config"),
    };
    let fragments = Fragments::read(checkout)?;
    let (configuration, note) = configuration(checkout, tree, &configured)?;
    let build = Build {
        cache,
        progress,
        name: tree.dir.display().to_string(),
        origin: dir.display().to_string(),
        source: dir.display().to_string(),
        workspace: &workspace,
        kbuild,
        configuration,
        fragments: &fragments,
    };
    let kernel = build.run()?;
    let note = [note, kernel.note.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
    Ok(Kernel { note: (!note.is_empty()).then_some(note), ..kernel })
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
