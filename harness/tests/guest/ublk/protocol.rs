//! Queue commands as no server sends them: what the driver refuses, in the order of its checks
//! (drivers/block/ublk_drv.c:ublk_ch_uring_cmd_local).

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::{Arc, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{
    BlockDevice, Child, Needs, UblkDevice,
    child::{self, Parent},
    declare, wait,
};
use rstest::rstest;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use ublk::{
    Buffer, DataMode, Errno, NullTarget, Pointer, RawCommand, RawQueue, Region, SQE_ASYNC, Server,
    uapi::{CtrlCmd, ctrl},
};

use super::{modes::SINCE_7_0, raw::plain, recorder::unscanned};

/// UBLK_U_IO_* (include/uapi/linux/ublk_cmd.h).
pub(crate) const FETCH: u32 = 0xc010_7520;
pub(crate) const COMMIT: u32 = 0xc010_7521;
pub(crate) const NEED_GET_DATA: u32 = 0xc010_7522;
pub(crate) const REGISTER: u32 = 0xc010_7523;
pub(crate) const UNREGISTER: u32 = 0xc010_7524;

/// Before, a mapping can be made writable.
const SINCE_7_2: Needs = Needs {
    features: std::borrow::Cow::Borrowed(&[harness::Feature::KernelAtLeast(7, 2)]),
    ..Needs::DEFAULT
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// How long a command that the driver keeps is waited for.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// A device with parameters that nobody has started, and its char device. One queue.
pub(crate) fn device(mode: DataMode, depth: u16) -> (UblkDevice, RawQueue) {
    let config = unscanned(64).mode(mode).queues(1, depth);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    (device, RawQueue::open(id).expect("the char device opens"))
}

pub(crate) fn buffer() -> Pointer {
    Buffer::zeroed(512 << 10).expect("memory").into()
}

/// Opens a char device as soon as nobody else has it (EBUSY until then).
#[track_caller]
pub(crate) fn reopen(id: u32) -> RawQueue {
    let is_busy = |error: &ublk::Error| error.errno() == Some(Errno::BUSY);
    let free = wait::until(DEADLINE, "the char device", || {
        Some(RawQueue::open(id)).filter(|opened| !opened.as_ref().is_err_and(is_busy))
    });
    let opened = free.unwrap_or_else(|error| panic!("{error}"));
    opened.unwrap_or_else(|error| panic!("{error}"))
}

/// Closes a ring and gives the kernel time to come to its end. Nothing tells when it has; what was fetched has gone back
/// then.
pub(crate) fn close(queue: RawQueue) {
    let (begin, enough) = (Instant::now(), Duration::from_millis(200));
    drop(queue);
    let over = || (begin.elapsed() >= enough).then_some(());
    wait::until(DEADLINE, "a moment", over).unwrap_or_else(|error| panic!("{error}"));
}

/// What the driver says at once; `None` if it keeps the command.
#[track_caller]
pub(crate) fn say(queue: &mut RawQueue, command: RawCommand) -> Option<Result<i32, Errno>> {
    queue.exchange(command, MOMENT).expect("submitted").map(|reply| reply.result())
}

pub(crate) fn fetch(tag: u16) -> RawCommand {
    RawCommand::new(FETCH, 0, tag).memory(buffer())
}

/// q_id and tag are looked at first: what is out of range is EINVAL, whatever the command, and concerns no other tag.
#[rstest]
#[case::queue(1, 0)]
#[case::last_queue(0xffff, 0)]
#[case::tag(0, 3)]
#[case::last_tag(0, 0xffff)]
fn command_out_of_range_is_einval(#[case] q_id: u16, #[case] tag: u16) {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::Copy, 3);
    for op in [FETCH, COMMIT, NEED_GET_DATA, REGISTER] {
        let command = RawCommand::new(op, q_id, tag).memory(buffer());
        assert_eq!(say(&mut queue, command), Some(Err(Errno::INVAL)), "{op:#x}");
    }
    assert_eq!(say(&mut queue, fetch(1)), None, "the driver keeps a sound fetch");
}

/// ublk_check_cmd_op: EOPNOTSUPP for a letter other than 'u'; a number nobody knows is EINVAL.
#[rstest]
fn unknown_queue_command_is_refused() {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::Copy, 2);
    for (op, errno) in [(0xc010_7820, Errno::OPNOTSUPP), (0xc010_757f, Errno::INVAL)] {
        let command = RawCommand::new(op, 0, 0).memory(buffer());
        assert_eq!(say(&mut queue, command), Some(Err(errno)), "{op:#x}");
    }
}

/// ublk_check_fetch_buf: where the driver copies, a fetch has a buffer; where it does not, it has none. EINVAL else.
#[rstest]
fn fetch_has_a_buffer_where_the_driver_copies(
    #[values(DataMode::Copy, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf)]
    mode: DataMode,
) {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(mode, 1);
    queue.make_table(1).expect("a table");
    let (right, wrong) = match mode {
        DataMode::Copy => (buffer(), Pointer::Null),
        _ => (Pointer::Null, Pointer::Unmapped),
    };
    let bad = RawCommand::new(FETCH, 0, 0).memory(wrong);
    assert_eq!(say(&mut queue, bad), Some(Err(Errno::INVAL)));
    assert_eq!(say(&mut queue, RawCommand::new(FETCH, 0, 0).memory(right)), None);
}

/// `struct ublk_auto_buf_reg`: reserved bits and unknown flags of automatic registration are EINVAL. A device without it
/// does not look there.
#[rstest]
fn fetch_with_bad_automatic_registration_is_einval(
    #[values(1 << 17, 1 << 23, 1 << 24, 1 << 32, 1 << 63)] sqe_addr: u64,
) {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::AutoBuf, 1);
    let bad = RawCommand { sqe_addr, ..RawCommand::new(FETCH, 0, 0) };
    assert_eq!(say(&mut queue, bad), Some(Err(Errno::INVAL)));
    let sound = RawCommand { sqe_addr: 0x1_ffff, ..RawCommand::new(FETCH, 0, 0) };
    assert_eq!(say(&mut queue, sound), None);
    let (_device, mut queue) = device(DataMode::ZeroCopy, 1);
    let elsewhere = RawCommand { sqe_addr, ..RawCommand::new(FETCH, 0, 0) };
    assert_eq!(say(&mut queue, elsewhere), None);
}

/// __ublk_fetch: a tag is fetched once (EINVAL), and not again once every tag is (EBUSY).
#[rstest]
fn second_fetch_is_refused() {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::Copy, 2);
    assert_eq!(say(&mut queue, fetch(0)), None);
    assert_eq!(say(&mut queue, fetch(0)), Some(Err(Errno::INVAL)));
    assert_eq!(say(&mut queue, fetch(1)), None);
    assert_eq!(say(&mut queue, fetch(0)), Some(Err(Errno::BUSY)));
}

/// Until 6.4 commands had plain numbers; a driver built with BLKDEV_UBLK_LEGACY_OPCODES takes them, and only the number
/// counts.
#[rstest]
#[case::legacy(0x20)]
#[case::other_direction(0x4010_7520)]
#[case::other_size(0xc001_7520)]
fn number_of_a_queue_command_is_what_counts(#[case] op: u32) {
    declare!(
        Quirk,
        Needs {
            features: std::borrow::Cow::Borrowed(&[
                harness::Feature::KernelAtLeast(7, 0),
                harness::Feature::Config(std::borrow::Cow::Borrowed(
                    "CONFIG_BLKDEV_UBLK_LEGACY_OPCODES"
                )),
            ]),
            ..SINCE_7_0
        }
    );
    let (_device, mut queue) = device(DataMode::Copy, 1);
    let command = RawCommand::new(op, 0, 0).memory(buffer());
    assert_eq!(say(&mut queue, command), None, "it is a fetch");
    assert_eq!(say(&mut queue, fetch(0)), Some(Err(Errno::BUSY)));
}

/// A commit is for the task that has fetched the tag, and for a request it has: EINVAL before the fetch and from another
/// thread, EBUSY while the driver has the tag.
#[rstest]
fn commit_without_a_request_is_refused() {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::Copy, 1);
    let commit = || RawCommand::new(COMMIT, 0, 0).memory(buffer());
    assert_eq!(say(&mut queue, commit()), Some(Err(Errno::INVAL)));
    assert_eq!(say(&mut queue, fetch(0)), None);
    assert_eq!(say(&mut queue, commit()), Some(Err(Errno::BUSY)));
    let mut other = queue.another().expect("a ring");
    let foreign = thread::spawn(move || say(&mut other, commit())).join().expect("no panic");
    assert_eq!(foreign, Some(Err(Errno::INVAL)));
    let mut beside = queue.another().expect("a ring");
    assert_eq!(say(&mut beside, commit()), Some(Err(Errno::BUSY)), "the task counts, not its ring");
}

/// Without UBLK_F_SUPPORT_ZERO_COPY nothing can be unregistered (EINVAL).
#[rstest]
fn unregister_without_the_feature_is_einval() {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::Copy, 1);
    queue.make_table(1).expect("a table");
    assert_eq!(say(&mut queue, RawCommand::new(UNREGISTER, 0, 0)), Some(Err(Errno::INVAL)));
}

/// io_uring/rsrc.c:io_buffer_unregister_bvec: EINVAL for a slot that is empty or none; queue and tag are not looked at.
#[rstest]
#[case::empty(0)]
#[case::behind_the_table(1)]
#[case::far_behind(0xffff)]
fn unregister_of_nothing_is_einval(#[case] number: u16) {
    declare!(Contract, SINCE_7_0);
    let (_device, mut queue) = device(DataMode::ZeroCopy, 1);
    queue.make_table(1).expect("a table");
    let command = RawCommand { number, ..RawCommand::new(UNREGISTER, 9, 9) };
    assert_eq!(say(&mut queue, command), Some(Err(Errno::INVAL)));
}

/// ublk_ch_open: the char device has one opener (EBUSY), and another when that has gone.
#[rstest]
fn second_opener_is_ebusy() {
    declare!(Contract, SINCE_7_0);
    let (device, queue) = device(DataMode::Copy, 1);
    let path = format!("/dev/ublkc{}", device.id());
    let second = File::open(&path).expect_err("refused");
    assert_eq!(second.raw_os_error(), Some(16), "EBUSY");
    drop(queue);
    // A ring gives its files up when its last reference goes, which is soon.
    let opened = wait::until(DEADLINE, "the next opener", || File::open(&path).ok());
    opened.unwrap_or_else(|error| panic!("{error}"));
}

/// ublk_ch_mmap: descriptors are mapped whole, by an offset of theirs (EINVAL else), and never writable (EPERM).
#[rstest]
fn descriptors_are_mapped_whole_and_read_only() {
    declare!(Contract, SINCE_7_0);
    let (_device, queue) = device(DataMode::Copy, 4);
    let errno = |result: std::io::Result<()>| result.expect_err("refused").raw_os_error();
    queue.probe_map(0, 4096, false).expect("it is theirs");
    assert_eq!(errno(queue.probe_map(0, 4096, true)), Some(1), "EPERM");
    assert_eq!(errno(queue.probe_map(0, 8192, false)), Some(22), "EINVAL");
    // 4096 tags of 24 bytes: the second queue, which is not there.
    assert_eq!(errno(queue.probe_map(98304, 4096, false)), Some(22), "EINVAL");
    assert_eq!(errno(queue.probe_map(0x8000_0000, 4096, false)), Some(22), "EINVAL");
}

/// The child: maps the descriptors of a file of its parent's, and tells what came of it.
fn map_for_the_parent(role: &str) -> ! {
    let mut parent = Parent::connect();
    let (pid, descriptor) = role.split_once(' ').expect("two words");
    let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a process id");
    let pid = pidfd_open(pid, PidfdFlags::empty()).expect("the parent is there");
    let descriptor = descriptor.parse().expect("a number");
    let file = pidfd_getfd(pid, descriptor, PidfdGetfdFlags::empty()).expect("root may");
    let queue = RawQueue::over(file.into()).expect("a ring");
    let mapped = queue.probe_map(0, 4096, false).err().and_then(|error| error.raw_os_error());
    parent.tell(&format!("{mapped:?}"));
    parent.until_killed();
}

/// ublk_ch_mmap: descriptors are for the process that has mapped them first; another that has the same file is EINVAL.
#[rstest]
fn descriptors_are_for_one_process() {
    declare!(Contract, SINCE_7_0);
    if let Some(role) = child::role() {
        map_for_the_parent(&role);
    }
    let (_device, queue) = device(DataMode::Copy, 4);
    queue.probe_map(0, 4096, false).expect("the first");
    let role = format!("{} {}", std::process::id(), queue.device().as_raw_fd());
    let mut other = Child::start(&role);
    assert_eq!(other.hear(), "Some(22)", "EINVAL");
    other.kill();
    queue.probe_map(0, 4096, false).expect("the first again");
}

/// Two CPUs are two queues.
const TWO_QUEUES: Needs = Needs { cpus: Some(2), ..SINCE_7_0 };

/// ublk_ch_mmap: each queue has descriptors of its own, a mapping of the longest queue (4096 tags of 24 bytes) apart. That
/// of a request on the second is not found at the first.
#[rstest]
fn each_queue_has_its_descriptors() {
    declare!(Contract, TWO_QUEUES);
    let config = unscanned(64).mode(DataMode::UserCopy).queues(2, 1);
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let mut queue = RawQueue::open(id).expect("opened");
    let tokens =
        [0, 1].map(|q_id| queue.begin(RawCommand::new(FETCH, q_id, 0)).expect("submitted"));
    device.control().start(id).expect("START_DEV");
    let cpu = device.control().queue_affinity(id, 1).expect("GET_QUEUE_AFFINITY")[0];
    let path = device.block_path();
    let client = thread::spawn(move || {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(usize::try_from(cpu).expect("a small number"));
        rustix::thread::sched_setaffinity(None, &cpus).expect("the CPU is there");
        BlockDevice::open(&path, Access::ReadOnly).read(8 * 512, 512)
    });
    let request = queue.finish(tokens[1], Instant::now() + DEADLINE).expect("no error");
    assert_eq!(request.expect("delivered").res, 0);
    let [first, second] = [0, 1].map(|q_id| queue.descriptor(q_id, 1, 0).expect("mapped"));
    assert_eq!((second.start_sector, second.nr_sectors), (8, 1));
    assert_eq!((first.start_sector, first.nr_sectors), (0, 0), "nothing has come to it");
    let commit = RawCommand { result: 512, ..RawCommand::new(COMMIT, 1, 0) };
    assert_eq!(say(&mut queue, commit), None);
    assert_eq!(client.join().expect("no panic").expect("read").len(), 512);
    drop(queue);
    device.delete();
}

/// ublk_ch_mmap: a mapping that may be read cannot be made one that may be written (`mw`, may write, of VmFlags in
/// Documentation/filesystems/proc.rst).
#[rstest]
fn mapped_descriptors_can_never_be_written() {
    declare!(Contract, SINCE_7_2);
    let server = Server::start(&unscanned(64), Arc::new(NullTarget)).expect("started");
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("there are mappings");
    let char_path = server.char_path().display().to_string();
    let mut lines = maps.lines().skip_while(|line| !line.ends_with(&char_path));
    let flags = lines.find(|line| line.starts_with("VmFlags:")).expect("descriptors are mapped");
    let flags: Vec<&str> = flags.split_whitespace().collect();
    assert!(flags.contains(&"mr") && !flags.contains(&"mw"), "{flags:?}");
    server.delete().expect("deleted");
}

/// A device with one tag, whose one request has been delivered to the test.
pub(crate) struct Delivered {
    pub(crate) queue: RawQueue,
    pub(crate) device: UblkDevice,
    pub(crate) client: Receiver<std::io::Result<Vec<u8>>>,
    pub(crate) memory: Pointer,
}

/// Starts the device and has an application ask for one sector at 8; 0xa5 if it writes.
pub(crate) fn deliver(mode: DataMode, write: bool) -> Delivered {
    deliver_to(mode, write, 0)
}

/// The same, with these flags of the entry that fetches.
fn deliver_to(mode: DataMode, write: bool, sqe_flags: u8) -> Delivered {
    let (mut device, mut queue) = device(mode, 1);
    queue.make_table(2).expect("a table");
    let memory = if mode == DataMode::Copy { buffer() } else { Pointer::Null };
    let fetch = RawCommand { sqe_flags, ..RawCommand::new(FETCH, 0, 0).memory(memory) };
    let fetch = queue.begin(fetch).expect("submitted");
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let ask = move |disk: &BlockDevice| match write {
        true => disk.write(8 * 512, &[0xa5; 512]).map(|()| Vec::new()),
        false => disk.read(8 * 512, 512),
    };
    let client = BlockDevice::beside(move || BlockDevice::open(&path, Access::ReadWrite), ask);
    let delivered = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    let delivered = delivered.expect("the request is delivered");
    assert_eq!(delivered.res, 0);
    Delivered { queue, device, client, memory: delivered.memory }
}

impl Delivered {
    /// Commits the request, and returns what the application got.
    pub(crate) fn end(mut self, result: i32) -> std::io::Result<Vec<u8>> {
        let memory = std::mem::take(&mut self.memory);
        let commit = RawCommand { result, ..RawCommand::new(COMMIT, 0, 0).memory(memory) };
        assert_eq!(say(&mut self.queue, commit), None, "the driver keeps the commit, as a fetch");
        let got = self.client.recv_timeout(DEADLINE).expect("the application has its answer");
        drop(self.queue);
        self.device.delete();
        got
    }
}

/// A command that is left to a worker of the ring (IOSQE_ASYNC) is the task's that has sent it, and so is its tag
/// (ublk_drv.c:ublk_ch_uring_cmd).
#[rstest]
fn command_of_a_worker_is_its_task_s(#[values(DataMode::Copy, DataMode::ZeroCopy)] mode: DataMode) {
    declare!(Contract, SINCE_7_0);
    let mut delivered = deliver_to(mode, true, SQE_ASYNC);
    let by_worker = |op| RawCommand { sqe_flags: SQE_ASYNC, ..RawCommand::new(op, 0, 0) };
    let (queue, memory) = (&mut delivered.queue, std::mem::take(&mut delivered.memory));
    let refused = say(queue, by_worker(NEED_GET_DATA).memory(buffer()));
    assert_eq!(refused, Some(Err(Errno::INVAL)), "nobody has asked for that feature");
    if mode == DataMode::ZeroCopy {
        assert_eq!(say(queue, by_worker(REGISTER)), Some(Ok(0)));
        assert_eq!(say(queue, by_worker(UNREGISTER)), Some(Ok(0)));
    }
    let commit = RawCommand { result: 512, ..by_worker(COMMIT).memory(memory) };
    assert_eq!(say(queue, commit), None, "the driver keeps the commit, as a fetch");
    delivered.client.recv_timeout(DEADLINE).expect("answered").expect("written");
    drop(delivered.queue);
    delivered.device.delete();
}

/// A command that is refused leaves the request with the server, which can go on with it.
#[rstest]
fn request_survives_commands_that_are_refused() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = deliver(DataMode::Copy, true);
    let queue = &mut delivered.queue;
    let descriptor = queue.descriptor(0, 1, 0).expect("mapped");
    assert_eq!((descriptor.op_flags & 0xff, descriptor.nr_sectors), (1, 1));
    assert_eq!(descriptor.start_sector, 8);
    // NEED_GET_DATA without the feature, a commit without a buffer, a registration without the feature, a fetch.
    for (op, errno) in [
        (NEED_GET_DATA, Errno::INVAL),
        (COMMIT, Errno::INVAL),
        (REGISTER, Errno::INVAL),
        (0xc010_757f, Errno::INVAL),
    ] {
        assert_eq!(say(queue, RawCommand::new(op, 0, 0)), Some(Err(errno)), "{op:#x}");
    }
    assert_eq!(say(queue, fetch(0)), Some(Err(Errno::BUSY)));
    let foreign = RawCommand::new(COMMIT, 0, 0).memory(buffer());
    let mut other = queue.another().expect("a ring");
    let foreign = thread::spawn(move || say(&mut other, foreign)).join().expect("no panic");
    assert_eq!(foreign, Some(Err(Errno::INVAL)));
    let written = &delivered.memory.buffer().expect("a buffer")[..513];
    assert_eq!(written, [&[0xa5; 512][..], &[0]].concat());
    delivered.end(512).expect("written");
}

/// ublk_register_io_buf and io_uring/rsrc.c:io_buffer_register_bvec: EINVAL behind the table, EBUSY for a slot that is
/// taken, until it is unregistered. The request is complete when its buffer is gone, too.
#[rstest]
fn slot_holds_one_buffer_and_completion_waits_for_it() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = deliver(DataMode::ZeroCopy, true);
    let at = |op, number| RawCommand { number, ..RawCommand::new(op, 0, 0) };
    let queue = &mut delivered.queue;
    assert_eq!(say(queue, at(REGISTER, 2)), Some(Err(Errno::INVAL)));
    assert_eq!(say(queue, at(REGISTER, 1)), Some(Ok(0)));
    assert_eq!(say(queue, at(REGISTER, 1)), Some(Err(Errno::BUSY)));
    assert_eq!(say(queue, at(REGISTER, 0)), Some(Ok(0)), "twice, in two slots");
    assert_eq!(say(queue, at(UNREGISTER, 2)), Some(Err(Errno::INVAL)));
    assert_eq!(say(queue, at(UNREGISTER, 1)), Some(Ok(0)));
    let commit = RawCommand { result: 512, ..RawCommand::new(COMMIT, 0, 0) };
    assert_eq!(say(queue, commit), None);
    assert!(delivered.client.recv_timeout(MOMENT).is_err(), "a buffer is registered still");
    assert_eq!(say(queue, at(UNREGISTER, 0)), Some(Ok(0)));
    delivered.client.recv_timeout(DEADLINE).expect("answered").expect("written");
    drop(delivered.queue);
    delivered.device.delete();
}

/// io_uring/rsrc.c:io_buffer_unregister_bvec: memory that the server has put into the table itself is not the driver's to
/// give up, nor is its slot free for a request (EBUSY each).
#[rstest]
fn slot_with_memory_of_the_server_stays_the_server_s() {
    declare!(Contract, SINCE_7_0);
    let mut delivered = deliver(DataMode::ZeroCopy, true);
    let at = |op, number| RawCommand { number, ..RawCommand::new(op, 0, 0) };
    let queue = &mut delivered.queue;
    queue.fill_slot(1, Region::zeroed(4096).expect("a page")).expect("registered");
    assert_eq!(say(queue, at(UNREGISTER, 1)), Some(Err(Errno::BUSY)));
    assert_eq!(say(queue, at(REGISTER, 1)), Some(Err(Errno::BUSY)));
    delivered.end(512).expect("written");
}

/// ublk_drv.c:ublk_user_copy: the data of a WRITE is read, that of a READ written, within the request; what is not the
/// server's, or elsewhere, is EINVAL, and the other direction EACCES.
#[rstest]
fn user_copy_keeps_to_the_request() {
    declare!(Contract, SINCE_7_0);
    const AT: u64 = 0x8000_0000;
    let errno = |result: std::io::Result<usize>| result.expect_err("refused").raw_os_error();
    let delivered = deliver(DataMode::UserCopy, true);
    let device = delivered.queue.device();
    let mut data = [0; 1024];
    assert_eq!(device.read_at(&mut data, AT).expect("its data"), 512);
    assert_eq!(data[..513], [&[0xa5; 512][..], &[0]].concat());
    assert_eq!(device.read_at(&mut data[..100], AT + 500).expect("its last bytes"), 12);
    assert_eq!(device.read_at(&mut data, AT + 512).expect("its end"), 0);
    assert_eq!(errno(device.read_at(&mut data, AT + 513)), Some(22), "behind it");
    assert_eq!(errno(device.read_at(&mut data, AT + (1 << 25))), Some(22), "another tag");
    assert_eq!(errno(device.read_at(&mut data, AT + (1 << 41))), Some(22), "another queue");
    assert_eq!(errno(device.read_at(&mut data, AT - 512)), Some(22), "below");
    assert_eq!(errno(device.write_at(&data, AT)), Some(13), "the other direction");
    delivered.end(512).expect("written");

    let delivered = deliver(DataMode::UserCopy, false);
    let device = delivered.queue.device();
    assert_eq!(errno(device.read_at(&mut data, AT)), Some(13), "the other direction");
    assert_eq!(device.write_at(&[0x11; 600], AT).expect("its data"), 512);
    assert_eq!(device.write_at(&[0x22; 12], AT + 500).expect("its last bytes"), 12);
    let read = delivered.end(512).expect("read");
    assert_eq!(read, [&[0x11; 500][..], &[0x22; 12]].concat());
}

/// ublk_ctrl_start_dev: it waits for the last tag of the last queue to be fetched, however long that takes.
#[rstest]
fn start_dev_waits_for_the_last_fetch() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = device(DataMode::Copy, 2);
    let id = device.id();
    let start = CtrlCmd { data: std::process::id().into(), ..CtrlCmd::for_device(id) };
    let token = device.control().begin(ctrl::START_DEV, start, Pointer::Null).expect("submitted");
    assert_eq!(say(&mut queue, fetch(1)), None);
    assert!(device.control().finish(token, Instant::now() + MOMENT).is_err(), "a tag is left");
    assert!(!device.block_path().exists());
    assert_eq!(say(&mut queue, fetch(0)), None);
    let reply = device.control().finish(token, Instant::now() + DEADLINE).expect("answered");
    assert_eq!(reply.res, 0);
    assert_eq!(device.state(), 1);
    device.control().stop(id).expect("STOP_DEV");
    drop(queue);
}

/// Documentation/block/ublk.rst: STOP_DEV gives every fetch back with ENODEV. START_DEV for a process that does not
/// serve the device is EINVAL before.
#[rstest]
fn stop_dev_gives_fetches_back_with_enodev() {
    declare!(Contract, SINCE_7_0);
    let (mut device, mut queue) = device(DataMode::Copy, 2);
    let tokens = [0, 1].map(|tag| queue.begin(fetch(tag)).expect("submitted"));
    let id = device.id();
    let other = CtrlCmd { data: 1, ..CtrlCmd::for_device(id) };
    assert_eq!(
        plain(device.control(), ctrl::START_DEV, other),
        Err(Errno::INVAL),
        "init does not serve it"
    );
    device.control().start(id).expect("START_DEV");
    device.control().stop(id).expect("STOP_DEV");
    assert_eq!(device.control().info(id).expect("GET_DEV_INFO").ublksrv_pid, -1, "no server");
    for token in tokens {
        let reply = queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        assert_eq!(reply.expect("given back").res, -19);
    }
}
