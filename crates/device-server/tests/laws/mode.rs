//! MODE SENSE(6) and MODE SENSE(10).

use device_server::{Aborts, LuConfig, MediumConfig};
use rstest::rstest;
use scsi::Status;

use crate::fixture::{Bench, disk, invalid_bit, invalid_byte, sense};

/// Caching and Control mode pages of a unit in RAM.
const CACHING: [u8; 20] = [0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CONTROL: [u8; 12] = [0x0a, 0x0a, 0x02, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn mode_sense_6_of_all_pages() {
    let data = Bench::new(disk()).receive(&[0x1a, 0, 0x3f, 0, 0xff, 0]);
    let header = [43, 0, 0x10, 8, 0, 0, 0, 64, 0, 0, 2, 0];
    assert_eq!(data, [&header[..], &CACHING, &CONTROL].concat());
}

#[test]
fn mode_sense_10_of_one_page_without_block_descriptor() {
    let data = Bench::new(disk()).receive(&[0x5a, 0x08, 0x0a, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(data, [&[0, 18, 0, 0x10, 0, 0, 0, 0][..], &CONTROL].concat());
}

#[test]
fn mode_sense_10_with_llbaa_has_a_long_block_descriptor() {
    let config = LuConfig { block_len: 4096, ..disk() };
    let data = Bench::new(config).receive(&[0x5a, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0]);
    let header = [0, 42, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0x10, 0];
    assert_eq!(data, [&header[..], &CACHING].concat());
}

#[test]
fn write_protect_is_reported_in_the_header() {
    let bench = Bench::new(LuConfig { write_protect: true, ..disk() });
    assert_eq!(bench.receive(&[0x1a, 0x08, 0x08, 0, 4, 0]), [23, 0, 0x90, 0]);
    assert_eq!(bench.receive(&[0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, 4, 0]), [0, 26, 0, 0x90]);
}

#[test]
fn a_file_medium_has_a_volatile_cache() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let medium = MediumConfig::File { path: folder.path().join("disk") };
    let bench = Bench::new(LuConfig { medium, ..disk() });
    for page_control in [0x00, 0x80] {
        let data = bench.receive(&[0x1a, 0x08, 0x08 | page_control, 0, 0xff, 0]);
        assert_eq!(data[4..7], [0x08, 0x12, 0x04]);
    }
    let changeable = bench.receive(&[0x1a, 0x08, 0x48, 0, 0xff, 0]);
    assert_eq!(changeable[4..7], [0x08, 0x12, 0x04], "WCE is changeable, code and length stay");
}

#[rstest]
#[case::current(0x00, CONTROL)]
#[case::changeable(0x40, [0x0a, 0x0a, 4, 6, 8, 0, 0, 0, 0, 0, 0, 0])]
#[case::default(0x80, CONTROL)]
fn page_control_selects_the_values(#[case] page_control: u8, #[case] page: [u8; 12]) {
    let data = Bench::new(disk()).receive(&[0x1a, 0x08, page_control | 0x0a, 0, 0xff, 0]);
    assert_eq!(data, [&[15, 0, 0x10, 0][..], &page].concat());
}

#[test]
fn saved_values_are_not_supported() {
    let bench = Bench::new(disk());
    assert_eq!(bench.refused(&[0x1a, 0, 0xca, 0, 0xff, 0]), sense(5, 0x39, 0));
    assert_eq!(bench.refused(&[0x5a, 0, 0xff, 0, 0, 0, 0, 0, 0xff, 0]), sense(5, 0x39, 0));
}

#[rstest]
#[case::all_subpages_of_all_pages(0x3f)]
#[case::all_subpages_of_one_page(0x0a)]
fn all_subpages_are_the_pages_themselves(#[case] page: u8) {
    let bench = Bench::new(disk());
    let with = bench.receive(&[0x1a, 0, page, 0xff, 0xff, 0]);
    assert_eq!(with, bench.receive(&[0x1a, 0, page, 0x00, 0xff, 0]));
}

#[test]
fn pages_and_subpages_that_do_not_exist_are_invalid_fields() {
    let bench = Bench::new(disk());
    assert_eq!(bench.refused(&[0x1a, 0, 0x1c, 0, 0xff, 0]), invalid_bit(2, 5));
    assert_eq!(bench.refused(&[0x1a, 0, 0x00, 0, 0xff, 0]), invalid_bit(2, 5));
    assert_eq!(bench.refused(&[0x1a, 0, 0x0a, 1, 0xff, 0]), invalid_byte(3));
    assert_eq!(bench.refused(&[0x1a, 0, 0x3f, 1, 0xff, 0]), invalid_byte(3));
}

#[test]
fn mode_data_length_is_not_altered_by_truncation() {
    let bench = Bench::new(disk());
    assert_eq!(bench.receive(&[0x1a, 0, 0x3f, 0, 1, 0]), [43]);
    assert_eq!(bench.receive(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 2, 0]), [0, 46]);
}

/// SPC, QERR: what else ends with a command that ends in CHECK CONDITION, and with no other.
#[rstest]
#[case::nothing(0x00, Aborts::Nothing)]
#[case::all_commands(0x02, Aborts::TaskSet)]
#[case::commands_of_the_nexus(0x06, Aborts::SameNexus)]
fn qerr_tells_what_else_is_aborted(#[case] qerr: u8, #[case] aborts: Aborts) {
    let bench = Bench::new(disk());
    let mut list = [&[0; 4][..], &CONTROL].concat();
    list[4 + 3] |= qerr;
    let selected = bench.transfer(&[0x15, 0x10, 0, 0, 16, 0], &mut list, &mut []);
    assert_eq!((selected.status, selected.aborts), (Status::Good, Aborts::Nothing));
    assert_eq!(bench.run(&[0; 6]).aborts, Aborts::Nothing);
    assert_eq!(bench.run(&[0xff; 6]).aborts, aborts);
}
