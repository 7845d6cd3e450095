//! Which kernels, and which of them are the same.

use std::collections::BTreeSet;

use host::apt;
use kernel::{
    Kernel,
    manifest::{Manifest, Matrix, Version, manifest_path},
    request::{self, Wanted},
};

use super::Error;
use crate::{image, memory, rig::Rig};

/// A kernel to run on.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) kernel: Kernel,
    /// Stands for the kernel itself, whatever it is called.
    pub(super) identity: String,
    /// What `--kernel` calls it.
    pub(super) word: String,
}

/// The kernels of a run.
#[derive(Debug)]
pub(super) struct Choice {
    wanted: Vec<Wanted>,
    /// Series that are wanted and not to be had.
    pub(super) missing: Vec<Version>,
}

impl Choice {
    /// Those named, or what the mirror has of the series that `images/kernels.toml` names.
    pub(super) fn make(rig: &Rig, named: &[Wanted]) -> Result<Choice, Error> {
        if !named.is_empty() {
            return Ok(Choice { wanted: named.to_vec(), missing: Vec::new() });
        }
        let context = rig.context();
        let manifest = Manifest::read(&manifest_path(context.checkout))?;
        let carried = request::versions(context)?;
        let (chosen, missing) = of_series(&manifest.matrix, &carried);
        if chosen.is_empty() {
            return Err(Error::NoKernel);
        }
        let named = |version: Version| Wanted::Named(version.to_string());
        Ok(Choice { wanted: chosen.into_iter().map(named).collect(), missing })
    }

    /// One line for each.
    pub(super) fn words(&self) -> Vec<String> {
        let missing = self.missing.iter();
        self.wanted
            .iter()
            .map(word)
            .chain(missing.map(|series| format!("{series}: the mirror has none")))
            .collect()
    }

    /// Gets them all before anything runs, the oldest first. One that was named twice counts once.
    pub(super) fn subjects(&self, rig: &Rig) -> Result<Vec<Subject>, Error> {
        let mut subjects: Vec<Subject> = Vec::new();
        for wanted in &self.wanted {
            let kernel = rig.kernel(wanted)?;
            let identity = identity(&kernel)?;
            match subjects.iter().find(|other| other.identity == identity) {
                None => subjects.push(Subject { kernel, identity, word: word(wanted) }),
                Some(Subject { kernel: other, .. }) => {
                    let (name, other) = (&kernel.name, &other.name);
                    rig.terminal
                        .note(&format!("{name} is the kernel that {other} is: counted once"));
                }
            }
        }
        // In the order given among those of one version, such as a kernel with and without a patch.
        subjects.sort_by_key(|subject| subject.kernel.version);
        Ok(subjects)
    }
}

/// What was asked for, as the command line says it.
fn word(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Named(name) => name.clone(),
        Wanted::Image(files) => files.image.display().to_string(),
        Wanted::Tree(tree) => tree.dir.display().to_string(),
        Wanted::Series { posting, .. } => posting.display().to_string(),
    }
}

/// The carried versions that are of interest, and the series of which there should be one.
fn of_series(matrix: &Matrix, carried: &[Version]) -> (Vec<Version>, Vec<Version>) {
    let newest = matrix.series.iter().max().copied();
    let newer = carried.iter().map(|version| version.series());
    let newer = newer.filter(|other| newest.is_some_and(|newest| *other > newest));
    let wanted: BTreeSet<Version> = matrix.series.iter().copied().chain(newer).collect();
    let (mut chosen, mut missing) = (BTreeSet::new(), Vec::new());
    for series in wanted {
        let of_it = || carried.iter().copied().filter(|version| version.series() == series);
        let Some(newest) = of_it().max() else {
            missing.push(series);
            continue;
        };
        chosen.insert(newest);
        if matrix.oldest_since.is_some_and(|since| series >= since) {
            chosen.extend(of_it().min());
        }
    }
    (chosen.into_iter().collect(), missing)
}

/// Stands for all of a kernel that a guest can have of it: image and modules. Not their places: the same
/// kernel comes by several names.
fn identity(kernel: &Kernel) -> Result<String, Error> {
    let mut words = vec![kernel.release.clone(), apt::sha256_of(&kernel.image)?];
    for file in image::module_files(&kernel.modules_dir)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        words.extend([name, apt::sha256_of(&file)?]);
    }
    Ok(memory::key(words.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn versions(words: &[&str]) -> Vec<Version> {
        words.iter().map(|word| word.parse().expect("a version")).collect()
    }

    fn matrix(series: &[&str]) -> Matrix {
        let oldest_since = Some("7.1".parse().expect("a version"));
        Matrix { series: versions(series), oldest_since }
    }

    #[test]
    fn of_each_series_the_newest_is_taken_of_late_ones_the_oldest_too_and_absent_ones_are_named() {
        let matrix = matrix(&["6.12", "7.0", "7.1", "7.2", "7.3"]);
        let carried =
            versions(&["6.12.107", "6.12.117", "6.16.3", "7.2.6", "7.2.9", "7.2.12", "7.3.4"]);
        let (chosen, missing) = of_series(&matrix, &carried);
        assert_eq!(chosen, versions(&["6.12.117", "7.2.6", "7.2.12", "7.3.4"]));
        assert_eq!(missing, versions(&["7.0", "7.1"]));
        assert_eq!(of_series(&matrix, &[]), (Vec::new(), matrix.series.clone()));
    }

    #[test]
    fn what_is_newer_than_every_series_that_is_named_is_taken_unasked() {
        let carried = versions(&["7.3.4", "7.4.1", "7.4.2", "7.5", "8.0.2"]);
        let (chosen, missing) = of_series(&matrix(&["7.3", "7.2"]), &carried);
        assert_eq!(chosen, versions(&["7.3.4", "7.4.1", "7.4.2", "7.5", "8.0.2"]));
        assert_eq!(missing, versions(&["7.2"]));
    }

    /// A rebuilt module is another kernel, a kernel in another place is not.
    #[test]
    fn a_kernel_is_its_image_and_its_modules() {
        let dir = tempfile::tempdir().expect("a directory");
        let make = |name: &str, image: &str, module: &str| {
            let root = dir.path().join(name);
            fs::create_dir_all(root.join("kernel/drivers")).expect("made");
            fs::write(root.join("vmlinux"), image).expect("written");
            fs::write(root.join("kernel/drivers/sd_mod.ko"), module).expect("written");
            let kernel = Kernel::for_test("7.2.12", &root, "");
            identity(&kernel).expect("it can be read")
        };
        let known = make("one", "image", "module");
        assert_eq!(make("two", "image", "module"), known);
        assert_ne!(make("three", "image", "mutated"), known);
        assert_ne!(make("four", "imago", "module"), known);
    }
}
