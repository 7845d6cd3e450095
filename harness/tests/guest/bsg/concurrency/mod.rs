//! Many commands at once, of one process or of several, on a host with few tags: who waits for whom, what is left when
//! one of them is in trouble, and that nothing is lost.

mod flavours;
mod leaks;
mod processes;
mod races;
mod removal;

use std::{borrow::Cow, fs, time::Duration};

use bsg::{Access, BsgUring, Request, Shape, UringFrame};
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare, wait};

use super::{
    block,
    cdb::{self, Size},
    links::waiting_workers,
    ways::{soon, uring_cmd},
};

/// Tags of the host: the smallest ring QEMU takes. All units of a host share them.
const TAGS: usize = 4;

const FEW_TAGS: Needs = Needs {
    host: ScsiHost::Own(HostShape { tags: Some(4), ..HostShape::DEFAULT }),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

const LIMIT: Duration = Duration::from_secs(30);

/// What makes a ring take commands and give completions in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Plain,
    SqPoll,
    DeferTaskrun,
    IoPoll,
    Mixed,
}

impl Flavour {
    fn shape(self) -> Shape {
        let big = Shape::big(64);
        match self {
            Flavour::Plain => big,
            Flavour::SqPoll => Shape { sqpoll_idle_ms: Some(1000), ..big },
            Flavour::DeferTaskrun => Shape { single_issuer: true, defer_taskrun: true, ..big },
            Flavour::IoPoll => Shape { iopoll: true, ..big },
            Flavour::Mixed => Shape::mixed(64),
        }
    }

    #[track_caller]
    fn open(self, lun: &Lun) -> BsgUring {
        let node = lun.device().bsg();
        let ring = BsgUring::with_shape(node, Access::ReadWrite, &self.shape());
        ring.unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

fn test_unit_ready() -> UringFrame {
    Request::new(&[0; 6]).into()
}

/// A unit of its own, and a ring for it.
#[track_caller]
fn opened() -> (Lun, BsgUring) {
    let lun = Lun::fresh();
    let bsg = uring_cmd(lun.device(), Access::ReadWrite);
    (lun, bsg)
}

/// So many blocks that say where they belong.
#[track_caller]
fn write_blocks(bsg: &mut BsgUring, blocks: u8) {
    block::write(bsg, Size::Ten, 0, blocks, &cdb::pattern(0, blocks, 3));
}

/// Has so many of the next commands held.
#[track_caller]
fn hold(lun: &Lun, commands: usize) {
    lun.hold(u64::try_from(commands).expect("a few"));
}

/// READ(10) of one block.
fn read(lba: u32) -> UringFrame {
    Request::new(&cdb::read(Size::Ten, lba, 1)).data_in(512).into()
}

/// Everything in flight completes with GOOD.
#[track_caller]
fn assert_all_end_well(bsg: &mut BsgUring) {
    while bsg.in_flight() > 0 {
        assert_good(&bsg.wait(soon()).expect("completed").completion().expect("executed"));
    }
}

/// As many commands as there are tags are with the device at once: none is lost. What else has commands there has to be
/// ready to let go of them.
#[track_caller]
fn every_tag_is_free_after(lun: &Lun, what: &str) {
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    hold(lun, TAGS);
    for _ in 0..TAGS {
        bsg.submit(test_unit_ready()).expect("submitted");
    }
    let what = format!("{TAGS} commands at once after {what}");
    wait::until(LIMIT, what, || (lun.journal().held.len() == TAGS).then_some(()))
        .unwrap_or_else(|error| panic!("{error}"));
    lun.release();
    assert_all_end_well(&mut bsg);
}

#[track_caller]
fn assert_every_tag_is_free(lun: &Lun) {
    every_tag_is_free_after(lun, "all that");
}

/// Waits until so many commands of this process wait for a tag, or more.
#[track_caller]
fn await_waiting(count: usize) {
    let what = format!("{count} commands without a tag");
    wait::until(LIMIT, what, || (waiting_workers() >= count).then_some(()))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until the device has answered so many of these commands, and the driver has every answer.
#[track_caller]
fn await_answers(lun: &Lun, command: &str, count: usize) {
    let answered = || {
        let entries = lun.journal().entries;
        let there = entries.iter().filter(|entry| entry.command == command).count();
        let device = lun.device();
        let done = device.attribute("iorequest_cnt") == device.attribute("iodone_cnt");
        (there == count && done).then_some(())
    };
    wait::until(LIMIT, format_args!("{count} answers to {command}"), answered)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Pages that are pinned for devices (mm/gup.c, `nr_foll_pin_acquired` and `_released` in /proc/vmstat). Reading
/// `stat_refresh` brings in what each CPU has counted by itself (Documentation/admin-guide/sysctl/vm.rst).
#[track_caller]
fn pinned_pages() -> i64 {
    fs::read_to_string("/proc/sys/vm/stat_refresh").expect("proc is mounted");
    let text = fs::read_to_string("/proc/vmstat").expect("proc is mounted");
    let count = |name: &str| -> i64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    };
    count("nr_foll_pin_acquired ") - count("nr_foll_pin_released ")
}

/// What the tests here count on: one command too many has no tag, and gets the first that is free.
#[test]
fn command_without_a_tag_waits_for_one() {
    declare!(Contract, FEW_TAGS);
    let (lun, mut bsg) = opened();
    hold(&lun, TAGS);
    for _ in 0..=TAGS {
        bsg.submit(test_unit_ready()).expect("submitted");
    }
    lun.held(TAGS);
    await_waiting(1);
    assert_eq!(lun.journal().entries.len(), 0);
    lun.release();
    assert_all_end_well(&mut bsg);
    assert_every_tag_is_free(&lun);
}
