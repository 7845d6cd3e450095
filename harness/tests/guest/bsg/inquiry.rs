//! INQUIRY: standard data and vital product data.

use std::fs;

use bsg::{Access, Passthrough, Request};
use control::{DeviceType, LunSpec};
use harness::{
    Lun,
    assert::{assert_good, assert_sense, assert_sense_bytes},
    declare,
};
use rstest::rstest;

use super::ways::{Unit, Way, execute, sg_io_v4, transferred};

/// A VPD page as far as it is sent, with ALLOCATION LENGTH 1024 in bytes 3 and 4 (SPC-4, INQUIRY
/// command): longer than any page of either device.
#[track_caller]
fn vpd(way: &mut dyn Passthrough, page: u8) -> Vec<u8> {
    let done = execute(way, Request::new(&[0x12, 0x01, page, 0x04, 0x00, 0]).data_in(1024));
    assert_good(&done);
    transferred(&done).to_vec()
}

/// SPC-4, Standard INQUIRY data: RESPONSE DATA FORMAT 2 in byte 3, ADDITIONAL LENGTH n - 4 in byte 4,
/// 36 bytes at least.
#[rstest]
fn inquiry_without_evpd_has_format_2_and_counts_its_bytes(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x12, 0, 0, 0, 255, 0]).data_in(255));
    assert_good(&done);
    assert_eq!(done.data[3] & 0x0f, 2, "response data format");
    let len = usize::from(done.data[4]) + 5;
    assert!(len >= 36, "additional length {}", done.data[4]);
    assert_eq!(done.residual, 255 - i64::try_from(len).expect("small"), "bytes not sent");
}

/// SPC-4, Standard INQUIRY data, byte by byte, with its version descriptor values: SAM-5 00A0h, SPC-4
/// 0460h, SBC-3 04C0h. Vendor and product are this project's own.
#[rstest]
#[case::disk(DeviceType::Disk, 0x00, [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0])]
#[case::processor(DeviceType::Processor, 0x03, [0x00, 0xa0, 0x04, 0x60, 0x00, 0x00])]
fn inquiry_without_evpd_tells_what_the_unit_is(
    #[case] device_type: DeviceType,
    #[case] peripheral: u8,
    #[case] versions: [u8; 6],
) {
    declare!(Contract);
    let lun = Lun::with(LunSpec { device_type, ..LunSpec::default() });
    let mut bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let done = execute(&mut bsg, Request::new(&[0x12, 0, 0, 0, 96, 0]).data_in(96));
    assert_good(&done);
    // Not removable; SPC-4; HISUP and format 2; 91 more bytes; CMDQUE.
    let mut expected = vec![peripheral, 0x00, 0x06, 0x12, 0x5b, 0x00, 0x00, 0x02];
    expected.extend_from_slice(b"SENSECHKVIRTUAL DISK    0001");
    expected.resize(58, 0);
    expected.extend_from_slice(&versions);
    expected.resize(96, 0);
    assert_eq!(done.data, expected);
    assert_eq!(done.residual, 0);
}

/// SPC-4, Allocation length: data is cut to it without an error. SPC-4, Standard INQUIRY data:
/// ADDITIONAL LENGTH is not altered by that.
#[rstest]
fn inquiry_with_short_allocation_length_is_cut_and_leaves_a_residual(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way_taken: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
    #[values(0, 5, 36)] allocation_length: u8,
) {
    declare!(Contract);
    let mut way = way_taken.open(&unit.device());
    let whole = execute(&mut *way, Request::new(&[0x12, 0, 0, 0, 96, 0]).data_in(96));
    let cdb = [0x12, 0, 0, 0, allocation_length, 0];
    let done = execute(&mut *way, Request::new(&cdb).data_in(96));
    assert_good(&done);
    let len = usize::from(allocation_length);
    assert_eq!(done.residual, 96 - i64::from(allocation_length));
    assert_eq!(done.data[..len], whole.data[..len]);
    // sg v3 bounces data through a buffer of the descriptor, and copies all of it: what follows is of
    // the command before.
    if way_taken != Way::SgV3 {
        assert_eq!(done.data[len..], vec![0; 96 - len], "bytes behind the allocation length");
    }
}

/// SPC-4, INQUIRY command: CMDDT, bit 1 of byte 1, is obsolete and refused: 5/24/00 with a field
/// pointer to that very bit (Field pointer sense key specific data: SKSV, C/D, BPV and bit 1; byte 1).
#[rstest]
fn inquiry_with_cmddt_is_invalid_field_in_cdb(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x12, 0x02, 0, 0, 96, 0]).data_in(96));
    assert_sense_bytes(
        &done,
        &[0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0x00, 0, 0xc9, 0x00, 0x01],
    );
}

/// SPC-4, INQUIRY command: a PAGE CODE without EVPD is 5/24/00. scsi_debug sends standard data instead.
#[rstest]
fn inquiry_of_a_page_without_evpd_is_invalid_field_in_cdb() {
    declare!(Contract);
    let mut bsg = sg_io_v4(&Unit::Ours.device(), Access::ReadWrite);
    let done = execute(&mut bsg, Request::new(&[0x12, 0, 0x80, 0, 96, 0]).data_in(96));
    assert_sense(&done, 0x05, 0x24, 0x00);
    assert_eq!(done.residual, 96, "nothing is sent with an error");
}

/// SPC-4, Supported VPD Pages VPD page: the list is in ascending order from 00h. Each page listed
/// answers with its own PAGE CODE, and with a PAGE LENGTH of what follows.
#[rstest]
fn inquiry_of_page_00_lists_pages_that_answer(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let list = vpd(&mut *way, 0x00);
    let pages = &list[4..];
    assert_eq!(pages.first(), Some(&0x00));
    assert!(pages.is_sorted_by(|a, b| a < b), "{pages:02x?}");
    for mandatory in [0x00, 0x83] {
        assert!(pages.contains(&mandatory), "page {mandatory:02x} is mandatory: {pages:02x?}");
    }
    for page in pages {
        let data = vpd(&mut *way, *page);
        assert_eq!(data[1], *page);
        let len = usize::from(u16::from_be_bytes([data[2], data[3]]));
        assert_eq!(len, data.len() - 4, "PAGE LENGTH of {page:02x}");
    }
}

/// SPC-4, INQUIRY command: a page that is not supported is 5/24/00.
#[rstest]
fn inquiry_of_a_page_that_is_not_listed_is_invalid_field_in_cdb(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    // 7Fh is of the range for ASCII information pages, which neither unit has.
    let done = execute(&mut *way, Request::new(&[0x12, 0x01, 0x7f, 0, 96, 0]).data_in(96));
    assert_sense(&done, 0x05, 0x24, 0x00);
}

/// SPC-4, Unit Serial Number and Device Identification VPD pages: the serial number is ASCII; the
/// designators are of the logical unit (ASSOCIATION 00b), one T10 vendor ID based in ASCII, one NAA
/// locally assigned in binary. Ours end in target and LUN, so no two units have the same. The kernel
/// keeps the bytes it read at its scan in sysfs (drivers/scsi/scsi.c:scsi_attach_vpd).
#[rstest]
fn inquiry_of_pages_80_and_83_names_the_unit() {
    declare!(Contract);
    let device = Unit::Ours.device();
    let mut bsg = sg_io_v4(&device, Access::ReadWrite);
    let serial = vpd(&mut bsg, 0x80);
    assert_eq!(serial[..4], [0x03, 0x80, 0x00, 14]);
    let number = str::from_utf8(&serial[4..]).expect("a serial number is ASCII");
    let address: Vec<u32> =
        device.hctl.split(':').map(|part| part.parse().expect("a number")).collect();
    assert_eq!(number[8..], format!("{:02x}{:04x}", address[2], address[3]));

    let mut expected = vec![0x03, 0x83, 0x00, 54, 0x02, 0x01, 0x00, 38];
    expected.extend_from_slice(b"SENSECHKVIRTUAL DISK    ");
    expected.extend_from_slice(number.as_bytes());
    let naa = 3 << 60 | u64::from_str_radix(number, 16).expect("hexadecimal digits");
    expected.extend_from_slice(&[0x01, 0x03, 0x00, 8]);
    expected.extend_from_slice(&naa.to_be_bytes());
    assert_eq!(vpd(&mut bsg, 0x83), expected);

    for (attribute, page) in [("vpd_pg80", serial), ("vpd_pg83", expected)] {
        let kept = fs::read(device.dir().join(attribute)).expect("the kernel keeps the page");
        assert_eq!(kept, page, "{attribute}");
    }
}

/// SBC-3, Block Limits, Block Device Characteristics and Logical Block Provisioning VPD pages: PAGE
/// LENGTH 3Ch, 3Ch and 4. Zeros are no limits and full provisioning. Not zero are WSNZ, MAXIMUM COMPARE AND
/// WRITE LENGTH (255) and MAXIMUM WRITE SAME LENGTH (65535); MEDIUM ROTATION RATE, which is 0001h for a
/// medium that does not rotate.
#[rstest]
#[case::block_limits(0xb0, 0x3c, &[(4, 0x01), (5, 0xff), (42, 0xff), (43, 0xff)])]
#[case::block_device_characteristics(0xb1, 0x3c, &[(5, 0x01)])]
#[case::logical_block_provisioning(0xb2, 0x04, &[])]
fn inquiry_of_a_block_page_has_its_fixed_length(
    #[case] page: u8,
    #[case] len: u8,
    #[case] not_zero: &[(usize, u8)],
) {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let mut bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut expected = vec![0x00, page, 0x00, len];
    expected.resize(4 + usize::from(len), 0);
    for (at, byte) in not_zero {
        expected[*at] = *byte;
    }
    assert_eq!(vpd(&mut bsg, page), expected);
}
