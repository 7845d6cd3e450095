//! Memory that an application shares with the server, registered for zero copy
//! (drivers/block/ublk_drv.c:ublk_ctrl_reg_buf and ublk_ctrl_unreg_buf).

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    thread,
    time::Instant,
};

use harness::{BlockDevice, Needs, UblkDevice, declare};
use rstest::rstest;
use rustix::fs::OFlags;
use ublk::{
    Buffer, Config, Errno, Features, Pointer, RawCommand, RawQueue, Region,
    uapi::{CtrlCmd, DevInfo, IoDesc, ShmemBufReg, ctrl},
};
use zerocopy::IntoBytes;

use super::{
    protocol::{COMMIT, DEADLINE, MOMENT, fetch},
    raw::{exchange, plain},
    recorder::unscanned,
};

/// `UBLK_F_SHMEM_ZC` (include/uapi/linux/ublk_cmd.h) came with 7.1.
const SINCE_7_1: Needs = Needs {
    features: std::borrow::Cow::Borrowed(&[harness::Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

const SHMEM_ZC: u64 = 1 << 19;

fn device(flags: u64) -> UblkDevice {
    UblkDevice::add(&DevInfo { flags, ..Config::disk(64).queues(1, 4).info })
}

/// Without the feature both commands are EOPNOTSUPP.
#[rstest]
fn shared_memory_without_the_feature_is_eopnotsupp() {
    declare!(Contract, SINCE_7_1);
    let mut device = device(0);
    let id = device.id();
    let region = Region::zeroed(4096).expect("a page");
    let refused = device.control().register_shared(id, &region, 0..4096, false);
    assert_eq!(refused.expect_err("refused").errno(), Some(Errno::OPNOTSUPP));
    let refused = device.control().unregister_shared(id, 0);
    assert_eq!(refused.expect_err("refused").errno(), Some(Errno::OPNOTSUPP));
}

/// `struct ublk_shmem_buf_reg`: flags and reserved fields that mean nothing, and what is not whole pages up to 4 GiB, are
/// EINVAL; pages that are not there are EFAULT.
#[rstest]
#[case::flags(|b: &mut ShmemBufReg| b.flags = 2, Errno::INVAL)]
#[case::reserved(|b: &mut ShmemBufReg| b.reserved = 1, Errno::INVAL)]
#[case::empty(|b: &mut ShmemBufReg| b.len = 0, Errno::INVAL)]
#[case::part_of_a_page(|b: &mut ShmemBufReg| b.len = 4097, Errno::INVAL)]
#[case::not_at_a_page(|b: &mut ShmemBufReg| b.addr += 512, Errno::INVAL)]
#[case::above_4_gib(|b: &mut ShmemBufReg| b.len = (4 << 30) + 4096, Errno::INVAL)]
#[case::nowhere(|b: &mut ShmemBufReg| b.addr = 0x1000, Errno::FAULT)]
#[case::partly_nowhere(|b: &mut ShmemBufReg| b.len = 12288, Errno::FAULT)]
fn bad_shared_memory_is_refused(#[case] bend: fn(&mut ShmemBufReg), #[case] errno: Errno) {
    declare!(Contract, SINCE_7_1);
    let mut device = device(SHMEM_ZC);
    let region = Region::zeroed(8192).expect("two pages");
    let mut buffer = ShmemBufReg { addr: region.address(), len: 8192, flags: 0, reserved: 0 };
    bend(&mut buffer);
    let command = CtrlCmd::for_device(device.id());
    let answer = exchange(device.control(), ctrl::REG_BUF, command, buffer.as_bytes()).0;
    assert_eq!(answer, Err(errno));
}

/// Buffers are numbered from 0; the same pages are registered once (EEXIST), and again when they are free. A number
/// nobody has is ENOENT.
#[rstest]
fn pages_are_registered_once() {
    declare!(Contract, SINCE_7_1);
    let mut device = device(SHMEM_ZC);
    let id = device.id();
    let (first, second) =
        (Region::zeroed(8192).expect("pages"), Region::zeroed(4096).expect("a page"));
    first.fill(1);
    second.fill(2);
    let control = device.control();
    assert_eq!(control.register_shared(id, &first, 0..8192, false).expect("registered"), 0);
    assert_eq!(control.register_shared(id, &second, 0..4096, true).expect("registered"), 1);
    let again = control.register_shared(id, &first, 4096..8192, false).expect_err("refused");
    assert_eq!(again.errno(), Some(Errno::EXIST));
    let third = Region::zeroed(4096).expect("a page");
    third.fill(3);
    let number = control.register_shared(id, &third, 0..4096, false).expect("registered");
    assert_eq!(number, 2, "one that was refused has no number");
    control.unregister_shared(id, 0).expect("unregistered");
    let other = control.register_shared(id, &second, 0..4096, false).expect_err("refused");
    assert_eq!(other.errno(), Some(Errno::EXIST), "the others are still there");
    let gone = control.unregister_shared(id, 0).expect_err("refused");
    assert_eq!(gone.errno(), Some(Errno::NOENT));
    assert_eq!(control.register_shared(id, &first, 4096..8192, false).expect("registered"), 0);
}

/// UNREG_BUF takes `ctrl_cmd.data[0]` as the index: one beyond 65535 is EINVAL, and concerns no other buffer.
#[rstest]
#[case::behind_the_last(0x1_0000)]
#[case::negative(0xffff_ffff)]
#[case::above_32_bits(1 << 32)]
fn unregistering_an_index_out_of_range_is_einval(#[case] index: u64) {
    declare!(Contract, SINCE_7_1);
    let mut device = device(SHMEM_ZC);
    let id = device.id();
    let region = Region::zeroed(4096).expect("a page");
    region.fill(1);
    let registered = device.control().register_shared(id, &region, 0..4096, false);
    assert_eq!(registered.expect("registered"), 0);
    let command = CtrlCmd { data: index, ..CtrlCmd::for_device(id) };
    assert_eq!(plain(device.control(), ctrl::UNREG_BUF, command), Err(Errno::INVAL));
    device.control().unregister_shared(id, 0).expect("it is still there");
}

/// Pages are pinned as long as they are registered, and no longer (nr_foll_pin_* of /proc/vmstat); pages that may only be
/// read are registered for nothing else (EFAULT).
#[rstest]
fn registered_pages_are_given_back() {
    declare!(Contract, SINCE_7_1);
    let pinned = || {
        // Reading it adds up what each CPU has counted for itself.
        std::fs::read("/proc/sys/vm/stat_refresh").expect("root may");
        let counters = std::fs::read_to_string("/proc/vmstat").expect("there are counters");
        let count = |name: &str| -> i64 {
            let line = counters.lines().find_map(|line| line.strip_prefix(name));
            line.expect("pins are counted").trim().parse().expect("a number")
        };
        count("nr_foll_pin_acquired ") - count("nr_foll_pin_released ")
    };
    let mut device = device(SHMEM_ZC);
    let id = device.id();
    let region = Region::zeroed(40 * 4096).expect("pages");
    region.fill(1);
    let before = pinned();
    let control = device.control();
    let mut register = |pages: std::ops::Range<usize>| {
        control.register_shared(id, &region, pages.start * 4096..pages.end * 4096, false)
    };
    assert_eq!(register(20..40).expect("registered"), 0);
    assert_eq!(pinned() - before, 20);
    assert_eq!(register(0..40).expect_err("refused").errno(), Some(Errno::EXIST));
    assert_eq!(pinned() - before, 20, "what was refused is pinned");
    assert_eq!(register(0..20).expect("what was refused is not registered"), 1);
    assert_eq!(pinned() - before, 40);
    control.unregister_shared(id, 0).expect("unregistered");
    control.unregister_shared(id, 1).expect("unregistered");
    assert_eq!(pinned(), before);
    region.make_read_only(0..4096).expect("its protection changes");
    let refused = control.register_shared(id, &region, 0..4096, false).expect_err("refused");
    assert_eq!(refused.errno(), Some(Errno::FAULT));
    assert_eq!(control.register_shared(id, &region, 0..4096, true).expect("registered"), 0);
}

/// ublk_drv.c:ublk_lock_buf_tree: on a disk that is used a buffer comes and goes between two requests, so that REG_BUF and
/// UNREG_BUF wait for what the server has; and the disk goes on.
#[rstest]
fn buffers_come_and_go_between_requests() {
    declare!(Contract, SINCE_7_1);
    let config = unscanned(64).with(Features::SHMEM_ZC).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("the char device opens");
    let mut token = queue.begin(fetch(0)).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let region = Region::zeroed(4096).expect("a page");
    let range = ShmemBufReg { addr: region.address(), len: 4096, flags: 0, reserved: 0 };
    let registers = (ctrl::REG_BUF, range.as_bytes());
    for (op, bytes) in [registers, (ctrl::UNREG_BUF, &[])] {
        let path = device.block_path();
        let client = thread::spawn(move || {
            let disk = BlockDevice::open(&path, bsg::Access::ReadWrite);
            disk.write(0, &[0x33; 512])
        });
        let request = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        let memory = request.expect("the disk is used").memory;
        let memory_of_command = match bytes {
            [] => Pointer::Null,
            bytes => Buffer::copy_of(bytes).expect("memory").into(),
        };
        let len = u16::try_from(bytes.len()).expect("short");
        let command = CtrlCmd { len, ..CtrlCmd::for_device(id) };
        let change = device.control().begin(op, command, memory_of_command).expect("submitted");
        let early = device.control().finish(change, Instant::now() + MOMENT);
        assert!(early.is_err(), "a request is under way: {early:?}");
        let commit = RawCommand { result: 512, ..RawCommand::new(COMMIT, 0, 0).memory(memory) };
        token = queue.begin(commit).expect("submitted");
        client.join().expect("no panic").expect("written");
        let reply = device.control().finish(change, Instant::now() + DEADLINE).expect("answered");
        assert_eq!(reply.res, 0, "index 0, or success");
    }
    let gone = device.control().unregister_shared(id, 0).expect_err("it is gone");
    assert_eq!(gone.errno(), Some(Errno::NOENT));
    drop(queue);
}

/// What an application does with its memory, of which the part from byte 4096 on is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Registers two of three pages, has an application use the last of them for sectors 8 to 15, and returns the descriptor
/// of the request and the beginning of the server's own buffer.
fn descriptor(access: Access, flags: u32, registered: bool) -> (IoDesc, u64) {
    let config = unscanned(64).with(Features::SHMEM_ZC).queues(1, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut memory = Buffer::zeroed(12288).expect("memory");
    memory.fill(0x33);
    if registered {
        let buffer = ShmemBufReg { addr: memory.address() + 4096, len: 8192, flags, reserved: 0 };
        let command = CtrlCmd::for_device(id);
        let index = exchange(device.control(), ctrl::REG_BUF, command, buffer.as_bytes()).0;
        assert_eq!(index, Ok(0));
    }
    let mut queue = RawQueue::open(id).expect("the char device opens");
    let lent = || Buffer::zeroed(512 << 10).expect("memory");
    let fetch = queue.begin(RawCommand::new(0xc010_7520, 0, 0).memory(lent())).expect("submitted");
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let client = thread::spawn(move || {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let disk = File::options().read(true).write(true).custom_flags(direct).open(path);
        let disk = disk.expect("the disk opens");
        match access {
            Access::Read => disk.read_exact_at(&mut memory[8192..], 8 * 512),
            Access::Write => disk.write_all_at(&memory[8192..], 8 * 512),
        }
    });
    let delivered = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    let mut delivered = delivered.expect("the request is delivered");
    let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
    let own = delivered.memory.address();
    let commit =
        RawCommand { result: 4096, ..RawCommand::new(0xc010_7521, 0, 0).memory(delivered.memory) };
    queue.begin(commit).expect("submitted");
    client.join().expect("no panic").expect("the application is told of success");
    (descriptor, own)
}

/// include/uapi/linux/ublk_cmd.h, UBLK_IO_F_SHMEM_ZC (1 << 19): a request whose pages all lie in a registered buffer says
/// so, with the index of the buffer in bits 32 to 47 of `addr` and the offset in it below; any other has the server's
/// own buffer. Memory that may only be read is no place for the data of a READ.
#[rstest]
#[case::write(Access::Write, 0, true, true)]
#[case::read(Access::Read, 0, true, true)]
#[case::write_from_read_only(Access::Write, 1, true, true)]
#[case::read_into_read_only(Access::Read, 1, true, false)]
#[case::not_registered(Access::Write, 0, false, false)]
fn request_in_shared_memory_says_where(
    #[case] access: Access,
    #[case] flags: u32,
    #[case] registered: bool,
    #[case] shared: bool,
) {
    declare!(Contract, SINCE_7_1);
    let (descriptor, own) = descriptor(access, flags, registered);
    assert_eq!(descriptor.op_flags & 0xff, u32::from(access == Access::Write));
    assert_eq!((descriptor.start_sector, descriptor.nr_sectors), (8, 8));
    assert_eq!(descriptor.op_flags >> 19 & 1, u32::from(shared), "{descriptor:x?}");
    assert_eq!(descriptor.addr, if shared { 4096 } else { own });
}
