//! TEST UNIT READY, REQUEST SENSE, REPORT LUNS, and what is refused before any handler runs.

use device_server::{DataBuffers, Device, DeviceConfig, LuConfig, LunAddress};
use rstest::rstest;
use scsi::{Status, task::TaskAttribute};

use crate::fixture::{Bench, disk, invalid_bit, invalid_byte, sense};

#[test]
fn test_unit_ready_is_good() {
    let outcome = Bench::new(disk()).run(&[0; 6]);
    assert_eq!((outcome.status, outcome.sense), (Status::Good, None));
}

#[test]
fn request_sense_has_nothing_to_tell_in_either_format() {
    let bench = Bench::new(disk());
    assert_eq!(bench.receive(&[0x03, 0, 0, 0, 252, 0]), sense(0, 0, 0));
    assert_eq!(bench.receive(&[0x03, 1, 0, 0, 252, 0]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.receive(&[0x03, 0, 0, 0, 3, 0]), [0x70, 0, 0]);
    assert_eq!(bench.receive(&[0x03, 0, 0, 0, 0, 0]), []);
}

/// Byte 1 has DESC in its bit 0; the rest of it and bytes 2 and 3 are reserved.
#[test]
fn request_sense_with_a_reserved_bit_is_an_invalid_field() {
    let bench = Bench::new(disk());
    assert_eq!(bench.refused(&[0x03, 2, 0, 0, 252, 0]), invalid_bit(1, 1));
    assert_eq!(bench.refused(&[0x03, 0x81, 0, 0, 252, 0]), invalid_bit(1, 7));
    assert_eq!(bench.refused(&[0x03, 0, 0, 1, 252, 0]), invalid_bit(3, 0));
}

fn report_luns(select_report: u8, allocation_length: u32) -> [u8; 12] {
    let [a, b, c, d] = allocation_length.to_be_bytes();
    [0xa0, 0, select_report, 0, 0, 0, a, b, c, d, 0, 0]
}

fn three_units() -> Bench {
    let address = |target, lun| LunAddress { target, lun };
    let units = [address(1, 256), address(1, 0), address(2, 5), address(1, 255)]
        .map(|each| (each, LuConfig::default()));
    let config = DeviceConfig { units: units.to_vec(), ..DeviceConfig::default() };
    Bench { device: Device::new(config).expect("accepted"), address: address(1, 0) }
}

#[rstest]
#[case::addressed(0)]
#[case::all(2)]
fn report_luns_lists_the_units_of_the_target_in_order(#[case] select_report: u8) {
    let data = three_units().receive(&report_luns(select_report, 4096));
    let expected = [
        [0, 0, 0, 24, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 255, 0, 0, 0, 0, 0, 0],
        [0x41, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(data, expected.concat());
}

#[test]
fn report_luns_knows_no_well_known_units() {
    assert_eq!(three_units().receive(&report_luns(1, 4096)), [0; 8]);
}

#[rstest]
#[case(0x03)]
#[case(0x10)]
#[case(0x11)]
#[case(0x12)]
#[case(0xff)]
fn report_luns_refuses_other_selections(#[case] select_report: u8) {
    assert_eq!(three_units().refused(&report_luns(select_report, 4096)), invalid_byte(2));
}

/// LUN LIST LENGTH is not altered by truncation, and an enormous ALLOCATION LENGTH costs nothing.
#[test]
fn report_luns_allocation_length_only_cuts() {
    let bench = three_units();
    assert_eq!(bench.receive(&report_luns(0, 12)), [0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.receive(&report_luns(0, u32::MAX)).len(), 32);
}

#[test]
fn an_unknown_operation_code_is_refused() {
    assert_eq!(Bench::new(disk()).refused(&[0xff; 32]), sense(5, 0x20, 0));
    // GROUP CODE 4 without a row, and no CDB at all.
    assert_eq!(Bench::new(disk()).refused(&[0x8d; 16]), sense(5, 0x20, 0));
    assert_eq!(Bench::new(disk()).refused(&[]), sense(5, 0x20, 0));
}

#[test]
fn an_unknown_service_action_is_an_invalid_field() {
    let cdb = [0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    assert_eq!(Bench::new(disk()).refused(&cdb), invalid_bit(1, 4));
}

#[test]
fn naca_is_refused_where_it_is() {
    assert_eq!(Bench::new(disk()).refused(&[0, 0, 0, 0, 0, 4]), invalid_bit(5, 2));
    let read_16 = [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4];
    assert_eq!(Bench::new(disk()).refused(&read_16), invalid_bit(15, 2));
}

#[test]
fn a_cdb_cut_short_is_refused() {
    assert_eq!(Bench::new(disk()).refused(&[0x28, 0, 0, 0]), invalid_byte(4));
}

/// Bytes behind the CDB are padding of the transport.
#[test]
fn padding_is_not_looked_at() {
    let mut cdb = [0xff; 32];
    cdb[..6].fill(0);
    assert_eq!(Bench::new(disk()).run(&cdb).status, Status::Good);
}

/// SAM, ACA task attribute: NORMACA is zero.
#[test]
fn the_aca_attribute_is_refused() {
    let bench = Bench::new(disk());
    let mut data = DataBuffers::default();
    let outcome = bench.execute(&[0; 6], TaskAttribute::Aca, &mut data);
    assert_eq!(outcome.sense.as_deref(), Some(&sense(5, 0x49, 0)[..]));
    for attribute in [TaskAttribute::Ordered, TaskAttribute::HeadOfQueue] {
        assert_eq!(bench.execute(&[0; 6], attribute, &mut data).status, Status::Good);
    }
}
