//! Answers that come when nobody waits for them any more: of a command whose time has passed, and of a task management
//! function that was given up.

use std::collections::BTreeSet;

use bsg::{Access, BsgUring, Completion, Request};
use harness::{Lun, assert::assert_good, declare};
use rstest::rstest;
use scsi_fault::Effect;

use super::{
    super::block, ABORT_TASK, ABORTED, COMPLETE, FEW_TAGS, LOGICAL_UNIT_RESET, LONG_MS, RESET,
    SHORT_MS, Size, TAGS, TESTED, Way, assert_timed_out, assert_works, cdb, commands, execute,
    functions, ladder, read, read_over, rejected, soon, unit, uring_cmd, wait_for_functions,
};

/// Blocks that say where they belong, from 1 on; block 0 is that of the command that times out.
#[track_caller]
fn write_blocks(ring: &mut BsgUring) {
    for lba in 0..=TAGS {
        block::write(ring, Size::Ten, lba, 1, &cdb::pattern(lba, 1, 7));
    }
}

/// Has every tag of the host used by a read of a block of its own, all held.
#[track_caller]
fn use_every_tag(lun: &Lun, ring: &mut BsgUring, held_before: usize) -> Vec<u64> {
    lun.hold(TAGS.into());
    let submit = |lba: u32| {
        let request = Request::new(&cdb::read(Size::Ten, lba, 1)).data_in(cdb::BLOCK);
        ring.submit(request.into()).expect("submitted")
    };
    let tokens = (1..=TAGS).map(submit).collect();
    lun.held(held_before + TAGS as usize);
    tokens
}

/// Each of them has its own block, and nothing of another's.
#[track_caller]
fn assert_each_has_its_block(ring: &mut BsgUring, tokens: Vec<u64>) {
    for (lba, token) in (1..).zip(tokens) {
        let done = ring.wait_for(token, soon()).expect("completed").completion().expect("executed");
        assert_good(&done);
        assert_eq!(done.data, cdb::pattern(lba, 1, 7), "block {lba}");
    }
    assert_eq!(ring.in_flight(), 0);
}

/// Nothing reached the buffer.
#[track_caller]
fn assert_brought_nothing(done: &Completion) {
    assert_timed_out(done);
    assert_eq!(done.data, [0; cdb::BLOCK]);
}

/// An answer to LOGICAL UNIT RESET says that every command has ended. Until then a command may complete
/// although the error handler has it, and must not end twice: once for the handler, once for the device.
#[test]
fn command_that_completes_while_the_error_handler_has_it_ends_once() {
    declare!(Contract, super::TIMEOUTS);
    let lun = unit();
    ladder(&lun, 1, &[rejected(), Effect::hold()]);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let token = ring.submit(read().into()).expect("submitted");
    let held: Vec<_> = lun.held(2).into_iter().map(|entry| entry.name).collect();
    assert_eq!(held, ["READ(10)", LOGICAL_UNIT_RESET]);
    lun.release();
    let done = ring.wait_for(token, soon()).expect("completed").completion().expect("executed");
    assert_timed_out(&done);
    assert_eq!(commands(&lun.journal()), [("READ(10)", 0), TESTED, TESTED]);
    assert_eq!(ring.in_flight(), 0);
    assert_works(&lun);
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler: so it is while the abort is under way. SAM-5, ABORT TASK: a command that
/// is no longer in the task set was aborted well, and the command ends with DID_TIME_OUT, GOOD as the device found it.
/// Every tag is used once more afterwards.
#[rstest]
fn command_that_completes_while_its_abort_waits_ends_once(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    wait_for_functions(LONG_MS);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    write_blocks(&mut ring);
    let before = lun.journal().entries.len();
    ladder(&lun, 1, &[Effect::hold()]);
    let done = std::thread::scope(|scope| {
        let sender = scope.spawn(|| execute(&mut *way.open(lun.device()), read()));
        let held: Vec<_> = lun.held(2).into_iter().map(|entry| entry.name).collect();
        assert_eq!(held, ["READ(10)", ABORT_TASK]);
        lun.release();
        sender.join().expect("no panic")
    });
    assert_timed_out(&done);
    let page = lun.journal();
    assert_eq!(commands(&page)[before..], [("READ(10)", 0)]);
    assert_eq!(functions(&page), [(ABORT_TASK, page.entries[before].tag, COMPLETE)]);
    let tokens = use_every_tag(&lun, &mut ring, 0);
    lun.release();
    assert_each_has_its_block(&mut ring, tokens);
    assert_works(&lun);
}

/// A task management function that is never answered is given up after a time, and the ladder goes on.
/// Its answer may still come, and what it asks for be done: then to no other command, though every tag of the host is in
/// use again. No data goes where it went before.
#[test]
fn function_that_is_answered_late_does_no_harm() {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    wait_for_functions(SHORT_MS);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    write_blocks(&mut ring);
    let before = lun.journal().entries.len();
    ladder(&lun, 1, &[Effect::hold()]);
    assert_brought_nothing(&read_over(&mut ring));
    let page = lun.journal();
    assert_eq!(commands(&page)[before..], [("READ(10)", RESET), TESTED, TESTED]);
    assert_eq!(functions(&page), [(LOGICAL_UNIT_RESET, 0, COMPLETE)]);
    assert_eq!(page.held.len(), 1, "the abort waits");

    wait_for_functions(LONG_MS);
    let tokens = use_every_tag(&lun, &mut ring, 1);
    // The abort has come first, and is carried out first.
    lun.release();
    assert_each_has_its_block(&mut ring, tokens);
    let last = lun.journal().task_management.pop().expect("the abort");
    assert_eq!((last.function.as_str(), last.held, last.response), (ABORT_TASK, true, COMPLETE));
    assert_works(&lun);
    // Whichever came after it: none had the tag of a command before.
    let tags: Vec<_> = lun.journal().entries.iter().map(|entry| entry.tag).collect();
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "{tags:?}");
}

/// A device that was reset has forgotten the command: no answer to it comes, and no data, though every tag of the host is in
/// use again. (drivers/scsi/scsi_error.c:scsi_eh_flush_done_q has let go of its memory.)
#[test]
fn command_that_the_host_reset_took_back_is_never_answered() {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    wait_for_functions(LONG_MS);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    write_blocks(&mut ring);
    ladder(&lun, 1, &[rejected(), rejected()]);
    assert_brought_nothing(&read_over(&mut ring));
    let tokens = use_every_tag(&lun, &mut ring, 0);
    lun.release_in_order((0..TAGS).rev());
    assert_each_has_its_block(&mut ring, tokens);
    let page = lun.journal();
    assert!(page.entries.iter().all(|entry| entry.response != ABORTED), "{page:?}");
    assert_works(&lun);
}

/// SAM-5, ABORT TASK, LOGICAL UNIT RESET: a command that was aborted has no effect any more; nor has one that a device has
/// forgotten. Whichever rung ends a write that was told as DID_TIME_OUT, it is not carried out later.
#[rstest]
fn write_that_timed_out_is_not_carried_out_later(#[values(0, 1, 2)] refused_functions: usize) {
    declare!(Contract, FEW_TAGS);
    let lun = Lun::fresh();
    wait_for_functions(LONG_MS);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    write_blocks(&mut ring);
    ladder(&lun, 1, &vec![rejected(); refused_functions]);
    let write = Request::new(&cdb::write(Size::Ten, 1, 1)).data_out(&cdb::pattern(1, 1, 9));
    let token = ring.submit(write.timeout_ms(1).into()).expect("submitted");
    let done = ring.wait_for(token, soon()).expect("completed");
    assert_timed_out(&done.completion().expect("executed"));
    lun.release();
    assert_eq!(block::read(&mut ring, Size::Ten, 1, 1), cdb::pattern(1, 1, 7));
    assert_works(&lun);
}
