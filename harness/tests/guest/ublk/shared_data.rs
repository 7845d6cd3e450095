//! Requests whose data lies in shared memory (UBLK_F_SHMEM_ZC): what their results mean, and what goes with the flag.

use std::{
    fs::File,
    io::IoSlice,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use harness::{Needs, UblkDevice, declare};
use rstest::rstest;
use rustix::fs::OFlags;
use ublk::{
    Buffer, Features, Pointer, RawCommand, RawQueue,
    uapi::{CtrlCmd, ShmemBufReg, ctrl},
};
use zerocopy::IntoBytes;

use super::{
    protocol::{COMMIT, DEADLINE, FETCH, NEED_GET_DATA},
    raw::exchange,
    recorder::{huge_page, unscanned},
};

/// `UBLK_F_SHMEM_ZC` (include/uapi/linux/ublk_cmd.h) came with 7.1.
const SINCE_7_1: Needs = Needs {
    features: std::borrow::Cow::Borrowed(&[harness::Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// UBLK_IO_F_SHMEM_ZC.
const SHMEM_ZC: u32 = 1 << 19;

struct Delivered {
    queue: RawQueue,
    device: UblkDevice,
    client: Receiver<std::io::Result<()>>,
    res: i32,
}

/// Has an application read or write sectors 8 to 15 from a page that is registered, the second of two.
fn deliver(features: Features, write: bool) -> Delivered {
    let config = unscanned(64).with(Features::SHMEM_ZC | features).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut memory = Buffer::zeroed(8192).expect("memory");
    memory.fill(0x33);
    let buffer = ShmemBufReg { addr: memory.address(), len: 8192, flags: 0, reserved: 0 };
    let command = CtrlCmd::for_device(id);
    let index = exchange(device.control(), ctrl::REG_BUF, command, buffer.as_bytes()).0;
    assert_eq!(index, Ok(0));
    let mut queue = RawQueue::open(id).expect("the char device opens");
    let fetch = queue.begin(RawCommand::new(FETCH, 0, 0).memory(lent())).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let (send, client) = channel();
    thread::spawn(move || {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let disk = File::options().read(true).write(true).custom_flags(direct).open(path);
        let disk = disk.expect("the disk opens");
        let done = match write {
            true => disk.write_all_at(&memory[4096..], 8 * 512),
            false => disk.read_exact_at(&mut memory[4096..], 8 * 512),
        };
        drop(disk);
        let _over = send.send(done);
    });
    let delivered = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    let res = delivered.expect("the request is delivered").res;
    Delivered { queue, device, client, res }
}

fn lent() -> Pointer {
    Buffer::zeroed(512 << 10).expect("memory").into()
}

/// Documentation/block/ublk.rst says of no way in which data moves that a short result would be a whole one: the rest is
/// delivered again, and the application is told when that is done, too.
#[rstest]
fn short_result_in_shared_memory_delivers_the_rest(#[values(true, false)] write: bool) {
    declare!(Contract, SINCE_7_1);
    let Delivered { mut queue, device, client, res } = deliver(Features::empty(), write);
    assert_eq!(res, 0);
    let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
    assert_eq!((descriptor.op_flags & SHMEM_ZC, descriptor.addr), (SHMEM_ZC, 4096));
    let commit = |result| RawCommand { result, ..RawCommand::new(COMMIT, 0, 0).memory(lent()) };
    let again = queue.begin(commit(512)).expect("submitted");
    let again = queue.finish(again, Instant::now() + Duration::from_secs(1)).expect("no error");
    if again.is_none() {
        // What is open keeps the device, and its deletion the test.
        drop(queue);
        device.delete();
        let told = client.recv_timeout(DEADLINE);
        panic!("3584 bytes were not delivered again; the application has {told:?}");
    }
    let rest = queue.descriptor(0, 1, 0).expect("mapped");
    assert_eq!((rest.start_sector, rest.nr_sectors, rest.addr), (9, 7, 4096 + 512));
    queue.begin(commit(3584)).expect("submitted");
    client.recv_timeout(DEADLINE).expect("answered").expect("done");
    drop(queue);
    device.delete();
}

/// include/uapi/linux/ublk_cmd.h: with UBLK_IO_F_SHMEM_ZC `addr` is the place in shared memory; without, the server's
/// buffer has the data. Whatever the driver chooses for a WRITE that the server has asked the data of
/// (UBLK_F_NEED_GET_DATA), the data must be there.
#[rstest]
fn data_asked_for_is_where_the_descriptor_says() {
    declare!(Contract, SINCE_7_1);
    let Delivered { mut queue, device, client, res } = deliver(Features::NEED_GET_DATA, true);
    if res == 1 {
        let command = RawCommand::new(NEED_GET_DATA, 0, 0).memory(lent());
        let token = queue.begin(command).expect("submitted");
        let got = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        let mut got = got.expect("answered");
        assert_eq!(got.res, 0);
        let own = got.memory.address();
        let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
        let place = (descriptor.op_flags & SHMEM_ZC, descriptor.addr);
        let first = got.memory.buffer().expect("a buffer")[0];
        if place != (SHMEM_ZC, 4096) && (place, first) != ((0, own), 0x33) {
            // What is open keeps the device, and its deletion the test.
            drop(queue);
            device.delete();
            panic!("{descriptor:x?}: no place in shared memory, and at {own:#x} is {first:#x}");
        }
    }
    let commit = RawCommand { result: 4096, ..RawCommand::new(COMMIT, 0, 0).memory(lent()) };
    queue.begin(commit).expect("submitted");
    client.recv_timeout(DEADLINE).expect("answered").expect("written");
    drop(queue);
    device.delete();
}

/// What is written from, as ranges of the application's memory, and which of its ranges are registered.
type Ranges = &'static [(usize, usize)];

const PAGE: usize = 4096;

/// include/uapi/linux/ublk_cmd.h, UBLK_IO_F_SHMEM_ZC: the place is a number of a buffer and an offset in it, so that data is
/// there if it lies in one registered buffer, all of it, and in order. Any other is where it always was. The memory is a
/// huge page, if the kernel gives us one, so that neighbours are neighbours.
#[rstest]
#[case::inside_of_a_page(&[(0, 2 * PAGE)], &[(PAGE + 512, 512)], Some(0x1200))]
#[case::second_buffer(&[(0, PAGE), (PAGE, 2 * PAGE)], &[(2 * PAGE, PAGE)], Some(1 << 32 | 0x1000))]
#[case::in_order(&[(0, 2 * PAGE)], &[(0, PAGE), (PAGE, PAGE)], Some(0))]
#[case::not_in_order(&[(0, 2 * PAGE)], &[(PAGE, PAGE), (0, PAGE)], None)]
#[case::twice_the_same(&[(0, 2 * PAGE)], &[(0, PAGE), (0, PAGE)], None)]
#[case::two_buffers(&[(0, PAGE), (PAGE, 2 * PAGE)], &[(0, PAGE), (2 * PAGE, PAGE)], None)]
#[case::beyond_the_end(&[(0, PAGE)], &[(0, 2 * PAGE)], None)]
#[case::before_the_start(&[(PAGE, PAGE)], &[(0, 2 * PAGE)], None)]
fn data_is_in_shared_memory_whole_and_in_order(
    #[case] registered: Ranges,
    #[case] written: Ranges,
    #[case] place: Option<u64>,
) {
    declare!(Contract, SINCE_7_1);
    let config = unscanned(64).with(Features::SHMEM_ZC).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let (mut memory, start) = huge_page();
    memory[start..start + 4 * PAGE].fill(0x33);
    for (number, (at, len)) in (0..).zip(registered) {
        let addr = memory.address() + (start + at) as u64;
        let buffer = ShmemBufReg { addr, len: *len as u64, flags: 0, reserved: 0 };
        let command = CtrlCmd::for_device(id);
        let index = exchange(device.control(), ctrl::REG_BUF, command, buffer.as_bytes()).0;
        assert_eq!(index, Ok(number));
    }
    let mut queue = RawQueue::open(id).expect("the char device opens");
    let fetch = queue.begin(RawCommand::new(FETCH, 0, 0).memory(lent())).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let client = thread::spawn(move || {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let disk = File::options().write(true).custom_flags(direct).open(path);
        let slice =
            |(at, len): &(usize, usize)| IoSlice::new(&memory[start + at..start + at + len]);
        let slices: Vec<_> = written.iter().map(slice).collect();
        rustix::io::pwritev(disk.expect("the disk opens"), &slices, 0)
    });
    let delivered = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    let mut delivered = delivered.expect("the request is delivered");
    let own = delivered.memory.address();
    let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
    let len: usize = written.iter().map(|(_, len)| len).sum();
    let result = i32::try_from(len).expect("short");
    let commit = RawCommand { result, ..RawCommand::new(COMMIT, 0, 0).memory(lent()) };
    queue.begin(commit).expect("submitted");
    assert_eq!(client.join().expect("no panic").expect("written"), len);
    drop(queue);
    device.delete();
    let is = (descriptor.op_flags & SHMEM_ZC != 0, descriptor.addr);
    assert_eq!(is, (place.is_some(), place.unwrap_or(own)), "{descriptor:x?}");
}

/// ublk_drv.c:__ublk_ctrl_reg_buf: memory whose pages are not neighbours is one buffer all the same, and the place of each
/// is where the application has it. They are taken the last first, so that hardly two of them are.
#[rstest]
fn scattered_pages_have_their_places() {
    declare!(Contract, SINCE_7_1);
    const PAGES: usize = 64;
    let config = unscanned(64).with(Features::SHMEM_ZC).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut memory = Buffer::zeroed(PAGES * PAGE).expect("memory");
    for page in memory.chunks_mut(PAGE).rev() {
        page[0] = 0x33;
    }
    let len = (PAGES * PAGE) as u64;
    let buffer = ShmemBufReg { addr: memory.address(), len, flags: 0, reserved: 0 };
    let command = CtrlCmd::for_device(id);
    let index = exchange(device.control(), ctrl::REG_BUF, command, buffer.as_bytes()).0;
    assert_eq!(index, Ok(0));
    let mut queue = RawQueue::open(id).expect("the char device opens");
    let mut token = queue.begin(RawCommand::new(FETCH, 0, 0).memory(lent())).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let (send, written) = channel();
    thread::spawn(move || {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let disk = File::options().write(true).custom_flags(direct).open(path);
        let disk = disk.expect("the disk opens");
        let failed = memory.chunks(PAGE).find_map(|page| disk.write_all_at(page, 0).err());
        drop(disk);
        let _over = send.send(failed);
    });
    let places: Vec<_> = (0..PAGES)
        .map(|_| {
            let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
            request.expect("the request is delivered");
            let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
            let commit =
                RawCommand { result: 4096, ..RawCommand::new(COMMIT, 0, 0).memory(lent()) };
            token = queue.begin(commit).expect("submitted");
            (descriptor.op_flags & SHMEM_ZC, descriptor.addr)
        })
        .collect();
    assert!(written.recv_timeout(DEADLINE).expect("it ends").is_none());
    drop(queue);
    device.delete();
    let expected: Vec<_> = (0..len).step_by(PAGE).map(|place| (SHMEM_ZC, place)).collect();
    assert_eq!(places, expected);
}
