//! git's programs as they are used here: outside any repository, without anybody's configuration.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use host::tools;

/// `git` with a directory to run in, in which it finds no repository.
pub(super) fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"]
    {
        command.env_remove(name);
    }
    // In a repository `git apply` leaves out files that lie elsewhere, without a word.
    let ceiling = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    command.env("GIT_CEILING_DIRECTORIES", ceiling.parent().unwrap_or(&ceiling));
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// `git apply` of the file `diff`, whose paths lose `strip` directories.
pub(super) fn apply(dir: &Path, strip: u32, arguments: &[&str], diff: &Path) -> Command {
    let mut command = command(dir);
    command.args(["apply", "--whitespace=nowarn", &format!("-p{strip}")]).args(arguments).arg(diff);
    command
}

/// The files that a diff names, those it renames or removes included; or why it is no diff, in git's
/// words.
pub(super) fn files(
    dir: &Path,
    strip: u32,
    diff: &Path,
) -> Result<Result<Vec<PathBuf>, String>, tools::Error> {
    let mut files = BTreeSet::new();
    // git names one side of a rename only: the new name, or with -R the old.
    for side in ["--numstat", "-R"] {
        let mut output = None;
        for counted in [&[][..], &["--recount"]] {
            let arguments = [&["--numstat", "-z", side][..], counted].concat();
            let tried = tools::run(&mut apply(dir, strip, &arguments, diff), "git")?;
            let is_read = tried.status.success();
            output = Some(tried);
            if is_read {
                break;
            }
        }
        let output = output.expect("it was tried");
        if !output.status.success() {
            let words = output.stderr.lines().filter_map(|line| line.strip_prefix("error: "));
            return Ok(Err(words.collect::<Vec<_>>().join("; ")));
        }
        let entries = output.stdout.trim_end_matches('\n').split('\0');
        files.extend(entries.filter_map(|entry| entry.splitn(3, '\t').nth(2)).map(PathBuf::from));
    }
    Ok(Ok(files.into_iter().collect()))
}
