//! INQUIRY and VPD pages.

use device_server::{DeviceType, LuConfig, MediumConfig};
use rstest::rstest;

use crate::fixture::{Bench, disk, invalid_bit, invalid_byte};

#[test]
fn standard_inquiry_of_a_disk() {
    let data = Bench::new(disk()).receive(&[0x12, 0, 0, 0x10, 0, 0]);
    let mut expected = vec![0x00, 0x00, 0x06, 0x12, 91, 0x00, 0x00, 0x02];
    expected.extend_from_slice(b"SENSECHKVIRTUAL DISK    0001");
    expected.extend_from_slice(&[0; 22]);
    expected.extend_from_slice(&[0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0]);
    expected.extend_from_slice(&[0; 32]);
    assert_eq!(data, expected);
    assert_eq!(data.len(), 96);
}

#[test]
fn standard_inquiry_of_a_processor_claims_no_block_standard() {
    let data = Bench::new(LuConfig::default()).receive(&[0x12, 0, 0, 0x10, 0, 0]);
    assert_eq!(data[0], 0x03);
    assert_eq!(data[58..64], [0x00, 0xa0, 0x04, 0x60, 0x00, 0x00]);
}

#[rstest]
#[case(0)]
#[case(5)]
#[case(36)]
#[case(96)]
fn inquiry_is_cut_by_allocation_length_without_an_error(#[case] allocation_length: u8) {
    let data = Bench::new(disk()).receive(&[0x12, 0, 0, 0, allocation_length, 0]);
    assert_eq!(data.len(), usize::from(allocation_length));
    // ADDITIONAL LENGTH is not altered by truncation.
    assert!(data.get(4).is_none_or(|len| *len == 91));
}

#[test]
fn inquiry_of_a_page_without_evpd_is_invalid_field() {
    assert_eq!(Bench::new(disk()).refused(&[0x12, 0, 0x80, 0, 96, 0]), invalid_byte(2));
}

#[test]
fn inquiry_with_obsolete_cmddt_is_invalid_field() {
    assert_eq!(Bench::new(disk()).refused(&[0x12, 2, 0, 0, 96, 0]), invalid_bit(1, 1));
}

#[rstest]
#[case(0x01)]
#[case(0x87)]
#[case(0xb6)]
#[case(0xff)]
fn inquiry_of_a_vpd_page_that_is_not_listed_is_invalid_field(#[case] page: u8) {
    assert_eq!(Bench::new(disk()).refused(&[0x12, 1, page, 0, 96, 0]), invalid_byte(2));
}

fn vpd(page: u8) -> Vec<u8> {
    Bench::new(disk()).receive(&[0x12, 1, page, 0x10, 0, 0])
}

#[test]
fn vpd_00_lists_the_pages_in_order() {
    assert_eq!(vpd(0x00), [0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
}

#[test]
fn every_listed_vpd_page_answers_with_its_code_and_true_length() {
    for device_type in [DeviceType::Disk, DeviceType::Processor] {
        let bench = Bench::new(LuConfig { device_type, ..disk() });
        let list = bench.receive(&[0x12, 1, 0, 0x10, 0, 0]);
        for page in &list[4..] {
            let data = bench.receive(&[0x12, 1, *page, 0x10, 0, 0]);
            assert_eq!(data[0], device_type as u8);
            assert_eq!(data[1], *page);
            assert_eq!(usize::from(data[2]) << 8 | usize::from(data[3]), data.len() - 4);
        }
    }
}

/// Identifier a1b2c3d4, target 03, LUN 0102.
#[test]
fn vpd_80_is_the_serial_number() {
    let mut expected = vec![0, 0x80, 0, 14];
    expected.extend_from_slice(b"a1b2c3d4030102");
    assert_eq!(vpd(0x80), expected);
}

#[test]
fn vpd_83_has_a_t10_vendor_id_and_an_naa_designator() {
    let mut expected = vec![0, 0x83, 0, 54, 0x02, 0x01, 0, 38];
    expected.extend_from_slice(b"SENSECHKVIRTUAL DISK    a1b2c3d4030102");
    expected.extend_from_slice(&[0x01, 0x03, 0, 8]);
    expected.extend_from_slice(&[0x30, 0xa1, 0xb2, 0xc3, 0xd4, 0x03, 0x01, 0x02]);
    assert_eq!(vpd(0x83), expected);
}

/// HEADSUP, ORDSUP, SIMPSUP; V_SUP with a file only; LUICLR.
#[test]
fn vpd_86_tells_task_attributes_and_cache() {
    let mut expected = vec![0, 0x86, 0, 0x3c, 0, 0x07, 0, 0x01];
    expected.resize(64, 0);
    assert_eq!(vpd(0x86), expected);
    let folder = tempfile::tempdir().expect("a directory");
    let medium = MediumConfig::File { path: folder.path().join("medium") };
    let cached = Bench::new(LuConfig { medium, ..disk() });
    expected[6] = 0x01;
    assert_eq!(cached.receive(&[0x12, 1, 0x86, 0x10, 0, 0]), expected);
}

#[test]
fn vpd_b0_limits_compare_and_write_and_write_same_only() {
    let mut expected = vec![0, 0xb0, 0, 0x3c, 0x01, 255];
    expected.resize(36, 0);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    expected.resize(64, 0);
    assert_eq!(vpd(0xb0), expected);
}

#[test]
fn vpd_b1_does_not_rotate() {
    let mut expected = vec![0, 0xb1, 0, 0x3c, 0x00, 0x01];
    expected.extend_from_slice(&[0; 0x3a]);
    assert_eq!(vpd(0xb1), expected);
}

#[test]
fn vpd_b2_is_fully_provisioned() {
    assert_eq!(vpd(0xb2), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
}
