//! The disk driver as one more client of the same faults: which errno the caller of the block device gets, which
//! sectors have arrived, and how often the target has seen the command.
//!
//! The midlayer decides (drivers/scsi/scsi_error.c:scsi_decide_disposition, scsi_check_sense), sd says how much
//! was good (drivers/scsi/sd.c:sd_done), scsi_lib.c:scsi_result_to_blk_status makes a block status of the rest,
//! and block/blk-core.c:blk_errors an errno: ENODATA is BLK_STS_MEDIUM, EREMOTEIO BLK_STS_TARGET, EBADE
//! BLK_STS_RESV_CONFLICT, ENOSPC BLK_STS_NOSPC, EILSEQ BLK_STS_PROTECTION, EIO BLK_STS_IOERR.

mod cache;
mod capacity;
mod errors;
mod ranges;
mod short;

use std::io;

use bsg::{Access, Errno};
use control::JournalEntry;
use fault::Times;
use harness::{BlockDevice, Lun};
use scsi_fault::{Effect, Rule, When};

/// A unit whose disk the guest forgets when the test ends: what the kernel has learned of it, or was told, would
/// befall the test that has the unit next.
pub(crate) struct ForgottenDisk(pub(crate) Lun);

impl std::ops::Deref for ForgottenDisk {
    type Target = Lun;

    fn deref(&self) -> &Lun {
        &self.0
    }
}

impl Drop for ForgottenDisk {
    fn drop(&mut self) {
        let path = self.device().dir().join("delete");
        let deleted = std::fs::write(&path, "1");
        // A test that has failed must not panic again.
        if !std::thread::panicking() {
            deleted.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// Opens the disk of a unit.
#[track_caller]
fn disk(lun: &Lun) -> BlockDevice {
    BlockDevice::open(&lun.device().disk(), Access::ReadWrite)
}

/// What the unit is asked by this.
#[track_caller]
fn asked<T>(lun: &Lun, what: impl FnOnce() -> T) -> (T, Vec<JournalEntry>) {
    let before = lun.journal().entries.len();
    let result = what();
    (result, lun.journal().entries.split_off(before))
}

/// Names of commands.
fn names(entries: &[JournalEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.command.as_str()).collect()
}

/// Statuses of commands.
fn statuses(entries: &[JournalEntry]) -> Vec<u8> {
    entries.iter().map(|entry| entry.status).collect()
}

/// Befalls every such command from now on.
#[track_caller]
fn always(lun: &Lun, command: &str, effect: Effect) {
    first(lun, command, effect, Times::Always);
}

/// Befalls such commands from now on, so often.
#[track_caller]
fn first(lun: &Lun, command: &str, effect: Effect, times: Times) {
    lun.faults([Rule::new("fault", effect).when(When::command(command)).times(times)]);
}

/// The errno of a failure; none if it is none.
fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_io_error(&error).expect("the kernel's"))
}
