//! `struct sg_io_v4` field by field, and what is refused with which errno.

use bsg::{
    Access, BsgIoctl, Buffer, Errno, Pointer, Request, StructurePlace, UringFrame, V4Frame,
    uapi::SgIoV4,
};
use harness::{Lun, declare};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{URING_CMD, Unit, complete, sg_io_v4, uring_cmd},
};

/// A frame whose every field that is not input holds a number of its own.
fn stained(request: Request) -> V4Frame {
    let mut frame = V4Frame::from(request);
    frame.header = SgIoV4 {
        request_tag: 0x1111_1111_1111_1111,
        request_attr: 0x2222_2222,
        request_priority: 0x3333_3333,
        request_extra: 0x4444_4444,
        usr_ptr: 0x5555_5555_5555_5555,
        spare_in: 0x6666_6666,
        driver_status: 0x7777_7777,
        transport_status: 0x7777_7778,
        device_status: 0x7777_7779,
        retry_delay: 0x7777_777a,
        info: 0x7777_777b,
        duration: 0x7777_777c,
        response_len: 0x7777_777d,
        din_resid: 0x1777_777e,
        dout_resid: 0x1777_777f,
        generated_tag: 0x7777_7777_7777_7780,
        spare_out: 0x7777_7781,
        padding: 0x7777_7782,
        ..frame.header
    };
    frame.place();
    frame
}

/// The structure before and after a command that is executed.
#[track_caller]
fn exchanged(bsg: &BsgIoctl, request: Request) -> (SgIoV4, SgIoV4) {
    let mut frame = stained(request);
    let before = frame.header;
    bsg.sg_io(&mut frame).expect("executed");
    (before, frame.header)
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn: seven output fields are written, `dout_resid` only for
/// data to the device; every other byte of the structure comes back as it was. info is 0 as long as
/// no status is set (include/scsi/sg.h: SG_INFO_OK).
#[rstest]
fn sg_io_of_a_good_read_writes_seven_fields_and_no_other(
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let bsg = sg_io_v4(&unit.device(), Access::ReadWrite);
    let request = Request::new(&cdb::read(Size::Ten, 0x7001, 1)).data_in(4096);
    let (before, after) = exchanged(&bsg, request);
    let expected = SgIoV4 {
        driver_status: 0,
        transport_status: 0,
        device_status: 0,
        info: 0,
        response_len: 0,
        din_resid: 3584,
        ..before
    };
    assert_eq!(after, expected);
}

/// As above, for data to the device: `dout_resid` is written instead of `din_resid`.
#[rstest]
fn sg_io_of_a_good_write_writes_dout_resid_instead() {
    declare!(Contract);
    let bsg = sg_io_v4(&Unit::Ours.device(), Access::ReadWrite);
    let request = Request::new(&cdb::write(Size::Ten, 0, 1)).data_out(&[0; 1024]);
    let (before, after) = exchanged(&bsg, request);
    let expected = SgIoV4 {
        driver_status: 0,
        transport_status: 0,
        device_status: 0,
        info: 0,
        response_len: 0,
        dout_resid: 512,
        ..before
    };
    assert_eq!(after, expected);
}

/// include/scsi/sg.h: info bit 0 (SG_INFO_CHECK) is set with any status, driver status 8
/// (DRIVER_SENSE) goes with CHECK CONDITION, `response_len` is the 18 bytes of fixed format sense
/// data. A command without data counts as data from the device: `din_resid` is written.
#[rstest]
fn sg_io_of_a_check_condition_tells_device_and_driver_status(
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let bsg = sg_io_v4(&unit.device(), Access::ReadWrite);
    let (before, after) = exchanged(&bsg, Request::new(&[0xff, 0, 0, 0, 0, 0]));
    let expected = SgIoV4 {
        driver_status: 8,
        transport_status: 0,
        device_status: 2,
        info: 1,
        response_len: 18,
        din_resid: 0,
        ..before
    };
    assert_eq!(after, expected);
}

/// As above, for an error of the host (DID_ERROR, 7): the device has said nothing.
#[rstest]
fn sg_io_of_a_host_error_tells_transport_status() {
    declare!(Contract);
    let bsg = sg_io_v4(&Unit::Ours.device(), Access::ReadWrite);
    let request = Request::new(&cdb::read(Size::Ten, 0, 2)).data_in(512);
    let (before, after) = exchanged(&bsg, request);
    let expected = SgIoV4 {
        driver_status: 0,
        transport_status: 7,
        device_status: 0,
        info: 1,
        response_len: 0,
        din_resid: 0,
        ..before
    };
    assert_eq!(after, expected);
}

fn both_directions(frame: &mut V4Frame) {
    frame.header.dout_xfer_len = 512;
    frame.dout = Buffer::zeroed(512).expect("a page of memory").into();
}

/// block/bsg.c:bsg_sg_io and drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn, each check alone: guard,
/// protocol, subprotocol, both directions, CDB length, CDB address, data address. On an error the
/// caller's structure is untouched and the device sees nothing.
#[rstest]
#[case::guard(|f: &mut V4Frame| f.header.guard = 0x50, Errno::INVAL)]
#[case::protocol(|f: &mut V4Frame| f.header.protocol = 1, Errno::INVAL)]
#[case::subprotocol_transport(|f: &mut V4Frame| f.header.subprotocol = 2, Errno::INVAL)]
#[case::both_directions(both_directions, Errno::OPNOTSUPP)]
#[case::cdb_of_33_bytes(|f: &mut V4Frame| f.header.request_len = 33, Errno::INVAL)]
#[case::cdb_at_null(|f: &mut V4Frame| f.request = Pointer::Null, Errno::FAULT)]
#[case::cdb_unmapped(|f: &mut V4Frame| f.request = Pointer::Unmapped, Errno::FAULT)]
#[case::cdb_in_the_kernel(|f: &mut V4Frame| f.request = Pointer::Kernel, Errno::FAULT)]
#[case::data_at_null(|f: &mut V4Frame| f.din = Pointer::Null, Errno::FAULT)]
#[case::data_unmapped(|f: &mut V4Frame| f.din = Pointer::Unmapped, Errno::FAULT)]
#[case::data_in_the_kernel(|f: &mut V4Frame| f.din = Pointer::Kernel, Errno::FAULT)]
fn sg_io_of_a_malformed_request_is_refused(#[case] bend: fn(&mut V4Frame), #[case] errno: Errno) {
    declare!(Contract);
    refused(bend, errno);
}

/// As above, two defects at once: the check that comes first names the error.
#[rstest]
#[case::guard_before_directions(
    |f: &mut V4Frame| { f.header.guard = 0; both_directions(f); },
    Errno::INVAL
)]
#[case::directions_before_length(
    |f: &mut V4Frame| { f.header.request_len = 33; both_directions(f); },
    Errno::OPNOTSUPP
)]
#[case::length_before_cdb_address(
    |f: &mut V4Frame| { f.header.request_len = 33; f.request = Pointer::Unmapped; },
    Errno::INVAL
)]
fn sg_io_checks_in_order(#[case] bend: fn(&mut V4Frame), #[case] errno: Errno) {
    declare!(Accident);
    refused(bend, errno);
}

#[track_caller]
fn refused(bend: fn(&mut V4Frame), errno: Errno) {
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let seen = lun.journal().entries.len();
    let mut frame = stained(Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512));
    bend(&mut frame);
    frame.place();
    let before = frame.header;
    assert_eq!(bsg.sg_io(&mut frame), Err(errno));
    assert_eq!(frame.header, before, "the structure of a refused request");
    assert_eq!(lun.journal().entries.len(), seen, "the device saw something");
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn: sense data is copied out after the command has run. A
/// bad response pointer is EFAULT then, and the statuses are lost although the device has answered.
#[rstest]
fn sg_io_with_a_bad_response_pointer_is_efault_after_execution() {
    declare!(Quirk);
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let seen = lun.journal().entries.len();
    let mut frame = stained(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    frame.response = Pointer::Unmapped;
    frame.place();
    let before = frame.header;
    assert_eq!(bsg.sg_io(&mut frame), Err(Errno::FAULT));
    assert_eq!(frame.header, before);
    let entries = lun.journal().entries;
    let statuses: Vec<u8> = entries[seen..].iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [0x02], "executed once");
}

/// block/bsg.c:bsg_sg_io: a structure that is not there is EFAULT, and nothing is sent. One that cannot be written is
/// EFAULT too, when the command has been executed.
#[rstest]
#[case::null(StructurePlace::Null, 0)]
#[case::unmapped(StructurePlace::Unmapped, 0)]
#[case::kernel(StructurePlace::Kernel, 0)]
#[case::read_only(StructurePlace::ReadOnly, 1)]
fn structure_at_a_bad_address_is_efault(#[case] place: StructurePlace, #[case] executed: usize) {
    declare!(Contract);
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut frame = V4Frame::from(Request::new(&[0; 6]));
    assert_eq!(bsg.sg_io_at(&mut frame, place).expect("a page"), Err(Errno::FAULT));
    assert_eq!(lun.journal().entries.len(), executed);
}

/// drivers/scsi/scsi_bsg.c: what has no length is no data, wherever its address leads; `SG_IO` v4 and uring_cmd alike.
#[rstest]
#[case::sg_io_v4(false)]
#[case::uring_cmd(true)]
fn address_without_a_length_is_no_data(#[case] ring: bool) {
    declare!(Contract, URING_CMD);
    let device = Unit::Ours.device();
    let request = || Request::new(&[0; 6]);
    if ring {
        let mut frame = UringFrame::from(request());
        (frame.dout, frame.din) = (Pointer::Unmapped, Pointer::Kernel);
        let done = complete(&mut uring_cmd(&device, Access::ReadWrite), frame);
        assert_eq!((done.res, done.res2), (0, Some(0)));
    } else {
        let mut frame = V4Frame::from(request());
        (frame.dout, frame.din) = (Pointer::Unmapped, Pointer::Kernel);
        sg_io_v4(&device, Access::ReadWrite).sg_io(&mut frame).expect("executed");
        assert_eq!(frame.header.info, 0);
    }
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn keeps 16 bits of `request_len`: without them no byte of
/// the CDB is read, and six zeros, TEST UNIT READY, are sent.
#[rstest]
#[case::zero(0)]
#[case::sixteen_bits_of_zero(0x10000)]
fn sg_io_without_a_cdb_is_test_unit_ready(#[case] request_len: u32) {
    declare!(Accident);
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut frame = V4Frame::from(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    frame.header.request_len = request_len;
    frame.request = Pointer::Unmapped;
    bsg.sg_io(&mut frame).expect("executed");
    assert_eq!((frame.header.device_status, frame.header.info), (0, 0));
    let entries = lun.journal().entries;
    assert_eq!(entries.last().map(|entry| entry.cdb.as_str()), Some("000000000000"));
}
