//! What earlier runs found out, so that a run goes on where another was interrupted.
//!
//! Keys stand for everything a finding depends on: one for the world, that is what all findings of a run
//! have in common, and one for what is found out about: a mutant, or a test.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use host::{
    apt,
    cache::{self, Cache},
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// Findings not added to for this long are forgotten.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Findings about one world.
#[derive(Debug)]
pub(crate) struct Memory<T> {
    cache: Cache,
    name: String,
    findings: BTreeMap<String, T>,
}

impl<T: Serialize + DeserializeOwned> Memory<T> {
    /// What is known of the world that `world` stands for. A command has its own `place` in the cache,
    /// a directory with a file for each world.
    pub(crate) fn open(cache: &Cache, place: &str, world: &str) -> Memory<T> {
        let name = format!("{place}/{world}.json");
        sweep(&cache.path(place));
        let stored = fs::read(cache.path(&name)).ok();
        // A file that cannot be understood costs time and nothing else.
        let findings = stored.and_then(|stored| serde_json::from_slice(&stored).ok());
        Memory { cache: cache.clone(), name, findings: findings.unwrap_or_default() }
    }

    /// What is known under a key.
    pub(crate) fn get(&self, key: &str) -> Option<&T> {
        self.findings.get(key)
    }

    /// Keeps a finding.
    pub(crate) fn put(&mut self, key: String, finding: T) -> Result<(), cache::Error> {
        self.put_all([(key, finding)])
    }

    /// Keeps several at once.
    pub(crate) fn put_all(
        &mut self,
        findings: impl IntoIterator<Item = (String, T)>,
    ) -> Result<(), cache::Error> {
        self.findings.extend(findings);
        let json = serde_json::to_vec_pretty(&self.findings).expect("plain data has a JSON form");
        self.cache.write(&self.name, &json).map(drop)
    }
}

/// Stands for what all findings have in common: the files that decide results, and whatever else does, in
/// words.
pub(crate) fn world<'a>(
    files: impl IntoIterator<Item = &'a Path>,
    words: impl IntoIterator<Item = &'a str>,
) -> Result<String, apt::Error> {
    let digests = files.into_iter().map(apt::sha256_of).collect::<Result<Vec<String>, _>>()?;
    let words: Vec<&str> = words.into_iter().collect();
    Ok(key(digests.iter().map(String::as_str).chain(words)))
}

/// A key that stands for all of `parts`.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).expect("a length").to_le_bytes());
        hash.update(part);
    }
    apt::hex(&hash.finalize())[..16].to_owned()
}

/// Removes what was not added to for long. Failing to is no reason to fail.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if cache::is_older(&entry.path(), UNUSED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::SystemTime};

    use super::*;

    #[test]
    fn findings_outlive_a_run_and_belong_to_their_world() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::at(dir.path()).expect("a cache");
        let mut memory = Memory::<u32>::open(&cache, "place", "w");
        assert_eq!(memory.get("a"), None);
        memory.put("a".to_owned(), 1).expect("written");
        memory.put("b".to_owned(), 2).expect("written");
        assert_eq!(Memory::<u32>::open(&cache, "place", "w").get("a"), Some(&1));
        assert_eq!(Memory::<u32>::open(&cache, "place", "other").get("a"), None);
        fs::write(dir.path().join("place/w.json"), "{").expect("written");
        assert_eq!(Memory::<u32>::open(&cache, "place", "w").get("a"), None);
    }

    #[test]
    fn a_key_stands_for_every_part_and_its_place() {
        assert_eq!(key(["ab", "c"]), key(["ab", "c"]));
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_ne!(key(["ab", "c"]), key(["c", "ab"]));
    }

    #[test]
    fn findings_that_were_not_added_to_for_a_month_are_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::at(dir.path()).expect("a cache");
        let day = Duration::from_secs(24 * 60 * 60);
        for (world, days) in [("old", 31), ("young", 29)] {
            Memory::<u32>::open(&cache, "place", world).put("a".to_owned(), 1).expect("written");
            let file = dir.path().join(format!("place/{world}.json"));
            let file = fs::File::options().append(true).open(file).expect("opened");
            file.set_modified(SystemTime::now() - days * day).expect("dated");
        }
        assert_eq!(Memory::<u32>::open(&cache, "place", "old").get("a"), None);
        assert_eq!(Memory::<u32>::open(&cache, "place", "young").get("a"), Some(&1));
    }

    /// Whoever builds another test, allows another failure, or runs fewer tests, asks anew.
    #[test]
    fn world_is_another_when_anything_in_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = ["agent", "tests", "target", "expectations.toml"].map(|n| dir.path().join(n));
        let write = |file: &Path, text: &str| fs::write(file, text).expect("written");
        files.iter().for_each(|file| write(file, "as it was"));
        let words = ["a kernel", "a", "b"];
        let of = |words: &[&str]| {
            let files = files.iter().map(PathBuf::as_path);
            world(files, words.iter().copied()).expect("they can be read")
        };
        let known = of(&words);
        assert_eq!(of(&words), known);
        for file in &files {
            write(file, "changed");
            assert_ne!(of(&words), known, "{}", file.display());
            write(file, "as it was");
        }
        assert_eq!(of(&words), known, "the time of a file is of no account");
        for tests in [&["a"][..], &["b", "a"], &["a", "b", "c"], &["ab"]] {
            assert_ne!(of(&[&["a kernel"], tests].concat()), known, "{tests:?}");
        }
        assert_ne!(of(&["another kernel", "a", "b"]), known);
        fs::remove_file(&files[1]).expect("removed");
        let gone = world([files[1].as_path()], []).expect_err("no file");
        assert!(gone.to_string().contains("tests"), "{gone}");
    }
}
