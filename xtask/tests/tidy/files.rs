//! The files of the checkout.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The checkout's root.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("xtask lies in the checkout").to_owned()
}

/// Every file that belongs to the project, relative to the root, in order. Not asked of git: a
/// checkout may be an unpacked archive, or belong to another user.
pub(crate) fn all() -> Vec<PathBuf> {
    let root = root();
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut files: Vec<PathBuf> = files
        .iter()
        .map(|file| file.strip_prefix(&root).expect("below the root").to_owned())
        .collect();
    files.sort();
    assert!(files.len() > 100, "these are not all: {files:?}");
    files
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the checkout can be read") {
        let path = entry.expect("the checkout can be read").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_symlink() || name == "target" || name == ".git" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Rust sources.
pub(crate) fn rust() -> Vec<PathBuf> {
    all().into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs")).collect()
}

/// Content of a file; `None` if it is not text.
pub(crate) fn text(file: &Path) -> Option<String> {
    String::from_utf8(fs::read(root().join(file)).expect("the file can be read")).ok()
}

/// Fails with all breaches at once.
#[track_caller]
pub(crate) fn assert_none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n{}", breaches.join("\n"));
}
