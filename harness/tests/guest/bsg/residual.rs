//! Residuals: buffers that are longer or shorter than what a command moves.

use bsg::Request;
use harness::{
    Lun,
    assert::{assert_good, assert_host_error},
    declare,
};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{Unit, Way, execute},
};

/// `DID_ERROR` (include/scsi/scsi_status.h): what virtio_scsi makes of VIRTIO_SCSI_S_OVERRUN
/// (drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd).
const DID_ERROR: u32 = 7;

/// include/uapi/linux/bsg.h, din_resid: `din_xfer_len` minus what was transferred. SBC-3, READ: blocks
/// of 512 bytes, of which one is asked for.
#[rstest]
fn read_into_a_long_buffer_leaves_a_residual(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    let done = execute(&mut *way, Request::new(&cdb::read(Size::Ten, 0x7000, 1)).data_in(4096));
    assert_good(&done);
    assert_eq!(done.residual, 3584);
}

/// include/uapi/linux/bsg.h, dout_resid. Only the blocks asked for are written. scsi_debug never
/// reports a residual of data to the device.
#[rstest]
fn write_from_a_long_buffer_leaves_a_residual(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let mut way = way.open(&Unit::Ours.device());
    let data = cdb::pattern(8, 8, 1);
    let done = execute(&mut *way, Request::new(&cdb::write(Size::Ten, 8, 1)).data_out(&data));
    assert_good(&done);
    assert_eq!(done.residual, 3584);
    let back = execute(&mut *way, Request::new(&cdb::read(Size::Ten, 8, 2)).data_in(1024));
    assert_good(&back);
    assert_eq!(back.data[..512], data[..512]);
    assert_eq!(back.data[512..], [0; 512], "the second block was not asked for");
}

/// Virtio 1.3, 5.6.6.1: OVERRUN if the content of the CDB requires more data than the buffers hold.
/// The buffer is filled, the status means nothing, and the host status is DID_ERROR. (scsi_debug, which
/// is no virtio device, sends what fits and says GOOD.)
#[rstest]
fn read_into_a_short_buffer_is_a_host_error(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let data = cdb::pattern(16, 2, 1);
    let mut writer = Way::SgV3.open(lun.device());
    let written = Request::new(&cdb::write(Size::Ten, 16, 2)).data_out(&data);
    assert_good(&execute(&mut *writer, written));
    let mut way = way.open(lun.device());
    let done = execute(&mut *way, Request::new(&cdb::read(Size::Ten, 16, 2)).data_in(512));
    assert_host_error(&done, DID_ERROR);
    assert_eq!(done.residual, 0, "the buffer was filled");
    assert_eq!(done.data, data[..512]);
}

/// As above, in the other direction: with less data than the CDB asks for, nothing is written at all.
#[rstest]
fn write_from_a_short_buffer_is_a_host_error_and_writes_nothing(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let mut way = way.open(&Unit::Ours.device());
    let request = Request::new(&cdb::write(Size::Sixteen, 16, 2)).data_out(&cdb::pattern(16, 1, 1));
    let done = execute(&mut *way, request);
    assert_host_error(&done, DID_ERROR);
    assert_eq!(done.residual, 512);
    let back = execute(&mut *way, Request::new(&cdb::read(Size::Ten, 16, 2)).data_in(1024));
    assert_good(&back);
    assert_eq!(back.data, [0; 1024]);
}

/// A command that moves no data leaves the whole buffer, in either direction. scsi_debug sets no
/// residual for such a command.
#[rstest]
fn test_unit_ready_with_a_buffer_leaves_all_of_it(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let mut way = way.open(&Unit::Ours.device());
    let read = execute(&mut *way, Request::new(&[0; 6]).data_in(512));
    assert_good(&read);
    assert_eq!((read.residual, &read.data[..]), (512, &[0; 512][..]));
    let write = execute(&mut *way, Request::new(&[0; 6]).data_out(&[0xa5; 512]));
    assert_good(&write);
    assert_eq!(write.residual, 512);
}

/// SBC-3, READ(10): TRANSFER LENGTH 0 moves no data and is no error; READ(6): it stands for 256 blocks.
#[rstest]
fn transfer_length_0_is_nothing_or_256_blocks_by_cdb(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let mut way = way.open(&unit.device());
    for size in [Size::Ten, Size::Twelve, Size::Sixteen] {
        let done = execute(&mut *way, Request::new(&cdb::read(size, 0, 0)).data_in(512));
        assert_good(&done);
        assert_eq!(done.residual, 512, "{size:?}");
    }
    let len = 256 * 512;
    let done = execute(&mut *way, Request::new(&cdb::read(Size::Six, 0, 0)).data_in(len + 512));
    assert_good(&done);
    assert_eq!(done.residual, 512);
}
