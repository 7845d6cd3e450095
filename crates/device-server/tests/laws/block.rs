//! READ, WRITE, SYNCHRONIZE CACHE, READ CAPACITY.

use device_server::LuConfig;
use rstest::rstest;
use scsi::Status;

use crate::fixture::{Bench, disk, invalid_bit, pattern, sense};

/// READ or WRITE in one of its lengths.
fn transfer_cdb(opcode: u8, lba: u64, blocks: u32) -> Vec<u8> {
    let wide = lba.to_be_bytes();
    let count = blocks.to_be_bytes();
    match opcode {
        0x08 | 0x0a => vec![opcode, wide[5], wide[6], wide[7], count[3], 0],
        0x28 | 0x2a => [&[opcode, 0], &wide[4..], &[0], &count[2..], &[0]].concat(),
        0xa8 | 0xaa => [&[opcode, 0], &wide[4..], &count[..], &[0, 0]].concat(),
        _ => [&[opcode, 0], &wide[..], &count[..], &[0, 0]].concat(),
    }
}

#[rstest]
fn what_was_written_is_read(
    #[values(0x0a, 0x2a, 0xaa, 0x8a)] write: u8,
    #[values(0x08, 0x28, 0xa8, 0x88)] read: u8,
    #[values(512, 4096)] block_len: u32,
) {
    let bench = Bench::new(LuConfig { block_len, ..disk() });
    let block = usize::try_from(block_len).expect("small");
    let mut data = pattern(1, 3, block);
    let outcome = bench.transfer(&transfer_cdb(write, 5, 3), &mut data, &mut []);
    assert_eq!(outcome.status, Status::Good);
    assert_eq!((outcome.data_out_len, outcome.data_in_len), (3 * u64::from(block_len), 0));

    let mut around = vec![0xee; 5 * block];
    let outcome = bench.transfer(&transfer_cdb(read, 4, 5), &mut [], &mut around);
    assert_eq!(outcome.status, Status::Good);
    assert_eq!((outcome.data_out_len, outcome.data_in_len), (0, 5 * u64::from(block_len)));
    assert_eq!(around, [vec![0; block], pattern(1, 3, block), vec![0; block]].concat());
}

/// SBC, READ(6): TRANSFER LENGTH zero is 256 blocks.
#[test]
fn read_6_of_length_zero_is_256_blocks() {
    let bench = Bench::new(LuConfig { blocks: 300, ..disk() });
    let mut data = vec![0xee; 257 * 512];
    let outcome = bench.transfer(&[0x08, 0, 0, 44, 0, 0], &mut [], &mut data);
    assert_eq!((outcome.status, outcome.data_in_len), (Status::Good, 256 * 512));
    assert_eq!(bench.refused(&[0x08, 0, 0, 45, 0, 0]), sense(5, 0x21, 0));
    let outcome = bench.transfer(&[0x0a, 0, 0, 44, 0, 0], &mut data, &mut []);
    assert_eq!((outcome.status, outcome.data_out_len), (Status::Good, 256 * 512));
}

/// The upper three bits before the 21-bit address are reserved.
#[test]
fn read_6_address_has_21_bits() {
    assert_eq!(Bench::new(disk()).refused(&[0x08, 0x20, 0, 0, 1, 0]), invalid_bit(1, 5));
    let bench = Bench::new(LuConfig { blocks: 0x20_0000, ..disk() });
    let mut data = vec![7; 512];
    let last = [0x1f, 0xff, 0xff];
    let write = [&[0x0a][..], &last, &[1, 0]].concat();
    assert_eq!(bench.transfer(&write, &mut data, &mut []).status, Status::Good);
    let read = transfer_cdb(0x28, 0x1f_ffff, 1);
    assert_eq!(bench.receive(&read), vec![7; 512]);
}

#[rstest]
fn other_lengths_of_zero_move_nothing(#[values(0x28, 0xa8, 0x88, 0x2a, 0xaa, 0x8a)] opcode: u8) {
    let bench = Bench::new(disk());
    for lba in [0, 64] {
        let outcome = bench.transfer(&transfer_cdb(opcode, lba, 0), &mut [1; 512], &mut [1; 512]);
        assert_eq!(outcome.status, Status::Good);
        assert_eq!((outcome.data_in_len, outcome.data_out_len), (0, 0));
        assert!(!outcome.overrun);
    }
    assert_eq!(bench.refused(&transfer_cdb(opcode, 65, 0)), sense(5, 0x21, 0));
}

#[rstest]
#[case(0x28, 63, 2)]
#[case(0x28, 64, 1)]
#[case(0x2a, 0xffff_ffff, 0xffff)]
#[case(0xa8, 0xffff_ffff, 0xffff_ffff)]
#[case(0xaa, 0, 0xffff_ffff)]
#[case(0x88, u64::MAX, 1)]
#[case(0x88, u64::MAX, u32::MAX)]
#[case(0x8a, u64::MAX - 1, 2)]
#[case(0x8a, 0x8000_0000_0000_0000, 1)]
#[case(0x88, 0x0080_0000_0000_0000, 1)] // times 512 wraps to 0
fn beyond_the_last_block_is_lba_out_of_range(
    #[case] opcode: u8,
    #[case] lba: u64,
    #[case] blocks: u32,
) {
    let sense_data = Bench::new(disk()).refused(&transfer_cdb(opcode, lba, blocks));
    assert_eq!(sense_data, sense(5, 0x21, 0));
}

#[rstest]
fn dpo_and_fua_are_accepted(#[values(0x28, 0xa8, 0x88, 0x2a, 0xaa, 0x8a)] opcode: u8) {
    let bench = Bench::new(disk());
    for bits in [0x10, 0x08, 0x18] {
        let mut cdb = transfer_cdb(opcode, 0, 1);
        cdb[1] = bits;
        assert_eq!(bench.transfer(&cdb, &mut [0; 512], &mut [0; 512]).status, Status::Good);
    }
}

#[rstest]
fn protection_information_is_refused(
    #[values(0x28, 0xa8, 0x88, 0x2a, 0xaa, 0x8a)] opcode: u8,
    #[values(0x20, 0x60, 0xe0)] protect: u8,
) {
    let mut cdb = transfer_cdb(opcode, 0, 1);
    cdb[1] = protect;
    assert_eq!(Bench::new(disk()).refused(&cdb), invalid_bit(1, 7));
}

#[rstest]
fn a_write_protected_unit_refuses_writes_and_serves_reads(
    #[values(0x0a, 0x2a, 0xaa, 0x8a)] write: u8,
) {
    let bench = Bench::new(LuConfig { write_protect: true, ..disk() });
    assert_eq!(bench.refused(&transfer_cdb(write, 0, 1)), sense(7, 0x27, 0));
    assert_eq!(bench.receive(&transfer_cdb(0x28, 0, 1)), [0; 512]);
    assert_eq!(bench.run(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]).status, Status::Good);
}

#[rstest]
#[case::everything(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
#[case::immediately(&[0x35, 2, 0, 0, 0, 0, 0, 0, 0, 0])]
#[case::to_the_end(&[0x35, 0, 0, 0, 0, 0, 0, 0, 64, 0])]
#[case::everything_16(&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
#[case::last_block_16(&[0x91, 2, 0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 0, 1, 0, 0])]
fn synchronize_cache_is_good(#[case] cdb: &[u8]) {
    let outcome = Bench::new(disk()).run(cdb);
    assert_eq!((outcome.status, outcome.sense), (Status::Good, None));
}

#[rstest]
#[case(&[0x35, 0, 0, 0, 0, 65, 0, 0, 0, 0])]
#[case(&[0x35, 0, 0, 0, 0, 63, 0, 0, 2, 0])]
#[case(&[0x91, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0])]
fn synchronize_cache_beyond_the_end_is_lba_out_of_range(#[case] cdb: &[u8]) {
    assert_eq!(Bench::new(disk()).refused(cdb), sense(5, 0x21, 0));
}

#[test]
fn read_capacity_10() {
    let bench = Bench::new(LuConfig { block_len: 4096, ..disk() });
    assert_eq!(bench.receive(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [0, 0, 0, 63, 0, 0, 0x10, 0]);
    // Obsolete LOGICAL BLOCK ADDRESS and PMI.
    assert_eq!(bench.refused(&[0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0]), invalid_bit(5, 0));
    assert_eq!(bench.refused(&[0x25, 0, 0, 0, 0, 0, 0, 0, 1, 0]), invalid_bit(8, 0));
}

#[test]
fn read_capacity_16() {
    let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 2, 0];
    expected.extend_from_slice(&[0; 20]);
    let cdb = |len| [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0];
    assert_eq!(Bench::new(disk()).receive(&cdb(255)), expected);
    assert_eq!(Bench::new(disk()).receive(&cdb(12)), expected[..12]);
    // Obsolete LOGICAL BLOCK ADDRESS and PMI.
    let spoilt = |at: usize| {
        let mut cdb = cdb(32);
        cdb[at] = 1;
        Bench::new(disk()).refused(&cdb)
    };
    assert_eq!([2, 9, 14].map(spoilt), [invalid_bit(2, 0), invalid_bit(9, 0), invalid_bit(14, 0)]);
}
