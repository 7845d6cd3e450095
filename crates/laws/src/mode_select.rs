//! MODE SELECT(6) and MODE SELECT(10) (SPC; SBC on the Caching mode page).

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "mode_select"
    DISK One: d_sense_changes_the_format_of_sense_data, swp_refuses_writes_and_shows_in_wp,
        wce_is_what_was_selected, ten_does_what_six_does, reset_brings_the_defaults_back,
        what_is_not_changeable_is_refused, an_unknown_page_is_refused,
        a_list_that_is_cut_is_a_length_error, a_list_is_taken_whole_or_not_at_all,
        block_descriptor_may_repeat_what_is, a_list_of_no_bytes_changes_nothing,
        saving_and_vendor_pages_are_refused, qerr_10b_is_reserved;
    DISK Two: others_learn_of_a_change, selecting_what_is_changes_nothing;
}

/// MODE SELECT(6) with PF and a list of this length.
fn select_6(len: usize) -> [u8; 6] {
    [0x15, 0x10, 0, 0, u8::try_from(len).expect("short"), 0]
}

const HEADER: [u8; 4] = [0; 4];

/// The Control mode page with these bytes 2 to 4; GLTSD and unrestricted reordering are its defaults.
fn control(second: u8, third: u8, fourth: u8) -> [u8; 12] {
    [0x0a, 0x0a, 0x02 | second, 0x10 | third, fourth, 0, 0, 0, 0, 0, 0, 0]
}

/// The Caching mode page with this byte 2.
fn caching(flags: u8) -> [u8; 20] {
    let mut page = [0; 20];
    [page[0], page[1], page[2]] = [0x08, 0x12, flags];
    page
}

/// Selects pages with MODE SELECT(6), without block descriptor.
#[track_caller]
fn select(initiator: &Initiator<'_>, pages: &[&[u8]]) {
    let list = [&HEADER[..], &pages.concat()].concat();
    initiator.good_send(&select_6(list.len()), &list);
}

/// The list is refused: INVALID FIELD IN PARAMETER LIST with this SENSE KEY SPECIFIC.
#[track_caller]
fn refused(initiator: &Initiator<'_>, list: &[u8], pointer: [u8; 3]) {
    let cdb = select_6(list.len());
    let completion = initiator.send_expecting(&cdb, list, Check(5, 0x26, 0));
    assert_eq!(completion.specific(), pointer);
}

/// The Control mode page as it is.
#[track_caller]
fn current_control(initiator: &Initiator<'_>) -> Vec<u8> {
    initiator.receive(&[0x1a, 8, 0x0a, 0, 255, 0])[4..].to_vec()
}

fn d_sense_changes_the_format_of_sense_data(initiator: &Initiator<'_>) {
    select(initiator, &[&control(0x04, 0, 0)]);
    assert_eq!(current_control(initiator), control(0x04, 0, 0));
    let unknown = initiator.run(&[0x02, 0, 0, 0, 0, 0]);
    assert_eq!(unknown.sense[..4], [0x72, 0x05, 0x20, 0x00]);
    select(initiator, &[&control(0, 0, 0)]);
    let unknown = initiator.run(&[0x02, 0, 0, 0, 0, 0]);
    assert_eq!((unknown.sense[0], unknown.sense[2], unknown.sense[12]), (0x70, 0x05, 0x20));
}

/// SPC, SWP: all commands that write are refused with WRITE PROTECTED.
fn swp_refuses_writes_and_shows_in_wp(initiator: &Initiator<'_>) {
    initiator.write(0, &[1]);
    select(initiator, &[&control(0, 0, 0x08)]);
    initiator.write_expecting(0, &[2], Check(7, 0x27, 0));
    assert_eq!(initiator.read(0, 1), [1]);
    assert_eq!(initiator.receive(&[0x1a, 8, 0x0a, 0, 4, 0])[2], 0x90, "WP and DPOFUA");
    select(initiator, &[&control(0, 0, 0)]);
    assert_eq!(initiator.receive(&[0x1a, 8, 0x0a, 0, 4, 0])[2], 0x10);
    initiator.write(0, &[2]);
    assert_eq!(initiator.read(0, 1), [2]);
}

fn wce_is_what_was_selected(initiator: &Initiator<'_>) {
    for flags in [0x04, 0x00, 0x04] {
        select(initiator, &[&caching(flags)]);
        assert_eq!(initiator.receive(&[0x1a, 8, 0x08, 0, 255, 0])[4..], caching(flags));
        initiator.write(0, &[flags]);
        assert_eq!(initiator.read(0, 1), [flags]);
    }
}

fn ten_does_what_six_does(initiator: &Initiator<'_>) {
    let list = [&[0; 8][..], &control(0, 0, 0x08), &caching(0x04)].concat();
    let len = u8::try_from(list.len()).expect("short");
    initiator.good_send(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, len, 0], &list);
    assert_eq!(current_control(initiator), control(0, 0, 0x08));
    initiator.write_expecting(0, &[2], Check(7, 0x27, 0));
    // MODE DATA LENGTH is reserved.
    let mut bad = list;
    bad[1] = 39;
    let cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, len, 0];
    assert_eq!(initiator.send_expecting(&cdb, &bad, Check(5, 0x26, 0)).specific(), [0x80, 0, 0]);
}

fn reset_brings_the_defaults_back(initiator: &Initiator<'_>) {
    let before = current_control(initiator);
    select(initiator, &[&control(0x04, 0x02, 0x08)]);
    initiator.reset();
    initiator.test_unit_ready(Check(6, 0x29, 0x03));
    assert_eq!(current_control(initiator), before);
    initiator.write(0, &[2]);
}

/// What may change is what the changeable values say, bit by bit.
fn what_is_not_changeable_is_refused(initiator: &Initiator<'_>) {
    let changeable = initiator.receive(&[0x1a, 8, 0x4a, 0, 255, 0])[4..].to_vec();
    assert_eq!(changeable, [0x0a, 0x0a, 0x04, 0x06, 0x08, 0, 0, 0, 0, 0, 0, 0]);
    for byte in 2..12u8 {
        for bit in 0..8u8 {
            let mut page = control(0, 0, 0);
            page[usize::from(byte)] ^= 1 << bit;
            let list = [&HEADER[..], &page].concat();
            if changeable[usize::from(byte)] & 1 << bit == 0 {
                refused(initiator, &list, [0x88 | bit, 0, 4 + byte]);
            } else if (byte, bit) != (3, 2) {
                select(initiator, &[&page]);
                select(initiator, &[&control(0, 0, 0)]);
            }
        }
    }
    assert_eq!(current_control(initiator), control(0, 0, 0));
}

fn qerr_10b_is_reserved(initiator: &Initiator<'_>) {
    refused(initiator, &[&HEADER[..], &control(0, 0x04, 0)].concat(), [0x8a, 0, 7]);
    for qerr in [0x02, 0x06, 0x00] {
        select(initiator, &[&control(0, qerr, 0)]);
        assert_eq!(current_control(initiator), control(0, qerr, 0));
    }
}

fn an_unknown_page_is_refused(initiator: &Initiator<'_>) {
    refused(initiator, &[&HEADER[..], &[0x3e, 0x0a], &[0; 10]].concat(), [0x8d, 0, 4]);
    // A subpage, and PS.
    refused(initiator, &[&HEADER[..], &[0x4a, 0x01, 0, 0]].concat(), [0x8e, 0, 4]);
    let mut page = control(0, 0, 0);
    page[0] |= 0x80;
    refused(initiator, &[&HEADER[..], &page].concat(), [0x8f, 0, 4]);
    // A page of a length that is not its own.
    let short = [&HEADER[..], &[0x0a, 0x06], &control(0, 0, 0)[2..8]].concat();
    refused(initiator, &short, [0x80, 0, 5]);
}

/// SPC: a length that cuts a header, a block descriptor or a page is PARAMETER LIST LENGTH ERROR.
fn a_list_that_is_cut_is_a_length_error(initiator: &Initiator<'_>) {
    let list = [&[0, 0, 0, 8][..], &[0, 0, 0, 0, 0, 0, 2, 0], &control(0, 0, 0x08)].concat();
    for len in 1..list.len() {
        // Behind the block descriptor the list is whole, and has no pages.
        if len != 12 {
            let cdb = select_6(len);
            initiator.send_expecting(&cdb, &list[..len], Check(5, 0x1a, 0));
        }
    }
    assert_eq!(current_control(initiator), control(0, 0, 0));
    initiator.good_send(&select_6(list.len()), &list);
    assert_eq!(current_control(initiator), control(0, 0, 0x08));
}

fn a_list_is_taken_whole_or_not_at_all(initiator: &Initiator<'_>) {
    let list = [&HEADER[..], &control(0x04, 0, 0x08), &[0x3e, 0]].concat();
    refused(initiator, &list, [0x8d, 0, 16]);
    assert_eq!(current_control(initiator), control(0, 0, 0));
    initiator.write(0, &[1]);
}

fn block_descriptor_may_repeat_what_is(initiator: &Initiator<'_>) {
    let list = |blocks: [u8; 4], block_len: [u8; 3]| {
        [&[0, 0, 0, 8][..], &blocks, &[0], &block_len, &control(0, 0, 0)].concat()
    };
    for blocks in [[0, 0, 0, 0], [0, 0, 8, 0], [0xff; 4]] {
        let list = list(blocks, [0, 2, 0]);
        initiator.good_send(&select_6(list.len()), &list);
    }
    refused(initiator, &list([0, 0, 3, 0], [0, 2, 0]), [0x80, 0, 4]);
    refused(initiator, &list([0, 0, 8, 0], [0, 0x10, 0]), [0x80, 0, 4]);
    // A descriptor of four bytes is none.
    refused(initiator, &[&[0, 0, 0, 4][..], &[0; 4], &control(0, 0, 0)].concat(), [0x80, 0, 3]);
    // READ CAPACITY(10): nothing has changed.
    assert_eq!(initiator.receive(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [0, 0, 7, 0xff, 0, 0, 2, 0]);
}

fn a_list_of_no_bytes_changes_nothing(initiator: &Initiator<'_>) {
    let before = current_control(initiator);
    initiator.good(&select_6(0));
    initiator.good(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(current_control(initiator), before);
}

fn saving_and_vendor_pages_are_refused(initiator: &Initiator<'_>) {
    let list = [&HEADER[..], &control(0, 0, 0x08)].concat();
    let saved = initiator.send_expecting(&[0x15, 0x11, 0, 0, 16, 0], &list, Check(5, 0x24, 0));
    assert_eq!(saved.specific(), [0xc8, 0, 1], "SP is bit 0 of byte 1");
    let vendor = initiator.send_expecting(&[0x15, 0, 0, 0, 16, 0], &list, Check(5, 0x24, 0));
    assert_eq!(vendor.specific(), [0xcc, 0, 1], "PF is bit 4 of byte 1");
    assert_eq!(current_control(initiator), control(0, 0, 0));
}

/// SPC: MODE PARAMETERS CHANGED for every nexus but the one that changed them.
fn others_learn_of_a_change(first: &Initiator<'_>, second: &Initiator<'_>) {
    second.test_unit_ready(Good);
    select(first, &[&control(0, 0, 0x08)]);
    first.test_unit_ready(Good);
    second.test_unit_ready(Check(6, 0x2a, 0x01));
    second.test_unit_ready(Good);
    second.write_expecting(0, &[1], Check(7, 0x27, 0));
}

fn selecting_what_is_changes_nothing(first: &Initiator<'_>, second: &Initiator<'_>) {
    second.test_unit_ready(Good);
    select(first, &[&control(0, 0, 0)]);
    second.test_unit_ready(Good);
}
