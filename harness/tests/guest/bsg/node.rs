//! A bsg node beside its commands: the calls it knows, and its number. Opcodes and values are those of
//! include/scsi/sg.h, include/scsi/scsi_ioctl.h and include/uapi/linux/bsg.h; what becomes of them is block/bsg.c.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
    time::Duration,
};

use bsg::{Access, BsgIoctl, Buffer, Errno, NodeIoctl, Pointer, Request};
use harness::{
    Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost, declare, privilege, slab, sysfs, wait,
};
use rstest::rstest;

use super::ways::{Unit, sg_io_v4};

const SINCE_7_3: Needs =
    Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 3)]), ..Needs::DEFAULT };
/// What is behind the int, and stays there.
const CANARY: u8 = 0xa5;

/// Memory with this int and canaries behind it.
fn int(value: i32) -> Pointer {
    let mut buffer = Buffer::zeroed(16).expect("a page of memory");
    buffer.fill(CANARY);
    buffer[..4].copy_from_slice(&value.to_ne_bytes());
    buffer.into()
}

/// The int in it.
#[track_caller]
fn value(pointer: &Pointer) -> i32 {
    let buffer = pointer.buffer().expect("memory");
    assert_eq!(buffer[4..], [CANARY; 12], "what is behind the int");
    i32::from_ne_bytes(buffer[..4].try_into().expect("four bytes"))
}

/// What a call that fills in an int says.
#[track_caller]
fn get(bsg: &BsgIoctl, call: NodeIoctl) -> i32 {
    let mut pointer = int(-77);
    assert_eq!(bsg.call(call, &mut pointer), Ok(0), "{call:?}");
    value(&pointer)
}

fn set(bsg: &BsgIoctl, call: NodeIoctl, value: i32) -> Result<i32, Errno> {
    bsg.call(call, &mut int(value))
}

/// What is set belongs to the node, and would stay for the next test that is given the unit.
struct Restored<'a>(&'a BsgIoctl);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let usual = [
            (NodeIoctl::SetCommandQ, 64),
            (NodeIoctl::SetTimeout, 0),
            (NodeIoctl::SetReservedSize, i32::MAX),
        ];
        for (call, value) in usual {
            assert_eq!(set(self.0, call, value), Ok(0), "{call:?}");
        }
    }
}

/// block/bsg.c:bsg_ioctl: version 3.5.27 of sg's interface, an emulated host, and no address on a bus.
#[rstest]
#[case::version(NodeIoctl::GetVersionNum, 30527)]
#[case::emulated(NodeIoctl::EmulatedHost, 1)]
#[case::idlun(NodeIoctl::GetIdlun, 0)]
#[case::bus(NodeIoctl::GetBusNumber, 0)]
#[case::queue(NodeIoctl::GetCommandQ, 64)]
fn node_says_of_itself(
    #[case] call: NodeIoctl,
    #[case] expected: i32,
    #[values(Access::ReadOnly, Access::ReadWrite)] access: Access,
) {
    declare!(Quirk);
    let bsg = sg_io_v4(&Unit::Ours.device(), access);
    assert_eq!(get(&bsg, call), expected);
}

/// Each of them with an address where there is nothing: EFAULT, whether it is read or written.
#[rstest]
fn bad_address_is_efault(
    #[values(
        NodeIoctl::SetTimeout,
        NodeIoctl::EmulatedHost,
        NodeIoctl::GetCommandQ,
        NodeIoctl::SetCommandQ,
        NodeIoctl::GetReservedSize,
        NodeIoctl::SetReservedSize,
        NodeIoctl::GetVersionNum,
        NodeIoctl::GetIdlun,
        NodeIoctl::GetBusNumber
    )]
    call: NodeIoctl,
) {
    declare!(Contract);
    let bsg = sg_io_v4(&Unit::Ours.device(), Access::ReadWrite);
    for mut pointer in [Pointer::Null, Pointer::Unmapped, Pointer::Kernel] {
        assert_eq!(bsg.call(call, &mut pointer), Err(Errno::FAULT), "{pointer:?}");
    }
}

/// ENOTTY for what a node does not know, sg's own calls among it; EINVAL for the one that is gone. None looks at
/// its argument.
#[rstest]
#[case::scsi_id(NodeIoctl::GetScsiId, Errno::NOTTY)]
#[case::reset(NodeIoctl::ScsiReset, Errno::NOTTY)]
#[case::send_command(NodeIoctl::SendCommand, Errno::INVAL)]
fn call_that_is_not_served_is_refused(#[case] call: NodeIoctl, #[case] errno: Errno) {
    declare!(Contract);
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let seen = lun.journal();
    assert_eq!(bsg.call(call, &mut int(0)), Err(errno));
    assert_eq!(bsg.call(call, &mut Pointer::Null), Err(errno));
    assert_eq!(lun.journal(), seen, "the device saw something");
}

/// block/bsg.c:bsg_set_command_q: any number from 1 on, which is of the node, not of the descriptor.
#[rstest]
fn command_queue_is_a_number_from_1_on() {
    declare!(Quirk);
    let device = Unit::Ours.device();
    let (one, other) = (sg_io_v4(&device, Access::ReadWrite), sg_io_v4(&device, Access::ReadOnly));
    let _restored = Restored(&one);
    for refused in [0, -1, i32::MIN] {
        assert_eq!(set(&one, NodeIoctl::SetCommandQ, refused), Err(Errno::INVAL), "{refused}");
        assert_eq!(get(&one, NodeIoctl::GetCommandQ), 64);
    }
    for taken in [1, 2, 65, i32::MAX] {
        assert_eq!(set(&one, NodeIoctl::SetCommandQ, taken), Ok(0), "{taken}");
        assert_eq!(get(&other, NodeIoctl::GetCommandQ), taken);
    }
}

/// block/bsg.c:bsg_ioctl: in hundredths of a second (`USER_HZ`), of the node, and what the call returns.
#[rstest]
fn timeout_comes_back_as_it_was_set() {
    declare!(Contract);
    let device = Unit::Ours.device();
    let (one, other) = (sg_io_v4(&device, Access::ReadWrite), sg_io_v4(&device, Access::ReadOnly));
    let _restored = Restored(&one);
    assert_eq!(one.call(NodeIoctl::GetTimeout, &mut Pointer::Null), Ok(0), "none is set");
    for hundredths in [100, 4000, 6000] {
        assert_eq!(set(&one, NodeIoctl::SetTimeout, hundredths), Ok(0));
        assert_eq!(other.call(NodeIoctl::GetTimeout, &mut Pointer::Null), Ok(hundredths));
    }
}

/// block/bsg.c:bsg_ioctl, since 7.3: a negative time is EIO and changes nothing, and one longer than 2^32 - 1 jiffies is cut
/// to that, whatever CONFIG_HZ is. Before, it was taken modulo 2^32.
#[rstest]
fn timeout_out_of_range_is_refused_or_cut() {
    declare!(Quirk, SINCE_7_3);
    let lun = Lun::fresh();
    let node = sg_io_v4(lun.device(), Access::ReadWrite);
    let _restored = Restored(&node);
    let said = || node.call(NodeIoctl::GetTimeout, &mut Pointer::Null);
    assert_eq!(set(&node, NodeIoctl::SetTimeout, 4000), Ok(0));
    for negative in [-1, i32::MIN] {
        assert_eq!(set(&node, NodeIoctl::SetTimeout, negative), Err(Errno::IO), "{negative}");
        assert_eq!(said(), Ok(4000));
    }
    assert_eq!(set(&node, NodeIoctl::SetTimeout, i32::MAX), Ok(0));
    let cut = said().expect("answered");
    let at_hz = [(100, i32::MAX), (250, 1_717_986_918), (300, 1_431_655_765), (1000, 429_496_729)];
    assert!(at_hz.iter().any(|(_, longest)| *longest == cut), "{cut} is none of {at_hz:?}");
}

/// block/bsg.c:bsg_fops: a program of 32 bits has the same calls with the same structures, whose addresses are of 64 bits
/// in both (include/uapi/linux/bsg.h), and the same filter of opcodes.
#[cfg(target_arch = "x86_64")]
#[rstest]
fn program_of_32_bits_is_served_as_one_of_64_is() {
    declare!(Contract, IA32);
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadOnly);
    let _restored = Restored(&bsg);
    let call = |call, value: i32| {
        let mut int = value;
        let result = bsg.call_of_32_bits(call, &mut int).expect("memory below 4 GiB");
        (result, int)
    };
    assert_eq!(call(NodeIoctl::GetVersionNum, -77), (Ok(0), 30527));
    assert_eq!(call(NodeIoctl::SetTimeout, 4000), (Ok(0), 4000));
    assert_eq!(call(NodeIoctl::GetTimeout, -77), (Ok(4000), -77));
    assert_eq!(call(NodeIoctl::GetScsiId, -77), (Err(Errno::NOTTY), -77));

    let inquiry = || bsg::V4Frame::from(Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(96));
    let (mut wide, mut narrow) = (inquiry(), inquiry());
    bsg.sg_io(&mut wide).expect("executed");
    bsg.sg_io_of_32_bits(&mut narrow).expect("memory below 4 GiB").expect("executed");
    let outcomes = [wide, narrow].map(|frame| {
        let done = frame.completion().expect("executed");
        (done.device_status, done.host_status, done.residual, done.info, done.data)
    });
    assert_eq!(outcomes[1], outcomes[0]);
    assert_eq!((outcomes[1].2, &outcomes[1].4[8..16]), (60, b"SENSECHK".as_slice()));

    let refused = |guard: i32, cdb: &[u8]| {
        let mut frame = bsg::V4Frame::from(Request::new(cdb));
        frame.header.guard = guard;
        let before = frame.header;
        let result = bsg.sg_io_of_32_bits(&mut frame).expect("memory below 4 GiB");
        assert_eq!(frame.header.info, before.info);
        result
    };
    assert_eq!(refused(0x52, &[0; 6]), Err(Errno::INVAL));
    privilege::drop_sys_rawio();
    // SYNCHRONIZE CACHE(16), which is on no list.
    let synchronize_cache = [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(0x51, &synchronize_cache), Err(Errno::PERM));
    assert_eq!(refused(0x51, &[0; 6]), Ok(()));
}

/// The longest transfer of a disk, as its queue says it (block/blk-sysfs.c: queue/max_sectors_kb).
fn longest_kib(device: &ScsiDevice) -> std::path::PathBuf {
    let disk = sysfs::entry_with_prefix(&device.dir().join("block"), "sd");
    Path::new("/sys/block").join(disk).join("queue/max_sectors_kb")
}

/// block/bsg.c:bsg_ioctl: the reserved size is what was asked for, at most the longest transfer of the time it was
/// set and of the time it is asked for.
#[rstest]
fn reserved_size_is_no_more_than_a_transfer() {
    declare!(Quirk);
    let lun = Lun::disk_unit();
    let limit = longest_kib(lun.device());
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    let _restored = Restored(&bsg);
    let said = || get(&bsg, NodeIoctl::GetReservedSize);
    let usual: i32 = sysfs::attribute(&limit).expect("a limit").parse().expect("a number");
    assert_eq!(said(), usual * 1024);
    for refused in [-1, i32::MIN] {
        assert_eq!(set(&bsg, NodeIoctl::SetReservedSize, refused), Err(Errno::INVAL), "{refused}");
    }
    assert_eq!(said(), usual * 1024, "as it was");
    for taken in [0, 1, 4096] {
        assert_eq!(set(&bsg, NodeIoctl::SetReservedSize, taken), Ok(0));
        assert_eq!(said(), taken);
    }
    let limit_to = |kib: i32| fs::write(&limit, kib.to_string()).expect("a limit that is possible");
    limit_to(64);
    assert_eq!(set(&bsg, NodeIoctl::SetReservedSize, i32::MAX), Ok(0));
    assert_eq!(said(), 64 << 10);
    limit_to(usual);
    assert_eq!(said(), 64 << 10, "the limit was another when it was set");
    assert_eq!(set(&bsg, NodeIoctl::SetReservedSize, i32::MAX), Ok(0));
    limit_to(64);
    assert_eq!(said(), 64 << 10, "the limit is another now");
    limit_to(usual);
}

/// block/bsg.c:bsg_sg_io looks at no iovec count: what has one is executed as one buffer.
#[rstest]
#[case::din(1, 0)]
#[case::dout(0, 1)]
fn iovec_count_of_sg_io_is_not_looked_at(#[case] din: u32, #[case] dout: u32) {
    declare!(Accident);
    let bsg = sg_io_v4(&Unit::Ours.device(), Access::ReadWrite);
    let mut frame = bsg::V4Frame::from(Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36));
    (frame.header.din_iovec_count, frame.header.dout_iovec_count) = (din, dout);
    bsg.sg_io(&mut frame).expect("executed");
    assert_eq!((frame.header.info, frame.header.din_resid), (0, 0));
}

/// The number of a node, as sysfs has it.
fn minor(device: &ScsiDevice) -> u32 {
    let number = sysfs::attribute(&Path::new("/sys/class/bsg").join(&device.hctl).join("dev"));
    let number = number.expect("a node has a number");
    number.split_once(':').expect("major:minor").1.parse().expect("a number")
}

/// A kernel that has calls for programs of 32 bits.
#[cfg(target_arch = "x86_64")]
const IA32: Needs = Needs {
    features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_IA32_EMULATION"))]),
    ..Needs::DEFAULT
};

/// A host whose units may come and go.
const OWN_HOST: Needs = Needs { host: ScsiHost::Own(HostShape::DEFAULT), ..Needs::DEFAULT };

/// Has the unit go, and come back.
#[track_caller]
pub(crate) fn again(device: &ScsiDevice) {
    fs::write(device.dir().join("delete"), "1").expect("it can be deleted");
    sysfs::vanish(&device.bsg());
    let (host, rest) = device.hctl.split_once(':').expect("host:channel:target:lun");
    let scan = format!("/sys/class/scsi_host/host{host}/scan");
    fs::write(scan, rest.replace(':', " ")).expect("it can be scanned");
    sysfs::appear(&device.bsg());
}

/// block/bsg.c:bsg_device_release gives the minor number of a node back: units that go and come do not use up numbers.
/// Which is given next is not said; other hosts of the machine take some too.
#[rstest]
fn minor_of_a_node_that_is_gone_is_taken_again() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let device = lun.device();
    let mut seen = BTreeSet::from([minor(device)]);
    const TURNS: usize = 8;
    for _ in 0..TURNS {
        again(device);
        seen.insert(minor(device));
    }
    assert!(seen.len() <= TURNS / 2, "a new number each time: {seen:?}");
}

/// block/bsg.c:bsg_open and bsg_release: an open node keeps the queue of its unit, a closed one does not. When the unit
/// is gone the queue is freed (block/blk-core.c:blk_free_queue): as many are in use as before.
#[rstest]
fn closed_node_keeps_no_queue() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let device = lun.device();
    let before = slab::objects("request_queue");
    const TURNS: u64 = 8;
    for _ in 0..TURNS {
        drop(sg_io_v4(device, Access::ReadWrite));
        again(device);
    }
    let freed = wait::until(Duration::from_secs(10), "the queues to be freed", || {
        (slab::objects("request_queue") < before + TURNS / 2).then_some(())
    });
    freed.unwrap_or_else(|error| {
        panic!("{error}: {before} before, {} now", slab::objects("request_queue"))
    });
}

/// block/bsg.c:bsg_unregister_queue: the node of a disk goes with it, and comes back; the disk's own link to it, which is
/// made only where the disk is there first, is looked for in vain.
#[rstest]
fn node_of_a_disk_goes_and_comes_with_it() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::disk_unit();
    let device = lun.device();
    for _ in 0..2 {
        again(device);
        sysfs::openable(&device.disk());
        let bsg = sg_io_v4(device, Access::ReadWrite);
        let mut frame = bsg::V4Frame::from(Request::new(&[0; 6]));
        bsg.sg_io(&mut frame).expect("executed");
        assert_eq!(frame.header.info, 0);
    }
}

/// block/bsg.c:bsg_open: a node of a unit that is gone, which somebody still has open, cannot be opened once more: ENXIO.
#[rstest]
fn node_of_a_unit_that_is_gone_is_enxio() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let device = lun.device();
    let open = File::open(device.bsg()).expect("it is there");
    let same = format!("/proc/self/fd/{}", open.as_raw_fd());
    drop(File::open(&same).expect("it is there"));
    again(device);
    let refused = File::open(&same).expect_err("its unit is gone");
    assert_eq!(refused.raw_os_error(), Some(Errno::NXIO.raw_os_error()));
    File::open(device.bsg()).expect("the node of the new one");
}

/// block/bsg.c:bsg_fops and bsg_devnode: root's alone (drivers/base/devtmpfs.c: 0600), with a position that means nothing
/// (default_llseek), and nothing to read or write (fs/read_write.c:vfs_read: EINVAL).
#[rstest]
fn node_is_roots_and_no_stream() {
    declare!(Quirk);
    let device = Unit::Ours.device();
    let mut node = File::options().read(true).write(true).open(device.bsg()).expect("a node");
    let metadata = node.metadata().expect("of an open file");
    assert_eq!((metadata.mode(), metadata.uid(), metadata.gid()), (0o020_600, 0, 0));
    assert_eq!(node.seek(SeekFrom::Start(512)).expect("a position"), 512);
    assert_eq!(node.seek(SeekFrom::Current(-12)).expect("a position"), 500);
    let invalid = Some(Errno::INVAL.raw_os_error());
    assert_eq!(node.read(&mut [0; 4]).expect_err("not read").raw_os_error(), invalid);
    assert_eq!(node.write(&[0; 4]).expect_err("not written").raw_os_error(), invalid);
}

/// block/bsg.c:bsg_register_queue and bsg_init: a device of the class `bsg` below the unit, which has its name, with a
/// number of the range that /proc/devices calls `bsg`.
#[rstest]
fn node_stands_below_its_unit() {
    declare!(Contract);
    let device = Unit::Ours.device();
    let class = Path::new("/sys/class/bsg").join(&device.hctl);
    let place = fs::canonicalize(&class).expect("a link");
    let unit = fs::canonicalize(device.dir()).expect("a link");
    assert_eq!(place, unit.join("bsg").join(&device.hctl));
    let number = sysfs::attribute(&class.join("dev")).expect("a number");
    let metadata = fs::metadata(device.bsg()).expect("a node");
    let major = rustix::fs::major(metadata.rdev());
    assert_eq!(number, format!("{major}:{}", rustix::fs::minor(metadata.rdev())));
    let devices = fs::read_to_string("/proc/devices").expect("proc is mounted");
    let is_ours = |line: &&str| line.trim() == format!("{major} bsg");
    assert_eq!(devices.lines().filter(is_ours).count(), 1, "{devices}");
}
