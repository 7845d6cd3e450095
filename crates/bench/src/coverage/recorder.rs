//! What one machine records while it runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use coverage_log::{Block, Log};
use guest_protocol::message::{MODULE_CODE_ARG, ModuleCode};

/// Room for so many blocks, in a file that grows as it fills. A boot takes 80 thousand.
const CAPACITY: u64 = 4 << 20;

/// Name of the log in the directory of the machine.
const LOG: &str = "coverage.log";

/// Who reached what was reached before the first test.
pub const BOOT: &str = "(boot)";
/// Who reached what was reached after the last.
const END: &str = "(power-off)";

/// One machine's log, its modules and its tests.
#[derive(Debug)]
pub struct Recorder {
    plugin: PathBuf,
    path: PathBuf,
    log: Log,
    modules: Mutex<Vec<Epoch>>,
    owners: Mutex<Vec<(u64, String)>>,
}

/// Where modules were, up to a number of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The number of the first block after it.
    pub end: u64,
    /// The modules then.
    pub modules: Vec<ModuleCode>,
}

impl Recorder {
    /// A recorder with an empty log in `dir`, which is made.
    pub fn create(plugin: PathBuf, dir: &Path) -> io::Result<Recorder> {
        fs::create_dir_all(dir)?;
        let path = dir.join(LOG);
        let log = Log::create(&path, CAPACITY)?;
        Ok(Recorder { plugin, path, log, modules: Mutex::default(), owners: Mutex::default() })
    }

    /// The value of QEMU's `-plugin`. A comma in a path is doubled, as in every option of QEMU.
    pub fn plugin_option(&self) -> String {
        let word = |path: &Path| path.display().to_string().replace(',', ",,");
        format!("{},out={}", word(&self.plugin), word(&self.path))
    }

    /// What goes on the kernel's command line.
    pub fn kernel_arguments(&self) -> [&'static str; 2] {
        ["nokaslr", MODULE_CODE_ARG]
    }

    /// The guest says where its modules are now.
    pub fn modules(&self, modules: Vec<ModuleCode>) {
        lock(&self.modules).push(Epoch { end: self.count(), modules });
    }

    /// What was reached since the last such word was the doing of `who`.
    pub fn belongs_to(&self, who: &str) {
        lock(&self.owners).push((self.count(), who.to_owned()));
    }

    /// A log that cannot be read now fails when its blocks are wanted, and that is reported.
    fn count(&self) -> u64 {
        self.log.count().unwrap_or(0)
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that was reached, in order.
    pub fn blocks(&self) -> io::Result<Vec<(u64, Block)>> {
        self.log.blocks(0..self.log.count()?)
    }

    /// How many blocks found no room in the log.
    pub fn lost(&self) -> io::Result<u64> {
        self.log.lost()
    }

    /// Where modules were, in order.
    pub fn epochs(&self) -> Vec<Epoch> {
        lock(&self.modules).clone()
    }

    /// Whether the machine came as far as a test.
    pub fn has_tested(&self) -> bool {
        lock(&self.owners).iter().any(|(_, who)| who != BOOT)
    }

    /// Who reached the block of this number.
    pub fn owner(&self, number: u64) -> String {
        let owners = lock(&self.owners);
        let owner = owners.iter().find(|(end, _)| number < *end);
        let otherwise = if owners.is_empty() { BOOT } else { END };
        owner.map_or(otherwise, |(_, who)| who).to_owned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with the lock")
}
