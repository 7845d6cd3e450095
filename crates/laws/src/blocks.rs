//! READ, WRITE and SYNCHRONIZE CACHE of every length (SBC).

use crate::{Initiator, initiator::Ended::Check, laws};

laws! { "blocks"
    DISK One: every_cdb_reads_what_every_cdb_wrote, no_block_is_no_error,
        six_writes_and_reads_256_blocks_for_zero, read_beyond_the_end_is_refused,
        write_beyond_the_end_writes_nothing, an_address_of_more_than_32_bits_is_not_cut,
        fua_and_dpo_change_no_data, a_larger_buffer_gets_what_was_asked_for,
        protection_information_is_refused_where_there_is_none,
        synchronizing_takes_any_range_and_changes_no_data, synchronizing_beyond_the_end_is_refused;
    DISK_4K One: every_cdb_reads_what_every_cdb_wrote, no_block_is_no_error,
        read_beyond_the_end_is_refused, write_beyond_the_end_writes_nothing,
        a_larger_buffer_gets_what_was_asked_for;
}

/// LOGICAL BLOCK ADDRESS OUT OF RANGE.
const OUT_OF_RANGE: crate::Ended = Check(5, 0x21, 0);
/// INVALID FIELD IN CDB.
const INVALID: crate::Ended = Check(5, 0x24, 0);

/// Operation codes of (6), (10), (12) and (16).
const READ: [u8; 4] = [0x08, 0x28, 0xa8, 0x88];
const WRITE: [u8; 4] = [0x0a, 0x2a, 0xaa, 0x8a];

/// One command in its four lengths.
fn cdbs(opcodes: [u8; 4], flags: u8, lba: u16, blocks: u8) -> [Vec<u8>; 4] {
    let [a, b] = lba.to_be_bytes();
    let [six, ten, twelve, sixteen] = opcodes;
    [
        vec![six, 0, a, b, blocks, 0],
        vec![ten, flags, 0, 0, a, b, 0, 0, blocks, 0],
        vec![twelve, flags, 0, 0, a, b, 0, 0, 0, blocks, 0, 0],
        vec![sixteen, flags, 0, 0, 0, 0, 0, 0, a, b, 0, 0, 0, blocks, 0, 0],
    ]
}

/// What a READ returns that has to succeed.
#[track_caller]
fn read(initiator: &Initiator<'_>, cdb: &[u8], blocks: usize) -> Vec<u8> {
    let completion = initiator.ask(cdb, blocks * initiator.block_len());
    assert_eq!((completion.ended(), completion.residual), (crate::Ended::Good, 0), "{cdb:02x?}");
    completion.data
}

fn every_cdb_reads_what_every_cdb_wrote(initiator: &Initiator<'_>) {
    for (fill, write) in (1u8..).zip(cdbs(WRITE, 0, 0x501, 2)) {
        initiator.good_send(&write, &initiator.filled(&[fill, fill | 0x80]));
        for cdb in cdbs(READ, 0, 0x500, 4) {
            let expected = initiator.filled(&[0, fill, fill | 0x80, 0]);
            assert_eq!(read(initiator, &cdb, 4), expected, "{write:02x?}, {cdb:02x?}");
        }
    }
}

/// But for READ(6) and WRITE(6).
fn no_block_is_no_error(initiator: &Initiator<'_>) {
    for cdb in cdbs(READ, 0, 7, 0)[1..].iter().chain(&cdbs(WRITE, 0, 7, 0)[1..]) {
        initiator.good(cdb);
    }
    assert_eq!(initiator.read(6, 3), [0, 0, 0]);
}

fn six_writes_and_reads_256_blocks_for_zero(initiator: &Initiator<'_>) {
    let data: Vec<u8> = (0..=255).flat_map(|fill| initiator.filled(&[fill])).collect();
    initiator.good_send(&cdbs(WRITE, 0, 0x100, 0)[0], &data);
    assert_eq!(read(initiator, &cdbs(READ, 0, 0x100, 0)[0], 256), data);
    assert_eq!(read(initiator, &[0x28, 0, 0, 0, 2, 0, 0, 0, 1, 0], 1), initiator.filled(&[0]));
}

/// The first block that is not there, and a transfer that ends there.
fn read_beyond_the_end_is_refused(initiator: &Initiator<'_>) {
    for (lba, blocks) in [(0x800, 1), (0x7ff, 2)] {
        for cdb in cdbs(READ, 0, lba, blocks) {
            initiator.ask_expecting(&cdb, OUT_OF_RANGE);
        }
    }
    for cdb in cdbs(READ, 0, 0x7ff, 1) {
        assert_eq!(read(initiator, &cdb, 1), initiator.filled(&[0]));
    }
}

fn write_beyond_the_end_writes_nothing(initiator: &Initiator<'_>) {
    for cdb in cdbs(WRITE, 0, 0x7ff, 2) {
        initiator.send_expecting(&cdb, &initiator.filled(&[1, 1]), OUT_OF_RANGE);
    }
    assert_eq!(read(initiator, &cdbs(READ, 0, 0x7ff, 1)[1], 1), initiator.filled(&[0]));
    for (fill, cdb) in (1..).zip(cdbs(WRITE, 0, 0x7ff, 1)) {
        initiator.good_send(&cdb, &initiator.filled(&[fill]));
    }
    assert_eq!(read(initiator, &cdbs(READ, 0, 0x7ff, 1)[1], 1), initiator.filled(&[4]));
}

fn an_address_of_more_than_32_bits_is_not_cut(initiator: &Initiator<'_>) {
    for byte in 2..6 {
        let mut cdb = [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        cdb[byte] = 1;
        initiator.ask_expecting(&cdb, OUT_OF_RANGE);
        cdb[0] = 0x8a;
        initiator.send_expecting(&cdb, &initiator.filled(&[1]), OUT_OF_RANGE);
    }
    assert_eq!(initiator.read(0, 1), [0]);
}

/// Bits 4 and 3 of byte 1.
fn fua_and_dpo_change_no_data(initiator: &Initiator<'_>) {
    for (fill, flags) in [(1, 0x08), (2, 0x10), (3, 0x18)] {
        for (write, cdb) in cdbs(WRITE, flags, 3, 1).iter().zip(cdbs(READ, flags, 3, 1)).skip(1) {
            initiator.good_send(write, &initiator.filled(&[fill]));
            assert_eq!(read(initiator, &cdb, 1), initiator.filled(&[fill]), "{cdb:02x?}");
        }
    }
}

fn a_larger_buffer_gets_what_was_asked_for(initiator: &Initiator<'_>) {
    initiator.write(3, &[1, 2]);
    for cdb in cdbs(READ, 0, 3, 1) {
        let completion = initiator.ask(&cdb, 2 * initiator.block_len());
        assert_eq!(completion.ended(), crate::Ended::Good);
        assert_eq!(completion.data, initiator.filled(&[1]), "{cdb:02x?}");
        assert_eq!(completion.residual, initiator.block_len() as u64);
    }
}

/// RDPROTECT and WRPROTECT, bits 7 to 5 of byte 1, of a unit with PROT_EN zero.
fn protection_information_is_refused_where_there_is_none(initiator: &Initiator<'_>) {
    for cdb in &cdbs(READ, 0x20, 3, 1)[1..] {
        initiator.ask_expecting(cdb, INVALID);
    }
    for cdb in &cdbs(WRITE, 0x20, 3, 1)[1..] {
        initiator.send_expecting(cdb, &initiator.filled(&[1]), INVALID);
    }
    assert_eq!(initiator.read(3, 1), [0]);
}

/// A range, all blocks to the end (zero), IMMED (bit 1 of byte 1). Whether the medium has the data then no
/// initiator sees that has the cache before it: whoever executes the command has to look at the medium.
fn synchronizing_takes_any_range_and_changes_no_data(initiator: &Initiator<'_>) {
    initiator.write(3, &[1]);
    for (lba, blocks, immed) in [(3, 1, 0), (0, 0, 0), (0x7ff, 1, 0), (0, 0, 2)] {
        for cdb in synchronize(lba, blocks, immed) {
            initiator.good(&cdb);
        }
    }
    assert_eq!(initiator.read(3, 1), [1]);
}

fn synchronizing_beyond_the_end_is_refused(initiator: &Initiator<'_>) {
    for cdb in synchronize(0x7ff, 2, 0).iter().chain(&synchronize(0x801, 1, 0)) {
        initiator.run_expecting(cdb, OUT_OF_RANGE);
    }
}

/// SYNCHRONIZE CACHE(10) and (16).
fn synchronize(lba: u16, blocks: u8, immed: u8) -> [Vec<u8>; 2] {
    let [_, ten, _, sixteen] = cdbs([0, 0x35, 0, 0x91], immed, lba, blocks);
    [ten, sixteen]
}
