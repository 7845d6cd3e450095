//! COMPARE AND WRITE (SBC).

use crate::{Initiator, initiator::Ended::Check, laws};

laws! { "compare_and_write"
    DISK One: what_is_as_expected_is_replaced, what_is_not_stays_and_is_told_by_its_offset,
        no_block_is_no_error, beyond_the_end_nothing_happens, it_is_a_write;
    DISK_4K One: what_is_as_expected_is_replaced, what_is_not_stays_and_is_told_by_its_offset;
    THIN One: what_is_as_expected_is_replaced;
    DISK Two: only_one_of_two_wins;
}

fn cdb(lba: u8, blocks: u8) -> [u8; 16] {
    [0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0]
}

fn what_is_as_expected_is_replaced(initiator: &Initiator<'_>) {
    initiator.write(4, &[1, 2]);
    initiator.good_send(&cdb(4, 2), &initiator.filled(&[1, 2, 3, 4]));
    assert_eq!(initiator.read(3, 4), [0, 3, 4, 0]);
    initiator.good_send(&cdb(5, 2), &initiator.filled(&[4, 0, 5, 6]));
    assert_eq!(initiator.read(3, 4), [0, 3, 5, 6]);
    // FUA and DPO.
    let mut fua = cdb(5, 1);
    fua[1] = 0x18;
    initiator.good_send(&fua, &initiator.filled(&[5, 7]));
    assert_eq!(initiator.read(5, 1), [7]);
}

/// INFORMATION is the offset of the first different byte in the Data-Out Buffer.
fn what_is_not_stays_and_is_told_by_its_offset(initiator: &Initiator<'_>) {
    initiator.write(4, &[1, 2]);
    let len = initiator.block_len();
    for offset in [0, 1, len - 1, len, 2 * len - 1] {
        let mut data = initiator.filled(&[1, 2, 3, 4]);
        data[offset] ^= 0x80;
        let miscompare = initiator.send_expecting(&cdb(4, 2), &data, Check(0xe, 0x1d, 0));
        assert_eq!(miscompare.information(), u32::try_from(offset).ok());
        assert_eq!(initiator.read(4, 2), [1, 2]);
    }
}

fn no_block_is_no_error(initiator: &Initiator<'_>) {
    initiator.good(&cdb(4, 0));
}

fn beyond_the_end_nothing_happens(initiator: &Initiator<'_>) {
    let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 0, 2, 0, 0];
    let data = initiator.filled(&[0, 0, 1, 1]);
    initiator.send_expecting(&cdb, &data, Check(5, 0x21, 0));
    let last = initiator.receive(&[0x28, 0, 0, 0, 7, 0xff, 0, 0, 1, 0]);
    assert!(last.iter().all(|byte| *byte == 0));
}

fn it_is_a_write(initiator: &Initiator<'_>) {
    let page = [0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    initiator.good_send(&[0x15, 0x10, 0, 0, 16, 0], &page);
    initiator.send_expecting(&cdb(0, 1), &initiator.filled(&[0, 1]), Check(7, 0x27, 0));
    assert_eq!(initiator.read(0, 1), [0]);
}

/// What it is for: the second finds what the first has written.
fn only_one_of_two_wins(first: &Initiator<'_>, second: &Initiator<'_>) {
    first.good_send(&cdb(0, 1), &first.filled(&[0, 1]));
    second.send_expecting(&cdb(0, 1), &second.filled(&[0, 2]), Check(0xe, 0x1d, 0));
    assert_eq!(second.read(0, 1), [1]);
}
