//! Checks of what lies under `images/kernel`, without building anything: fragments and recipes are
//! understood, our own patches apply to the source they are for, and mutants have their places in it.
#![expect(clippy::print_stdout, reason = "what was checked is told")]

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use host::{apt, cache::Cache, progress::Progress};
use kernel::{
    fragments,
    manifest::{Manifest, manifest_path},
    recipe,
    request::Context,
    series, source,
};

/// The licence that every patch of ours has, and says it has.
const LICENCE: &str = "GPL-2.0";

/// The step of `cargo xtask test`.
pub(crate) fn check() -> anyhow::Result<()> {
    let checkout = crate::workspace();
    let manifest = Manifest::read(&manifest_path(&checkout))?;
    let (cache, progress) = (Cache::open()?, Progress::auto());
    let options = apt::Options::default();
    let mut applied = Vec::new();
    for (name, entry) in manifest.kernel.iter().filter(|(_, entry)| entry.packages.is_none()) {
        let recipe = manifest.recipe(name).map_err(anyhow::Error::msg)?;
        fragments::merged(&checkout, &recipe.config).with_context(|| format!("kernel {name}"))?;
        if recipe.series.is_empty() {
            continue;
        }
        let patches = recipe::own_patches(&checkout, &recipe.series)?;
        let tree = source::get(&cache, &recipe.source, entry.arch, &options, &progress)?;
        let patched = series::apply(&patches, &tree.dir)?;
        ensure!(
            patched.notes.is_empty(),
            "kernel {name}: our own patches have to fit to the letter: {}",
            patched.notes.join("; ")
        );
        println!("kernel {name}: {} patches apply to {}", patches.patches.len(), tree.key);
        applied.extend(recipe.series);
    }
    let (checkout, options, cache, progress) = (&*checkout, &options, &cache, &progress);
    let mutants = bench::mutants::check(Context { cache, checkout, options, progress })?;
    println!("{mutants} mutants have their places");
    check_names(checkout, &applied)
}

/// Every series is of use, and the list of them is complete.
fn check_names(checkout: &Path, applied: &[String]) -> anyhow::Result<()> {
    let dir = checkout.join(recipe::PATCHES);
    let readme_path = dir.join("README.md");
    let readme = fs::read_to_string(&readme_path)
        .with_context(|| format!("cannot read {}", readme_path.display()))?;
    ensure!(readme.contains(LICENCE), "{} does not say {LICENCE}", readme_path.display());
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(applied.contains(&name), "no kernel of images/kernels.toml has the series {name}");
        ensure!(
            readme.lines().any(|line| line.contains(&name)),
            "{} has no line about {name}",
            readme_path.display()
        );
    }
    Ok(())
}
