//! Programs that were written without us, on our target: what they decode of our answers, and what the
//! target says they asked. They come from Debian's packages, see `images/programs.toml`.

mod commands;
pub(crate) mod ext4;
pub(crate) mod fio;
mod opcodes;
mod reports;

use std::borrow::Cow;

use control::{DeviceType, JournalEntry, LunSpec, Provisioning};
use harness::{
    Feature, HostShape, Lun, Needs, ScsiHost,
    program::{self, Ran},
};
use scsi_fault::Effect;

/// sg3_utils and e2fsprogs.
const STORAGE: Needs = Needs { programs: Some(Cow::Borrowed("storage")), ..Needs::DEFAULT };

/// What delays commands needs a host of its own.
pub(crate) const FIO: Needs = Needs {
    programs: Some(Cow::Borrowed("fio")),
    host: ScsiHost::Own(HostShape::DEFAULT),
    deadline_s: Some(60),
    // fio keeps what its jobs share in System V shared memory.
    features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_SYSVIPC"))]),
    ..Needs::DEFAULT
};

/// A thin disk of 16 MiB.
#[track_caller]
fn thin_disk() -> Lun {
    Lun::with(LunSpec {
        device_type: DeviceType::Disk,
        provisioning: Provisioning::Thin,
        ..LunSpec::default()
    })
}

/// Runs a program on the unit's bsg node, its last argument.
#[track_caller]
fn on_bsg(lun: &Lun, program: &str, arguments: &[&str]) -> Ran {
    let node = lun.device().bsg().display().to_string();
    program::run(program, &[arguments, &[node.as_str()]].concat())
}

/// What the unit was asked since it had so many entries, but for the INQUIRY some programs begin with
/// and for what the kernel asks of its own accord.
#[track_caller]
fn asked(lun: &Lun, before: usize) -> Vec<JournalEntry> {
    let mut entries = lun.journal().entries.split_off(before);
    entries.retain(|entry| entry.cdb != "120000002400");
    entries
}

/// Runs a program on the unit's bsg node, and returns it with the one command it sent.
#[track_caller]
fn sends_one(lun: &Lun, program: &str, arguments: &[&str]) -> (Ran, JournalEntry) {
    let before = lun.journal().entries.len();
    let ran = on_bsg(lun, program, arguments);
    let mut entries = asked(lun, before);
    let entry = entries.pop().unwrap_or_else(|| panic!("no command came: {ran:?}"));
    assert_eq!(entries, [], "more than one command came");
    (ran, entry)
}

/// A time drawn for each command, up to so many microseconds.
pub(crate) fn delays(up_to_us: u64) -> Effect {
    Effect { delay_us: Some(0), delay_up_to_us: Some(up_to_us), ..Effect::default() }
}

/// Asserts that commands overtook each other: the journal has them in the order of their completion.
#[track_caller]
pub(crate) fn assert_out_of_order(entries: &[JournalEntry]) {
    let sorted = entries.is_sorted_by_key(|entry| entry.fetched_us);
    assert!(!sorted, "{} commands were completed in the order they came in", entries.len());
}
