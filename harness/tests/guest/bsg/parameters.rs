//! Parameter data of everything but INQUIRY: capacity, LUNs, mode pages, operation codes, sense.

use bsg::{Access, Request};
use control::LunSpec;
use harness::{Lun, assert::assert_good, declare};
use rstest::rstest;

use super::ways::{Unit, Way, execute, sg_io_v4, transferred};

/// SBC-3, READ CAPACITY(10) parameter data: the last LBA, not the number of blocks, then the block
/// length, both big-endian. Both devices have 16 MiB in blocks of 512 bytes: 8000h blocks.
#[rstest]
fn read_capacity_10_returns_the_last_lba(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let cdb = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let done = execute(&mut *way, Request::new(&cdb).data_in(8));
    assert_good(&done);
    assert_eq!(done.data, [0x00, 0x00, 0x7f, 0xff, 0x00, 0x00, 0x02, 0x00]);
}

/// SBC-3, READ CAPACITY(10) and (16) parameter data of 100 blocks of 4096 bytes: RETURNED LOGICAL
/// BLOCK ADDRESS 63h, LOGICAL BLOCK LENGTH 1000h; in the long form 64 bits of address, 32 bytes in
/// all, the rest zero: no protection, one logical block to a physical one, full provisioning.
#[rstest]
fn read_capacity_of_4096_byte_blocks_counts_in_those() {
    declare!(Contract);
    let lun = Lun::with(LunSpec { block_len: 4096, blocks: 100, ..LunSpec::default() });
    let mut bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let cdb = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let done = execute(&mut bsg, Request::new(&cdb).data_in(8));
    assert_good(&done);
    assert_eq!(done.data, [0x00, 0x00, 0x00, 0x63, 0x00, 0x00, 0x10, 0x00]);

    let cdb = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    let done = execute(&mut bsg, Request::new(&cdb).data_in(64));
    assert_good(&done);
    let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 0x63, 0x00, 0x00, 0x10, 0x00];
    expected.resize(32, 0);
    assert_eq!(transferred(&done), expected);
}

/// SPC-4, REPORT LUNS parameter data: LUN LIST LENGTH in bytes of what follows the 8-byte header,
/// eight for each LUN, the addressed one among them. SAM-5, Peripheral device addressing: LUN n below
/// 256 is 00h, n, then zeros.
#[rstest]
fn report_luns_lists_the_addressed_unit(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let device = unit.device();
    let mut way = way.open(&device);
    let cdb = [0xa0, 0, 0x00, 0, 0, 0, 0, 0, 0x10, 0, 0, 0];
    let done = execute(&mut *way, Request::new(&cdb).data_in(4096));
    assert_good(&done);
    let data = transferred(&done);
    let len = u32::from_be_bytes([data[0], data[1], data[2], data[3]]);
    assert_eq!(usize::try_from(len).expect("short"), data.len() - 8);
    assert_eq!(data[4..8], [0; 4], "reserved");
    let (luns, rest) = data[8..].as_chunks::<8>();
    assert!(rest.is_empty(), "{rest:02x?}");
    let lun = device.hctl.rsplit(':').next().and_then(|lun| lun.parse().ok()).expect("a LUN");
    assert!(luns.contains(&[0, lun, 0, 0, 0, 0, 0, 0]), "{lun} in {luns:02x?}");
}

/// SPC-4, Mode parameter header(6) and (10); SBC-3, DEVICE-SPECIFIC PARAMETER of block devices: WP in
/// bit 7, DPOFUA in bit 4; SPC-4, Short LBA mode parameter block descriptor: 8000h blocks of 200h
/// bytes; SBC-3, Caching mode page: 08h, 12h, without a write cache all zeros.
#[rstest]
#[case::writable(false, 0x10)]
#[case::write_protected(true, 0x90)]
fn mode_sense_returns_header_block_descriptor_and_page(
    #[case] write_protect: bool,
    #[case] device_specific: u8,
) {
    declare!(Contract);
    let lun = Lun::with(LunSpec { write_protect, ..LunSpec::default() });
    let mut bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let descriptor = [0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x02, 0x00];
    let mut page = vec![0x08, 0x12];
    page.resize(20, 0);

    let done = execute(&mut bsg, Request::new(&[0x1a, 0, 0x08, 0, 252, 0]).data_in(252));
    assert_good(&done);
    let header = [31, 0, device_specific, 8];
    assert_eq!(transferred(&done), [&header[..], &descriptor, &page].concat());

    let cdb = [0x5a, 0, 0x08, 0, 0, 0, 0, 0x01, 0x00, 0];
    let done = execute(&mut bsg, Request::new(&cdb).data_in(256));
    assert_good(&done);
    let header = [0, 34, 0, device_specific, 0, 0, 0, 8];
    assert_eq!(transferred(&done), [&header[..], &descriptor, &page].concat());

    // DBD, bit 3 of byte 1: no block descriptor.
    let done = execute(&mut bsg, Request::new(&[0x1a, 0x08, 0x08, 0, 252, 0]).data_in(252));
    assert_good(&done);
    assert_eq!(transferred(&done), [&[23, 0, device_specific, 0][..], &page].concat());
}

/// SPC-4, Mode parameter header: MODE DATA LENGTH is the number of bytes behind it. SPC-4, MODE
/// SENSE(6): page code 3Fh asks for all pages, each of which is followed by the next.
#[rstest]
fn mode_sense_6_of_all_pages_counts_its_bytes(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x1a, 0, 0x3f, 0, 252, 0]).data_in(252));
    assert_good(&done);
    let data = transferred(&done);
    assert_eq!(usize::from(data[0]) + 1, data.len());
    let mut pages = &data[4 + usize::from(data[3])..];
    let mut codes = Vec::new();
    while let [code, len, rest @ ..] = pages {
        assert_eq!(code & 0x40, 0, "page {code:02x} has subpages");
        codes.push(code & 0x3f);
        pages = &rest[usize::from(*len)..];
    }
    assert!(codes.contains(&0x08) && codes.contains(&0x0a), "{codes:02x?}");
}

/// SPC-4, REPORT SUPPORTED OPERATION CODES, one_command parameter data: SUPPORT 011b and the CDB's
/// size for a supported command, whose usage data begins with the operation code; 001b for another.
#[rstest]
fn report_supported_operation_codes_tells_of_one_command(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    // REPORTING OPTIONS 001b, REQUESTED OPERATION CODE INQUIRY, ALLOCATION LENGTH 64.
    let cdb = |opcode| [0xa3, 0x0c, 0x01, opcode, 0, 0, 0, 0, 0, 64, 0, 0];
    let done = execute(&mut *way, Request::new(&cdb(0x12)).data_in(64));
    assert_good(&done);
    let data = transferred(&done);
    assert_eq!(data[1] & 0x07, 3, "SUPPORT of INQUIRY: {data:02x?}");
    assert_eq!(data[2..4], [0, 6], "CDB SIZE");
    assert_eq!(
        (data[4], data[5] & 0x01, data[6]),
        (0x12, 0x01, 0xff),
        "CDB USAGE DATA: EVPD, page"
    );
    assert_eq!(data.len(), 10);

    // Vendor specific, and supported by neither.
    let done = execute(&mut *way, Request::new(&cdb(0xff)).data_in(64));
    assert_good(&done);
    assert_eq!(transferred(&done)[1] & 0x07, 1, "SUPPORT of FFh");
}

/// SPC-4, all_commands parameter data: COMMAND DATA LENGTH, then eight bytes for each command. A
/// direct access block device has the commands SBC-3 makes mandatory among them.
#[rstest]
fn report_supported_operation_codes_lists_the_mandatory_ones(
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut bsg = sg_io_v4(&unit.device(), Access::ReadWrite);
    let cdb = [0xa3, 0x0c, 0x00, 0, 0, 0, 0, 0, 0x10, 0, 0, 0];
    let done = execute(&mut bsg, Request::new(&cdb).data_in(4096));
    assert_good(&done);
    let data = transferred(&done);
    let len = u32::from_be_bytes([data[0], data[1], data[2], data[3]]);
    assert_eq!(usize::try_from(len).expect("short"), data.len() - 4);
    let (descriptors, rest) = data[4..].as_chunks::<8>();
    assert!(rest.is_empty(), "{rest:02x?}");
    let opcodes: Vec<u8> = descriptors.iter().map(|descriptor| descriptor[0]).collect();
    for opcode in [0x00, 0x03, 0x12, 0x25, 0x28, 0x2a, 0x9e, 0xa0] {
        assert!(opcodes.contains(&opcode), "{opcode:02x} in {opcodes:02x?}");
    }
}

/// SPC-4, REQUEST SENSE: with nothing to tell NO SENSE, in fixed format (70h, 18 bytes), or with DESC
/// in descriptor format (72h, 8 bytes without descriptors); the status is GOOD.
#[rstest]
#[case::fixed(0x00, &[0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
#[case::descriptor(0x01, &[0x72, 0, 0, 0, 0, 0, 0, 0])]
fn request_sense_with_nothing_to_tell_is_no_sense(
    #[case] flags: u8,
    #[case] expected: &[u8],
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut bsg = sg_io_v4(&unit.device(), Access::ReadWrite);
    let done = execute(&mut bsg, Request::new(&[0x03, flags, 0, 0, 252, 0]).data_in(252));
    assert_good(&done);
    assert_eq!(transferred(&done), expected);
}
