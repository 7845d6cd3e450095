//! One body for every way into the kernel and for two devices: what all of them must agree on.

use bsg::Request;
use harness::{
    assert::{assert_good, assert_sense},
    declare,
};
use rstest::rstest;

use super::ways::{Unit, Way, execute};

/// SAM-6 5.3.1: GOOD is 00h. SPC-6 6.48: TEST UNIT READY moves no data.
#[rstest]
fn test_unit_ready_is_good(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x00, 0, 0, 0, 0, 0]));
    assert_good(&done);
    assert_eq!(done.residual, 0);
    assert!(done.sense.is_empty(), "{:02x?}", done.sense);
}

/// SPC-6 6.7.2: response data format 2 in byte 3, additional length n - 4 in byte 4, 36 bytes at least.
#[rstest]
fn standard_inquiry_has_format_2_and_counts_its_bytes(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x12, 0, 0, 0, 255, 0]).data_in(255));
    assert_good(&done);
    assert_eq!(done.data[3] & 0x0f, 2, "response data format");
    let len = usize::from(done.data[4]) + 5;
    assert!(len >= 36, "additional length {}", done.data[4]);
    assert_eq!(done.residual, 255 - i64::try_from(len).expect("small"), "bytes not sent");
}

/// SPC-6 4.4: an operation code nobody implements is ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE
/// (5/20/00).
#[rstest]
fn unsupported_opcode_is_5_20_00(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0xff, 0, 0, 0, 0, 0]));
    assert_sense(&done, 0x05, 0x20, 0x00);
}
