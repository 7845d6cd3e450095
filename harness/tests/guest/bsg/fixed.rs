//! Registered buffers (`IORING_URING_CMD_FIXED`): which part of which buffer a command may use.

use std::{borrow::Cow, sync::Arc};

use bsg::{Access, BsgUring, Data, Pointer, Region, Request, UringFrame, sqe::CMD_FIXED};
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare};
use rstest::rstest;

use super::{
    block,
    cdb::{self, Size},
    ways::{URING_CMD, Unit, Way, complete, execute, soon, uring_cmd},
};

const fn own_host(shape: HostShape) -> Needs {
    Needs {
        host: ScsiHost::Own(shape),
        features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
        ..Needs::DEFAULT
    }
}

/// Length of the region of these tests: four pages.
const LEN: usize = 0x4000;

/// READ(10) of one block.
fn read(lba: u32) -> Request {
    Request::new(&cdb::read(Size::Ten, lba, 1))
}

/// WRITE(10) of one block.
fn write(lba: u32) -> Request {
    Request::new(&cdb::write(Size::Ten, lba, 1))
}

/// A ring with an empty slot, a region, and no third slot.
fn ring_with(lun: &Lun, region: &Arc<Region>) -> BsgUring {
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    bsg.register_buffers(&[None, Some(region.clone())]).expect("registered");
    bsg
}

/// io_uring/rsrc.c:io_import_fixed: any part of a registered buffer is good for either direction, wherever it lies;
/// block/blk-map.c:blk_rq_map_user_iov bounces it if address or length is no multiple of 4. What is around it stays.
#[rstest]
#[case::first_bytes(0)]
#[case::last_bytes(LEN - 512)]
#[case::inside(0x1200)]
#[case::across_pages(0x1000 - 256)]
#[case::misaligned(1)]
#[case::misaligned_across_pages(0x2000 - 3)]
#[case::last_misaligned_bytes(LEN - 513)]
fn any_part_of_a_registered_buffer_is_good_for_both_directions(
    #[case] at: usize,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract, URING_CMD);
    // Blocks of no other test, as scsi_debug's are everybody's.
    let lba = 0x3000 + u32::try_from(at / 64).expect("small");
    let device = unit.device();
    let mut bsg = uring_cmd(&device, Access::ReadWrite);
    let region = Region::zeroed(LEN).expect("four pages");
    bsg.register_buffers(&[None, Some(region.clone())]).expect("registered");
    let data = cdb::pattern(lba, 1, 0x77);
    region.fill(0xaa);
    region.write(at, &data);
    let slice = region.slice(at..at + 512);
    assert_good(&execute(&mut bsg, write(lba).data(Data::SliceOut(slice.clone())).fixed(1)));
    assert_eq!(block::read(&mut *Way::SgIoV4.open(&device), Size::Ten, lba, 1), data);
    region.fill(0xaa);
    assert_good(&execute(&mut bsg, read(lba).data(Data::SliceIn(slice)).fixed(1)));
    assert_eq!(region.read(at, 512), data);
    assert_eq!(region.read(0, at), vec![0xaa; at], "before it");
    assert_eq!(region.read(at + 512, LEN - at - 512), vec![0xaa; LEN - at - 512], "behind it");
}

/// io_uring/rsrc.c:io_import_reg_buf and validate_fixed_range: no such slot, an empty one, or a byte outside the buffer
/// is EFAULT, in either direction. The device sees nothing, and the buffer is as it was.
#[rstest]
#[case::empty_slot(0, |start| start)]
#[case::no_such_slot(2, |start| start)]
#[case::last_possible_slot(0xffff, |start| start)]
#[case::a_byte_before(1, |start| start - 1)]
#[case::a_byte_behind(1, |start| start + 0x4000 - 511)]
#[case::behind(1, |start| start + 0x4000)]
#[case::at_null(1, |_| 0)]
#[case::end_wraps_around(1, |_| u64::MAX - 510)]
#[case::last_byte_of_all(1, |_| u64::MAX)]
fn what_is_not_in_a_registered_buffer_is_efault(
    #[case] index: u16,
    #[case] place: fn(u64) -> u64,
    #[values(false, true)] to_device: bool,
) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let region = Region::zeroed(LEN).expect("four pages");
    let mut bsg = ring_with(&lun, &region);
    region.fill(0xaa);
    let at = Pointer::Fixed(place(region.address()));
    let mut frame = UringFrame::from(if to_device { write(0) } else { read(0) });
    frame.sqe.buf_index = index;
    if to_device {
        (frame.command.dout_xfer_len, frame.dout) = (512, at);
    } else {
        (frame.command.din_xfer_len, frame.din) = (512, at);
    }
    let done = complete(&mut bsg, frame);
    assert_eq!((done.res, done.res2, done.extra2), (-14, Some(0), Some(0)));
    assert_eq!(region.read(0, LEN), vec![0xaa; LEN]);
    assert_eq!(lun.journal().entries.len(), 0, "the device saw something");
}

/// As above: without a table there is no buffer, and memory that is not registered is not in one.
#[rstest]
fn fixed_without_a_registered_buffer_is_efault() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let region = Region::zeroed(LEN).expect("four pages");
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let fixed = |bsg: &mut BsgUring, request: Request| {
        let frame = UringFrame::from(request);
        assert_eq!(frame.sqe.uring_cmd_flags, CMD_FIXED);
        complete(bsg, frame).res
    };
    let slice = || Data::SliceIn(region.slice(0..512));
    assert_eq!(fixed(&mut bsg, read(0).data(slice()).fixed(0)), -14);
    bsg.register_buffers(&[Some(region.clone())]).expect("registered");
    assert_eq!(fixed(&mut bsg, read(0).data(slice()).fixed(0)), 0);
    assert_eq!(fixed(&mut bsg, read(0).data_in(512).fixed(0)), -14, "memory of its own");
    bsg.update_buffer(0, None).expect("emptied");
    assert_eq!(fixed(&mut bsg, read(0).data(slice()).fixed(0)), -14);
    bsg.update_buffer(0, Some(region.clone())).expect("filled again");
    assert_eq!(fixed(&mut bsg, read(0).data(slice()).fixed(0)), 0);
    bsg.unregister_buffers().expect("unregistered");
    assert_eq!(fixed(&mut bsg, read(0).data(slice()).fixed(0)), -14);
    assert_eq!(lun.journal().entries.len(), 2);
}

/// io_uring/rsrc.c:io_sqe_buffer_register pins pages for writing: what cannot be written cannot be registered
/// (EFAULT), and a table that is there is not replaced (EBUSY).
#[rstest]
fn table_of_buffers_takes_writable_memory_once() {
    declare!(Contract, URING_CMD);
    let mut bsg = uring_cmd(&Unit::Ours.device(), Access::ReadWrite);
    let region = Region::zeroed(LEN).expect("four pages");
    region.make_read_only(0x1000..0x2000).expect("protected");
    let refused = bsg.register_buffers(&[Some(region)]).expect_err("a page is read-only");
    assert_eq!(refused.errno(), Some(bsg::Errno::FAULT), "{refused}");
    bsg.register_buffers(&[None]).expect("an empty table");
    let refused = bsg.register_buffers(&[None]).expect_err("there is a table");
    assert_eq!(refused.errno(), Some(bsg::Errno::BUSY), "{refused}");
}

/// block/blk-map.c:blk_rq_map_user_bvec: more than `max_sectors` is EINVAL, whatever is registered.
#[test]
fn registered_data_beyond_max_sectors_is_einval() {
    declare!(Contract, own_host(HostShape { max_sectors: Some(64), ..HostShape::DEFAULT }));
    let lun = Lun::fresh();
    let region = Region::zeroed(0x10000).expect("16 pages");
    let mut bsg = ring_with(&lun, &region);
    let mut read = |blocks: u8| {
        let slice = region.slice(0..usize::from(blocks) * 512);
        let request = Request::new(&cdb::read(Size::Ten, 0, blocks)).data(Data::SliceIn(slice));
        complete(&mut bsg, request.fixed(1)).res
    };
    assert_eq!([read(64), read(65)], [0, -22]);
}

/// include/linux/io_uring/cmd.h, `struct io_mapped_ubuf`: a command keeps the buffer it began with. While the device has
/// a read, its slot is emptied and the table ended; the data still comes to the region's pages.
#[test]
fn command_in_flight_keeps_its_registered_buffer() {
    declare!(Contract, own_host(HostShape::DEFAULT));
    let lun = Lun::fresh();
    let region = Region::zeroed(LEN).expect("four pages");
    let mut bsg = ring_with(&lun, &region);
    let data = cdb::pattern(5, 1, 3);
    block::write(&mut bsg, Size::Ten, 5, 1, &data);
    lun.hold(3);
    // Direct, bounced, and direct to pages that are gone when it ends.
    let places = [512, 0x1001, 0x3000];
    for at in places {
        let slice = region.slice(at..at + 512);
        bsg.submit(read(5).data(Data::SliceIn(slice)).fixed(1).into()).expect("submitted");
    }
    lun.held(3);
    bsg.update_buffer(1, None).expect("emptied");
    bsg.unregister_buffers().expect("unregistered");
    region.discard(0x3000..0x4000).expect("given back");
    lun.release();
    for _ in places {
        assert_good(&bsg.wait(soon()).expect("completed").completion().expect("executed"));
    }
    assert_eq!(region.read(512, 512), data);
    assert_eq!(region.read(0x1001, 512), data);
    assert_eq!(
        region.read(0x3000, 512),
        [0; 512],
        "the device wrote to pages that were given back"
    );
}
