//! The laws that hold for every implementation, tried through the kernel: a test for each subject, on our
//! target, with one initiator and with two.

mod differences;
mod scsi_debug;
mod transport;

use std::collections::BTreeSet;

use control::{DeviceType, LunSpec, PhysicalBlocks, Provisioning};
use harness::{HostShape, Lun, Needs, ScsiHost, declare};
use laws::{Law, Unit};

use self::transport::Passthrough;
use crate::bsg::ways::{URING_CMD, Way};

/// A host with two I_T nexuses.
const TWO_NEXUSES: Needs = Needs {
    host: ScsiHost::Own(HostShape { nexuses: Some(2), ..HostShape::DEFAULT }),
    ..Needs::DEFAULT
};

/// A test for each subject, and the list of them.
macro_rules! subjects {
    ($list:ident, $needs:expr, $nexuses:literal, $way:expr; $($subject:ident),+) => {
        pub(crate) const $list: &[&str] = &[$(stringify!($subject)),+];
        $(
            #[test]
            fn $subject() {
                declare!(Contract, $needs);
                super::hold(stringify!($subject), $nexuses, $way);
            }
        )+
    };
}

/// What one initiator can see.
mod one {
    use super::*;

    subjects! { SUBJECTS, Needs::DEFAULT, 1, Way::SgIoV4;
        block_sizes, blocks, compare_and_write, echo_buffer, identity, mode_select, persistent_reservation, pre_fetch,
        provisioning, reports, reserve, start_stop, unit_attention, verify, write_same
    }
}

/// What it takes two initiators to see.
mod two {
    use super::*;

    subjects! { SUBJECTS, TWO_NEXUSES, 2, Way::SgIoV4;
        compare_and_write, echo_buffer, mode_select, persistent_reservation, reserve, start_stop, unit_attention
    }
}

/// Some of them again by the other way into the kernel: data to the device, data from it, and neither.
mod uring {
    use super::*;

    subjects! { SUBJECTS, URING_CMD, 1, Way::UringCmd;
        blocks, mode_select, start_stop, verify
    }
}

/// A subject without a test would go untried in the guest.
#[test]
fn every_subject_has_its_test() {
    declare!(Contract);
    let subjects = |nexuses| {
        let laws = laws::all().filter(move |law| law.nexuses() == nexuses);
        laws.map(Law::subject).collect::<BTreeSet<_>>()
    };
    assert_eq!(subjects(1), BTreeSet::from_iter(one::SUBJECTS.iter().copied()));
    assert_eq!(subjects(2), BTreeSet::from_iter(two::SUBJECTS.iter().copied()));
    assert!(uring::SUBJECTS.iter().all(|subject| one::SUBJECTS.contains(subject)));
}

/// Tries the laws of a subject, each on a unit as new, and says all that are broken.
#[track_caller]
fn hold(subject: &str, nexuses: usize, way: Way) {
    let laws = laws::all().filter(|law| law.subject() == subject && law.nexuses() == nexuses);
    let laws: Vec<_> = laws.collect();
    assert!(!laws.is_empty(), "there is no law of `{subject}`");
    let mut units: Vec<(Unit, Lun, Passthrough)> = Vec::new();
    let mut broken = Vec::new();
    for law in &laws {
        let at = units.iter().position(|(unit, ..)| *unit == law.unit).unwrap_or_else(|| {
            let lun = Lun::with(spec(law.unit));
            assert_eq!(lun.devices().len(), nexuses);
            let transport = Passthrough::to(lun.devices(), way);
            units.push((law.unit, lun, transport));
            units.len() - 1
        });
        let (_, lun, transport) = &units[at];
        lun.renew();
        broken.extend(transport.breach(law).map(|how| format!("{}: {how}", law.title())));
    }
    let (count, of) = (broken.len(), laws.len());
    assert!(broken.is_empty(), "{count} of {of} laws are broken:\n{}", broken.join("\n"));
}

/// The unit of our target that a law wants.
fn spec(unit: Unit) -> LunSpec {
    LunSpec {
        device_type: DeviceType::Disk,
        block_len: unit.block_len,
        blocks: laws::BLOCKS,
        provisioning: if unit.thin { Provisioning::Thin } else { Provisioning::Full },
        physical_blocks: PhysicalBlocks { exponent: unit.physical_exponent, lowest_aligned: 0 },
        ..LunSpec::default()
    }
}
