//! How data moves between a request and its server, in parts, from elsewhere and where there is none: what each way gives,
//! and what it refuses (drivers/block/ublk_drv.c).

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare};
use rstest::rstest;
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use ublk::{
    Buffer, DataMode, Errno, Features, FixedTransfer, Pointer, RawCommand, RawQueue, RawReply,
};

use super::{
    modes::SINCE_7_0,
    protocol::{
        COMMIT, DEADLINE, FETCH, NEED_GET_DATA, REGISTER, UNREGISTER, buffer, deliver, device, say,
    },
    recorder::{pattern, unscanned},
};

/// UBLKSRV_IO_BUF_OFFSET: where the data of tag 0 is in the char device.
const DATA: u64 = 0x8000_0000;

/// A device of one tag, whose first request has come.
struct Handed {
    queue: RawQueue,
    device: UblkDevice,
    client: Receiver<io::Result<Vec<u8>>>,
    reply: RawReply,
}

/// Starts a device whose tag is fetched with this memory, and has an application do something with the disk.
fn hand(
    mode: DataMode,
    memory: Pointer,
    act: impl FnOnce(&Path) -> io::Result<Vec<u8>> + Send + 'static,
) -> Handed {
    hand_with(mode.features(), memory, act)
}

/// The same, by features that a server would not choose.
fn hand_with(
    features: Features,
    memory: Pointer,
    act: impl FnOnce(&Path) -> io::Result<Vec<u8>> + Send + 'static,
) -> Handed {
    let config = unscanned(64).with(features).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("the char device opens");
    queue.make_table(2).expect("a table");
    let fetch = queue.begin(RawCommand::new(FETCH, 0, 0).memory(memory)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let (send, client) = channel();
    let path = device.block_path();
    thread::spawn(move || {
        let _over = send.send(act(&path));
    });
    let reply = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    Handed { queue, device, client, reply: reply.expect("the request is delivered") }
}

fn commit(result: i32, memory: Pointer) -> RawCommand {
    RawCommand { result, ..RawCommand::new(COMMIT, 0, 0).memory(memory) }
}

impl Handed {
    /// The next answer to a command.
    #[track_caller]
    fn answer(&mut self, command: RawCommand) -> RawReply {
        let token = self.queue.begin(command).expect("submitted");
        let patience = Duration::from_secs(2);
        let reply = self.queue.finish(token, Instant::now() + patience).expect("no error");
        reply.expect("answered")
    }

    /// First sector and length of the request.
    fn range(&self) -> (u64, u32) {
        let descriptor = self.queue.descriptor(0, 1, 0).expect("mapped");
        (descriptor.start_sector, descriptor.nr_sectors)
    }

    /// Commits the request, and returns what the application got.
    #[track_caller]
    fn end(mut self, last: RawCommand) -> io::Result<Vec<u8>> {
        assert_eq!(say(&mut self.queue, last), None, "the driver keeps the commit, as a fetch");
        let got = self.client.recv_timeout(DEADLINE).expect("the application has its answer");
        drop(self.queue);
        self.device.delete();
        got
    }
}

/// What is said on another thread of this process, with a ring of its own.
#[track_caller]
fn elsewhere(queue: &RawQueue, command: RawCommand) -> Option<Result<i32, Errno>> {
    let mut other = queue.another().expect("a ring");
    let said = thread::spawn(move || {
        other.make_table(1).expect("a table");
        say(&mut other, command)
    });
    said.join().expect("no panic")
}

/// What another thread of this process reads of the char device.
#[track_caller]
fn read_elsewhere(queue: &RawQueue, offset: u64) -> Result<Vec<u8>, Option<i32>> {
    let device = queue.device().try_clone().expect("a descriptor");
    let read = thread::spawn(move || read_at(&device, offset));
    read.join().expect("no panic")
}

fn read_at(device: &File, offset: u64) -> Result<Vec<u8>, Option<i32>> {
    let mut data = vec![0; 16384];
    let len = device.read_at(&mut data, offset).map_err(|error| error.raw_os_error())?;
    data.truncate(len);
    Ok(data)
}

const EACCES: Result<Vec<u8>, Option<i32>> = Err(Some(13));
const EINVAL: Result<Vec<u8>, Option<i32>> = Err(Some(22));

fn flush(path: &Path) -> io::Result<Vec<u8>> {
    BlockDevice::open(path, Access::ReadWrite).flush().map(|()| Vec::new())
}

fn write_eight(path: &Path) -> io::Result<Vec<u8>> {
    let disk = BlockDevice::open(path, Access::ReadWrite);
    disk.write(8 * 512, &pattern(8, 8, 1)).map(|()| Vec::new())
}

fn read_eight(path: &Path) -> io::Result<Vec<u8>> {
    BlockDevice::open(path, Access::ReadWrite).read(8 * 512, 4096)
}

/// A buffer of so many bytes at the end of its page, behind which nothing is.
fn cut_off(len: usize) -> Buffer {
    Buffer::at_offset(4096 - len, len).expect("memory")
}

/// Data that lies in pieces of pages, in no order, is one piece for the server, who can begin with any byte of it.
#[rstest]
fn user_copy_begins_anywhere_in_scattered_data() {
    declare!(Contract, SINCE_7_0);
    let memory = || -> Vec<u8> {
        let byte = |at: usize| u8::try_from((at / 512 * 31 + at % 251) % 256).expect("a byte");
        (0..16384).map(byte).collect()
    };
    let pieces = [3_usize, 1, 2, 0].map(|page| page * 4096 + 512..page * 4096 + 2560);
    let sent = pieces.clone();
    let handed = hand(DataMode::UserCopy, Pointer::Null, move |path| {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let disk = File::options().write(true).custom_flags(direct).open(path)?;
        let memory = Buffer::copy_of(&memory())?;
        let slices = sent.map(|piece| IoSlice::new(&memory[piece]));
        rustix::io::pwritev(&disk, &slices, 0)?;
        Ok(Vec::new())
    });
    assert_eq!(handed.range(), (0, 16));
    let whole = pieces.map(|piece| memory()[piece].to_vec()).concat();
    for from in [0, 1, 512, 2047, 2048, 2049, 4000, 4096, 6144, 8191, 8192_usize] {
        let got = read_at(handed.queue.device(), DATA + from as u64);
        assert!(got.as_deref() == Ok(&whole[from..]), "from byte {from}");
        let got = read_elsewhere(&handed.queue, DATA + from as u64);
        assert!(got.as_deref() == Ok(&whole[from..]), "another thread from byte {from}");
    }
    handed.end(commit(8192, Pointer::Null)).expect("written");
}

/// A request without data has none for anybody (EINVAL), and is complete when it is committed.
#[rstest]
fn request_without_data_has_nothing_to_copy_or_register(
    #[values(DataMode::UserCopy, DataMode::ZeroCopy)] mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let mut handed = hand(mode, Pointer::Null, flush);
    let queue = &mut handed.queue;
    assert_eq!(queue.descriptor(0, 1, 0).expect("mapped").op_flags & 0xff, 2, "FLUSH");
    if mode == DataMode::UserCopy {
        assert_eq!(read_at(queue.device(), DATA), EINVAL);
        assert_eq!(read_elsewhere(queue, DATA), EINVAL);
    } else {
        assert_eq!(say(queue, RawCommand::new(REGISTER, 0, 0)), Some(Err(Errno::INVAL)));
        let foreign = elsewhere(queue, RawCommand::new(REGISTER, 0, 0));
        assert_eq!(foreign, Some(Err(Errno::INVAL)));
    }
    handed.end(commit(0, Pointer::Null)).expect("flushed");
}

/// ublk_user_copy: EACCES for a device that is not started, and where the driver or the server's ring moves data; and
/// metadata of a device without UBLK_F_INTEGRITY (1 << 62) is EINVAL.
#[rstest]
fn user_copy_is_for_live_devices_that_ask_for_it() {
    declare!(Contract, SINCE_7_0);
    let (unstarted, queue) = device(DataMode::UserCopy, 1);
    assert_eq!(read_at(queue.device(), DATA), EACCES, "not started");
    drop(queue);
    unstarted.delete();
    for mode in [DataMode::Copy, DataMode::ZeroCopy] {
        let delivered = deliver(mode, true);
        assert_eq!(read_at(delivered.queue.device(), DATA), EACCES, "{mode:?}");
        delivered.end(512).expect("written");
    }
    let delivered = deliver(DataMode::UserCopy, true);
    assert_eq!(read_at(delivered.queue.device(), DATA | 1 << 62), EINVAL);
    delivered.end(512).expect("written");
}

/// Where the server copies, there is nothing to register, for any task, and a commit has no address (EINVAL each).
#[rstest]
fn server_that_copies_registers_nothing() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = deliver(DataMode::UserCopy, true);
    let queue = &mut delivered.queue;
    assert_eq!(say(queue, RawCommand::new(REGISTER, 0, 0)), Some(Err(Errno::INVAL)));
    assert_eq!(elsewhere(queue, RawCommand::new(REGISTER, 0, 0)), Some(Err(Errno::INVAL)));
    assert_eq!(say(queue, commit(512, Pointer::Unmapped)), Some(Err(Errno::INVAL)));
    delivered.end(512).expect("written");
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_AUTO_BUF_REG without UBLK_F_SUPPORT_ZERO_COPY: what the driver has registered only
/// the driver unregisters, at the commit (EINVAL else), and nobody registers anything more.
#[rstest]
fn automatic_buffer_without_zero_copy_is_the_driver_s() {
    declare!(Contract, SINCE_7_0);
    let mut handed = hand_with(Features::AUTO_BUF_REG, Pointer::Null, write_eight);
    let at = |op, number| RawCommand { number, ..RawCommand::new(op, 0, 0) };
    for command in [at(UNREGISTER, 0), at(REGISTER, 1)] {
        assert_eq!(say(&mut handed.queue, command), Some(Err(Errno::INVAL)));
    }
    assert_eq!(elsewhere(&handed.queue, at(REGISTER, 0)), Some(Err(Errno::INVAL)));
    handed.end(commit(4096, Pointer::Null)).expect("written");
}

/// A registration of another task that is refused, here for want of a slot, holds up nothing.
#[rstest]
fn refused_registration_does_not_hold_the_request() {
    declare!(Contract, SINCE_7_0);
    let delivered = deliver(DataMode::ZeroCopy, true);
    let register = RawCommand { number: 1, ..RawCommand::new(REGISTER, 0, 0) };
    assert_eq!(elsewhere(&delivered.queue, register), Some(Err(Errno::INVAL)));
    delivered.end(512).expect("written");
}

/// `struct ublk_auto_buf_reg` of a commit is for the next request: its index is where that is registered, and what is
/// reserved is refused (EINVAL).
#[rstest]
fn commit_says_where_the_next_request_is_registered() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = deliver(DataMode::AutoBuf, true);
    let queue = &mut delivered.queue;
    let next = |sqe_addr| RawCommand { sqe_addr, ..commit(512, Pointer::Null) };
    for bad in [1 << 17, 1 << 24, 1 << 32] {
        assert_eq!(say(queue, next(bad)), Some(Err(Errno::INVAL)), "{bad:#x}");
    }
    let token = queue.begin(next(1)).expect("submitted");
    delivered.client.recv_timeout(DEADLINE).expect("answered").expect("written");
    let path = delivered.device.block_path();
    let client = thread::spawn(move || write_eight(&path));
    let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(request.expect("delivered").res, 0);
    let sink = Arc::new(File::from(memfd_create("data", MemfdFlags::CLOEXEC).expect("a file")));
    for (index, expected) in [(0, Err(Errno::FAULT)), (1, Ok(4096))] {
        let token = queue.begin_transfer(FixedTransfer::to(&sink, index, 4096));
        let moved = queue.finish(token.expect("submitted"), Instant::now() + DEADLINE);
        let moved = moved.expect("no error").expect("it ends");
        assert_eq!(moved.result(), expected, "buffer {index}");
    }
    assert_eq!(say(queue, commit(4096, Pointer::Null)), None);
    client.join().expect("no panic").expect("written");
    drop(delivered.queue);
    delivered.device.delete();
}

/// include/uapi/linux/ublk_cmd.h, UBLK_F_NEED_GET_DATA: the data of a WRITE is asked for, once, before it is committed
/// (EINVAL else); it is where the descriptor says. Where the address has no memory the driver tries again. A READ is
/// committed with a buffer (EINVAL), a WRITE needs none any more.
#[rstest]
fn data_is_asked_for_before_the_commit() {
    declare!(Contract, SINCE_7_0);
    let mut handed = hand(DataMode::GetData, Pointer::Null, write_eight);
    assert_eq!(handed.reply.res, 1, "UBLK_IO_RES_NEED_GET_DATA");
    let ask = |memory| RawCommand::new(NEED_GET_DATA, 0, 0).memory(memory);
    assert_eq!(say(&mut handed.queue, commit(4096, buffer())), Some(Err(Errno::INVAL)));
    assert_eq!(handed.answer(ask(Pointer::Unmapped)).res, 1, "it is delivered again");
    let mut got = handed.answer(ask(buffer()));
    assert_eq!(got.res, 0);
    let descriptor = handed.queue.descriptor(0, 1, 0).expect("mapped");
    assert_eq!(descriptor.addr, got.memory.address());
    assert!(got.memory.buffer().expect("a buffer")[..4096] == pattern(8, 8, 1), "the data");
    assert_eq!(say(&mut handed.queue, ask(buffer())), Some(Err(Errno::INVAL)), "it was asked for");
    handed.end(commit(4096, Pointer::Null)).expect("written");

    let mut handed = hand(DataMode::GetData, Pointer::Null, read_eight);
    assert_eq!(handed.reply.res, 0);
    assert_eq!(say(&mut handed.queue, commit(4096, Pointer::Null)), Some(Err(Errno::INVAL)));
    assert_eq!(handed.end(commit(4096, buffer())).expect("read"), [0; 4096]);
}

/// ublk_start_io: a WRITE whose server has room for a part of it is delivered as that part, and the rest after it.
#[rstest]
fn write_into_a_short_buffer_comes_in_parts() {
    declare!(Contract, SINCE_7_0);
    let mut handed = hand(DataMode::Copy, cut_off(1024).into(), write_eight);
    assert_eq!(handed.range(), (8, 2));
    let first = handed.reply.memory.buffer().expect("a buffer")[..1024].to_vec();
    let rest = handed.answer(commit(1024, buffer()));
    assert_eq!((rest.res, handed.range()), (0, (10, 6)));
    let rest = &rest.memory.buffer().expect("a buffer")[..3072];
    assert!([&first[..], rest].concat() == pattern(8, 8, 1), "the data");
    handed.end(commit(3072, buffer())).expect("written");
}

/// __ublk_complete_rq: what could not be copied from the server of a READ has not been read, and is delivered again.
#[rstest]
fn read_from_a_short_buffer_comes_in_parts() {
    declare!(Contract, SINCE_7_0);
    let mut handed = hand(DataMode::Copy, buffer(), read_eight);
    assert_eq!(handed.range(), (8, 8));
    let mut part = cut_off(1024);
    part.fill(0x11);
    let rest = handed.answer(commit(4096, part.into()));
    assert_eq!((rest.res, handed.range()), (0, (10, 6)));
    let mut whole = Buffer::zeroed(512 << 10).expect("memory");
    whole.fill(0x22);
    let read = handed.end(commit(3072, whole.into())).expect("read");
    assert!(read == [vec![0x11; 1024], vec![0x22; 3072]].concat(), "the data");
}
