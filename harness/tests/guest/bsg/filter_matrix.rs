//! The opcode filter, opcode by opcode (drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed).

use std::collections::BTreeSet;

use bsg::{Access, Errno, Passthrough, Request};
use fault::Times;
use harness::{Lun, declare, privilege};
use rstest::rstest;
use scsi_fault::{Effect, Rule, When};

use super::ways::Way;

/// What a task without CAP_SYS_RAWIO may send over any descriptor.
#[rustfmt::skip]
const ALWAYS: [u8; 44] = [
    0x00, 0x03, 0x08, 0x12, 0x1a, 0x1b, 0x1c, 0x23, 0x25, 0x28, 0x2b, 0x2f, 0x37, 0x3c, 0x3e, 0x42,
    0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x4a, 0x4b, 0x4d, 0x4e, 0x51, 0x52, 0x5a, 0x5c, 0x88, 0x8f,
    0x95, 0x9e, 0xa0, 0xa3, 0xa4, 0xa8, 0xac, 0xad, 0xb9, 0xba, 0xbc, 0xbe,
];

/// What it may send beside that over a writable one.
#[rustfmt::skip]
const IF_WRITABLE: [u8; 31] = [
    0x04, 0x0a, 0x0d, 0x15, 0x19, 0x1e, 0x2a, 0x2e, 0x35, 0x3f, 0x41, 0x4c, 0x53, 0x54, 0x55, 0x58,
    0x5b, 0x5d, 0x8a, 0x93, 0x94, 0xa1, 0xa2, 0xa6, 0xa7, 0xaa, 0xae, 0xb6, 0xbb, 0xbf, 0xea,
];

/// The opcodes that pass; all others are EPERM. Bytes behind the first mean nothing to the filter.
fn passing(way: &mut dyn Passthrough) -> BTreeSet<u8> {
    let passes = |opcode: &u8| {
        let mut cdb = [0xff; 16];
        cdb[0] = *opcode;
        match way.execute(Request::new(&cdb)) {
            Ok(done) => {
                assert_eq!((done.device_status, done.host_status), (0, 0), "{opcode:#04x}");
                true
            }
            Err(error) => {
                assert_eq!(error.errno(), Some(Errno::PERM), "{opcode:#04x}: {error}");
                false
            }
        }
    };
    (0..=0xff).filter(passes).collect()
}

/// The unit answers GOOD to whatever arrives and does nothing; how often it did says that nothing refused
/// has arrived.
#[rstest]
fn every_opcode_passes_or_is_refused_as_listed(
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
    #[values(Access::ReadOnly, Access::ReadWrite)] access: Access,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let granted = Rule::new("granted", Effect::status("GOOD"));
    lun.faults([granted.when(When::any()).times(Times::Always)]);
    let mut way = way.open_for(lun.device(), access);
    assert_eq!(passing(&mut *way), (0..=0xff).collect(), "with CAP_SYS_RAWIO");
    privilege::drop_sys_rawio();
    let mut expected = BTreeSet::from(ALWAYS);
    if access == Access::ReadWrite {
        expected.extend(IF_WRITABLE);
    }
    let passed = passing(&mut *way);
    let differences: Vec<_> = passed.symmetric_difference(&expected).collect();
    assert!(differences.is_empty(), "otherwise than listed: {differences:02x?}");
    assert_eq!(lun.fired("granted"), 256 + expected.len() as u64);
}
