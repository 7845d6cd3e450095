//! Checks `.github/workflows` against the schema of workflow files.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use host::{
    cache::Cache,
    progress::Progress,
    tools::{self, Installer},
};

/// The validator from PyPI; it carries the schema, so its version says which one.
const CHECK_JSONSCHEMA: &str = "0.39.0";

/// What the validator and its dependencies take unpacked, in bytes.
const SIZE: u64 = 50_000_000;

/// Prints Python's version if it can make virtual environments.
const PYTHON_PROBE: &str = "import ensurepip, sys, venv; print('%d.%d' % (sys.version_info.major, sys.version_info.minor))";

/// Checks every workflow file.
pub(crate) fn check() -> anyhow::Result<()> {
    let progress = Progress::auto();
    let files = workflows(&crate::workspace().join(".github/workflows"))?;
    let python = validator(&Cache::open()?, &progress)?;
    let mut command = Command::new(python);
    command
        .args(["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"])
        .args(&files);
    crate::command::run(command)
}

fn workflows(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = directory.read_dir().with_context(|| directory.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let is_workflow = |path: &PathBuf| {
        path.extension().and_then(OsStr::to_str).is_some_and(|end| end == "yml" || end == "yaml")
    };
    let files: Vec<PathBuf> = paths.into_iter().filter(is_workflow).collect();
    anyhow::ensure!(!files.is_empty(), "{} holds no workflow", directory.display());
    Ok(files)
}

/// A Python that has the validator: a virtual environment in the cache.
fn validator(cache: &Cache, progress: &Progress) -> anyhow::Result<PathBuf> {
    let version = match python_version() {
        Ok(version) => version,
        Err(_) => {
            let packages = ["python3", "python3-venv"];
            tools::install(&packages, "Python with venv", Installer::here(), progress)?;
            python_version()?
        }
    };
    // An environment works with the version of Python that made it only.
    let name = format!("check-jsonschema/{CHECK_JSONSCHEMA}-python{version}");
    let environment = cache.entry(&name, SIZE, progress, |place| {
        let mut task = progress.task(&format!("check-jsonschema {CHECK_JSONSCHEMA}"), None);
        let mut venv = Command::new("python3");
        tools::check(venv.args(["-m", "venv"]).arg(place), "python3-venv")?;
        task.alive();
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("check-jsonschema=={CHECK_JSONSCHEMA}"));
        tools::check(&mut pip, "python3-venv")
            .context("PyPI has to be reachable, directly or as pip is configured")?;
        task.done();
        anyhow::Ok(())
    })?;
    Ok(environment.join("bin/python"))
}

fn python_version() -> Result<String, tools::Error> {
    let probe = tools::check(Command::new("python3").args(["-c", PYTHON_PROBE]), "python3")?;
    Ok(probe.stdout.trim().to_owned())
}
