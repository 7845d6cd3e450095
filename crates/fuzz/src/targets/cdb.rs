//! CDBs that are nearly right.

use fastrand::Rng;
use scsi::{Command, DataDirection};

use crate::mutate::{number, once_in, one};

/// Bytes of a CDB as virtio-scsi carries it.
const LEN: usize = 32;
/// Where addresses, lengths and page codes have their low byte.
const LOW: &[usize] = &[2, 3, 4, 5, 8, 9, 13];
/// What is found there in practice.
const USUAL: &[u8] = &[0, 0, 0, 1, 1, 2, 3, 4, 7, 8, 16, 24, 24, 28, 32, 40, 63, 64, 96, 255];
/// Page codes of INQUIRY, MODE SENSE and LOG SENSE.
const PAGES: &[u8] =
    &[0, 0x01, 0x08, 0x0a, 0x1c, 0x2f, 0x3f, 0x4a, 0x80, 0x83, 0xb0, 0xb1, 0xb2, 0x88];

/// RESERVE(6), START STOP UNIT, PERSISTENT RESERVE OUT.
const LOCKING: &[u8] = &[0x16, 0x1b, 0x5f];

/// A CDB, and where the data of such a command goes.
pub(super) fn any(rng: &mut Rng) -> ([u8; LEN], DataDirection) {
    let mut spec = one(rng, Command::ALL).spec();
    // Or most of what the others say would be a reservation conflict, or that the unit is not ready.
    while LOCKING.contains(&spec.usage[0]) && !once_in(rng, 12) {
        spec = one(rng, Command::ALL).spec();
    }
    let mut cdb = [0; LEN];
    let usage = spec.usage;
    cdb[0] = usage[0];
    for (at, mask) in usage.iter().enumerate().skip(1) {
        cdb[at] = match mask {
            0xff if LOW.contains(&at) => match once_in(rng, 16) {
                true => rng.u8(..),
                false if at == 2 => *one(rng, PAGES),
                false => *one(rng, USUAL),
            },
            // High bytes, and flags.
            _ if once_in(rng, if *mask == 0xff { 40 } else { 4 }) => rng.u8(..) & mask,
            _ => 0,
        };
    }
    // An address in the middle of things is no page.
    if usage.len() > 6 && usage[2..6] == [0xff; 4] && !once_in(rng, 30) {
        cdb[2..5].fill(0);
    }
    cdb[usage.len() - 1] = 0;
    if let Some([_, action]) = spec.service_action.map(u16::to_be_bytes) {
        cdb[1] |= action;
    }
    while once_in(rng, 6) {
        spoil(rng, &mut cdb);
    }
    let direction = match once_in(rng, 20) {
        true => *one(rng, &[DataDirection::None, DataDirection::In, DataDirection::Out]),
        false => spec.direction,
    };
    (cdb, direction)
}

/// Makes it another: a byte, or a field that counts or addresses.
fn spoil(rng: &mut Rng, cdb: &mut [u8; LEN]) {
    match rng.u8(0..8) {
        0..3 => cdb[rng.usize(0..LEN)] = rng.u8(..),
        3..7 => {
            let len = *one(rng, &[2, 4, 8]);
            let at = *one(rng, &[2, 3, 4, 6, 7, 8, 10]);
            let value = number(rng).to_be_bytes();
            cdb[at..at + len].copy_from_slice(&value[8 - len..]);
        }
        _ => rng.fill(cdb),
    }
}

/// Length of a buffer: whole blocks, a parameter list, or nothing like it.
pub(super) fn data_len(rng: &mut Rng) -> usize {
    match rng.u8(0..8) {
        0..3 => 512 * rng.usize(0..10),
        3 => 4096,
        4 | 5 => usize::from(*one(rng, USUAL)),
        6 => rng.usize(0..300),
        _ => rng.usize(0..6000),
    }
}
