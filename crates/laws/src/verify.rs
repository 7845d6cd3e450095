//! VERIFY(10) and VERIFY(16) (SBC).

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "verify"
    DISK One: without_comparing_it_wants_blocks_that_are_there, bytchk_01_compares_every_block,
        bytchk_11_compares_every_block_with_one, nothing_is_written,
        what_is_not_supported_is_refused, verify_is_no_write;
    DISK_4K One: bytchk_01_compares_every_block, bytchk_11_compares_every_block_with_one;
    THIN One: without_comparing_it_wants_blocks_that_are_there,
        bytchk_11_compares_every_block_with_one;
}

/// MISCOMPARE DURING VERIFY OPERATION.
const MISCOMPARE: crate::Ended = Check(0xe, 0x1d, 0);
const OUT_OF_RANGE: crate::Ended = Check(5, 0x21, 0);

/// VERIFY(10) of blocks from `lba`, and VERIFY(16) of the same.
fn verify(bytchk: u8, lba: u16, blocks: u8) -> [Vec<u8>; 2] {
    let [high, low] = lba.to_be_bytes();
    let flags = bytchk << 1;
    [
        vec![0x2f, flags, 0, 0, high, low, 0, 0, blocks, 0],
        vec![0x8f, flags, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0, blocks, 0, 0],
    ]
}

fn without_comparing_it_wants_blocks_that_are_there(initiator: &Initiator<'_>) {
    for cdb in verify(0, 2024, 24).iter().chain(&verify(0, 2048, 0)) {
        initiator.good(cdb);
    }
    for cdb in verify(0, 2024, 25).iter().chain(&verify(0, 2049, 0)) {
        initiator.run_expecting(cdb, OUT_OF_RANGE);
    }
    // The whole unit.
    initiator.good(&[0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]);
}

fn bytchk_01_compares_every_block(initiator: &Initiator<'_>) {
    initiator.write(4, &[1, 2, 3]);
    for cdb in verify(1, 3, 5) {
        let data = initiator.filled(&[0, 1, 2, 3, 0]);
        initiator.good_send(&cdb, &data);
        for wrong in [0, data.len() / 2, data.len() - 1] {
            let mut data = data.clone();
            data[wrong] ^= 0x10;
            initiator.send_expecting(&cdb, &data, MISCOMPARE);
        }
    }
    // No block, nothing to compare.
    initiator.good(&verify(1, 3, 0)[0]);
}

fn bytchk_11_compares_every_block_with_one(initiator: &Initiator<'_>) {
    initiator.write(4, &[9, 9, 9]);
    for cdb in verify(3, 4, 3) {
        let mut block = initiator.filled(&[9]);
        initiator.good_send(&cdb, &block);
        *block.last_mut().expect("bytes") = 8;
        initiator.send_expecting(&cdb, &block, MISCOMPARE);
    }
    for (lba, blocks) in [(3, 4), (4, 4)] {
        initiator.send_expecting(&verify(3, lba, blocks)[0], &initiator.filled(&[9]), MISCOMPARE);
    }
    // Zeros up to the end.
    initiator.good_send(&verify(3, 2024, 24)[1], &initiator.filled(&[0]));
}

fn nothing_is_written(initiator: &Initiator<'_>) {
    initiator.write(0, &[1, 1]);
    initiator.send_expecting(&verify(1, 0, 2)[0], &initiator.filled(&[1, 2]), MISCOMPARE);
    initiator.good_send(&verify(1, 0, 2)[0], &initiator.filled(&[1, 1]));
    assert_eq!(initiator.read(0, 2), [1, 1]);
}

/// BYTCHK 10b is reserved; VRPROTECT wants protection information.
fn what_is_not_supported_is_refused(initiator: &Initiator<'_>) {
    for cdb in verify(2, 0, 1) {
        let data = initiator.filled(&[0]);
        let refused = initiator.send_expecting(&cdb, &data, Check(5, 0x24, 0));
        assert_eq!(refused.specific(), [0xca, 0, 1], "bit 2 of byte 1");
    }
    let refused = initiator.run_expecting(&[0x2f, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], Check(5, 0x24, 0));
    assert_eq!(refused.specific(), [0xcf, 0, 1]);
    // DPO.
    initiator.run_expecting(&[0x2f, 0x10, 0, 0, 0, 0, 0, 0, 1, 0], Good);
}

/// A write protected unit can be verified.
fn verify_is_no_write(initiator: &Initiator<'_>) {
    let page = [0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    initiator.good_send(&[0x15, 0x10, 0, 0, 16, 0], &page);
    initiator.write_expecting(0, &[1], Check(7, 0x27, 0));
    initiator.good_send(&verify(1, 0, 1)[0], &initiator.filled(&[0]));
}
