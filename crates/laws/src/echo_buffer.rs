//! WRITE BUFFER and READ BUFFER (SPC) of the echo buffer.

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "echo_buffer"
    DISK One: what_was_written_comes_back, nothing_comes_back_that_was_not_written,
        more_than_fits_is_refused, other_modes_are_refused, reset_empties_it;
    DISK Two: who_is_overwritten_is_told;
}

/// COMMAND SEQUENCE ERROR.
const SEQUENCE: crate::Ended = Check(5, 0x2c, 0);

fn write(len: u16) -> [u8; 10] {
    let [high, low] = len.to_be_bytes();
    [0x3b, 0x0a, 0, 0, 0, 0, 0, high, low, 0]
}

/// READ BUFFER with room for 4096 bytes.
const READ: [u8; 10] = [0x3c, 0x0a, 0, 0, 0, 0, 0, 0x10, 0, 0];

/// As many bytes as were written, cut to the ALLOCATION LENGTH; BUFFER ID and BUFFER OFFSET are ignored.
fn what_was_written_comes_back(initiator: &Initiator<'_>) {
    initiator.good_send(&write(5), &[1, 2, 3, 4, 5]);
    assert_eq!(initiator.receive(&READ), [1, 2, 3, 4, 5]);
    assert_eq!(initiator.receive(&[0x3c, 0x0a, 9, 0, 0, 9, 0, 0, 3, 0]), [1, 2, 3]);
    // No length is no error, and writes nothing.
    initiator.good(&write(0));
    assert_eq!(initiator.receive(&READ), [1, 2, 3, 4, 5]);
    let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
    initiator.good_send(&[0x3b, 0x0a, 9, 0, 0, 9, 0, 0x10, 0, 0], &all);
    assert_eq!(initiator.receive(&READ), all);
    // The blocks are none of its business.
    assert_eq!(initiator.read(0, 1), [0]);
    // EBOS, and a capacity of 4096 bytes.
    assert_eq!(initiator.receive(&[0x3c, 0x0b, 0, 0, 0, 0, 0, 0, 4, 0]), [1, 0, 0x10, 0]);
}

fn nothing_comes_back_that_was_not_written(initiator: &Initiator<'_>) {
    initiator.ask_expecting(&READ, SEQUENCE);
    initiator.good(&write(0));
    initiator.ask_expecting(&READ, SEQUENCE);
}

fn more_than_fits_is_refused(initiator: &Initiator<'_>) {
    initiator.good_send(&write(2), &[6, 7]);
    let refused = initiator.send_expecting(&write(4097), &[9; 4097], Check(5, 0x24, 0));
    assert_eq!(refused.specific(), [0xc0, 0, 6], "PARAMETER LIST LENGTH");
    assert_eq!(initiator.receive(&READ), [6, 7]);
}

/// Data, and microcode; READ BUFFER of vendor specific data.
fn other_modes_are_refused(initiator: &Initiator<'_>) {
    for mode in [0x02, 0x05] {
        let cdb = [0x3b, mode, 0, 0, 0, 0, 0, 0, 1, 0];
        let refused = initiator.send_expecting(&cdb, &[1], Check(5, 0x24, 0));
        assert_eq!(refused.specific(), [0xcc, 0, 1], "MODE");
    }
    initiator.ask_expecting(&[0x3c, 0x01, 0, 0, 0, 0, 0, 0, 4, 0], Check(5, 0x24, 0));
}

fn reset_empties_it(initiator: &Initiator<'_>) {
    initiator.good_send(&write(2), &[6, 7]);
    initiator.reset();
    initiator.test_unit_ready(Check(6, 0x29, 0x03));
    initiator.ask_expecting(&READ, SEQUENCE);
}

/// ECHO BUFFER OVERWRITTEN, as EBOS promises; and COMMAND SEQUENCE ERROR for who has written nothing.
fn who_is_overwritten_is_told(one: &Initiator<'_>, other: &Initiator<'_>) {
    one.good_send(&write(2), &[6, 7]);
    other.ask_expecting(&READ, SEQUENCE);
    other.good_send(&write(1), &[8]);
    one.ask_expecting(&READ, Check(0xb, 0x3f, 0x0f));
    assert_eq!(other.receive(&READ), [8]);
    one.good_send(&write(1), &[9]);
    assert_eq!(one.receive(&READ), [9]);
    other.ask_expecting(&READ, Check(0xb, 0x3f, 0x0f));
    one.test_unit_ready(Good);
}
