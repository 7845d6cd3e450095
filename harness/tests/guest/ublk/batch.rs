//! UBLK_F_BATCH_IO: one command for many tags (include/uapi/linux/ublk_cmd.h; Documentation/block/ublk.rst).

use std::{
    os::unix::fs::FileExt,
    process,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare, wait};
use rstest::rstest;
use ublk::{BatchQueue, DataMode, Element, Errno, Features, RawCommand, RawQueue, uapi::BatchIo};

use super::{
    at_once,
    modes::SINCE_7_0,
    protocol::{COMMIT, DEADLINE, FETCH, MOMENT, REGISTER, UNREGISTER, reopen, say},
    recorder::{pattern, unscanned},
};

/// UBLK_U_IO_*_IO_CMDS.
const PREP: u32 = 0xc010_7525;
const COMMIT_MANY: u32 = 0xc010_7526;
const FETCH_MANY: u32 = 0xc010_7527;

/// UBLK_BATCH_F_*.
const HAS_ZONE_LBA: u16 = 1;
const HAS_BUF_ADDR: u16 = 2;
const FALLBACK: u16 = 4;

const DEPTH: u16 = 4;
const BUFFER_LEN: usize = 64 << 10;

fn header(flags: u16, nr_elem: u16) -> BatchIo {
    let elem_bytes = match flags & (HAS_ZONE_LBA | HAS_BUF_ADDR) {
        0 => 8,
        3 => 24,
        _ => 16,
    };
    BatchIo { q_id: 0, flags, nr_elem, elem_bytes, reserved: 0, reserved2: 0 }
}

/// What a fetch says: two bytes for each tag.
fn fetching() -> BatchIo {
    BatchIo { elem_bytes: 2, ..header(0, 0) }
}

fn elements(tags: &[u16], result: i32) -> Vec<Element> {
    let element =
        |tag: &u16| Element { tag: *tag, buf_index: *tag, result, lends: true, zone_lba: 0 };
    tags.iter().map(element).collect()
}

/// A device with parameters, and its queue, of which nothing is prepared.
struct Batch {
    queue: BatchQueue,
    device: UblkDevice,
    flags: u16,
}

impl Batch {
    fn new(mode: DataMode, features: Features) -> Self {
        Batch::of(mode, features, DEPTH, 128)
    }

    /// The same, with so many tags, and no request of more sectors.
    fn of(mode: DataMode, features: Features, depth: u16, max_sectors: u32) -> Self {
        let mut config =
            unscanned(4096).mode(mode).with(Features::BATCH_IO | features).queues(1, depth);
        config.info.max_io_buf_bytes = 64 << 10;
        config.params.basic.max_sectors = max_sectors;
        let mut device = UblkDevice::add(&config.info);
        let id = device.id();
        device.control().set_params(id, &config.params).expect("SET_PARAMS");
        let queue = Batch::open_with(id, depth);
        let flags = if mode == DataMode::Copy { HAS_BUF_ADDR } else { 0 };
        Batch { queue, device, flags }
    }

    #[track_caller]
    fn open(id: u32) -> BatchQueue {
        Batch::open_with(id, DEPTH)
    }

    #[track_caller]
    fn open_with(id: u32, depth: u16) -> BatchQueue {
        let open = || BatchQueue::open(id, depth, BUFFER_LEN).ok();
        let mut queue = wait::until(DEADLINE, "the char device", open).expect("opened");
        queue.make_table(DEPTH.into()).expect("a table");
        queue
    }

    /// What the driver says at once; `None` if it keeps the command.
    #[track_caller]
    fn say(
        &mut self,
        op: u32,
        header: BatchIo,
        elements: &[Element],
    ) -> Option<Result<i32, Errno>> {
        let token = self.queue.begin(op, header, elements).expect("submitted");
        self.queue.finish(token, Instant::now() + MOMENT).expect("no error").map(|r| r.result())
    }

    #[track_caller]
    fn prep(&mut self, tags: &[u16]) -> Option<Result<i32, Errno>> {
        let count = u16::try_from(tags.len()).expect("few");
        let header = header(self.flags, count);
        self.say(PREP, header, &elements(tags, 0))
    }

    #[track_caller]
    fn commit(&mut self, tags: &[u16], result: i32) -> Option<Result<i32, Errno>> {
        let count = u16::try_from(tags.len()).expect("few");
        let header = header(self.flags, count);
        self.say(COMMIT_MANY, header, &elements(tags, result))
    }

    /// Fetches with a group of buffers for so many tags each.
    #[track_caller]
    fn fetch(&mut self, buffers: u16, tags: u32) -> u64 {
        let provided = self.queue.provide(buffers, 2 * tags, Instant::now() + DEADLINE);
        provided.expect("provided");
        let group = self.queue.groups() - 1;
        self.queue.begin_multishot(FETCH_MANY, fetching(), group).expect("submitted")
    }

    /// As many tags as were asked for, however many a fetch brings at once; and how many it brought each time.
    #[track_caller]
    fn gather(&mut self, fetch: u64, count: usize) -> (Vec<u16>, Vec<usize>) {
        let (mut tags, mut each) = (Vec::new(), Vec::new());
        while tags.len() < count {
            let next = self.next(fetch);
            each.push(next.len());
            tags.extend(next);
        }
        (tags, each)
    }

    /// Prepares everything, and starts the device.
    #[track_caller]
    fn start(&mut self) -> u64 {
        assert_eq!(self.prep(&[0, 1, 2, 3]), Some(Ok(0)));
        let fetch = self.fetch(8, 4);
        let id = self.device.id();
        self.device.control().start(id).expect("START_DEV");
        fetch
    }

    /// The tags a fetch brings next.
    #[track_caller]
    fn next(&mut self, fetch: u64) -> Vec<u16> {
        let reply = self.queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
        let reply = reply.expect("tags come");
        assert!(
            reply.more && reply.res == 2 * i32::try_from(reply.tags.len()).expect("few"),
            "{reply:?}"
        );
        reply.tags
    }

    /// Does something with the disk on a thread of its own.
    fn beside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&BlockDevice) -> T + Send + 'static,
    ) -> Receiver<T> {
        let path = self.device.block_path();
        BlockDevice::beside(move || BlockDevice::open(&path, Access::ReadWrite), act)
    }

    /// Waits until the disk has so many writes under way.
    fn waiting(&self, writes: u32) {
        let disk = BlockDevice::open(&self.device.block_path(), Access::ReadOnly);
        let all = || (disk.in_flight().1 == writes).then_some(());
        wait::until(DEADLINE, "every write", all).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Whoever waits for the device is given up.
    fn end(self) {
        drop(self.queue);
        self.device.delete();
    }
}

/// Data arrives and comes back where the driver copies, and where the server does.
#[rstest]
fn batch_of_tags_is_served(#[values(DataMode::Copy, DataMode::UserCopy)] mode: DataMode) {
    declare!(Contract, SINCE_7_0);
    const DATA: u64 = 0x8000_0000;
    let mut batch = Batch::new(mode, Features::empty());
    let fetch = batch.start();
    let data = pattern(8, 8, 5);
    let sent = data.clone();
    let written = batch.beside(move |disk| disk.write(8 * 512, &sent));
    let tags = batch.next(fetch);
    assert_eq!(tags.len(), 1);
    let (tag, at) = (tags[0], DATA + (u64::from(tags[0]) << 25));
    let descriptor = batch.queue.descriptor(0, DEPTH, tag).expect("mapped");
    assert_eq!((descriptor.op_flags & 0xff, descriptor.start_sector), (1, 8));
    let mut got = vec![0; 4096];
    match mode {
        DataMode::Copy => got = batch.queue.data(tag, 4096),
        _ => assert_eq!(batch.queue.device().read_at(&mut got, at).expect("its data"), 4096),
    }
    assert!(got == data, "what the server has differs");
    assert_eq!(batch.commit(&tags, 4096), Some(Ok(8 + i32::from(batch.flags) * 4)));
    written.recv_timeout(DEADLINE).expect("answered").expect("written");

    let read = batch.beside(|disk| disk.read(8 * 512, 4096));
    let tags = batch.next(fetch);
    let at = DATA + (u64::from(tags[0]) << 25);
    match mode {
        DataMode::Copy => batch.queue.set_data(tags[0], &data),
        _ => assert_eq!(batch.queue.device().write_at(&data, at).expect("its data"), 4096),
    }
    assert_eq!(batch.commit(&tags, 4096), Some(Ok(8 + i32::from(batch.flags) * 4)));
    assert!(read.recv_timeout(DEADLINE).expect("answered").expect("read") == data, "read");
    batch.end();
}

/// Automatic registration by the index in an element; a commit unregisters, and the slot is free for the next request.
#[rstest]
fn batch_registers_and_unregisters_data() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::AutoBuf, Features::empty());
    let fetch = batch.start();
    for _ in 0..2 {
        let written = batch.beside(|disk| disk.write(0, &[1; 512]));
        let tags = batch.next(fetch);
        let descriptor = batch.queue.descriptor(0, DEPTH, tags[0]).expect("mapped");
        assert_eq!(descriptor.op_flags >> 17 & 1, 0, "NEED_REG_BUF: it is registered");
        assert_eq!(batch.commit(&tags, 512), Some(Ok(8)));
        written.recv_timeout(DEADLINE).expect("answered").expect("written");
    }
    batch.end();
}

/// The same with an index outside of the table: the server is told, if it has asked for that (UBLK_IO_F_NEED_REG_BUF, 1 <<
/// 17), and otherwise the request fails.
#[rstest]
fn batch_that_cannot_register_falls_back(#[values(true, false)] fallback: bool) {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::AutoBuf, Features::empty());
    batch.flags = if fallback { FALLBACK } else { 0 };
    let outside: Vec<Element> =
        elements(&[0, 1, 2, 3], 0).into_iter().map(|e| Element { buf_index: 99, ..e }).collect();
    assert_eq!(batch.say(PREP, header(batch.flags, 4), &outside), Some(Ok(0)));
    let fetch = batch.fetch(8, 4);
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    let written = batch.beside(|disk| disk.write(0, &[1; 512]));
    if fallback {
        let tags = batch.next(fetch);
        let descriptor = batch.queue.descriptor(0, DEPTH, tags[0]).expect("mapped");
        assert_eq!(descriptor.op_flags >> 17 & 1, 1, "NEED_REG_BUF");
        assert_eq!(batch.commit(&tags, 512), Some(Ok(8)));
        written.recv_timeout(DEADLINE).expect("answered").expect("written");
    } else {
        let failed = written.recv_timeout(DEADLINE).expect("answered").expect_err("failed");
        assert_eq!(failed.raw_os_error(), Some(5), "EIO");
    }
    batch.end();
}

/// ublk_check_batch_cmd, in its order: what a header must not say, of PREP and of COMMIT alike.
#[rstest]
#[case::queue(DataMode::Copy, |h: &mut BatchIo| h.q_id = 1, Errno::INVAL)]
#[case::too_many(DataMode::Copy, |h: &mut BatchIo| h.nr_elem = 5, Errno::TOOBIG)]
#[case::queue_before_count(DataMode::Copy, |h: &mut BatchIo| (h.q_id, h.nr_elem) = (1, 5), Errno::INVAL)]
#[case::lba_without_zones(DataMode::UserCopy, |h: &mut BatchIo| (h.flags, h.elem_bytes) = (1, 16), Errno::INVAL)]
#[case::buffer_without_copy(DataMode::UserCopy, |h: &mut BatchIo| (h.flags, h.elem_bytes) = (2, 16), Errno::INVAL)]
#[case::fallback_without_registration(DataMode::UserCopy, |h: &mut BatchIo| h.flags = 4, Errno::INVAL)]
#[case::unknown_flag(DataMode::UserCopy, |h: &mut BatchIo| h.flags = 8, Errno::INVAL)]
#[case::short_elements(DataMode::UserCopy, |h: &mut BatchIo| h.elem_bytes = 7, Errno::INVAL)]
#[case::long_elements(DataMode::UserCopy, |h: &mut BatchIo| h.elem_bytes = 16, Errno::INVAL)]
#[case::no_room_for_the_buffer(DataMode::Copy, |h: &mut BatchIo| h.elem_bytes = 8, Errno::INVAL)]
fn batch_with_a_bad_header_is_refused(
    #[case] mode: DataMode,
    #[case] bend: fn(&mut BatchIo),
    #[case] errno: Errno,
) {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(mode, Features::empty());
    let mut bent = header(batch.flags, 2);
    bend(&mut bent);
    for op in [PREP, COMMIT_MANY] {
        assert_eq!(batch.say(op, bent, &elements(&[0, 1], 0)), Some(Err(errno)), "{op:#x}");
    }
    assert_eq!(batch.prep(&[0, 1, 2, 3]), Some(Ok(0)), "nothing was prepared");
    batch.end();
}

/// PREP is all or nothing: what cannot be prepared takes back what was.
#[rstest]
#[case::tag_out_of_range(&[0, 1, 4], Errno::INVAL)]
#[case::tag_twice(&[0, 1, 1], Errno::INVAL)]
#[case::last_tag_twice(&[0, 1, 2, 3, 3], Errno::TOOBIG)]
fn prep_is_all_or_nothing(#[case] tags: &[u16], #[case] errno: Errno) {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::UserCopy, Features::empty());
    assert_eq!(batch.prep(tags), Some(Err(errno)));
    assert_eq!(batch.prep(&[0, 1]), Some(Ok(0)));
    assert_eq!(batch.prep(&[2, 3, 0]), Some(Err(Errno::BUSY)), "the device was ready, but for 0");
    assert_eq!(batch.prep(&[2, 3]), Some(Ok(0)));
    assert_eq!(batch.prep(&[0]), Some(Err(Errno::BUSY)), "the device is ready");
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    batch.end();
}

/// Where the driver copies, an element has a buffer (EINVAL); elements that cannot be read are EFAULT; none are none.
#[rstest]
fn elements_of_a_batch_are_checked() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::Copy, Features::empty());
    let without: Vec<_> =
        elements(&[0, 1], 0).into_iter().map(|e| Element { lends: false, ..e }).collect();
    assert_eq!(batch.say(PREP, header(2, 2), &without), Some(Err(Errno::INVAL)));
    assert_eq!(batch.say(PREP, header(0, 2), &elements(&[0, 1], 0)), Some(Err(Errno::INVAL)));
    for op in [PREP, COMMIT_MANY] {
        let token = batch.queue.begin_nowhere(op, header(2, 2)).expect("submitted");
        let reply = batch.queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(reply.expect("answered").result(), Err(Errno::FAULT), "{op:#x}");
        assert_eq!(batch.say(op, header(2, 0), &[]), Some(Ok(0)), "{op:#x} of nothing");
    }
    assert_eq!(batch.prep(&[0, 1, 2, 3]), Some(Ok(0)));
    batch.end();
}

/// COMMIT says how many bytes of elements it has done, or why not the first: a tag without a request is EBUSY, one out of
/// range EINVAL, one without a buffer EINVAL where the driver copies.
#[rstest]
fn commit_says_how_far_it_got() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::Copy, Features::empty());
    let fetch = batch.start();
    assert_eq!(batch.commit(&[0], 512), Some(Err(Errno::BUSY)), "the driver has it");
    assert_eq!(batch.commit(&[4], 512), Some(Err(Errno::INVAL)), "no such tag");
    let read = batch.beside(|disk| disk.read(0, 512));
    let tag = batch.next(fetch)[0];
    let other = (tag + 1) % DEPTH;
    let without = [Element { lends: false, ..elements(&[tag], 512)[0] }];
    assert_eq!(batch.say(COMMIT_MANY, header(2, 1), &without), Some(Err(Errno::INVAL)));
    assert_eq!(batch.commit(&[other, tag], 512), Some(Err(Errno::BUSY)));
    assert!(read.recv_timeout(MOMENT).is_err(), "nothing was committed");
    assert_eq!(batch.commit(&[tag, tag], 512), Some(Ok(16)), "the first of two");
    assert_eq!(read.recv_timeout(DEADLINE).expect("answered").expect("read").len(), 512);
    batch.end();
}

/// ublk_validate_batch_fetch_cmd: a fetch answers many times, two bytes for each tag, and has no flags. EINVAL else.
#[rstest]
#[case::queue(|h: &mut BatchIo| h.q_id = 1)]
#[case::element(|h: &mut BatchIo| h.elem_bytes = 8)]
#[case::flags(|h: &mut BatchIo| h.flags = 2)]
fn fetch_with_a_bad_header_is_einval(#[case] bend: fn(&mut BatchIo)) {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::UserCopy, Features::empty());
    let mut bent = fetching();
    bend(&mut bent);
    batch.queue.provide(1, 8, Instant::now() + DEADLINE).expect("provided");
    let token = batch.queue.begin_multishot(FETCH_MANY, bent, 0).expect("submitted");
    let reply = batch.queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(reply.expect("answered").result(), Err(Errno::INVAL));
    assert_eq!(batch.say(FETCH_MANY, fetching(), &[]), Some(Err(Errno::INVAL)), "one shot");
    batch.end();
}

/// A fetch whose buffers are used up ends with ENOBUFS, one whose buffer cannot be written as well; no tag is lost by
/// that: the next fetch has it.
#[rstest]
#[case::used_up(DataMode::UserCopy, 1, false)]
#[case::unwritable(DataMode::UserCopy, 2, true)]
#[case::unwritable_and_registered(DataMode::AutoBuf, 2, true)]
fn tags_survive_a_fetch_that_ends(
    #[case] mode: DataMode,
    #[case] buffers: u16,
    #[case] unwritable: bool,
) {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(mode, Features::empty());
    assert_eq!(batch.prep(&[0, 1, 2, 3]), Some(Ok(0)));
    let region = batch.queue.provide(buffers, 4096, Instant::now() + DEADLINE).expect("provided");
    if unwritable {
        region.make_read_only(0..region.len()).expect("its protection changes");
    }
    let first = batch.queue.begin_multishot(FETCH_MANY, fetching(), 0).expect("submitted");
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    let mut reads = vec![batch.beside(|disk| disk.read(0, 512))];
    let mut tags = Vec::new();
    if !unwritable {
        tags = batch.next(first);
        reads.push(batch.beside(|disk| disk.read(512, 512)));
    }
    let ended = batch.queue.finish(first, Instant::now() + DEADLINE).expect("no error");
    let ended = ended.expect("it ends");
    assert_eq!((ended.result(), ended.more), (Err(Errno::NOBUFS), false));
    for tag in (0..DEPTH).filter(|tag| !tags.contains(tag)) {
        assert_eq!(batch.commit(&[tag], 512), Some(Err(Errno::BUSY)), "nobody was told of {tag}");
    }
    let second = batch.fetch(8, 4);
    tags.extend(batch.next(second));
    assert_eq!(batch.commit(&tags, 512), Some(Ok(8 * i32::try_from(tags.len()).expect("few"))));
    for read in reads {
        assert_eq!(read.recv_timeout(DEADLINE).expect("answered").expect("read").len(), 512);
    }
    batch.end();
}

/// Requests that come at once are one batch, and elements of a COMMIT and a PREP are read to the last, though the driver
/// takes 480 bytes at a time. A fetch brings no more tags than its buffers have room for.
#[rstest]
#[case::one_each(2)]
#[case::all(256)]
fn batch_of_many_tags_is_served_to_the_last(#[case] room: u32) {
    declare!(Contract, SINCE_7_0);
    const TAGS: u16 = 64;
    let mut batch = Batch::of(DataMode::Copy, Features::empty(), TAGS, 8);
    let all: Vec<u16> = (0..TAGS).collect();
    assert_eq!(batch.prep(&all), Some(Ok(0)));
    let fetch = batch.fetch(128, room / 2);
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    let data = pattern(0, 8 * 64, 6);
    let sent = data.clone();
    let written = batch.beside(move |disk| disk.write(0, &sent));
    let (mut tags, each) = batch.gather(fetch, 64);
    assert!(each.iter().all(|count| *count <= room as usize / 2), "{each:?}");
    for tag in &tags {
        let at = batch.queue.descriptor(0, TAGS, *tag).expect("mapped").start_sector;
        let at = usize::try_from(at * 512).expect("short");
        assert!(batch.queue.data(*tag, 4096) == data[at..at + 4096], "tag {tag}");
    }
    assert_eq!(batch.commit(&tags, 4096), Some(Ok(64 * 16)));
    written.recv_timeout(DEADLINE).expect("answered").expect("written");
    tags.sort_unstable();
    assert_eq!(tags, all, "each tag once");
    batch.end();
}

/// Requests that the block layer hands over at once come with one answer of the fetch, each once
/// (ublk_drv.c:ublk_batch_queue_rqs).
#[rstest]
fn requests_at_once_come_at_once() {
    declare!(Contract, SINCE_7_0);
    const TAGS: u16 = 32;
    let mut batch = Batch::of(DataMode::Copy, Features::empty(), TAGS, 128);
    let all: Vec<u16> = (0..TAGS).collect();
    assert_eq!(batch.prep(&all), Some(Ok(0)));
    let fetch = batch.fetch(8, TAGS.into());
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    let written = at_once::write_at_once(batch.device.block_path());
    let mut tags = batch.next(fetch);
    assert_eq!(tags.len(), usize::from(at_once::REQUESTS));
    let bytes = at_once::pages();
    for tag in &tags {
        let descriptor = batch.queue.descriptor(0, TAGS, *tag).expect("mapped");
        let at = usize::try_from(descriptor.start_sector * 512).expect("short");
        let len = descriptor.nr_sectors as usize * 512;
        assert!(batch.queue.data(*tag, len) == bytes[at..at + len], "tag {tag}");
        assert_eq!(batch.commit(&[*tag], i32::try_from(len).expect("short")), Some(Ok(16)));
    }
    assert_eq!(written.recv_timeout(DEADLINE).expect("it ends").expect("written"), bytes.len());
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), usize::from(at_once::REQUESTS), "each tag once");
    batch.end();
}

/// Automatic registration that fails ends its request with EIO, and the server is told of the others in the batch alone.
/// What an element of a COMMIT says of the index is for the next request of the tag.
#[rstest]
fn server_is_told_of_requests_that_are_registered() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::of(DataMode::AutoBuf, Features::empty(), DEPTH, 8);
    let registering = |tags: &[u16], slot: fn(u16) -> u16| -> Vec<Element> {
        let element = |e: Element| Element { buf_index: slot(e.tag), ..e };
        elements(tags, 4096).into_iter().map(element).collect()
    };
    let half = registering(&[0, 1, 2, 3], |tag| if tag % 2 == 0 { 99 } else { tag });
    assert_eq!(batch.say(PREP, header(0, 4), &half), Some(Ok(0)));
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    let write = |disk: &BlockDevice| disk.write(0, &pattern(0, 32, 7));
    let written = batch.beside(write);
    // A tag whose request has failed would be the next one's.
    batch.waiting(4);
    let fetch = batch.fetch(8, 4);
    let (mut tags, _) = batch.gather(fetch, 2);
    tags.sort_unstable();
    assert_eq!(tags, [1, 3]);
    let nowhere = registering(&tags, |_| 99);
    assert_eq!(batch.say(COMMIT_MANY, header(0, 2), &nowhere), Some(Ok(16)));
    let failed = written.recv_timeout(DEADLINE).expect("answered").expect_err("half of it");
    assert_eq!(failed.raw_os_error(), Some(5), "EIO");
    let failed = batch.beside(write).recv_timeout(DEADLINE).expect("answered");
    assert_eq!(failed.expect_err("no slot is left").raw_os_error(), Some(5), "EIO");
    batch.end();
}

/// A request that no fetch has taken when the server leaves fails as one that it has had.
#[rstest]
fn request_that_nobody_fetched_ends_with_the_server() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::UserCopy, Features::empty());
    assert_eq!(batch.prep(&[0, 1, 2, 3]), Some(Ok(0)));
    let id = batch.device.id();
    batch.device.control().start(id).expect("START_DEV");
    let read = batch.beside(|disk| disk.read(0, 512));
    assert!(read.recv_timeout(MOMENT).is_err(), "nobody has fetched it");
    let Batch { queue, device, .. } = batch;
    drop(queue);
    let failed = read.recv_timeout(DEADLINE).expect("it ends").expect_err("nobody did it");
    assert_eq!(failed.raw_os_error(), Some(5), "EIO");
    device.delete();
}

/// Commands for one tag are no commands of such a device (EOPNOTSUPP), but those for registered data; and commands of a
/// batch none of any other (EINVAL: nobody has fetched).
#[rstest]
fn batch_and_single_commands_do_not_mix() {
    declare!(Contract, SINCE_7_0);
    let batch = Batch::new(DataMode::ZeroCopy, Features::empty());
    let Batch { queue, device, .. } = batch;
    drop(queue);
    let id = device.id();
    let mut single = reopen(id);
    single.make_table(1).expect("a table");
    for (op, errno) in [
        (FETCH, Errno::OPNOTSUPP),
        (COMMIT, Errno::OPNOTSUPP),
        (0xc010_757f, Errno::OPNOTSUPP),
        (REGISTER, Errno::INVAL),
        (UNREGISTER, Errno::INVAL),
    ] {
        assert_eq!(say(&mut single, RawCommand::new(op, 0, 0)), Some(Err(errno)), "{op:#x}");
    }
    for (queue, tag) in [(1, 0), (0, 4), (0, u16::MAX)] {
        let command = RawCommand::new(REGISTER, queue, tag);
        assert_eq!(say(&mut single, command), Some(Err(Errno::INVAL)), "{queue} {tag}");
    }
    let config = unscanned(64).queues(1, 1);
    let other = UblkDevice::add(&config.info);
    let mut plain = RawQueue::open(other.id()).expect("opened");
    for op in [PREP, COMMIT_MANY, FETCH_MANY] {
        assert_eq!(say(&mut plain, RawCommand::new(op, 0, 0)), Some(Err(Errno::INVAL)), "{op:#x}");
    }
}

/// STOP_DEV ends every fetch with ENODEV, and so it does with those that come.
#[rstest]
fn stop_dev_ends_fetches_of_a_batch() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::UserCopy, Features::empty());
    let fetch = batch.start();
    let second = batch.queue.begin_multishot(FETCH_MANY, fetching(), 0).expect("submitted");
    let id = batch.device.id();
    batch.device.control().stop(id).expect("STOP_DEV");
    for token in [fetch, second] {
        let ended = batch.queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(ended.expect("it ends").res, -19, "ENODEV");
    }
    let late = batch.queue.begin_multishot(FETCH_MANY, fetching(), 0).expect("submitted");
    let late = batch.queue.finish(late, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(late.expect("refused").res, -19, "ENODEV");
    batch.end();
}

/// A server of a batch leaves, by its own will or by QUIESCE_DEV: requests wait for the next one, as for any other device
/// with UBLK_F_USER_RECOVERY.
#[rstest]
fn next_server_of_a_batch_gets_what_came_meanwhile(#[values(true, false)] quiesce: bool) {
    declare!(Contract, SINCE_7_0);
    let features = Features::USER_RECOVERY | Features::QUIESCE;
    let mut batch = Batch::new(DataMode::UserCopy, features);
    let fetch = batch.start();
    let id = batch.device.id();
    if quiesce {
        batch.device.control().quiesce(id, DEADLINE).expect("QUIESCE_DEV");
        let ended = batch.queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(ended.expect("it ends").res, -19, "ENODEV");
    }
    let Batch { queue, mut device, flags } = batch;
    drop(queue);
    device.await_state(2);
    let path = device.block_path();
    let open = move || BlockDevice::open(&path, Access::ReadOnly);
    let read = BlockDevice::beside(open, |disk| disk.read(0, 512));
    let early = read.recv_timeout(Duration::from_millis(100));
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "nobody serves: {early:?}");
    device.start_recovery();
    let mut batch = Batch { queue: Batch::open(id), device, flags };
    assert_eq!(batch.prep(&[0, 1, 2, 3]), Some(Ok(0)));
    let fetch = batch.fetch(8, 4);
    batch.device.control().end_recovery(id).expect("END_USER_RECOVERY");
    let tags = batch.next(fetch);
    assert_eq!(batch.commit(&tags, 512), Some(Ok(8)));
    assert_eq!(read.recv_timeout(DEADLINE).expect("answered").expect("read").len(), 512);
    assert_eq!(
        u32::try_from(batch.device.control().info(id).expect("info").ublksrv_pid),
        Ok(process::id())
    );
    batch.end();
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_QUIESCE: fetches end, and so do those that come, until the next server has prepared
/// its tags.
#[rstest]
fn quiesced_batch_is_fetched_from_again() {
    declare!(Contract, SINCE_7_0);
    let mut batch = Batch::new(DataMode::UserCopy, Features::USER_RECOVERY | Features::QUIESCE);
    let fetch = batch.start();
    let id = batch.device.id();
    batch.device.control().quiesce(id, DEADLINE).expect("QUIESCE_DEV");
    let late = batch.queue.begin_multishot(FETCH_MANY, fetching(), 0).expect("submitted");
    for token in [fetch, late] {
        let ended = batch.queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(ended.expect("it ends").res, -19, "ENODEV");
    }
    let Batch { queue, mut device, flags } = batch;
    drop(queue);
    device.await_state(2);
    device.start_recovery();
    let mut batch = Batch { queue: Batch::open(id), device, flags };
    assert_eq!(batch.prep(&[0, 1, 2, 3]), Some(Ok(0)));
    let fetch = batch.fetch(8, 4);
    batch.device.control().end_recovery(id).expect("END_USER_RECOVERY");
    let read = batch.beside(|disk| disk.read(0, 512));
    let tags = batch.next(fetch);
    assert_eq!(batch.commit(&tags, 512), Some(Ok(8)));
    assert_eq!(read.recv_timeout(DEADLINE).expect("answered").expect("read").len(), 512);
    batch.end();
}
