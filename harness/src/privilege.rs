//! Fewer privileges for the rest of the test. A test runs in a process of its own, so nobody minds.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Takes `CAP_SYS_RAWIO` from the calling thread for good, and nothing else: the one capability that
/// gets a SCSI command past the opcode filter (drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed).
#[track_caller]
pub fn drop_sys_rawio() {
    let mut sets = capabilities(None).expect("a thread can see its capabilities");
    assert!(sets.effective.contains(CapabilitySet::SYS_RAWIO), "there is nothing to drop");
    sets.effective.remove(CapabilitySet::SYS_RAWIO);
    sets.permitted.remove(CapabilitySet::SYS_RAWIO);
    set_capabilities(None, sets).expect("capabilities can be dropped");
}
