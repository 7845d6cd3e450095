//! What nobody has used for long is removed: workspaces, and kernels that were built.

use std::{fs, path::Path, time::Duration};

use host::{
    cache::{Cache, is_older},
    progress::Progress,
};

/// What has not been used for this long is removed.
const LONG: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A file in a directory whose time says when the directory was last used.
const STAMP: &str = "used";

/// Says that a directory is used now. One that cannot be written to, in a cache of others', is theirs to
/// remove.
pub(crate) fn stamp(dir: &Path) {
    let _ = fs::write(dir.join(STAMP), "");
}

/// Removes the directories of `place` in the cache that were once used, and not for long, but for `mine`.
/// Failing to is no reason to fail.
pub(crate) fn sweep(cache: &Cache, place: &str, mine: &Path) {
    let Ok(entries) = fs::read_dir(cache.path(place)) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != mine) {
        if is_older(&path.join(STAMP), LONG) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let _ = cache.remove(&format!("{place}/{name}"), &Progress::quiet());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_what_was_used_long_ago_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::at(dir.path()).expect("a cache");
        let [old, mine, new, never] =
            ["old", "mine", "new", "never"].map(|name| cache.path(&format!("things/{name}")));
        for dir in [&old, &mine, &new, &never] {
            fs::create_dir_all(dir).expect("made");
            fs::write(dir.join("content"), "x").expect("written");
        }
        for dir in [&old, &mine, &new] {
            stamp(dir);
        }
        for dir in [&old, &mine] {
            let file = fs::File::options().append(true).open(dir.join(STAMP)).expect("opened");
            file.set_modified(SystemTime::now() - 2 * LONG).expect("dated");
        }
        sweep(&cache, "things", &mine);
        assert_eq!([&old, &mine, &new, &never].map(|dir| dir.exists()), [false, true, true, true]);
        stamp(&mine);
        sweep(&cache, "things", &new);
        assert!(mine.exists(), "it was used again");
    }
}
