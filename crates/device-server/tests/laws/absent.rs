//! A logical unit that is not there (SPC, Support for incorrect logical unit numbers).

use device_server::{Lookup, LunAddress};
use rstest::rstest;

use crate::fixture::{Bench, UNIT, disk, invalid_byte, sense};

fn absent() -> Bench {
    Bench { address: LunAddress { lun: 7, ..UNIT }, ..Bench::new(disk()) }
}

#[test]
fn lookup_tells_targets_and_units_apart() {
    let device = absent().device;
    assert_eq!(device.lookup(UNIT.target, UNIT.lun), Lookup::Unit);
    assert_eq!(device.lookup(UNIT.target, 7), Lookup::AbsentUnit);
    assert_eq!(device.lookup(0, 0), Lookup::NoTarget);
}

#[test]
fn inquiry_says_there_is_nothing() {
    let data = absent().receive(&[0x12, 0, 0, 0, 96, 0]);
    assert_eq!(data[..8], [0x7f, 0, 6, 0x12, 91, 0, 0, 2]);
    assert_eq!(data.len(), 96);
}

#[test]
fn inquiry_has_only_the_list_of_pages() {
    assert_eq!(absent().receive(&[0x12, 1, 0, 0, 96, 0]), [0x7f, 0, 0, 1, 0]);
    assert_eq!(absent().refused(&[0x12, 1, 0x83, 0, 96, 0]), invalid_byte(2));
}

#[test]
fn request_sense_is_good_and_says_not_supported_in_its_data() {
    assert_eq!(absent().receive(&[0x03, 0, 0, 0, 252, 0]), sense(5, 0x25, 0));
    assert_eq!(absent().receive(&[0x03, 1, 0, 0, 252, 0]), [0x72, 5, 0x25, 0, 0, 0, 0, 0]);
}

#[test]
fn report_luns_lists_the_units_that_are_there() {
    let data = absent().receive(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]);
    assert_eq!(data, [0, 0, 0, 8, 0, 0, 0, 0, 0x41, 0x02, 0, 0, 0, 0, 0, 0]);
}

#[rstest]
#[case::test_unit_ready(&[0x00, 0, 0, 0, 0, 0])]
#[case::read_10(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])]
#[case::unknown_opcode(&[0xff, 0, 0, 0, 0, 0])]
#[case::no_cdb(&[])]
fn everything_else_is_logical_unit_not_supported(#[case] cdb: &[u8]) {
    assert_eq!(absent().refused(cdb), sense(5, 0x25, 0));
}
