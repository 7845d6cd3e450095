//! Memory that an application shares with the server, registered for zero copy
//! (drivers/block/ublk_drv.c:ublk_ctrl_reg_buf and ublk_ctrl_unreg_buf).

use harness::{Needs, UblkDevice, declare};
use rstest::rstest;
use ublk::{
    Config, Errno, Region,
    uapi::{CtrlCmd, DevInfo, ShmemBufReg, ctrl},
};
use zerocopy::IntoBytes;

use super::raw::{exchange, plain};

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
    control.unregister_shared(id, 0).expect("unregistered");
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
