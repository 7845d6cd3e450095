//! What the block layer wants of a request beside its data, and how the server is told
//! (include/uapi/linux/ublk_cmd.h, UBLK_IO_F_*; drivers/block/ublk_drv.c:ublk_req_build_flags).

use std::{
    borrow::Cow,
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::Arc,
};

use bsg::Access;
use harness::{BlockDevice, Feature, Needs, declare};
use rstest::rstest;
use rustix::fs::OFlags;
use ublk::{Buffer, Op, Server};

use super::{
    modes::SINCE_7_0,
    recorder::{Recorder, pattern, unscanned},
};
use crate::programs::ext4;

const SECTORS: u64 = 256;

const META: u32 = 1 << 11;
const FUA: u32 = 1 << 13;
const SWAP: u32 = 1 << 16;

const FILE_SYSTEM: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_EXT4_FS")),
        Feature::KernelAtLeast(7, 0),
    ]),
    ..ext4::EXT4
};

const SWAPPING: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_SWAP")),
        Feature::KernelAtLeast(7, 0),
    ]),
    ..Needs::DEFAULT
};

/// A read ahead may fail early (bits 8 to 10), a write with O_DSYNC is durable before it is complete (FUA, 13), and zeroes that are written
/// out keep their blocks (NOUNMAP, 15). What nobody asks for is not set.
#[rstest]
fn request_says_how_it_is_to_be_done() {
    declare!(Contract, SINCE_7_0);
    let mut config = unscanned(SECTORS);
    // UBLK_ATTR_VOLATILE_CACHE and UBLK_ATTR_FUA.
    config.params.basic.attrs |= 4 | 8;
    let target = Arc::new(Recorder::new(SECTORS));
    let server = Server::start(&config, target.clone()).expect("started");
    let path = server.block_path();
    let disk = BlockDevice::open(&path, Access::ReadWrite);
    let seen = || -> Vec<_> { target.take().iter().map(|seen| (seen.0, seen.1 & !0xff)).collect() };
    disk.write(0, &pattern(0, 8, 1)).expect("written");
    disk.read(0, 4096).expect("read");
    assert!(seen().iter().all(|(_, flags)| flags & 0x8700 == 0), "a plain write, and a read");
    disk.zero_out(0, 4096).expect("zeroed");
    assert_eq!(seen(), [(Op::WriteZeroes, 1 << 15)]);
    drop(disk);
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    let durable = File::options().write(true).custom_flags(flags).open(&path).expect("opened");
    durable.write_all_at(&Buffer::zeroed(4096).expect("memory"), 0).expect("written");
    let written = seen();
    assert!(written[0].0 == Op::Write && written[0].1 & 1 << 13 != 0, "no FUA: {written:x?}");
    drop(durable);
    let cached = File::open(&path).expect("opened");
    cached.read_exact_at(&mut [0; 4096], 0).expect("read");
    let read = seen();
    assert!(!read.is_empty() && read.iter().all(|(_, flags)| flags & 0x700 == 0x700), "{read:x?}");
    drop(cached);
    server.delete().expect("deleted");
}

/// A file system says which of its requests are about its files and not of them, and its journal's last block of a
/// transaction is durable as well: that one has both flags.
#[rstest]
fn file_system_marks_what_is_about_its_files() {
    declare!(Contract, FILE_SYSTEM);
    ext4::load();
    let mut config = unscanned(32768);
    // UBLK_ATTR_VOLATILE_CACHE and UBLK_ATTR_FUA.
    config.params.basic.attrs |= 4 | 8;
    let target = Arc::new(Recorder::new(32768));
    let server = Server::start(&config, target.clone()).expect("started");
    let node = server.block_path().display().to_string();
    ext4::make(&node);
    target.take();
    ext4::keeps_its_files(&node);
    let seen = target.take();
    let has =
        |op: Op, flags: u32| seen.iter().any(|seen| seen.0 == op && seen.1 & (META | FUA) == flags);
    assert!(has(Op::Read, META), "the superblock: {seen:x?}");
    assert!(has(Op::Write, META | FUA), "the end of a transaction: {seen:x?}");
    assert!(has(Op::Write, 0) && has(Op::Read, 0), "contents of files: {seen:x?}");
    server.delete().expect("deleted");
}

/// Pages that leave memory say so, and nothing else does.
#[rstest]
fn page_that_leaves_memory_says_so() {
    declare!(Contract, SWAPPING);
    let target = Arc::new(Recorder::new(SECTORS));
    let server = Server::start(&unscanned(SECTORS), target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    disk.write(0, &pattern(0, 8, 1)).expect("written");
    assert_eq!(target.take()[0].1 & SWAP, 0, "a write");
    assert!(disk.swap_through(16).expect("swapped"), "what comes back is something else");
    let seen = target.take();
    let is_page = |seen: &&(Op, u32, u64, u32)| seen.0 == Op::Write && seen.2 >= 8;
    let sectors: u32 = seen.iter().filter(is_page).map(|seen| seen.3).sum();
    assert_eq!(sectors, 16 * 8, "{seen:x?}");
    assert!(seen.iter().filter(is_page).all(|seen| seen.1 & SWAP != 0), "{seen:x?}");
    let others = seen.iter().filter(|seen| !is_page(seen));
    assert!(
        others.clone().count() > 0 && others.into_iter().all(|seen| seen.1 & SWAP == 0),
        "{seen:x?}"
    );
    drop(disk);
    server.delete().expect("deleted");
}
