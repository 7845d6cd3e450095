//! Memory for data: where it starts, what it is made of, how much of it there may be.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::Arc,
};

use bsg::{Access, Buffer, Data, Errno, Region, Request, UringFrame, V4Frame};
use harness::{Lun, ScsiDevice, assert::assert_good, declare};
use rstest::rstest;

use super::{
    block,
    cdb::{self, Size},
    ways::{Unit, Way, complete, execute, sg_io_v4, uring_cmd},
};

/// Offsets in a page that are multiples of everything and of nothing, up to the length of a block, and some around the
/// end of the page.
const OFFSETS: [usize; 24] = [
    0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 64, 127, 255, 256, 257, 383, 384, 508, 509, 510, 511, 3584,
    4095,
];

/// Reads one block into a buffer of its own making and gives it back.
#[track_caller]
fn read_into(way: Way, device: &ScsiDevice, lba: u32, buffer: Buffer) -> Buffer {
    let request = Request::new(&cdb::read(Size::Ten, lba, 1)).data(Data::In(buffer));
    let (done, din) = match way {
        Way::SgIoV4 => {
            let mut frame = V4Frame::from(request);
            sg_io_v4(device, Access::ReadWrite).sg_io(&mut frame).expect("executed");
            (frame.completion(), frame.din)
        }
        Way::UringCmd => {
            let done =
                complete(&mut uring_cmd(device, Access::ReadWrite), UringFrame::from(request));
            (done.completion(), done.frame.din)
        }
        Way::SgV3 => panic!("sg has buffers of its own"),
    };
    assert_good(&done.expect("executed"));
    din.into_buffer().expect("the buffer comes back")
}

/// block/blk-map.c:blk_rq_map_user_iov: whether data is mapped or bounced, the bytes are the same, at every offset, and
/// those around them are untouched.
#[rstest]
fn data_is_the_same_at_every_alignment(
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let device = unit.device();
    let mut writer = way.open(&device);
    for (mark, at) in (1..).zip(OFFSETS) {
        let lba = 0x3200;
        let data = cdb::pattern(lba, 1, mark);
        let mut out = Buffer::at_offset(at, 512).expect("memory");
        out.copy_from_slice(&data);
        let write = Request::new(&cdb::write(Size::Ten, lba, 1)).data(Data::Out(out));
        assert_good(&execute(&mut *writer, write));
        let mut room = Buffer::at_offset(at, 512).expect("memory");
        room.pages_mut().fill(0xaa);
        let room = read_into(way, &device, lba, room);
        assert_eq!(room[..], data[..], "at offset {at}");
        let (before, rest) = room.pages().split_at(at);
        assert!(before.iter().chain(&rest[512..]).all(|byte| *byte == 0xaa), "around {at}");
    }
}

/// drivers/scsi/scsi_lib.c:scsi_init_limits asks for addresses and lengths that are multiples of 4: such data is mapped,
/// and what a short read leaves keeps its bytes; other data is bounced, and what it leaves comes back as zeros
/// (block/blk-map.c:bio_copy_user_iov, zero_fill_bio).
#[rstest]
fn rest_of_a_short_read_is_kept_where_data_is_mapped_and_zero_where_it_is_bounced(
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Quirk);
    let device = unit.device();
    let lengths = [(1024, 4), (1028, 4), (1025, 1), (1026, 1), (1023, 1)];
    for (at, len, granule) in
        OFFSETS.into_iter().flat_map(|at| lengths.map(|(len, granule)| (at, len, granule)))
    {
        let mut room = Buffer::at_offset(at, len).expect("memory");
        room.fill(0xaa);
        let room = read_into(way, &device, 0x3201, room);
        let is_mapped = granule == 4 && at % 4 == 0;
        let expected = if is_mapped { 0xaa } else { 0 };
        assert!(room[512..].iter().all(|byte| *byte == expected), "{len} bytes at offset {at}");
    }
}

/// block/blk-map.c:blk_rq_map_user pins pages for writing that data comes to: EFAULT if they are read-only. What is
/// bounced finds out only when the command is done, and nobody is told (scsi_bsg.c ignores blk_rq_unmap_user's
/// result). Data to the device needs no more than reading.
#[rstest]
fn read_only_memory_takes_no_data_and_gives_it(#[values(Way::SgIoV4, Way::UringCmd)] way: Way) {
    declare!(Quirk);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    let data = cdb::pattern(8, 1, 9);
    for (lba, at) in [(8, 1024), (9, 1025)] {
        let region = Region::zeroed(4096).expect("a page");
        region.write(at, &data);
        region.make_read_only(0..4096).expect("protected");
        let slice = region.slice(at..at + 512);
        let write = Request::new(&cdb::write(Size::Ten, lba, 1)).data(Data::SliceOut(slice));
        assert_good(&execute(&mut *way, write));
        assert_eq!(block::read(&mut *way, Size::Ten, lba, 1), data);
        // A block of zeros, which would show.
        let read = Request::new(&cdb::read(Size::Ten, 100, 1));
        let read = way.execute(read.data(Data::SliceIn(region.slice(at..at + 512))));
        match at % 4 {
            0 => assert_eq!(read.expect_err("mapped").errno(), Some(Errno::FAULT)),
            _ => assert_good(&read.expect("bounced")),
        }
        assert_eq!(region.read(at, 512), data, "a read-only page was written");
    }
}

/// block/blk-map.c:blk_rq_map_user: data that begins in memory and ends in none is EFAULT, and nothing is sent.
#[rstest]
#[case::mapped(0x1000 - 256, 512)]
#[case::bounced_to_the_device(0x1000 - 257, 512)]
fn data_that_runs_into_a_hole_is_efault(
    #[case] at: usize,
    #[case] len: usize,
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    let region = Region::zeroed(0x2000).expect("two pages");
    region.unmap(0x1000..0x2000).expect("unmapped");
    let slice = region.slice(at..at + len);
    let write = Request::new(&cdb::write(Size::Ten, 0, 1)).data(Data::SliceOut(slice));
    let refused = way.execute(write).expect_err("half of it is not there");
    assert_eq!(refused.errno(), Some(Errno::FAULT), "{refused}");
    assert_eq!(lun.journal().entries.len(), 0, "the device saw something");
}

/// WRITE(10) or READ(10) of as many blocks as the data has.
fn transfer(opcode: u8, data: Data, blocks: u16) -> Request {
    let [high, low] = blocks.to_be_bytes();
    Request::new(&[opcode, 0, 0, 0, 0, 0, 0, high, low, 0]).data(data)
}

/// drivers/scsi/virtio_scsi.c:virtscsi_probe: QEMU's rings of 128 descriptors leave 126 for data, and pages that are not
/// contiguous take one each (block/blk-merge.c:bio_split_io_at): 504 KiB are sent, and a block more is EINVAL
/// (block/blk-map.c:blk_rq_append_bio).
#[rstest]
fn scattered_pages_are_sent_up_to_126_and_a_block_more_is_einval(
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let region = Region::repeated(127).expect("a page");
    let page = cdb::pattern(0, 8, 4);
    region.write(0, &page);
    let mut way = way.open(lun.device());
    let mut write = |blocks: u16| {
        let slice = region.slice(0..usize::from(blocks) * 512);
        way.execute(transfer(0x2a, Data::SliceOut(slice), blocks))
    };
    let refused = write(1009).expect_err("127 pages");
    assert_eq!(refused.errno(), Some(Errno::INVAL), "{refused}");
    assert_eq!(lun.journal().entries.len(), 0, "the device saw something");
    assert_good(&write(1008).expect("126 pages"));
    for lba in [0, 504, 1000] {
        assert_eq!(block::read(&mut *way, Size::Ten, lba, 8), page, "from block {lba}");
    }
}

/// The same from a registered buffer, whose pages the kernel has pinned one by one (io_uring/rsrc.c:
/// io_sqe_buffer_register).
#[rstest]
fn registered_scattered_pages_are_sent_up_to_126() {
    declare!(Contract, super::ways::URING_CMD);
    let lun = Lun::fresh();
    let region = Region::repeated(126).expect("a page");
    let page = cdb::pattern(0, 8, 4);
    region.write(0, &page);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    bsg.register_buffers(&[Some(region.clone())]).expect("registered");
    let slice = region.slice(0..126 * 4096);
    let write = transfer(0x2a, Data::SliceOut(slice), 1008).fixed(0);
    assert_good(&execute(&mut bsg, write));
    for lba in [0, 504, 1000] {
        assert_eq!(block::read(&mut bsg, Size::Ten, lba, 8), page, "from block {lba}");
    }
}

/// A part of a region carries data over every way; that it is registered with a ring means nothing to the others.
#[rstest]
fn parts_of_a_region_carry_data_over_every_way(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let registered =
        |request: Request| if way == Way::UringCmd { request } else { request.fixed(0) };
    let mut opened = way.open(lun.device());
    let region = Region::zeroed(0x3000).expect("three pages");
    let data = cdb::pattern(7, 4, 8);
    region.write(0xf00, &data);
    let write = transfer(0x2a, Data::SliceOut(region.slice(0xf00..0x1700)), 4);
    assert_good(&execute(&mut *opened, registered(write)));
    let read = transfer(0x28, Data::SliceIn(region.slice(0x2001..0x2801)), 4);
    let done = execute(&mut *opened, registered(read));
    assert_good(&done);
    assert!(done.data.is_empty(), "the data is in the region");
    assert_eq!(region.read(0x2000, 0x802), [&[0], &data[..], &[0]].concat());
    assert_eq!(lun.journal().entries.len(), 2);
}

/// Reserves huge pages while it lives. The number is the whole machine's, so tests take turns.
struct HugePages(File);

impl HugePages {
    #[track_caller]
    fn reserve(count: usize) -> Self {
        const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
        let file =
            File::options().write(true).open(NR_HUGEPAGES).expect("the kernel has huge pages");
        file.lock().expect("the file can be locked");
        let reserved = HugePages(file);
        reserved.set(count);
        let got = fs::read_to_string(NR_HUGEPAGES).expect("a number");
        assert_eq!(got.trim(), count.to_string(), "memory is too fragmented for huge pages");
        reserved
    }

    fn set(&self, count: usize) {
        let written = self.0.write_all_at(count.to_string().as_bytes(), 0);
        written.expect("the number can be set");
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Writes and reads so many blocks from huge pages, all at once.
#[track_caller]
fn round_trip(way: Way, device: &ScsiDevice, region: &Arc<Region>, blocks: u16) {
    let mut way = way.open(device);
    let len = usize::from(blocks) * 512;
    let numbers: Vec<u8> =
        (0..len / 4).flat_map(|at| u32::try_from(at).expect("small").to_be_bytes()).collect();
    region.write(0, &numbers);
    let write = transfer(0x2a, Data::SliceOut(region.slice(0..len)), blocks);
    assert_good(&execute(&mut *way, write));
    region.fill(0);
    let read = transfer(0x28, Data::SliceIn(region.slice(0..len)), blocks);
    assert_good(&execute(&mut *way, read));
    assert!(region.read(0, len) == numbers, "other data comes back");
}

/// drivers/scsi/hosts.c:scsi_host_alloc leaves a segment 64 KiB (BLK_MAX_SEGMENT_SIZE): 126 segments never hold more than
/// 8064 KiB, however contiguous the memory is (block/blk-map.c:blk_rq_append_bio). Where a long transfer is cut into
/// bios costs some of them more: 7 MiB always fit.
#[rstest]
fn huge_pages_hold_7_mib_and_more_than_126_segments_are_einval() {
    declare!(Contract);
    const FIT: u16 = 7 << 11;
    const TOO_MANY: u16 = 126 * 128 + 1;
    let lun = Lun::fresh();
    let _reserved = HugePages::reserve(4);
    let region = Region::huge(8 << 20).expect("four huge pages");
    for way in [Way::SgIoV4, Way::UringCmd] {
        round_trip(way, lun.device(), &region, FIT);
        let seen = lun.journal().entries.len();
        let slice = region.slice(0..usize::from(TOO_MANY) * 512);
        let more = transfer(0x28, Data::SliceIn(slice), TOO_MANY);
        let refused = way.open(lun.device()).execute(more).expect_err("127 segments");
        assert_eq!(refused.errno(), Some(Errno::INVAL), "{refused}");
        assert_eq!(lun.journal().entries.len(), seen, "the device saw something");
    }
    drop(region);
}

/// io_uring/rsrc.c:io_sqe_buffer_register keeps a huge page as one piece, and io_import_fixed finds the place in it: any
/// part is good, across pieces too.
#[rstest]
fn any_part_of_registered_huge_pages_is_good() {
    declare!(Contract, super::ways::URING_CMD);
    const HUGE: usize = 2 << 20;
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let _reserved = HugePages::reserve(3);
    let region = Region::huge(3 * HUGE).expect("three huge pages");
    bsg.register_buffers(&[Some(region.clone())]).expect("registered");
    let places =
        [0, 4096, HUGE - 512, HUGE - 256, HUGE, HUGE + 0x1_000c, 2 * HUGE - 1, 3 * HUGE - 512];
    for (mark, at) in (1..).zip(places) {
        let data = cdb::pattern(0, 1, mark);
        region.write(at, &data);
        let slice = || region.slice(at..at + 512);
        let write = transfer(0x2a, Data::SliceOut(slice()), 1).fixed(0);
        assert_good(&execute(&mut bsg, write));
        assert_eq!(block::read(&mut bsg, Size::Ten, 0, 1), data, "from {at:#x}");
        region.write(at, &[0; 512]);
        let read = transfer(0x28, Data::SliceIn(slice()), 1).fixed(0);
        assert_good(&execute(&mut bsg, read));
        assert_eq!(slice().read(), data, "to {at:#x}");
    }
    // All of the second piece, and some of its neighbours.
    let slice = region.slice(HUGE - 4096..2 * HUGE + 4096);
    let blocks = u16::try_from(slice.len() / 512).expect("16 bits");
    let numbers: Vec<u8> = (0..slice.len() / 4)
        .flat_map(|at| u32::try_from(at).expect("small").to_be_bytes())
        .collect();
    region.write(HUGE - 4096, &numbers);
    let write = transfer(0x2a, Data::SliceOut(slice.clone()), blocks).fixed(0);
    assert_good(&execute(&mut bsg, write));
    region.fill(0);
    assert_good(&execute(&mut bsg, transfer(0x28, Data::SliceIn(slice.clone()), blocks).fixed(0)));
    assert!(slice.read() == numbers, "other data comes back");
}
