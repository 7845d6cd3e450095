//! Status and sense data: what is refused, how it is said, and how much of it is returned.

use bsg::{Access, Buffer, Pointer, Request, SgIoctl, UringFrame, V3Frame, V4Frame};
use control::LunSpec;
use harness::{
    Lun,
    assert::{assert_good, assert_sense, assert_sense_bytes},
    declare,
};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{URING_CMD, Unit, Way, execute, sg_io_v4, soon, uring_cmd},
};

/// INVALID COMMAND OPERATION CODE, 5/20/00, in fixed format (SPC-4, Fixed format sense data): current
/// error 70h, key 5 in byte 2, 10 more bytes behind byte 7, code 20h in byte 12.
const INVALID_OPCODE: [u8; 18] =
    [0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0x00, 0, 0, 0, 0];

/// SAM-5, Status codes: GOOD is 00h. SPC-4, TEST UNIT READY: no data.
#[rstest]
fn test_unit_ready_is_good(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x00, 0, 0, 0, 0, 0]));
    assert_good(&done);
    assert_eq!(done.residual, 0);
    assert!(done.sense.is_empty(), "{:02x?}", done.sense);
}

/// SPC-4, Sense key and additional sense code definitions: an operation code nobody implements is
/// ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE. Driver status 8 is `DRIVER_SENSE`
/// (drivers/scsi/scsi_bsg.c, include/scsi/sg.h).
#[rstest]
fn unsupported_opcode_is_invalid_command_operation_code(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0xff, 0, 0, 0, 0, 0]));
    assert_sense_bytes(&done, &INVALID_OPCODE);
    assert_eq!(done.driver_status, 8);
}

/// SPC-4, MODE SENSE(6): a page that is not implemented is 5/24/00, with a field pointer to PAGE CODE:
/// byte 2, whose leftmost bit is 5 (SKSV 80h, C/D 40h, BPV 08h, bit 5).
#[rstest]
fn mode_sense_of_an_absent_page_points_to_page_code(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&[0x1a, 0, 0x3e, 0, 252, 0]).data_in(252));
    assert_sense_bytes(
        &done,
        &[0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0x00, 0, 0xcd, 0x00, 0x02],
    );
}

/// SBC-3, WRITE(10): WRPROTECT is refused by a unit without protection information: 5/24/00 with a
/// field pointer to bit 7 of byte 1; in a reserved byte, to the first bit that is set. scsi_debug
/// looks at neither unless told to be strict.
#[rstest]
#[case::wrprotect(1, 0x20, [0xcf, 0x00, 0x01])]
#[case::reserved(1, 0x04, [0xca, 0x00, 0x01])]
#[case::naca(9, 0x04, [0xca, 0x00, 0x09])]
fn write_with_an_unsupported_bit_points_to_it(
    #[case] byte: usize,
    #[case] value: u8,
    #[case] pointer: [u8; 3],
) {
    declare!(Contract);
    let mut bsg = sg_io_v4(&Unit::Ours.device(), Access::ReadWrite);
    let mut write = cdb::write(Size::Ten, 0, 1);
    write[byte] = value;
    let done = execute(&mut bsg, Request::new(&write).data_out(&cdb::pattern(0, 1, 1)));
    assert_sense(&done, 0x05, 0x24, 0x00);
    assert_eq!(done.sense[15..18], pointer);
    assert_eq!(done.residual, 512, "nothing is taken");
}

/// SBC-3, READ and WRITE: 5/21/00 if the first or any later block is beyond the last; no data moves.
#[rstest]
#[case::first_block(0x8000, 1)]
#[case::last_of_several(0x7fff, 2)]
#[case::far_away(u32::MAX, 1)]
fn access_beyond_the_last_lba_is_lba_out_of_range(
    #[case] lba: u32,
    #[case] blocks: u8,
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let len = 512 * usize::from(blocks);
    let read = execute(&mut *way, Request::new(&cdb::read(Size::Ten, lba, blocks)).data_in(len));
    assert_sense(&read, 0x05, 0x21, 0x00);
    let write = Request::new(&cdb::write(Size::Sixteen, lba, blocks)).data_out(&vec![0xa5; len]);
    let write = execute(&mut *way, write);
    assert_sense(&write, 0x05, 0x21, 0x00);
    // scsi_debug leaves the residual of a command without data transfer at 0.
    if unit == Unit::Ours {
        let offered = i64::try_from(len).expect("short");
        assert_eq!((read.residual, write.residual), (offered, offered));
    }
    if blocks == 2 {
        // The block that was in range is as before: this range is no test's to write.
        let last = execute(&mut *way, Request::new(&cdb::read(Size::Ten, lba, 1)).data_in(512));
        assert_good(&last);
        assert_eq!(last.data, [0; 512], "a refused write wrote");
    }
}

/// SBC-3, SYNCHRONIZE CACHE: GOOD for any range in the medium, NUMBER OF LOGICAL BLOCKS 0 standing for
/// all from the LBA on; 5/21/00 beyond. No data.
#[rstest]
fn synchronize_cache_is_good_within_the_medium_only(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let ten = |lba_low: u8, blocks: u8| [0x35, 0, 0, 0, 0x7f, lba_low, 0, 0, blocks, 0];
    for (cdb, in_range) in [(ten(0xff, 1), true), (ten(0xf0, 0), true), (ten(0xff, 2), false)] {
        let done = execute(&mut *way, Request::new(&cdb));
        match in_range {
            true => assert_good(&done),
            false => assert_sense(&done, 0x05, 0x21, 0x00),
        }
    }
    let sixteen = [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_good(&execute(&mut *way, Request::new(&sixteen)));
}

/// SBC-3, Write protection: 7/27/00, and the medium is as before; reads work.
#[rstest]
fn write_to_a_protected_unit_is_write_protected(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::with(LunSpec { write_protect: true, ..LunSpec::default() });
    let mut way = way.open(lun.device());
    for size in Size::ALL {
        let request = Request::new(&cdb::write(size, 3, 1)).data_out(&cdb::pattern(3, 1, 1));
        let done = execute(&mut *way, request);
        assert_sense(&done, 0x07, 0x27, 0x00);
        assert_eq!(done.residual, 512, "nothing is taken");
    }
    let done = execute(&mut *way, Request::new(&cdb::read(Size::Ten, 3, 1)).data_in(512));
    assert_good(&done);
    assert_eq!(done.data, [0; 512]);
}

/// What fills the response buffer before the command, and must be there still behind the sense data.
const CANARY: u8 = 0xa5;

fn canaries() -> Buffer {
    let mut buffer = Buffer::zeroed(252).expect("a page of memory");
    buffer.fill(CANARY);
    buffer
}

/// The first `len` bytes are of the sense data, everything behind is as it was.
#[track_caller]
fn assert_written(response: &Pointer, len: usize) {
    let buffer = response.buffer().expect("the command had a response buffer");
    assert_eq!(buffer[..len], INVALID_OPCODE[..len]);
    assert!(
        buffer[len..].iter().all(|byte| *byte == CANARY),
        "{buffer:02x?}",
        buffer = &buffer[..]
    );
}

/// include/uapi/linux/bsg.h: `response_len` is the bytes of sense data written, at most
/// `max_response_len`; there are 18. drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn: the statuses do not
/// depend on it.
#[rstest]
fn sg_io_v4_cuts_sense_to_max_response_len(
    #[values((0, 0), (1, 1), (8, 8), (17, 17), (18, 18), (19, 18), (252, 18))] lens: (u32, u32),
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let bsg = sg_io_v4(&unit.device(), Access::ReadWrite);
    let mut frame = V4Frame::from(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    let (max, written) = lens;
    frame.header.max_response_len = max;
    frame.response = canaries().into();
    bsg.sg_io(&mut frame).expect("executed");
    let header = frame.header;
    assert_eq!((header.device_status, header.driver_status, header.info), (2, 8, 1));
    assert_eq!(header.response_len, written);
    assert_written(&frame.response, written as usize);
}

/// As for SG_IO v4; the length written is bits 24 to 31 of `res2`
/// (drivers/scsi/scsi_bsg.c:scsi_bsg_uring_task_cb).
#[rstest]
fn uring_cmd_cuts_sense_to_max_response_len(
    #[values((0, 0), (1, 1), (8, 8), (17, 17), (18, 18), (19, 18), (252, 18))] lens: (u32, u64),
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract, URING_CMD);
    let mut bsg = uring_cmd(&unit.device(), Access::ReadWrite);
    let mut frame = UringFrame::from(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    let (max, written) = lens;
    frame.command.max_response_len = max;
    frame.response = canaries().into();
    let token = bsg.submit(frame).expect("submitted");
    let done = bsg.wait_for(token, soon()).expect("completed");
    assert_eq!((done.res, done.extra2), (0, Some(0)));
    assert_eq!(done.res2, Some(0x0802 | written << 24));
    assert_written(&done.frame.response, usize::try_from(written).expect("short"));
}

/// include/scsi/sg.h: `sb_len_wr` is the bytes of sense data written, at most `mx_sb_len`.
#[rstest]
fn sg_v3_cuts_sense_to_mx_sb_len(
    #[values((0, 0), (1, 1), (8, 8), (18, 18), (252, 18))] lens: (u8, u8),
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let sg = SgIoctl::open(unit.device().sg(), Access::ReadWrite).expect("node opens");
    let mut frame = V3Frame::from(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    let (max, written) = lens;
    frame.header.mx_sb_len = max;
    frame.sense = canaries().into();
    sg.sg_io(&mut frame).expect("executed");
    assert_eq!((frame.header.status, frame.header.info & 1), (2, 1));
    assert_eq!(frame.header.sb_len_wr, written);
    assert_written(&frame.sense, written.into());
}
