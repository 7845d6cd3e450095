//! The images of a run: the usual one, and one for each set of programs that a test needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use guest_protocol::needs::VmShape;

use super::{Error, Ingredients, Manifest, build};
use crate::{
    plan::Test,
    programs::{self, Programs},
};
use host::{
    cache::{Cache, at},
    progress::Progress,
};

/// An image for every machine of a run.
#[derive(Debug)]
pub struct Images {
    plain: PathBuf,
    /// By name of the set, or why there is none.
    with_programs: BTreeMap<String, Result<PathBuf, String>>,
}

impl Images {
    /// Makes them all; those with programs in `dir`, for they are large and each build of the tests would
    /// leave one behind in the cache. Programs that cannot be had are no error of the run: it is told of the
    /// tests that need them, and the others run. `get` gets a set by its name.
    pub fn build(
        cache: &Cache,
        manifest: &Manifest,
        ingredients: Ingredients<'_>,
        tests: &[Test],
        dir: &Path,
        mut get: impl FnMut(&str) -> Result<Programs, programs::Error>,
        progress: &Progress,
    ) -> Result<Images, Error> {
        let image = |modules: &BTreeSet<String>| {
            let extra_modules: Vec<String> = modules.iter().cloned().collect();
            let ingredients = Ingredients { extra_modules: &extra_modules, ..ingredients };
            build(cache, manifest, ingredients, progress).map(|image| image.path)
        };
        let mut modules: BTreeMap<Option<&str>, BTreeSet<String>> = BTreeMap::new();
        for test in tests {
            let wanted = modules.entry(test.needs.programs.as_deref()).or_default();
            wanted.extend(test.needs.modules.iter().map(|module| module.name.to_string()));
        }
        let plain = image(&modules.remove(&None).unwrap_or_default())?;
        let mut with_programs = BTreeMap::new();
        for (name, mut modules) in modules {
            let Some(name) = name else { continue };
            let made = get(name).map_err(|error| error.to_string()).and_then(|programs| {
                modules.extend(programs.modules);
                let place = dir.join(format!("{name}.cpio"));
                image(&modules)
                    .and_then(|image| joined(&[&image, &programs.archive], place))
                    .map_err(|error| error.to_string())
            });
            with_programs.insert(name.to_owned(), made);
        }
        Ok(Images { plain, with_programs })
    }

    /// The image without programs.
    pub fn plain(&self) -> &Path {
        &self.plain
    }

    /// The image for such a machine, or why there is none.
    pub fn of(&self, shape: &VmShape) -> Result<&Path, String> {
        let Some(name) = shape.programs.as_deref() else { return Ok(&self.plain) };
        match self.with_programs.get(name) {
            Some(Ok(image)) => Ok(image),
            Some(Err(reason)) => Err(reason.clone()),
            // Machines are made for the very tests that images were made for.
            None => Err(format!("there is no image with the programs `{name}`")),
        }
    }
}

/// The archives one after the other in a file at `place`.
fn joined(archives: &[&Path], place: PathBuf) -> Result<PathBuf, Error> {
    let mut whole = Vec::new();
    for archive in archives {
        whole.extend(fs::read(archive).map_err(at("read", archive))?);
    }
    fs::write(&place, whole).map_err(at("write", &place))?;
    Ok(place)
}
