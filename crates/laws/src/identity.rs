//! What a unit says of itself: TEST UNIT READY, INQUIRY, REQUEST SENSE, READ CAPACITY, REPORT LUNS and
//! MODE SENSE (SPC, SBC); and what it says to commands it does not know.

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "identity"
    DISK One: it_is_ready, standard_inquiry_data_is_that_of_a_disk,
        inquiry_data_is_cut_to_the_allocation_length, a_page_code_without_evpd_is_refused,
        an_unknown_vital_product_data_page_is_refused, every_supported_page_is_there,
        a_designator_names_the_unit, request_sense_has_nothing_to_report,
        request_sense_in_descriptor_format, capacity_is_the_last_block_and_its_length,
        capacity_16_agrees_with_10, capacity_is_cut_to_the_allocation_length,
        the_unit_is_among_the_luns, luns_are_selected, an_unknown_select_report_is_refused,
        mode_pages_come_in_order_and_whole, mode_sense_10_says_what_6_says,
        defaults_and_masks_are_pages_as_the_current, no_block_descriptor_if_disabled,
        an_unknown_mode_page_is_refused, nothing_is_saved,
        an_unknown_operation_code_is_refused, an_unknown_service_action_is_refused;
    DISK_4K One: capacity_is_the_last_block_and_its_length, capacity_16_agrees_with_10;
}

/// INVALID FIELD IN CDB.
const INVALID: crate::Ended = Check(5, 0x24, 0);

fn inquiry(evpd: u8, page: u8, len: u8) -> [u8; 6] {
    [0x12, evpd, page, 0, len, 0]
}

fn it_is_ready(initiator: &Initiator<'_>) {
    initiator.test_unit_ready(Good);
}

/// PERIPHERAL QUALIFIER and DEVICE TYPE, RMB, RESPONSE DATA FORMAT, ADDITIONAL LENGTH; names are of printable
/// ASCII characters.
fn standard_inquiry_data_is_that_of_a_disk(initiator: &Initiator<'_>) {
    let data = initiator.receive(&inquiry(0, 0, 255));
    assert_eq!((data[0], data[1], data[3] & 0xf), (0, 0, 2));
    assert!(data[2] >= 5, "VERSION of SPC-3 or newer");
    assert_eq!(data.len(), usize::from(data[4]) + 5);
    assert!(data.len() >= 36);
    assert!(data[8..36].iter().all(|byte| (0x20..0x7f).contains(byte)), "{data:02x?}");
}

fn inquiry_data_is_cut_to_the_allocation_length(initiator: &Initiator<'_>) {
    let whole = initiator.receive(&inquiry(0, 0, 255));
    for len in [0, 1, 5, 36] {
        let data = initiator.receive(&inquiry(0, 0, len));
        assert_eq!(data, whole[..len.into()], "ADDITIONAL LENGTH is not changed by it");
    }
}

fn a_page_code_without_evpd_is_refused(initiator: &Initiator<'_>) {
    initiator.ask_expecting(&inquiry(0, 0x80, 255), INVALID);
}

fn an_unknown_vital_product_data_page_is_refused(initiator: &Initiator<'_>) {
    initiator.ask_expecting(&inquiry(1, 0x40, 255), INVALID);
}

/// In ascending order, each with its PAGE CODE and PAGE LENGTH.
fn every_supported_page_is_there(initiator: &Initiator<'_>) {
    let supported = initiator.receive(&inquiry(1, 0, 255));
    assert_eq!((supported[1], supported[4]), (0, 0));
    assert!(supported[4..].is_sorted(), "{supported:02x?}");
    for page in &supported[4..] {
        let data = initiator.receive(&[0x12, 1, *page, 4, 0, 0]);
        assert_eq!(data[..2], [0, *page]);
        let len = usize::from(u16::from_be_bytes([data[2], data[3]]));
        assert_eq!(data.len().min(1024), (len + 4).min(1024), "page {page:02x}");
    }
}

/// One at least is of type NAA, EUI-64 or T10 vendor ID, associated with the logical unit.
fn a_designator_names_the_unit(initiator: &Initiator<'_>) {
    let data = initiator.receive(&inquiry(1, 0x83, 255));
    let mut rest = &data[4..];
    let mut names = 0;
    while let [_, kind, _, len, ..] = rest {
        names += usize::from(kind & 0x30 == 0 && (1..=3).contains(&(kind & 0xf)));
        rest = &rest[4 + usize::from(*len)..];
    }
    assert!(names > 0, "{data:02x?}");
}

/// GOOD, with NO SENSE in fixed format.
fn request_sense_has_nothing_to_report(initiator: &Initiator<'_>) {
    let data = initiator.receive(&[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((data[0], data[2] & 0xf, data[12], data[13]), (0x70, 0, 0, 0));
    assert_eq!(initiator.receive(&[0x03, 0, 0, 0, 1, 0]), [0x70]);
}

/// DESC, bit 0 of byte 1.
fn request_sense_in_descriptor_format(initiator: &Initiator<'_>) {
    let data = initiator.receive(&[0x03, 1, 0, 0, 252, 0]);
    assert_eq!((data[0], data[1] & 0xf, data[2], data[3]), (0x72, 0, 0, 0));
}

const CAPACITY_10: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// READ CAPACITY(16) with this ALLOCATION LENGTH.
fn capacity_16(len: u8) -> [u8; 16] {
    [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0]
}

fn capacity_is_the_last_block_and_its_length(initiator: &Initiator<'_>) {
    let data = initiator.receive(&CAPACITY_10);
    let length = u32::try_from(initiator.block_len()).expect("small").to_be_bytes();
    assert_eq!((&data[..4], &data[4..]), (&[0, 0, 7, 0xff][..], &length[..]));
}

fn capacity_16_agrees_with_10(initiator: &Initiator<'_>) {
    let (ten, sixteen) = (initiator.receive(&CAPACITY_10), initiator.receive(&capacity_16(32)));
    assert_eq!((sixteen.len(), &sixteen[..4], &sixteen[4..12]), (32, &[0; 4][..], &ten[..]));
}

fn capacity_is_cut_to_the_allocation_length(initiator: &Initiator<'_>) {
    let whole = initiator.receive(&capacity_16(32));
    for len in [0, 8, 12, 31] {
        assert_eq!(initiator.receive(&capacity_16(len)), whole[..len.into()]);
    }
    assert_eq!(initiator.receive(&capacity_16(255)), whole);
}

fn report_luns(select: u8, len: u8) -> [u8; 12] {
    [0xa0, 0, select, 0, 0, 0, 0, 0, 0, len, 0, 0]
}

/// LUN LIST LENGTH, and LUN 0 somewhere in the list.
fn the_unit_is_among_the_luns(initiator: &Initiator<'_>) {
    let data = initiator.receive(&report_luns(0, 255));
    let len = u32::from_be_bytes(data[..4].try_into().expect("four bytes"));
    assert_eq!((len % 8, &data[4..8]), (0, &[0; 4][..]));
    assert!(data[8..].chunks(8).any(|lun| lun == [0; 8]), "{data:02x?}");
    assert_eq!(initiator.receive(&report_luns(0, 16))[..8], data[..8]);
}

/// SELECT REPORT 01h: well known logical units alone; 02h: all.
fn luns_are_selected(initiator: &Initiator<'_>) {
    let well_known = initiator.receive(&report_luns(1, 255));
    assert!(well_known[8..].chunks(8).all(|lun| lun[0] == 0xc1), "{well_known:02x?}");
    let all = initiator.receive(&report_luns(2, 255));
    let usual = initiator.receive(&report_luns(0, 255));
    assert!(usual[8..].chunks(8).all(|lun| all[8..].chunks(8).any(|other| other == lun)));
}

fn an_unknown_select_report_is_refused(initiator: &Initiator<'_>) {
    initiator.ask_expecting(&report_luns(0x77, 255), INVALID);
}

/// MODE SENSE(6) without block descriptor: PAGE CONTROL and PAGE CODE.
fn mode_sense_6(control: u8, page: u8) -> [u8; 6] {
    [0x1a, 8, control << 6 | page, 0, 255, 0]
}

/// PAGE CODE and bytes of each page behind a header.
fn pages(mut data: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut pages = Vec::new();
    while let [code, len, ..] = data {
        assert_eq!(code & 0x40, 0, "no subpage was asked for");
        let (page, rest) = data.split_at(2 + usize::from(*len));
        pages.push((code & 0x3f, page.to_vec()));
        data = rest;
    }
    pages
}

/// MODE DATA LENGTH; pages in ascending order.
fn mode_pages_come_in_order_and_whole(initiator: &Initiator<'_>) {
    let data = initiator.receive(&mode_sense_6(0, 0x3f));
    assert_eq!((usize::from(data[0]) + 1, data[1], data[3]), (data.len(), 0, 0));
    let pages = pages(&data[4..]);
    assert!(pages.is_sorted_by_key(|(code, _)| *code), "{data:02x?}");
    for (code, page) in pages {
        assert_eq!(initiator.receive(&mode_sense_6(0, code))[4..], page, "page {code:02x}");
    }
}

fn mode_sense_10_says_what_6_says(initiator: &Initiator<'_>) {
    let six = initiator.receive(&mode_sense_6(0, 0x3f));
    let ten = initiator.receive(&[0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(usize::from(u16::from_be_bytes([ten[0], ten[1]])) + 2, ten.len());
    assert_eq!((ten[2], ten[3], &ten[6..8]), (six[1], six[2], &[0, 0][..]));
    assert_eq!(ten[8..], six[4..]);
    // And cut.
    assert_eq!(initiator.receive(&[0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 9, 0]), ten[..9]);
    assert_eq!(initiator.receive(&[0x1a, 8, 0x3f, 0, 5, 0]), six[..5]);
}

/// PAGE CONTROL 01b and 10b: the same pages in the same length.
fn defaults_and_masks_are_pages_as_the_current(initiator: &Initiator<'_>) {
    let shapes = |control| {
        let data = initiator.receive(&mode_sense_6(control, 0x3f));
        let pages = pages(&data[4..]);
        pages.into_iter().map(|(code, page)| (code, page.len())).collect::<Vec<_>>()
    };
    let current = shapes(0);
    assert_eq!((&shapes(1), &shapes(2)), (&current, &current));
}

/// DBD, bit 3 of byte 1. Without it the descriptor says how many blocks there are, and how long they are.
fn no_block_descriptor_if_disabled(initiator: &Initiator<'_>) {
    assert_eq!(initiator.receive(&mode_sense_6(0, 0x0a))[3], 0);
    let data = initiator.receive(&[0x1a, 0, 0x0a, 0, 255, 0]);
    assert_eq!((data[3], &data[4..12]), (8, &[0, 0, 8, 0, 0, 0, 2, 0][..]));
    assert_eq!(data[12] & 0x3f, 0x0a);
}

fn an_unknown_mode_page_is_refused(initiator: &Initiator<'_>) {
    initiator.ask_expecting(&mode_sense_6(0, 0x3e), INVALID);
    initiator.ask_expecting(&[0x5a, 8, 0x3e, 0, 0, 0, 0, 0, 255, 0], INVALID);
}

/// PAGE CONTROL 11b: SAVING PARAMETERS NOT SUPPORTED.
fn nothing_is_saved(initiator: &Initiator<'_>) {
    initiator.ask_expecting(&mode_sense_6(3, 0x3f), Check(5, 0x39, 0));
    initiator.ask_expecting(&[0x5a, 8, 0xff, 0, 0, 0, 0, 0, 255, 0], Check(5, 0x39, 0));
}

/// INVALID COMMAND OPERATION CODE.
fn an_unknown_operation_code_is_refused(initiator: &Initiator<'_>) {
    for opcode in [0x02, 0x22, 0x3d, 0xbf] {
        let mut cdb = [0; 12];
        cdb[0] = opcode;
        let len = match opcode >> 5 {
            0 => 6,
            1 => 10,
            _ => 12,
        };
        initiator.run_expecting(&cdb[..len], Check(5, 0x20, 0));
    }
}

/// Of SERVICE ACTION IN(16) and MAINTENANCE IN: INVALID FIELD IN CDB at bit 4 of byte 1.
fn an_unknown_service_action_is_refused(initiator: &Initiator<'_>) {
    let mut sixteen = [0; 16];
    (sixteen[0], sixteen[1], sixteen[13]) = (0x9e, 0x1f, 32);
    let refused = initiator.ask_expecting(&sixteen, INVALID);
    assert_eq!(refused.specific(), [0xcc, 0, 1]);
    let refused = initiator.ask_expecting(&[0xa3, 0x1f, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], INVALID);
    assert_eq!(refused.specific(), [0xcc, 0, 1]);
}
