//! What moves when buffers and commands disagree: offered minus moved is the residual.

use device_server::Outcome;
use rstest::rstest;
use scsi::Status;

use crate::fixture::{Bench, disk, pattern};

const READ_2: [u8; 10] = [0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0];
const WRITE_2: [u8; 10] = [0x2a, 0, 0, 0, 0, 1, 0, 0, 2, 0];

fn written() -> Bench {
    let bench = Bench::new(disk());
    let cdb = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    assert_eq!(bench.transfer(&cdb, &mut pattern(1, 8, 512), &mut []).status, Status::Good);
    bench
}

fn moved(outcome: &Outcome) -> (Status, u64, u64, bool) {
    (outcome.status, outcome.data_in_len, outcome.data_out_len, outcome.overrun)
}

#[rstest]
#[case::exact(1024, 1024, false)]
#[case::longer_buffer(1500, 1024, false)]
#[case::one_byte_short(1023, 1023, true)]
#[case::half(512, 512, true)]
#[case::part_of_a_block(100, 100, true)]
#[case::none(0, 0, true)]
fn read_fills_the_buffer_and_no_more(
    #[case] offered: usize,
    #[case] len: u64,
    #[case] overrun: bool,
) {
    let mut data = vec![0xee; offered];
    let outcome = written().transfer(&READ_2, &mut [], &mut data);
    assert_eq!(moved(&outcome), (Status::Good, len, 0, overrun));
    let len = usize::try_from(len).expect("small");
    assert_eq!(data[..len], pattern(2, 2, 512)[..len]);
    assert!(data[len..].iter().all(|byte| *byte == 0xee));
}

#[rstest]
#[case::exact(1024, 1024, false)]
#[case::longer_buffer(1500, 1024, false)]
#[case::one_byte_short(1023, 0, true)]
#[case::half(512, 0, true)]
#[case::none(0, 0, true)]
fn write_takes_all_or_nothing(#[case] offered: usize, #[case] len: u64, #[case] overrun: bool) {
    let bench = written();
    let outcome = bench.transfer(&WRITE_2, &mut vec![0x99; offered], &mut []);
    assert_eq!(moved(&outcome), (Status::Good, 0, len, overrun));
    let expected = match overrun {
        true => pattern(1, 8, 512),
        false => [pattern(1, 1, 512), vec![0x99; 1024], pattern(4, 5, 512)].concat(),
    };
    assert_eq!(bench.receive(&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]), expected);
}

#[test]
fn data_in_the_wrong_direction_is_not_touched() {
    let mut data = [0xee; 1024];
    assert_eq!(moved(&written().transfer(&READ_2, &mut data, &mut [])), (Status::Good, 0, 0, true));
    assert_eq!(
        moved(&written().transfer(&WRITE_2, &mut [], &mut data)),
        (Status::Good, 0, 0, true)
    );
    assert_eq!(data, [0xee; 1024]);
}

#[test]
fn a_command_without_data_leaves_all_of_the_buffers() {
    let (mut out, mut data_in) = ([1; 512], [0xee; 512]);
    let outcome = written().transfer(&[0; 6], &mut out, &mut data_in);
    assert_eq!(moved(&outcome), (Status::Good, 0, 0, false));
    assert_eq!(data_in, [0xee; 512]);
}

/// ALLOCATION LENGTH 255 asks for 96 bytes of INQUIRY data: what counts is the data there is.
#[rstest]
#[case(255, 255, 96, false)]
#[case(255, 96, 96, false)]
#[case(255, 36, 36, true)]
#[case(36, 36, 36, false)]
#[case(36, 255, 36, false)]
#[case(0, 0, 0, false)]
fn parameter_data_overruns_a_buffer_shorter_than_itself(
    #[case] allocation_length: u8,
    #[case] offered: usize,
    #[case] len: u64,
    #[case] overrun: bool,
) {
    let cdb = [0x12, 0, 0, 0, allocation_length, 0];
    let outcome = written().transfer(&cdb, &mut [], &mut vec![0xee; offered]);
    assert_eq!(moved(&outcome), (Status::Good, len, 0, overrun));
}

#[test]
fn an_error_moves_nothing_and_is_no_overrun() {
    let outcome = written().transfer(&[0x28, 0, 0, 0, 0, 64, 0, 0, 1, 0], &mut [], &mut [0; 100]);
    assert_eq!(moved(&outcome), (Status::CheckCondition, 0, 0, false));
}

#[test]
fn data_is_scattered_and_gathered_in_order() {
    let bench = Bench::new(disk());
    let mut data = pattern(1, 2, 512);
    let (head, tail) = data.split_at_mut(7);
    let (middle, tail) = tail.split_at_mut(600);
    let outcome = bench.scattered(&WRITE_2, &mut [head, &mut [], middle, tail], &mut []);
    assert_eq!(moved(&outcome), (Status::Good, 0, 1024, false));

    let (mut first, mut second, mut third) = ([0xee; 1], [0xee; 1000], [0xee; 100]);
    let outcome = bench.scattered(&READ_2, &mut [], &mut [&mut first, &mut second, &mut third]);
    assert_eq!(moved(&outcome), (Status::Good, 1024, 0, false));
    let read = [&first[..], &second, &third[..23]].concat();
    assert_eq!(read, pattern(1, 2, 512));
    assert_eq!(third[23..], [0xee; 77]);
}

#[test]
fn parameter_data_is_scattered_too() {
    let bench = Bench::new(disk());
    let whole = bench.receive(&[0x12, 0, 0, 0, 96, 0]);
    let (mut first, mut second) = ([0; 5], [0; 91]);
    bench.scattered(&[0x12, 0, 0, 0, 96, 0], &mut [], &mut [&mut first, &mut [], &mut second]);
    assert_eq!([&first[..], &second].concat(), whole);
}
