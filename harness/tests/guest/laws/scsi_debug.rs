//! The laws tried on a second implementation, the kernel's scsi_debug: it obeys them but for a list of
//! differences, each with what the standard says of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use harness::{Feature, Needs, declare, kernel, scsi_debug};
use laws::{Ended, Transport, Unit};

use super::{
    differences::{BEFORE_6_16, DIFFERENCES, Difference, NOT_SUPPORTED},
    transport::Passthrough,
};
use crate::bsg::ways::Way;

/// Both obey the standard where no difference is written down; a difference that no longer shows has to go
/// from the list. On a kernel the list was not written for, scsi_debug may do better than it says.
#[test]
fn scsi_debug_obeys_them_but_for_the_differences_written_down() {
    declare!(
        Contract,
        Needs {
            own_vm: true,
            features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_SCSI_DEBUG"))]),
            deadline_s: Some(60),
            ..Needs::DEFAULT
        }
    );
    let mut expected: BTreeMap<&str, &Difference> = BTreeMap::new();
    let older = if kernel::at_least(6, 16) { &[] } else { BEFORE_6_16 };
    for difference in DIFFERENCES.iter().chain(older) {
        for law in difference.laws {
            assert!(expected.insert(law, difference).is_none(), "{law} is listed twice");
        }
    }
    let (mut obeyed, mut compared, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for law in laws::all().filter(|law| law.nexuses() == 1 && is_supported(law.subject())) {
        let title = law.title();
        let unit = fresh(law.unit);
        let breach = unit.breach(law);
        match (breach, expected.remove(title.as_str())) {
            (None, None) => {
                obeyed += 1;
                compared.extend(unit.good());
            }
            (Some(_), Some(_)) => {}
            (None, Some(_)) if !is_written_for_this_kernel() => {}
            (Some(how), None) => wrong.push(format!("{title}: {how}")),
            (None, Some(Difference { standard, clause, .. })) => wrong.push(format!(
                "{title} is obeyed now: take it off the list ({standard:?}: {clause})"
            )),
        }
    }
    wrong.extend(expected.keys().map(|title| format!("{title}: there is no such law")));
    assert!(wrong.is_empty(), "{} wrong, {obeyed} obeyed:\n{}", wrong.len(), wrong.join("\n"));
    let missing: Vec<_> = COMMONEST.iter().filter(|command| !compared.contains(*command)).collect();
    let is_enough = missing.is_empty() || !is_written_for_this_kernel();
    assert!(is_enough, "not compared: {missing:02x?}, but {compared:02x?}");
}

/// The commonest commands, by OPERATION CODE and SERVICE ACTION (SPC-4 and SBC-3, command sets): each is GOOD in a
/// law that both obey.
#[rustfmt::skip]
const COMMONEST: [(u8, u8); 31] = [
    (0x00, 0), (0x03, 0), (0x08, 0), (0x0a, 0), (0x12, 0), (0x15, 0), (0x16, 0), (0x17, 0), (0x1a, 0),
    (0x1b, 0), (0x25, 0), (0x28, 0), (0x2a, 0), (0x2f, 0), (0x35, 0), (0x41, 0),
    (0x4d, 0), (0x55, 0), (0x56, 0), (0x5a, 0), (0x88, 0), (0x89, 0), (0x8a, 0), (0x8f, 0),
    (0x91, 0), (0x93, 0), (0x9e, 0x10), (0xa0, 0), (0xa3, 0x0c), (0xa8, 0), (0xaa, 0),
];

/// The list was checked with 7.2 and 7.3.
fn is_written_for_this_kernel() -> bool {
    kernel::at_least(7, 2) && !kernel::at_least(7, 4)
}

fn is_supported(subject: &str) -> bool {
    !NOT_SUPPORTED.iter().any(|(other, ..)| *other == subject)
}

/// A unit as after power on, which it has reported.
#[track_caller]
fn fresh(unit: Unit) -> Passthrough {
    let device = scsi_debug::fresh(&params(unit));
    let way = Passthrough::to(&[device], Way::SgIoV4);
    let test_unit_ready = || way.execute(0, &[0; 6], &[], 0).ended();
    // POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, unless the kernel's scan has met it.
    let ended = Some(test_unit_ready()).filter(|ended| *ended != Ended::Check(6, 0x29, 0));
    assert_eq!(ended.unwrap_or_else(test_unit_ready), Ended::Good);
    way
}

/// Parameters of a unit as laws want it: [`laws::BLOCKS`] blocks of this length, mapped or not, without
/// delay, and without a disk driver, which would ask it first.
fn params(unit: Unit) -> String {
    let mebibytes = (laws::BLOCKS * u64::from(unit.block_len)) >> 20;
    let (block_len, exponent) = (unit.block_len, unit.physical_exponent);
    let mut params = format!(
        "delay=0 no_uld=1 dev_size_mb={mebibytes} sector_size={block_len} physblk_exp={exponent}"
    );
    if unit.thin {
        let granule = 4096 / block_len;
        params += &format!(" lbpu=1 lbpws=1 lbpws10=1 lbprz=1 unmap_granularity={granule}");
    }
    params
}
