//! Parameter data byte by byte, as SBC-3 lays it out.

use super::*;

/// READ CAPACITY(16): the last LBA, the block length, P_I and physical exponent, LBPME and LBPRZ.
fn capacity(last: u64, block_len: u32, exponent: u8, provisioning: u8) -> Capacity16 {
    let mut data = [0; 32];
    data[..8].copy_from_slice(&last.to_be_bytes());
    data[8..12].copy_from_slice(&block_len.to_be_bytes());
    (data[13], data[14]) = (exponent, provisioning);
    Capacity16::read_from_bytes(&data).expect("32 bytes")
}

#[test]
fn thin_disk_says_how_blocks_are_given_back() {
    let mut limits = [0; 60];
    limits[4..8].copy_from_slice(&0x800_u32.to_be_bytes());
    limits[16..20].copy_from_slice(&0x10_0000_u32.to_be_bytes());
    limits[20..24].copy_from_slice(&64_u32.to_be_bytes());
    limits[24..28].copy_from_slice(&8_u32.to_be_bytes());
    limits[28..32].copy_from_slice(&0x8000_0002_u32.to_be_bytes());
    limits[32..40].copy_from_slice(&0x4000_u64.to_be_bytes());
    let disk = Disk::of(&capacity(0xff, 512, 3, 0xc0), (0x10, 4), &limits, &[0, 0xe4, 2, 0], true);
    let expected = Disk {
        block_len: 512,
        blocks: 256,
        physical_exponent: 3,
        write_protected: false,
        write_cache: true,
        force_unit_access: true,
        transfer_max: 0x800,
        unmapping: Some(Unmapping::Unmap),
        unmap_max: 0x10_0000,
        unmap_granularity: 8,
        unmap_alignment: 2,
        write_same: true,
        write_same_max: 0x4000,
        unmapped_is_zero: true,
    };
    assert_eq!(disk.expect("a disk"), expected);
}

#[test]
fn disk_that_says_little_has_little() {
    let disk = Disk::of(&capacity(0, 4096, 0, 0), (0x80, 0), &[0; 12], &[], false);
    let expected = Disk {
        block_len: 4096,
        blocks: 1,
        physical_exponent: 0,
        write_protected: true,
        write_cache: false,
        force_unit_access: false,
        transfer_max: 0,
        unmapping: None,
        unmap_max: 0,
        unmap_granularity: 0,
        unmap_alignment: 0,
        write_same: false,
        write_same_max: 0,
        unmapped_is_zero: false,
    };
    assert_eq!(disk.expect("a disk"), expected);
}

#[test]
fn unmap_alignment_counts_only_if_it_is_valid() {
    let mut limits = [0; 60];
    limits[28..32].copy_from_slice(&2_u32.to_be_bytes());
    let disk = Disk::of(&capacity(7, 512, 0, 0x80), (0, 0), &limits, &[0, 0x40], true);
    let disk = disk.expect("a disk");
    assert_eq!((disk.unmap_alignment, disk.unmapping), (0, None), "a page that is cut");
    let disk = Disk::of(&capacity(7, 512, 0, 0x80), (0, 0), &limits, &[0, 0xc0, 2, 0], true);
    // LBPU without a descriptor that UNMAP could have.
    assert_eq!(disk.expect("a disk").unmapping, Some(Unmapping::WriteSame));
}

#[test]
fn what_is_no_disk_is_told() {
    let of = |last, len| Disk::of(&capacity(last, len, 0, 0), (0, 0), &[], &[], false);
    for (last, len, words) in [
        (7, 520, "blocks of 520 bytes"),
        (7, 0, "blocks of 0 bytes"),
        (7, 8192, "blocks of 8192 bytes"),
        (u64::MAX, 512, "a last block of 18446744073709551615"),
        (u64::MAX / 512, 512, "a last block of 36028797018963967"),
    ] {
        assert!(of(last, len).expect_err("no disk").to_string().contains(words), "{words}");
    }
}

/// MODE SENSE(10): eight bytes, a block descriptor, the Caching page with WCE in bit 2 of byte 2.
#[test]
fn mode_data_with_and_without_a_block_descriptor() {
    let mut caching = [0; 20];
    caching[..3].copy_from_slice(&[0x08, 0x12, 0x04]);
    let with = |descriptor: &[u8], page: &[u8]| {
        let header = [0, 0, 0, 0x90, 0, 0, 0, u8::try_from(descriptor.len()).expect("short")];
        mode_of(&[&header, descriptor, page].concat())
    };
    assert_eq!(with(&[], &caching), (0x90, 4));
    assert_eq!(with(&[7; 8], &caching), (0x90, 4));
    assert_eq!(with(&[7; 8], &[]), (0x90, 0));
    caching[0] = 0x0a;
    assert_eq!(with(&[], &caching), (0x90, 0), "another page");
    assert_eq!(mode_of(&[1, 2]), (0, 0));
}
