//! UNMAP, WRITE SAME with UNMAP, and GET LBA STATUS (SBC, Logical block provisioning).

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "provisioning"
    THIN One: nothing_is_mapped_at_first, a_write_maps_its_granules,
        unmapped_blocks_read_as_zeros, unmap_takes_several_descriptors,
        unmap_leaves_parts_of_granules, write_same_unmaps_what_reads_the_same,
        lists_that_are_no_lists_are_refused, all_descriptors_or_none, unmap_is_a_write,
        status_is_cut_to_what_there_is_room_for, status_beyond_the_end_is_refused,
        unmap_of_the_last_granule;
    THIN_4K One: nothing_is_mapped_at_first, every_block_is_a_granule;
    DISK One: every_block_of_a_full_unit_is_mapped_and_stays_so;
}

/// UNMAP with these descriptors of LBA and number of blocks.
fn unmap(descriptors: &[(u16, u8)]) -> (Vec<u8>, Vec<u8>) {
    let body: Vec<u8> = descriptors
        .iter()
        .flat_map(|(lba, blocks)| {
            let [high, low] = lba.to_be_bytes();
            [0, 0, 0, 0, 0, 0, high, low, 0, 0, 0, *blocks, 0, 0, 0, 0]
        })
        .collect();
    let len = u16::try_from(body.len()).expect("short");
    let header = [(len + 6).to_be_bytes(), len.to_be_bytes(), [0; 2], [0; 2]].concat();
    let [high, low] = (len + 8).to_be_bytes();
    (vec![0x42, 0, 0, 0, 0, 0, 0, high, low, 0], [header, body].concat())
}

#[track_caller]
fn good_unmap(initiator: &Initiator<'_>, descriptors: &[(u16, u8)]) {
    let (cdb, list) = unmap(descriptors);
    initiator.good_send(&cdb, &list);
}

/// GET LBA STATUS from `lba` on: first block, number of blocks, PROVISIONING STATUS.
#[track_caller]
fn status(initiator: &Initiator<'_>, lba: u16) -> Vec<(u16, u16, u8)> {
    let [high, low] = lba.to_be_bytes();
    let cdb = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 4, 0, 0, 0];
    let data = initiator.receive(&cdb);
    let len = u32::from_be_bytes(data[..4].try_into().expect("four bytes"));
    assert_eq!(u64::from(len), data.len() as u64 - 4, "PARAMETER DATA LENGTH");
    let descriptor = |bytes: &[u8]| {
        assert_eq!(
            (&bytes[..6], &bytes[8..10], &bytes[13..]),
            (&[0; 6][..], &[0; 2][..], &[0; 3][..])
        );
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        (number(6), number(10), bytes[12])
    };
    data[8..].chunks(16).map(descriptor).collect()
}

fn nothing_is_mapped_at_first(initiator: &Initiator<'_>) {
    assert_eq!(status(initiator, 0), [(0, 2048, 1)]);
    assert_eq!(status(initiator, 1000), [(1000, 1048, 1)]);
    assert_eq!(initiator.read(0, 2), [0, 0]);
    assert_eq!(status(initiator, 0), [(0, 2048, 1)], "reading maps nothing");
}

/// Granules are of eight blocks.
fn a_write_maps_its_granules(initiator: &Initiator<'_>) {
    initiator.write(18, &[1]);
    assert_eq!(status(initiator, 0), [(0, 16, 1), (16, 8, 0), (24, 2024, 1)]);
    assert_eq!(status(initiator, 20), [(20, 4, 0), (24, 2024, 1)]);
    initiator.write(23, &[2, 3]);
    assert_eq!(status(initiator, 0), [(0, 16, 1), (16, 16, 0), (32, 2016, 1)]);
    assert_eq!(initiator.read(17, 2), [0, 1]);
}

fn unmapped_blocks_read_as_zeros(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 32]);
    good_unmap(initiator, &[(8, 16)]);
    assert_eq!(status(initiator, 0), [(0, 8, 0), (8, 16, 1), (24, 8, 0), (32, 2016, 1)]);
    assert_eq!(initiator.read(7, 18), [&[7][..], &[0; 16], &[7]].concat());
    initiator.write(9, &[8]);
    assert_eq!(initiator.read(8, 3), [0, 8, 0]);
    assert_eq!(status(initiator, 8)[0], (8, 8, 0));
}

fn unmap_takes_several_descriptors(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 64]);
    good_unmap(initiator, &[(48, 8), (0, 8), (16, 0), (24, 8), (0, 8)]);
    let expected =
        [(0, 8, 1), (8, 16, 0), (24, 8, 1), (32, 16, 0), (48, 8, 1), (56, 8, 0), (64, 1984, 1)];
    assert_eq!(status(initiator, 0), expected);
    good_unmap(initiator, &[]);
    // PARAMETER LIST LENGTH zero.
    initiator.good(&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(status(initiator, 0), expected);
}

/// SBC allows it to do less than asked for, not more: what it leaves reads as before.
fn unmap_leaves_parts_of_granules(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 32]);
    good_unmap(initiator, &[(1, 7), (9, 6), (20, 11)]);
    assert_eq!(status(initiator, 0), [(0, 32, 0), (32, 2016, 1)]);
    assert_eq!(initiator.read(0, 32), [7; 32]);
    good_unmap(initiator, &[(4, 16)]);
    assert_eq!(initiator.read(0, 32), [&[7; 8][..], &[0; 8], &[7; 16]].concat());
}

/// It has to write what does not read as zeros, and what is no whole granule.
fn write_same_unmaps_what_reads_the_same(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 64]);
    let ten = |lba, blocks| [0x41, 0x08, 0, 0, 0, lba, 0, 0, blocks, 0];
    initiator.good_send(&ten(4, 16), &initiator.filled(&[0]));
    assert_eq!(initiator.read(0, 24), [&[7; 4][..], &[0; 16], &[7; 4]].concat());
    assert_eq!(status(initiator, 0), [(0, 8, 0), (8, 8, 1), (16, 48, 0), (64, 1984, 1)]);
    initiator.good_send(&ten(24, 8), &initiator.filled(&[9]));
    assert_eq!(initiator.read(24, 8), [9; 8]);
    let ndob = [0x93, 0x09, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 8, 0, 0];
    initiator.good(&ndob);
    assert_eq!(status(initiator, 16), [(16, 16, 0), (32, 8, 1), (40, 24, 0), (64, 1984, 1)]);
    // Without UNMAP zeros are written.
    initiator.good_send(&[0x41, 0, 0, 0, 0, 40, 0, 0, 8, 0], &initiator.filled(&[0]));
    assert_eq!(status(initiator, 40), [(40, 24, 0), (64, 1984, 1)]);
    assert_eq!(initiator.read(40, 8), [0; 8]);
}

/// A list shorter than its header is PARAMETER LIST LENGTH ERROR; 257 descriptors are too many.
fn lists_that_are_no_lists_are_refused(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 8]);
    let (_, list) = unmap(&[(0, 8)]);
    for len in 1..8u8 {
        let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, len, 0];
        initiator.send_expecting(&cdb, &list[..usize::from(len)], Check(5, 0x1a, 0));
    }
    // A descriptor that is cut is not processed.
    initiator.send_expecting(&[0x42, 0, 0, 0, 0, 0, 0, 0, 23, 0], &list[..23], Good);
    assert_eq!(initiator.read(0, 8), [7; 8]);
    let (cdb, list) = unmap(&[(0, 8); 257]);
    let refused = initiator.send_expecting(&cdb, &list, Check(5, 0x26, 0));
    assert_eq!(refused.specific(), [0x80, 0, 2]);
    assert_eq!(initiator.read(0, 8), [7; 8]);
    // ANCHOR.
    let anchor = [0x42, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(initiator.run_expecting(&anchor, Check(5, 0x24, 0)).specific(), [0xc8, 0, 1]);
    good_unmap(initiator, &[(0, 8); 256]);
    assert_eq!(initiator.read(0, 8), [0; 8]);
}

fn all_descriptors_or_none(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 8]);
    let (cdb, list) = unmap(&[(0, 8), (2044, 5)]);
    initiator.send_expecting(&cdb, &list, Check(5, 0x21, 0));
    assert_eq!(initiator.read(0, 8), [7; 8]);
}

fn unmap_is_a_write(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 8]);
    let page = [0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    initiator.good_send(&[0x15, 0x10, 0, 0, 16, 0], &page);
    let (cdb, list) = unmap(&[(0, 8)]);
    initiator.send_expecting(&cdb, &list, Check(7, 0x27, 0));
    assert_eq!(initiator.read(0, 8), [7; 8]);
}

fn status_is_cut_to_what_there_is_room_for(initiator: &Initiator<'_>) {
    for granule in [0u8, 2, 4] {
        initiator.write(granule * 8, &[7]);
    }
    let ask =
        |len: u8| initiator.receive(&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0]);
    let whole = ask(255);
    assert_eq!((whole.len(), whole[3]), (8 + 6 * 16, 4 + 6 * 16));
    let two = ask(8 + 2 * 16);
    assert_eq!((two.len(), two[3], &two[8..]), (8 + 2 * 16, 4 + 2 * 16, &whole[8..8 + 2 * 16]));
    assert_eq!(ask(4).len(), 4);
    assert_eq!(ask(0), []);
}

fn status_beyond_the_end_is_refused(initiator: &Initiator<'_>) {
    let cdb = |lba: u16| {
        let [high, low] = lba.to_be_bytes();
        [0x9e, 0x12, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0, 64, 0, 0]
    };
    initiator.ask_expecting(&cdb(2048), Check(5, 0x21, 0));
    assert_eq!(status(initiator, 2047), [(2047, 1, 1)]);
}

fn unmap_of_the_last_granule(initiator: &Initiator<'_>) {
    let block = initiator.filled(&[7]);
    initiator.good_send(&[0x2a, 0, 0, 0, 7, 0xff, 0, 0, 1, 0], &block);
    assert_eq!(status(initiator, 1000), [(1000, 1040, 1), (2040, 8, 0)]);
    good_unmap(initiator, &[(2040, 8)]);
    assert_eq!(status(initiator, 1000), [(1000, 1048, 1)]);
}

fn every_block_is_a_granule(initiator: &Initiator<'_>) {
    initiator.write(3, &[1, 2, 3]);
    good_unmap(initiator, &[(4, 1)]);
    assert_eq!(initiator.read(2, 5), [0, 1, 0, 3, 0]);
    let expected = [(0, 3, 1), (3, 1, 0), (4, 1, 1), (5, 1, 0), (6, 2042, 1)];
    assert_eq!(status(initiator, 0), expected);
}

/// UNMAP is a hint, and a fully provisioned unit does not take it.
fn every_block_of_a_full_unit_is_mapped_and_stays_so(initiator: &Initiator<'_>) {
    initiator.write(0, &[7; 8]);
    assert_eq!(status(initiator, 0), [(0, 2048, 0)]);
    good_unmap(initiator, &[(0, 8)]);
    assert_eq!(initiator.read(0, 8), [7; 8]);
    assert_eq!(status(initiator, 3), [(3, 2045, 0)]);
    let (cdb, list) = unmap(&[(2044, 5)]);
    initiator.send_expecting(&cdb, &list, Check(5, 0x21, 0));
}
