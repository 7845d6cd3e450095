//! Which kernel is wanted, and getting it.

use std::path::{Path, PathBuf};

use host::{apt, cache::Cache, progress::Progress};

use crate::{
    Error, Kernel, debian,
    debug_info::{DebugFiles, Object},
    fragments::Fragments,
    image::{self, ImageFiles},
    manifest::{Manifest, Packages, Version, manifest_path},
    recipe, series,
    tree::{self, Tree},
};

/// The entry of the manifest whose packages a version given as a name means.
pub(crate) const STOCK: &str = "stock";
/// A kernel somebody wants to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A name of `images/kernels.toml`, or a version.
    Named(String),
    /// A file.
    Image(ImageFiles),
    /// A source tree.
    Tree(Tree),
    /// A posted patch series over another kernel, which has to be built too.
    Series {
        /// The posting: an mbox, a patch, or a directory of patches.
        posting: PathBuf,
        /// What it is applied to.
        base: Box<Wanted>,
    },
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
        Wanted::Tree(tree) => tree::get(context, tree, None),
        Wanted::Series { posting, base } => with_series(context, posting, base),
    }
}

/// What can be said against a kernel before anything is built: that its patches do not apply.
pub fn check(context: Context<'_>, wanted: &Wanted) -> Result<(), Error> {
    let Wanted::Series { posting, base } = wanted else { return Ok(()) };
    let series = series::read(posting)?;
    match base.as_ref() {
        Wanted::Named(name) => recipe::check(context, name, &series),
        Wanted::Tree(tree) => series::apply(&series, &tree.dir).map(drop).map_err(Error::from),
        Wanted::Image(_) | Wanted::Series { .. } => Err(no_source()),
    }
}

fn no_source() -> Error {
    Error::Input {
        what: "--base".to_owned(),
        detail: "a patch needs source: give a kernel that is built (`cargo xtask kernels` lists \
                 them) or the directory of a tree"
            .to_owned(),
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

/// The debug information of a kernel: what it was built with, or Debian's package, which is fetched.
pub fn debug_files(context: Context<'_>, kernel: &Kernel) -> Result<DebugFiles, Error> {
    match &kernel.debug {
        Some(files) => Ok(files.clone()),
        None if kernel.is_packaged => debian::debug::get(context, kernel),
        // An image of the user's may have it in itself.
        None => match Object::open(&kernel.image) {
            Ok(_) => Ok(DebugFiles {
                vmlinux: kernel.image.clone(),
                modules: kernel.modules_dir.clone(),
                source: None,
            }),
            // Whether it is a bzImage or was stripped: it has none.
            Err(_) => Err(Error::NoDebugInfo { name: kernel.name.clone() }),
        },
    }
}

fn with_series(context: Context<'_>, posting: &Path, base: &Wanted) -> Result<Kernel, Error> {
    let series = series::read(posting)?;
    match base {
        Wanted::Named(name) => recipe::with_series(context, name, posting, &series),
        Wanted::Tree(tree) => tree::get(context, tree, Some((posting, &series))),
        Wanted::Image(_) | Wanted::Series { .. } => Err(no_source()),
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
        None => recipe::get(context, &manifest, name),
    }
}

/// The packaged kernel of a version: `7.2.9`, or `7.2` for the newest of a series.
fn of_version(
    context: Context<'_>,
    manifest: &Manifest,
    name: &str,
) -> Result<Option<Kernel>, Error> {
    let Ok(version) = name.parse::<Version>() else { return Ok(None) };
    let Some(entry) = any_version(manifest)? else { return Ok(None) };
    let entry = Packages { minimum: version, series: Some(version), ..entry };
    let arch = manifest.get(STOCK)?.arch;
    let wanted = debian::Wanted { name, arch, entry: &entry, options: context.options };
    debian::get(context.cache, wanted, context.progress).map(Some)
}

/// Kernels like stock, of any version that any entry's suites have.
fn any_version(manifest: &Manifest) -> Result<Option<Packages>, Error> {
    let Some(packages) = &manifest.get(STOCK)?.packages else { return Ok(None) };
    let entries = manifest.kernel.values().filter_map(|entry| entry.packages.as_ref());
    let mut suites: Vec<String> = entries.flat_map(|entry| entry.suites.clone()).collect();
    suites.sort();
    suites.dedup();
    let minimum = Version { major: 0, minor: 0, patch: 0 };
    Ok(Some(Packages { suites, minimum, series: None, lock: None, ..packages.clone() }))
}

/// The versions that the mirror carries whole, each a name for [`Wanted::Named`].
pub fn versions(context: Context<'_>) -> Result<Vec<Version>, Error> {
    let manifest = Manifest::read(&manifest_path(context.checkout))?;
    let Some(entry) = any_version(&manifest)? else { return Ok(Vec::new()) };
    let arch = manifest.get(STOCK)?.arch;
    let wanted = debian::Wanted { name: STOCK, arch, entry: &entry, options: context.options };
    debian::versions(context.cache, wanted, context.progress)
}
