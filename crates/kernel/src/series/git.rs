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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ffi::OsStr};

    use super::*;

    /// Whoever runs this may be in a hook of git's, which sets these.
    #[test]
    fn environment_leads_git_to_no_repository_and_no_configuration() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("directory");
        let command = command(&inner);
        assert_eq!(command.get_current_dir(), Some(inner.as_path()));
        let parent = dir.path().canonicalize().expect("a path");
        let expected = [
            ("GIT_CEILING_DIRECTORIES", Some(parent.as_os_str())),
            ("GIT_CONFIG_GLOBAL", Some(OsStr::new("/dev/null"))),
            ("GIT_CONFIG_NOSYSTEM", Some(OsStr::new("1"))),
            ("GIT_DIR", None),
            ("GIT_INDEX_FILE", None),
            ("GIT_OBJECT_DIRECTORY", None),
            ("GIT_PREFIX", None),
            ("GIT_WORK_TREE", None),
        ];
        let set: BTreeMap<_, _> = command.get_envs().collect();
        assert_eq!(set, expected.map(|(name, value)| (OsStr::new(name), value)).into());
    }

    /// The words of a diff, or the files it names.
    fn files_of(strip: u32, diff: &str) -> Result<Vec<PathBuf>, String> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("diff");
        std::fs::write(&file, diff).expect("write");
        files(dir.path(), strip, &file).expect("git runs")
    }

    #[test]
    fn files_are_named_as_they_are_and_on_both_sides() {
        // git quotes what is not ASCII.
        let quoted = "diff --git \"a/fs/\\303\\274.c\" \"b/fs/\\303\\274.c\"\nnew file mode 100644\n\
                      --- /dev/null\n+++ \"b/fs/\\303\\274.c\"\n@@ -0,0 +1 @@\n+x\n";
        assert_eq!(files_of(1, quoted), Ok(vec![PathBuf::from("fs/ü.c")]));
        let moved =
            "diff --git a/b.c b/a b.c\nsimilarity index 100%\nrename from b.c\nrename to a b.c\n";
        assert_eq!(files_of(1, moved), Ok(vec![PathBuf::from("a b.c"), PathBuf::from("b.c")]));
        let plain = "--- fs/x.c\n+++ fs/x.c\n@@ -1 +1 @@\n-a\n+b\n";
        assert_eq!(files_of(0, plain), Ok(vec![PathBuf::from("fs/x.c")]));
        assert_eq!(files_of(1, plain), Ok(vec![PathBuf::from("x.c")]));
        // Counts that are wrong are put right when the patch is applied.
        let counts = plain.replace("-1 +1", "-1,3 +1,9");
        assert_eq!(files_of(0, &counts), Ok(vec![PathBuf::from("fs/x.c")]));
    }

    #[test]
    fn what_is_no_diff_is_told_in_gits_words() {
        let error = files_of(1, "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\nb\n").expect_err("damaged");
        assert!(error.starts_with("corrupt patch at "), "{error}");
    }
}
