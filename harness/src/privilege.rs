//! Fewer privileges for the rest of the test. A test runs in a process of its own, so nobody minds.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Takes `CAP_SYS_RAWIO` from the calling thread for good, and nothing else: the one capability that
/// gets a SCSI command past the opcode filter (drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed).
#[track_caller]
pub fn drop_sys_rawio() {
    drop_capability(CapabilitySet::SYS_RAWIO);
}

/// Takes `CAP_SYS_ADMIN` from the calling thread for good, and nothing else: the one capability that
/// makes the owner of every ublk device (drivers/block/ublk_drv.c:ublk_ctrl_uring_cmd_permission).
#[track_caller]
pub fn drop_sys_admin() {
    drop_capability(CapabilitySet::SYS_ADMIN);
}

/// Takes from the calling thread for good what lets it past the mode of a file, `CAP_DAC_OVERRIDE` and
/// `CAP_DAC_READ_SEARCH`, and nothing else.
#[track_caller]
pub fn drop_file_access() {
    drop_capability(CapabilitySet::DAC_OVERRIDE);
    drop_capability(CapabilitySet::DAC_READ_SEARCH);
}

#[track_caller]
fn drop_capability(capability: CapabilitySet) {
    let mut sets = capabilities(None).expect("a thread can see its capabilities");
    assert!(sets.effective.contains(capability), "there is nothing to drop");
    sets.effective.remove(capability);
    sets.permitted.remove(capability);
    set_capabilities(None, sets).expect("capabilities can be dropped");
}
