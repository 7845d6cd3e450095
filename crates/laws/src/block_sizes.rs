//! How long blocks are, and how they lie in physical blocks (SBC, READ CAPACITY; Block Limits VPD page).

use crate::{Initiator, laws};

laws! { "block_sizes"
    DISK One: blocks_of_512_bytes;
    DISK_4K One: blocks_of_4096_bytes, the_last_block_is_the_last;
    DISK_512E One: eight_blocks_make_a_physical_block;
    THIN One: a_thin_unit_says_what_it_can_unmap, the_last_block_is_the_last;
    THIN_4K One: the_granule_of_a_thin_unit_is_one_block_of_4096_bytes;
}

/// READ CAPACITY(16).
const CAPACITY: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
/// The Block Limits VPD page.
const LIMITS: [u8; 6] = [0x12, 1, 0xb0, 0, 64, 0];

fn blocks_of_512_bytes(initiator: &Initiator<'_>) {
    let expected = [[0, 0, 0, 0, 0, 0, 7, 0xff], [0, 0, 2, 0, 0, 0, 0, 0]].concat();
    assert_eq!(initiator.receive(&CAPACITY)[..16], expected);
    let limits = initiator.receive(&LIMITS);
    assert_eq!(limits[4..8], [1, 255, 0, 0], "WSNZ, COMPARE AND WRITE of 255 blocks");
    assert_eq!(limits[20..36], [0; 16], "nothing to unmap");
    assert_eq!(limits[36..44], [0, 0, 0, 0, 0, 0, 0xff, 0xff], "MAXIMUM WRITE SAME LENGTH");
    assert_eq!(initiator.receive(&[0x12, 1, 0xb2, 0, 64, 0]), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
}

fn blocks_of_4096_bytes(initiator: &Initiator<'_>) {
    let expected = [[0, 0, 0, 0, 0, 0, 7, 0xff], [0, 0, 0x10, 0, 0, 0, 0, 0]].concat();
    assert_eq!(initiator.receive(&CAPACITY)[..16], expected);
    initiator.write(7, &[1, 2]);
    assert_eq!(initiator.read(6, 4), [0, 1, 2, 0]);
}

/// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, and OPTIMAL TRANSFER LENGTH GRANULARITY.
fn eight_blocks_make_a_physical_block(initiator: &Initiator<'_>) {
    let capacity = initiator.receive(&CAPACITY);
    assert_eq!(capacity[8..16], [0, 0, 2, 0, 0, 0x03, 0, 0]);
    assert_eq!(initiator.receive(&LIMITS)[6..8], [0, 8]);
    // It is not needed to respect them.
    initiator.write(7, &[1, 2]);
    assert_eq!(initiator.read(6, 4), [0, 1, 2, 0]);
}

/// LBPME and LBPRZ; LBPU, LBPWS, LBPWS10 and LBPRZ with PROVISIONING TYPE 2h.
fn a_thin_unit_says_what_it_can_unmap(initiator: &Initiator<'_>) {
    assert_eq!(initiator.receive(&CAPACITY)[12..16], [0, 0, 0xc0, 0]);
    assert_eq!(initiator.receive(&[0x12, 1, 0xb2, 0, 64, 0]), [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
    let limits = initiator.receive(&LIMITS);
    let expected = [[0xff, 0xff, 0xff, 0xff], [0, 0, 1, 0], [0, 0, 0, 8], [0x80, 0, 0, 0]].concat();
    assert_eq!(limits[20..36], expected, "no limit, 256 descriptors, 8 blocks, aligned to 0");
}

fn the_granule_of_a_thin_unit_is_one_block_of_4096_bytes(initiator: &Initiator<'_>) {
    assert_eq!(initiator.receive(&LIMITS)[28..36], [0, 0, 0, 1, 0x80, 0, 0, 0]);
}

fn the_last_block_is_the_last(initiator: &Initiator<'_>) {
    let block = initiator.filled(&[5]);
    initiator.good_send(&[0x2a, 0, 0, 0, 7, 0xff, 0, 0, 1, 0], &block);
    assert_eq!(initiator.receive(&[0x28, 0, 0, 0, 7, 0xff, 0, 0, 1, 0]), block);
    let beyond = crate::Ended::Check(5, 0x21, 0);
    initiator.send_expecting(&[0x2a, 0, 0, 0, 7, 0xff, 0, 0, 2, 0], &block, beyond);
    initiator.ask_expecting(&[0x28, 0, 0, 0, 8, 0, 0, 0, 1, 0], beyond);
}
