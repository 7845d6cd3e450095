//! What earlier runs found out, so that a run goes on where another was interrupted.
//!
//! It must not know what is remembered: keys stand for everything a finding depends on.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use host::{
    apt,
    cache::{self, Cache},
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// Where findings are in the cache, a file for each world.
const PLACE: &str = "mutants";
/// Findings not added to for this long are forgotten.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Findings about one world.
#[derive(Debug)]
pub(super) struct Memory<T> {
    cache: Cache,
    name: String,
    findings: BTreeMap<String, T>,
}

impl<T: Serialize + DeserializeOwned> Memory<T> {
    /// What is known of the world that `world` stands for.
    pub(super) fn open(cache: &Cache, world: &str) -> Memory<T> {
        let name = format!("{PLACE}/{world}.json");
        sweep(&cache.path(PLACE));
        let stored = fs::read(cache.path(&name)).ok();
        // A file that cannot be understood costs time and nothing else.
        let findings = stored.and_then(|stored| serde_json::from_slice(&stored).ok());
        Memory { cache: cache.clone(), name, findings: findings.unwrap_or_default() }
    }

    /// What is known under a key.
    pub(super) fn get(&self, key: &str) -> Option<&T> {
        self.findings.get(key)
    }

    /// Keeps a finding.
    pub(super) fn put(&mut self, key: String, finding: T) -> Result<(), cache::Error> {
        self.findings.insert(key, finding);
        let json = serde_json::to_vec_pretty(&self.findings).expect("plain data has a JSON form");
        self.cache.write(&self.name, &json).map(drop)
    }
}

/// A key that stands for all of `parts`.
pub(super) fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
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
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = written.is_ok_and(|at: SystemTime| at.elapsed().is_ok_and(|age| age > UNUSED));
        if is_old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_outlive_a_run_and_belong_to_their_world() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::at(dir.path()).expect("a cache");
        let mut memory = Memory::<u32>::open(&cache, "w");
        assert_eq!(memory.get("a"), None);
        memory.put("a".to_owned(), 1).expect("written");
        memory.put("b".to_owned(), 2).expect("written");
        assert_eq!(Memory::<u32>::open(&cache, "w").get("a"), Some(&1));
        assert_eq!(Memory::<u32>::open(&cache, "other").get("a"), None);
        fs::write(dir.path().join("mutants/w.json"), "{").expect("written");
        assert_eq!(Memory::<u32>::open(&cache, "w").get("a"), None);
    }

    #[test]
    fn a_key_stands_for_every_part_and_its_place() {
        assert_eq!(key(["ab", "c"]), key(["ab", "c"]));
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_ne!(key(["ab", "c"]), key(["c", "ab"]));
    }
}
