//! What each fault of a medium leaves of a write, and brings of a read.

use bsg::{Completion, Passthrough, Request};
use harness::{
    Lun,
    assert::{assert_good, assert_host_error, assert_sense},
};
use proptest::prelude::*;
use scsi_fault::{DataIn, Effect, Rule, Sense, WriteFault};

use super::{BLOCK, BLOCKS, Step};
use crate::bsg::{block, cdb, ways::execute};

/// A fault of one command; lengths are in bytes unless they say otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Lost,
    Torn(usize),
    Misdirected(i8),
    Corrupt(usize),
    Stale(u8),
    /// So many blocks are moved, and the rest is residual.
    Short(usize),
    /// CHECK CONDITION, and nothing is done.
    Refused,
    /// Done, and said to be aborted.
    Doubtful,
}

pub(super) fn fault() -> impl Strategy<Value = Option<Fault>> {
    let fault = prop_oneof![
        Just(Fault::Lost),
        (0..5000_usize).prop_map(Fault::Torn),
        (-10..=10_i8).prop_map(Fault::Misdirected),
        (0..5000_usize).prop_map(Fault::Corrupt),
        (1..=3_u8).prop_map(Fault::Stale),
        (0..8_usize).prop_map(Fault::Short),
        Just(Fault::Refused),
        Just(Fault::Doubtful),
    ];
    prop_oneof![1 => Just(None), 3 => fault.prop_map(Some)]
}

fn effect(fault: Fault, write: bool) -> Effect {
    let bytes = |len: usize| u64::try_from(len).expect("short");
    match fault {
        Fault::Lost => Effect::write(WriteFault::Lost),
        Fault::Torn(len) => Effect::write(WriteFault::Torn(bytes(len))),
        Fault::Misdirected(blocks) => Effect::write(WriteFault::Misdirected(blocks.into())),
        Fault::Corrupt(from) if write => Effect::write(WriteFault::CorruptFrom(bytes(from))),
        Fault::Corrupt(from) => Effect::data_in(DataIn::CorruptFrom(bytes(from))),
        Fault::Stale(reads) => Effect::write(WriteFault::Stale(reads.into())),
        Fault::Short(blocks) if write => {
            Effect { data_out_limit: Some(bytes(blocks * BLOCK)), ..Effect::default() }
        }
        Fault::Short(blocks) => Effect::data_in(DataIn::Limit(bytes(blocks * BLOCK))),
        Fault::Refused => Effect::sense(Sense::codes(4, 0x44, 0)),
        // A response with which a command is never sent again.
        Fault::Doubtful => Effect::response("ABORTED").executed(),
    }
}

/// Sends the step, which meets the fault, and says so of the model.
pub(super) fn check(
    lun: &Lun,
    way: &mut dyn Passthrough,
    step: &Step,
    fault: Fault,
    model: &mut [u8],
) {
    lun.faults([Rule::new("fault", effect(fault, step.write))]);
    if step.write {
        check_write(way, step, fault, model);
    } else {
        check_read(way, step, fault, model);
    }
}

/// What the initiator is told of a command of `len` bytes.
#[track_caller]
fn check_answer(done: &Completion, fault: Fault, len: usize) {
    let moved = match fault {
        Fault::Refused => {
            assert_sense(done, 0x04, 0x44, 0x00);
            0
        }
        Fault::Doubtful => {
            // include/scsi/scsi_status.h: DID_ABORT.
            assert_host_error(done, 5);
            len
        }
        Fault::Short(blocks) => {
            assert_good(done);
            len.min(blocks * BLOCK)
        }
        _ => {
            assert_good(done);
            len
        }
    };
    assert_eq!(done.residual, i64::try_from(len - moved).expect("short"), "{fault:?}");
}

/// A bit is turned in each byte from this one on, and in no other.
#[track_caller]
fn assert_corrupt(found: &[u8], right: &[u8], from: usize) {
    for (at, (found, right)) in found.iter().zip(right).enumerate() {
        assert_eq!((found ^ right).count_ones(), u32::from(at >= from), "byte {at}");
    }
}

fn check_write(way: &mut dyn Passthrough, step: &Step, fault: Fault, model: &mut [u8]) {
    let Step { size, lba, blocks, mark, .. } = *step;
    let data = cdb::pattern(lba.into(), blocks, mark);
    let request = Request::new(&cdb::write(size, lba.into(), blocks)).data_out(&data);
    check_answer(&execute(way, request), fault, data.len());
    let mut reread = || block::read(way, size, lba.into(), blocks);
    let stored = &mut model[BLOCK * usize::from(lba)..][..data.len()];
    match fault {
        Fault::Lost | Fault::Refused => {}
        Fault::Doubtful => stored.copy_from_slice(&data),
        Fault::Torn(len) | Fault::Short(len) => {
            let unit = if matches!(fault, Fault::Torn(_)) { 1 } else { BLOCK };
            let len = data.len().min(len * unit);
            stored[..len].copy_from_slice(&data[..len]);
        }
        Fault::Corrupt(from) => {
            let found = reread();
            assert_corrupt(&found, &data, from);
            stored.copy_from_slice(&found);
        }
        Fault::Stale(reads) => {
            for _ in 0..reads {
                assert_eq!(reread(), stored, "not written yet");
            }
            stored.copy_from_slice(&data);
            assert_eq!(reread(), data, "written by now");
        }
        Fault::Misdirected(further) => {
            for (block, at) in data.chunks(BLOCK).zip(i16::from(lba) + i16::from(further)..) {
                if (0..i16::from(BLOCKS)).contains(&at) {
                    let at = BLOCK * usize::try_from(at).expect("not negative");
                    model[at..at + BLOCK].copy_from_slice(block);
                }
            }
        }
    }
}

fn check_read(way: &mut dyn Passthrough, step: &Step, fault: Fault, model: &[u8]) {
    let Step { size, lba, blocks, .. } = *step;
    let stored = &model[BLOCK * usize::from(lba)..][..BLOCK * usize::from(blocks)];
    let request = Request::new(&cdb::read(size, lba.into(), blocks)).data_in(stored.len());
    let done = execute(way, request);
    check_answer(&done, fault, stored.len());
    let moved =
        stored.len() - usize::try_from(done.residual).expect("a residual is never negative");
    match fault {
        Fault::Corrupt(from) => assert_corrupt(&done.data, stored, from),
        _ => assert_eq!(done.data[..moved], stored[..moved], "{fault:?}"),
    }
}
