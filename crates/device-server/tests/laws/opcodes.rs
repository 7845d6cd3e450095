//! REPORT SUPPORTED OPERATION CODES.

use rstest::rstest;
use scsi::Command;

use crate::fixture::{Bench, disk, invalid_bit, invalid_byte};

/// How many commands there are, those of one operation code counted each.
const COMMANDS: u16 = 50;

fn rsoc(options: u8, opcode: u8, service_action: u8) -> [u8; 12] {
    [0xa3, 0x0c, options, opcode, 0, service_action, 0, 0, 0x10, 0, 0, 0]
}

#[test]
fn all_commands_are_listed_with_length_and_service_action() {
    let data = Bench::new(disk()).receive(&rsoc(0, 0, 0));
    let [high, low] = (COMMANDS * 8).to_be_bytes();
    assert_eq!(data[..4], [0, 0, high, low]);
    assert_eq!(data[4..12], [0x00, 0, 0, 0, 0, 0, 0, 6]);
    let descriptors: Vec<_> = data[4..].chunks(8).collect();
    assert!(descriptors.contains(&&[0x28, 0, 0, 0, 0, 0, 0, 10][..]));
    assert!(descriptors.contains(&&[0x9e, 0, 0, 0x10, 0, 1, 0, 16][..]));
    assert!(descriptors.contains(&&[0xa3, 0, 0, 0x0c, 0, 1, 0, 12][..]));
    assert!(descriptors.contains(&&[0xa8, 0, 0, 0, 0, 0, 0, 12][..]));
}

#[test]
fn rctd_adds_a_timeouts_descriptor_to_each_command() {
    let data = Bench::new(disk()).receive(&rsoc(0x80, 0, 0));
    let [high, low] = (COMMANDS * 20).to_be_bytes();
    assert_eq!(data[..4], [0, 0, high, low]);
    assert_eq!(data[4..24], [0, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[rstest]
#[case::opcode(1)]
#[case::opcode_or_service_action(3)]
fn one_command_without_service_actions(#[case] options: u8) {
    let data = Bench::new(disk()).receive(&rsoc(options, 0x28, 0));
    assert_eq!(data, [0, 3, 0, 10, 0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 4]);
}

#[test]
fn one_command_with_timeouts() {
    let data = Bench::new(disk()).receive(&rsoc(0x81, 0x00, 0));
    assert_eq!(data, [0, 0x83, 0, 6, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[rstest]
#[case::service_action(2)]
#[case::opcode_or_service_action(3)]
fn one_command_with_a_service_action(#[case] options: u8) {
    let data = Bench::new(disk()).receive(&rsoc(options, 0x9e, 0x10));
    let usage = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 4];
    assert_eq!(data, [&[0, 3, 0, 16][..], &usage].concat());
}

#[rstest]
#[case::opcode(1, 0xff, 0)]
#[case::opcode_for_service_action(2, 0xff, 1)]
#[case::service_action(2, 0x9e, 0x13)]
#[case::either_opcode(3, 0xff, 0)]
#[case::either_service_action(3, 0x9e, 0x13)]
#[case::service_action_of_a_command_without(3, 0x28, 1)]
fn a_command_that_is_not_there_is_not_supported(
    #[case] options: u8,
    #[case] opcode: u8,
    #[case] service_action: u8,
) {
    let data = Bench::new(disk()).receive(&rsoc(0x80 | options, opcode, service_action));
    assert_eq!(data, [0, 1, 0, 0]);
}

#[test]
fn options_that_contradict_the_operation_code_are_refused() {
    let bench = Bench::new(disk());
    assert_eq!(bench.refused(&rsoc(1, 0x9e, 0x10)), invalid_bit(2, 2));
    assert_eq!(bench.refused(&rsoc(2, 0x28, 0)), invalid_byte(4));
    assert_eq!(bench.refused(&rsoc(4, 0x28, 0)), invalid_bit(2, 2));
    assert_eq!(bench.refused(&rsoc(7, 0x28, 0)), invalid_bit(2, 2));
    assert_eq!(bench.refused(&rsoc(8, 0x28, 0)), invalid_bit(2, 3));
}

#[test]
fn every_row_of_the_table_answers_for_itself() {
    let bench = Bench::new(disk());
    for command in Command::ALL {
        let service_action = command.spec().service_action.map_or(0, |code| code.to_be_bytes()[1]);
        let data = bench.receive(&rsoc(3, command.opcode(), service_action));
        assert_eq!(data[1], 3, "{}", command.name());
        assert_eq!(data[4..], command.spec().usage_data());
    }
}
