//! WRITE SAME(10) and WRITE SAME(16) (SBC).

use crate::{Initiator, initiator::Ended::Check, laws};

laws! { "write_same"
    DISK One: every_block_is_the_one_that_was_sent, ndob_writes_zeros_and_takes_no_data, ten_has_no_ndob,
        zero_blocks_and_too_many_are_refused, beyond_the_end_nothing_is_written,
        unmap_and_anchor_are_refused_where_every_block_is_mapped, it_is_a_write;
    DISK_4K One: every_block_is_the_one_that_was_sent, ndob_writes_zeros_and_takes_no_data;
    THIN One: every_block_is_the_one_that_was_sent, ndob_writes_zeros_and_takes_no_data,
        anchor_is_refused;
}

/// INVALID FIELD IN CDB.
const INVALID: crate::Ended = Check(5, 0x24, 0);

fn ten(flags: u8, lba: u8, blocks: u8) -> [u8; 10] {
    [0x41, flags, 0, 0, 0, lba, 0, 0, blocks, 0]
}

fn sixteen(flags: u8, lba: u8, blocks: u8) -> [u8; 16] {
    [0x93, flags, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0]
}

fn every_block_is_the_one_that_was_sent(initiator: &Initiator<'_>) {
    initiator.good_send(&ten(0, 3, 4), &initiator.filled(&[7]));
    assert_eq!(initiator.read(2, 6), [0, 7, 7, 7, 7, 0]);
    initiator.good_send(&sixteen(0, 5, 200), &initiator.filled(&[8]));
    assert_eq!(initiator.read(2, 6), [0, 7, 7, 8, 8, 8]);
    assert_eq!(initiator.read(203, 3), [8, 8, 0]);
    // A block that is not of one byte throughout arrives as it is.
    let mut block = initiator.filled(&[1]);
    block[100] = 2;
    initiator.good_send(&ten(0, 9, 2), &block);
    let cdb = [0x28, 0, 0, 0, 0, 9, 0, 0, 2, 0];
    let read = initiator.ask(&cdb, 2 * block.len()).data;
    assert_eq!(read, [&block[..], &block].concat());
}

fn ndob_writes_zeros_and_takes_no_data(initiator: &Initiator<'_>) {
    initiator.write(0, &[1, 2, 3, 4]);
    initiator.good(&sixteen(1, 1, 2));
    assert_eq!(initiator.read(0, 4), [1, 0, 0, 4]);
}

/// NDOB is bit 0 of byte 1 of WRITE SAME(16), and there it is reserved.
fn ten_has_no_ndob(initiator: &Initiator<'_>) {
    let refused = initiator.run_expecting(&ten(1, 1, 2), INVALID);
    assert_eq!(refused.specific(), [0xc8, 0, 1]);
}

/// WSNZ; MAXIMUM WRITE SAME LENGTH is 65535.
fn zero_blocks_and_too_many_are_refused(initiator: &Initiator<'_>) {
    let block = initiator.filled(&[7]);
    assert_eq!(initiator.send_expecting(&ten(0, 0, 0), &block, INVALID).specific(), [0xc0, 0, 7]);
    let zero = initiator.send_expecting(&sixteen(0, 0, 0), &block, INVALID);
    assert_eq!(zero.specific(), [0xc0, 0, 10]);
    let mut cdb = sixteen(0, 0, 0);
    cdb[11] = 1;
    assert_eq!(initiator.send_expecting(&cdb, &block, INVALID).specific(), [0xc0, 0, 10]);
    assert_eq!(initiator.read(0, 1), [0]);
}

fn beyond_the_end_nothing_is_written(initiator: &Initiator<'_>) {
    let cdb = [0x41, 0, 0, 0, 7, 0xfe, 0, 0, 3, 0];
    initiator.send_expecting(&cdb, &initiator.filled(&[7]), Check(5, 0x21, 0));
    let last = initiator.receive(&[0x28, 0, 0, 0, 7, 0xfe, 0, 0, 2, 0]);
    assert!(last.iter().all(|byte| *byte == 0));
}

fn unmap_and_anchor_are_refused_where_every_block_is_mapped(initiator: &Initiator<'_>) {
    let block = initiator.filled(&[0]);
    for cdb in [&ten(0x08, 0, 8)[..], &sixteen(0x08, 0, 8)] {
        assert_eq!(initiator.send_expecting(cdb, &block, INVALID).specific(), [0xcb, 0, 1]);
    }
    anchor_is_refused(initiator);
}

fn anchor_is_refused(initiator: &Initiator<'_>) {
    let block = initiator.filled(&[0]);
    for cdb in [&ten(0x18, 0, 8)[..], &sixteen(0x18, 0, 8)] {
        assert_eq!(initiator.send_expecting(cdb, &block, INVALID).specific(), [0xcc, 0, 1]);
    }
}

fn it_is_a_write(initiator: &Initiator<'_>) {
    let page = [0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    initiator.good_send(&[0x15, 0x10, 0, 0, 16, 0], &page);
    initiator.send_expecting(&ten(0, 0, 1), &initiator.filled(&[7]), Check(7, 0x27, 0));
    assert_eq!(initiator.read(0, 1), [0]);
}
