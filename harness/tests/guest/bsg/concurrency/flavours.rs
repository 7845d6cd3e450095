//! Every flavour of ring with more commands than tags, out of order, and closed in the middle.

use std::collections::BTreeMap;

use bsg::{Access, BsgUring, Node, Ring, UringFrame};
use harness::{Lun, assert::assert_good, declare, wait};
use rstest::rstest;

use super::{
    super::{
        cdb,
        ways::{soon, uring_cmd},
    },
    FEW_TAGS, Flavour, LIMIT, TAGS, assert_all_end_well, assert_every_tag_is_free, await_answers,
    await_waiting, hold, pinned_pages, read, test_unit_ready, write_blocks,
};

const COMMANDS: u8 = 40;

/// Blocks that were read, in order of completion; each command brought its own.
#[track_caller]
fn completed(bsg: &mut BsgUring, mut reads: BTreeMap<u64, u32>) -> Vec<u32> {
    let mut order = Vec::new();
    while !reads.is_empty() {
        let done = bsg.wait(soon()).expect("completed");
        let lba = reads.remove(&done.token).expect("completed once");
        let done = done.completion().expect("executed");
        assert_good(&done);
        assert_eq!(done.data, cdb::pattern(lba, 1, 3), "block {lba}");
        order.push(lba);
    }
    assert_eq!(bsg.in_flight(), 0);
    order
}

/// Blocks of the READ(10)s in the journal, in order of their answers.
#[track_caller]
fn answered(lun: &Lun) -> Vec<u32> {
    let entries = lun.journal().entries;
    let lba = |cdb: &str| u32::from_str_radix(&cdb[4..12], 16).expect("hex");
    let reads = entries.iter().filter(|entry| entry.command == "READ(10)");
    reads.map(|entry| lba(&entry.cdb)).collect()
}

/// block/blk-mq.c:blk_mq_alloc_request, io_uring/io_uring.c:io_queue_async: ten times as many commands as there are tags
/// go by one submission. Those without a tag wait, and each is carried out once and brings its own data.
#[rstest]
fn more_commands_than_tags_all_complete(
    #[values(
        Flavour::Plain,
        Flavour::SqPoll,
        Flavour::DeferTaskrun,
        Flavour::IoPoll,
        Flavour::Mixed
    )]
    flavour: Flavour,
) {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    let mut bsg = flavour.open(&lun);
    write_blocks(&mut bsg, COMMANDS);
    hold(&lun, TAGS);
    let push = |lba: u32| (bsg.push(read(lba)).expect("room"), lba);
    let reads: BTreeMap<_, _> = (0..u32::from(COMMANDS)).map(push).collect();
    assert_eq!(bsg.flush().expect("submitted"), 40);
    lun.held(TAGS);
    await_waiting(1);
    // Asserted when nothing waits any more: a test that panics has to end.
    let early = answered(&lun);
    lun.release();
    completed(&mut bsg, reads);
    assert_eq!(early, [0_u32; 0], "a command has gone without a tag");
    let mut seen = answered(&lun);
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..u32::from(COMMANDS)));
    assert_every_tag_is_free(&lun);
}

/// The device answers in another order than it was asked in, and so do the completions come: each has the data of its
/// own command (include/uapi/linux/io_uring.h, `user_data`).
#[rstest]
fn commands_complete_in_the_order_of_their_answers(
    #[values(
        Flavour::Plain,
        Flavour::SqPoll,
        Flavour::DeferTaskrun,
        Flavour::IoPoll,
        Flavour::Mixed
    )]
    flavour: Flavour,
) {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    let mut bsg = flavour.open(&lun);
    write_blocks(&mut bsg, COMMANDS);
    hold(&lun, TAGS);
    let push = |lba: u32| (bsg.push(read(lba)).expect("room"), lba);
    let reads: BTreeMap<_, _> = (0..4).map(push).collect();
    bsg.flush().expect("submitted");
    lun.held(TAGS);
    lun.release_in_order([2, 0, 3, 1]);
    let order = completed(&mut bsg, reads);
    assert_eq!(answered(&lun), [2, 0, 3, 1]);
    assert_eq!(order, [2, 0, 3, 1]);
    assert_every_tag_is_free(&lun);
}

/// io_uring/io_uring.c:io_ring_exit_work: a ring that is closed waits for its commands in the background. They keep their
/// tags and their pages until the device has answered, and no longer.
#[rstest]
fn closed_ring_keeps_its_commands_until_they_are_answered(
    #[values(
        Flavour::Plain,
        Flavour::SqPoll,
        Flavour::DeferTaskrun,
        Flavour::IoPoll,
        Flavour::Mixed
    )]
    flavour: Flavour,
) {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    let mut other = uring_cmd(lun.device(), Access::ReadWrite);
    let before = pinned_pages();
    let node = Node::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    let mut ring = Ring::<UringFrame>::new(&flavour.shape()).expect("a ring");
    hold(&lun, TAGS);
    for number in 0..4 {
        let mut frame = read(0);
        if flavour == Flavour::Mixed {
            frame.sqe.opcode = bsg::sqe::OP_URING_CMD128;
        }
        ring.push(frame.aim(&node, number)).expect("room");
    }
    ring.submit().expect("submitted");
    lun.held(TAGS);
    drop((ring, node));
    let late = other.submit(test_unit_ready()).expect("submitted");
    await_waiting(1);
    let (held, pinned) = (lun.journal().held.len(), pinned_pages() - before);
    lun.release();
    assert_good(&other.wait_for(late, soon()).expect("completed").completion().expect("executed"));
    assert_eq!((held, pinned), (TAGS, 4));
    assert_every_tag_is_free(&lun);
    let freed = || (pinned_pages() == before).then_some(());
    wait::until(LIMIT, "the pages of the closed ring", freed)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_task_cb frees the request, and that runs in the task of the submitter: on a ring
/// with DEFER_TASKRUN when its owner looks for completions, and not before. What it does not look for keeps its tag.
#[test]
fn completion_nobody_looks_for_keeps_its_tag() {
    declare!(Quirk, FEW_TAGS);
    let lun = Lun::fresh();
    let mut idle = Flavour::DeferTaskrun.open(&lun);
    let mut other = uring_cmd(lun.device(), Access::ReadWrite);
    for _ in 0..TAGS {
        idle.submit(read(0)).expect("submitted");
    }
    await_answers(&lun, "READ(10)", TAGS);
    let late = other.submit(test_unit_ready()).expect("submitted");
    await_waiting(1);
    let answers = lun.journal().entries.len();
    assert_all_end_well(&mut idle);
    assert_good(&other.wait_for(late, soon()).expect("completed").completion().expect("executed"));
    assert_eq!(answers, TAGS, "it has gone without a tag");
    assert_every_tag_is_free(&lun);
}
