//! Whether KVM works here: found out by booting a guest under it, not by looking at `/dev/kvm`.
//!
//! A host can have the node, open it, and still hang or abort every guest (nested without the right
//! features, a broken filter). The verdict is kept until the host reboots or QEMU changes.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    qemu::{Qemu, dotted},
    vm::Accel,
};
use host::cache::Cache;

/// How long a guest under working KVM may take to say hello; it takes one or two seconds.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(10);

const VERDICT: &str = "accel.json";

/// How guests are executed, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How.
    pub accel: Accel,
    /// Why, for the head of a report.
    pub reason: String,
}

/// What the cache holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    key: String,
    kvm_works: bool,
    reason: String,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// KVM where it works, else TCG.
    Auto,
    /// This one, whatever becomes of it.
    Only(Accel),
}

/// What became of a guest that was booted under KVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It came up.
    Works,
    /// It did not come up, for this reason.
    Fails(String),
    /// It did not come up for a reason that need not be KVM's: a signal, a missing file, a kernel that
    /// panics.
    Unknown(String),
}

/// Decides. `probe` boots a guest under KVM; only what it says of KVM is remembered.
pub fn decide(wish: Wish, cache: &Cache, qemu: &Qemu, probe: impl FnOnce() -> Probe) -> Verdict {
    match wish {
        Wish::Only(accel) => return Verdict { accel, reason: "as asked".into() },
        Wish::Auto => {}
    }
    if let Some(verdict) = without_probe(cache, qemu) {
        return verdict;
    }
    let (kvm_works, reason) = match probe() {
        Probe::Works => (true, "a guest booted under KVM".to_owned()),
        Probe::Fails(why) => (false, format!("KVM does not run a guest here: {why}")),
        Probe::Unknown(why) => {
            return verdict(false, format!("the probe of KVM came to no end: {why}"));
        }
    };
    let stored = Stored { key: key(qemu), kvm_works, reason };
    let json = serde_json::to_vec_pretty(&stored).expect("plain data has a JSON form");
    // Without room for it the probe is repeated next time.
    let _ = cache.write(VERDICT, &json);
    verdict(stored.kvm_works, stored.reason)
}

/// The verdict as far as it is known without booting a guest.
pub fn without_probe(cache: &Cache, qemu: &Qemu) -> Option<Verdict> {
    let node = Path::new("/dev/kvm");
    if let Err(error) = fs::File::options().read(true).write(true).open(node) {
        return Some(verdict(false, format!("/dev/kvm: {error}")));
    }
    let text = fs::read(cache.path(VERDICT)).ok()?;
    let stored: Stored = serde_json::from_slice(&text).ok()?;
    (stored.key == key(qemu)).then(|| verdict(stored.kvm_works, stored.reason))
}

fn verdict(kvm_works: bool, reason: String) -> Verdict {
    let accel = if kvm_works { Accel::Kvm } else { Accel::Tcg };
    Verdict { accel, reason }
}

/// What the verdict depends on: this boot of this host, and this QEMU.
fn key(qemu: &Qemu) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{} {} {}", boot.trim(), qemu.binary.display(), dotted(qemu.version))
}
