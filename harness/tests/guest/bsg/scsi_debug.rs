//! Defects of the kernel's simulated device that passthrough can reach.

use std::borrow::Cow;

use bsg::Request;
use harness::{Feature, Needs, declare};

use super::ways::{Unit, Way, execute};

/// SBC-4, FORMAT UNIT: the command ends, formatted or refused. It must not take the kernel down with
/// it, which is why the test has a machine of its own.
#[test]
fn format_unit_of_scsi_debug_ends() {
    declare!(
        Contract,
        Needs {
            own_vm: true,
            features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_SCSI_DEBUG"))]),
            ..Needs::DEFAULT
        }
    );
    let mut way = Way::SgIoV4.open(&Unit::ScsiDebug.device());
    let done = execute(&mut *way, Request::new(&[0x04, 0, 0, 0, 0, 0]));
    assert_eq!(done.host_status, 0, "{done:?}");
}
