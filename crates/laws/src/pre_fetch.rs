//! PRE-FETCH(10) and PRE-FETCH(16) (SBC).

use crate::{
    Initiator,
    initiator::Ended::{Check, Status},
    laws,
};

laws! { "pre_fetch"
    DISK One: blocks_that_fit_are_condition_met, blocks_that_are_not_there_are_refused,
        a_stopped_unit_fetches_nothing;
}

/// CONDITION MET: all of the blocks fit into the cache.
const MET: crate::Ended = Status(0x04);

fn ten(lba: u16, blocks: u16) -> [u8; 10] {
    let ([l1, l0], [b1, b0]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [0x34, 0, 0, 0, l1, l0, 0, b1, b0, 0]
}

fn sixteen(lba: u16, blocks: u16) -> [u8; 16] {
    let ([l1, l0], [b1, b0]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [0x90, 0, 0, 0, 0, 0, 0, 0, l1, l0, 0, 0, b1, b0, 0, 0]
}

fn blocks_that_fit_are_condition_met(initiator: &Initiator<'_>) {
    initiator.write(3, &[7]);
    for (lba, blocks) in [(3, 1), (0, 8), (2047, 1)] {
        initiator.run_expecting(&ten(lba, blocks), MET);
        initiator.run_expecting(&sixteen(lba, blocks), MET);
    }
    // IMMED.
    initiator.run_expecting(&[0x34, 2, 0, 0, 0, 3, 0, 0, 1, 0], MET);
    assert_eq!(initiator.read(2, 3), [0, 7, 0]);
    initiator.test_unit_ready(crate::Ended::Good);
}

fn blocks_that_are_not_there_are_refused(initiator: &Initiator<'_>) {
    for (lba, blocks) in [(2048, 1), (2047, 2)] {
        initiator.run_expecting(&ten(lba, blocks), Check(5, 0x21, 0));
        initiator.run_expecting(&sixteen(lba, blocks), Check(5, 0x21, 0));
    }
}

fn a_stopped_unit_fetches_nothing(initiator: &Initiator<'_>) {
    initiator.good(&[0x1b, 0, 0, 0, 0, 0]);
    initiator.run_expecting(&ten(0, 1), Check(2, 0x04, 0x02));
    initiator.run_expecting(&sixteen(0, 1), Check(2, 0x04, 0x02));
}
