//! uring_cmd: the completion bit by bit, and what is refused with which errno.

use bsg::{Access, BsgUring, Buffer, CqeSize, Errno, Pointer, Request, Shape, SqeSize, UringFrame};
use harness::{Lun, ScsiDevice, declare};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{URING_CMD, Unit, complete, uring_cmd},
};

/// Result and both extra words, and nothing in the flags.
#[track_caller]
fn words(device: &ScsiDevice, request: Request) -> (i32, Option<u64>, Option<u64>) {
    let done = complete(&mut uring_cmd(device, Access::ReadWrite), request);
    assert_eq!(done.flags, 0, "cqe.flags");
    (done.res, done.res2, done.extra2)
}

/// include/uapi/linux/bsg.h: res 0 for a command that was executed; res2 is device status in bits 0 to
/// 7, driver status in 8 to 15, host status in 16 to 23, sense length in 24 to 31, residual in 32 to
/// 63; nothing in the second word.
#[rstest]
fn uring_cmd_of_a_good_read_has_only_a_residual(#[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit) {
    declare!(Contract, URING_CMD);
    let device = unit.device();
    let read = || Request::new(&cdb::read(Size::Ten, 0x7002, 1));
    assert_eq!(words(&device, read().data_in(512)), (0, Some(0), Some(0)));
    let with_residual = Some(0x0000_0e00_0000_0000);
    assert_eq!(words(&device, read().data_in(4096)), (0, with_residual, Some(0)));
}

/// As above: CHECK CONDITION 02h, DRIVER_SENSE 08h, 12h bytes of sense data.
#[rstest]
fn uring_cmd_of_a_check_condition_has_statuses_and_sense_length(
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract, URING_CMD);
    let request = Request::new(&[0xff, 0, 0, 0, 0, 0]);
    assert_eq!(words(&unit.device(), request), (0, Some(0x1200_0802), Some(0)));
}

/// As above, with a residual of the 512 bytes that a refused command leaves.
#[rstest]
fn uring_cmd_of_a_check_condition_with_data_has_all_fields_but_the_host() {
    declare!(Contract, URING_CMD);
    let request = Request::new(&cdb::write(Size::Ten, 0x8000, 1)).data_out(&[0; 512]);
    let expected = Some(0x0000_0200_1200_0802);
    assert_eq!(words(&Unit::Ours.device(), request), (0, expected, Some(0)));
}

/// As above: DID_ERROR 07h (include/scsi/scsi_status.h) is still res 0, and the device sees the command
/// once, because passthrough over a ring is not retried (scsi_bsg.c: SG_DEFAULT_RETRIES is 0).
#[rstest]
fn uring_cmd_of_a_host_error_has_the_host_status_and_no_retry() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let seen = lun.journal().entries.len();
    let request = Request::new(&cdb::read(Size::Ten, 0, 2)).data_in(512);
    assert_eq!(words(lun.device(), request), (0, Some(0x0007_0000), Some(0)));
    assert_eq!(lun.journal().entries.len() - seen, 1, "dispatches");
}

/// block/bsg.c:bsg_check_uring_features: EOPNOTSUPP unless the ring has both 128-byte submissions and
/// 32-byte completions.
#[rstest]
#[case::small_both(SqeSize::Bytes64, CqeSize::Bytes16)]
#[case::small_submissions(SqeSize::Bytes64, CqeSize::Bytes32)]
#[case::small_completions(SqeSize::Bytes128, CqeSize::Bytes16)]
fn uring_cmd_on_a_ring_of_small_entries_is_eopnotsupp(#[case] sqe: SqeSize, #[case] cqe: CqeSize) {
    declare!(Contract, URING_CMD);
    let device = Unit::Ours.device();
    let shape = Shape { sqe, cqe, ..Shape::big(4) };
    let mut bsg =
        BsgUring::with_shape(device.bsg(), Access::ReadWrite, &shape).expect("the ring is legal");
    let done = complete(&mut bsg, Request::new(&[0; 6]));
    assert_eq!(done.res, -95);
    // The same node over a ring of big entries.
    assert_eq!(words(&device, Request::new(&[0; 6])), (0, Some(0), Some(0)));
}

fn both_directions(frame: &mut UringFrame) {
    frame.command.dout_xfer_len = 512;
    frame.dout = Buffer::zeroed(512).expect("a page of memory").into();
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd and io_uring/uring_cmd.c:io_uring_cmd_prep, each check
/// alone. The extra words of a refused command are 0, and the device sees nothing.
#[rstest]
#[case::ioprio(|f: &mut UringFrame| f.sqe.ioprio = 1, Errno::INVAL)]
#[case::pad1(|f: &mut UringFrame| f.sqe.pad1 = 1, Errno::INVAL)]
#[case::unknown_flag(|f: &mut UringFrame| f.sqe.uring_cmd_flags = 1 << 20, Errno::INVAL)]
#[case::protocol(|f: &mut UringFrame| f.command.protocol = 1, Errno::INVAL)]
#[case::subprotocol_transport(|f: &mut UringFrame| f.command.subprotocol = 2, Errno::INVAL)]
#[case::cdb_at_null(|f: &mut UringFrame| f.request = Pointer::Null, Errno::INVAL)]
#[case::cdb_of_0_bytes(|f: &mut UringFrame| f.command.request_len = 0, Errno::INVAL)]
#[case::both_directions(both_directions, Errno::OPNOTSUPP)]
#[case::dout_iovec(|f: &mut UringFrame| f.command.dout_iovec_count = 1, Errno::OPNOTSUPP)]
#[case::din_iovec(|f: &mut UringFrame| f.command.din_iovec_count = 1, Errno::OPNOTSUPP)]
#[case::cdb_of_33_bytes(|f: &mut UringFrame| f.command.request_len = 33, Errno::INVAL)]
#[case::cdb_of_65542_bytes(|f: &mut UringFrame| f.command.request_len = 0x10006, Errno::INVAL)]
#[case::cdb_unmapped(|f: &mut UringFrame| f.request = Pointer::Unmapped, Errno::FAULT)]
#[case::cdb_in_the_kernel(|f: &mut UringFrame| f.request = Pointer::Kernel, Errno::FAULT)]
#[case::data_unmapped(|f: &mut UringFrame| f.din = Pointer::Unmapped, Errno::FAULT)]
#[case::data_in_the_kernel(|f: &mut UringFrame| f.din = Pointer::Kernel, Errno::FAULT)]
fn uring_cmd_of_a_malformed_request_is_refused(
    #[case] bend: fn(&mut UringFrame),
    #[case] errno: Errno,
) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let seen = lun.journal().entries.len();
    let mut frame = UringFrame::from(Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512));
    bend(&mut frame);
    let done = complete(&mut bsg, frame);
    let words = (done.res, done.res2, done.extra2);
    assert_eq!(words, (-errno.raw_os_error(), Some(0), Some(0)));
    assert_eq!(lun.journal().entries.len(), seen, "the device saw something");
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd reads neither the command number nor the reserved bytes.
#[rstest]
#[case::cmd_op(|f: &mut UringFrame| f.sqe.cmd_op = 0xdead_beef)]
#[case::reserved(|f: &mut UringFrame| f.command.reserved = [0xff; 12])]
fn uring_cmd_ignores_what_it_does_not_know(#[case] bend: fn(&mut UringFrame)) {
    declare!(Accident, URING_CMD);
    let mut bsg = uring_cmd(&Unit::Ours.device(), Access::ReadWrite);
    let mut frame = UringFrame::from(Request::new(&[0; 6]));
    bend(&mut frame);
    let done = complete(&mut bsg, frame);
    assert_eq!((done.res, done.res2), (0, Some(0)));
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_task_cb: sense data that cannot be written is EFAULT, but
/// the statuses and the length it would have had are told: the command has been executed.
#[rstest]
fn uring_cmd_with_a_bad_response_pointer_is_efault_with_statuses() {
    declare!(Quirk, URING_CMD);
    let mut bsg = uring_cmd(&Unit::Ours.device(), Access::ReadWrite);
    let mut frame = UringFrame::from(Request::new(&[0xff, 0, 0, 0, 0, 0]));
    frame.response = Pointer::Unmapped;
    let done = complete(&mut bsg, frame);
    assert_eq!((done.res, done.res2, done.extra2), (-14, Some(0x1200_0802), Some(0)));
}
