//! A submitter in trouble: stopped, killed, in `execve`, or a thread that has ended; and what that is to others.

use std::{
    env,
    fs::{self, DirEntry},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::Command,
    thread,
};

use bsg::{Access, BsgUring, Request, UringCompletion};
use harness::{
    Child, Lun,
    assert::assert_good,
    child::{self, Parent},
    declare, wait,
};
use rstest::rstest;

use super::{
    super::{
        block,
        cdb::{self, Size},
        ways::{execute, soon, uring_cmd},
    },
    FEW_TAGS, LIMIT, TAGS, assert_every_tag_is_free, await_answers, await_waiting, hold, opened,
    read, test_unit_ready,
};

/// The child: submits as many reads as its role says, to the node it says, and tells.
fn submitted(role: &str) -> (BsgUring, Parent) {
    let mut parent = Parent::connect();
    let (count, node) = role.split_once(' ').expect("a number and a node");
    let mut bsg = BsgUring::open(node, Access::ReadWrite).expect("the node opens");
    for _ in 0..count.parse().expect("a number") {
        bsg.submit(read(0)).expect("submitted");
    }
    parent.tell("submitted");
    (bsg, parent)
}

/// A child with so many reads in flight, all of them held.
#[track_caller]
fn submitter(lun: &Lun, commands: usize) -> Child {
    hold(lun, commands);
    let mut child = Child::start(&format!("{commands} {}", lun.device().bsg().display()));
    assert_eq!(child.hear(), "submitted");
    lun.held(commands);
    child
}

/// signal(7): a stopped process runs nothing, so not the work that frees a request either
/// (io_uring/uring_cmd.c:io_uring_cmd_do_in_task_lazy). Its commands are answered, and have their tags until it goes on.
#[test]
fn stopped_submitter_keeps_its_tags_until_it_goes_on() {
    declare!(Quirk, FEW_TAGS);
    if let Some(role) = child::role() {
        let (_bsg, parent) = submitted(&role);
        parent.until_killed();
    }
    let lun = Lun::fresh();
    let child = submitter(&lun, TAGS);
    child.stop();
    lun.release();
    await_answers(&lun, "READ(10)", TAGS);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let late = bsg.submit(test_unit_ready()).expect("submitted");
    await_waiting(1);
    let answers = lun.journal().entries.len();
    child.go_on();
    assert_good(&bsg.wait_for(late, soon()).expect("completed").completion().expect("executed"));
    assert_eq!(answers, TAGS, "it has gone without a tag");
    assert_every_tag_is_free(&lun);
    child.kill();
}

/// What becomes of the other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Its commands are not answered.
    Held,
    /// Nor does it run.
    Stopped,
    /// Nor is there one any more.
    Killed,
}

/// Whatever the trouble of a process with all tags but one, another has the last one and gets on with it; and when the
/// device has answered, all are back.
#[rstest]
fn one_tag_is_enough_beside_a_process_in_trouble(
    #[values(Trouble::Held, Trouble::Stopped, Trouble::Killed)] trouble: Trouble,
) {
    declare!(Contract, FEW_TAGS);
    if let Some(role) = child::role() {
        let (_bsg, parent) = submitted(&role);
        parent.until_killed();
    }
    let lun = Lun::fresh();
    let mut child = Some(submitter(&lun, TAGS - 1));
    match trouble {
        Trouble::Held => {}
        Trouble::Stopped => child.as_ref().expect("started").stop(),
        Trouble::Killed => assert_eq!(child.take().expect("started").kill().signal(), Some(9)),
    }
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    for round in 0..20 {
        let data = cdb::pattern(9, 1, round);
        block::write(&mut bsg, Size::Ten, 9, 1, &data);
        assert_eq!(block::read(&mut bsg, Size::Ten, 9, 1), data);
    }
    for _ in 0..10 {
        bsg.submit(read(9)).expect("submitted");
    }
    super::assert_all_end_well(&mut bsg);
    assert_eq!(lun.held(TAGS - 1).len(), 3);
    lun.release();
    if let Some(child) = child {
        child.kill();
    }
    assert_every_tag_is_free(&lun);
}

/// io_uring/io_uring.c:io_uring_release: a process with all tags ends at once; its tags come back with the answers.
#[test]
fn killed_submitter_gives_its_tags_back_when_they_are_answered() {
    declare!(Contract, FEW_TAGS);
    if let Some(role) = child::role() {
        let (_bsg, parent) = submitted(&role);
        parent.until_killed();
    }
    let lun = Lun::fresh();
    assert_eq!(submitter(&lun, TAGS).kill().signal(), Some(9));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let late = bsg.submit(test_unit_ready()).expect("submitted");
    await_waiting(1);
    lun.release();
    assert_good(&bsg.wait_for(late, soon()).expect("completed").completion().expect("executed"));
    assert_every_tag_is_free(&lun);
}

/// Where the threads of a process wait in the kernel.
fn waits_in(child: &Child) -> Vec<String> {
    // What has ended, process or thread, waits nowhere.
    let threads = fs::read_dir(format!("/proc/{}/task", child.pid())).into_iter().flatten();
    let place = |thread: DirEntry| fs::read_to_string(thread.path().join("wchan")).ok();
    threads.filter_map(|thread| place(thread.ok()?)).collect()
}

/// fs/exec.c:begin_new_exec, io_uring/cancel.c:io_uring_cancel_generic: the old program's memory stays until its commands
/// are complete, so `execve` waits for the device. The new one has no ring. Until 7.2 the other threads are gone by
/// then, and the one that waits is the process's leader; on 7.3.4 it waits first.
#[test]
fn execve_waits_for_the_commands_of_the_old_program() {
    declare!(Quirk, FEW_TAGS);
    if let Some(role) = child::role() {
        let (bsg, _parent) = submitted(&role);
        let this = env::current_exe().expect("the test binary has a path");
        let failed = Command::new(this).arg("--list").exec();
        drop(bsg);
        panic!("execve: {failed}");
    }
    let lun = Lun::fresh();
    let child = submitter(&lun, 2);
    let waits =
        || waits_in(&child).iter().any(|place| place.contains("io_uring_cancel")).then_some(());
    wait::until(LIMIT, "execve to wait for the commands", waits)
        .unwrap_or_else(|error| panic!("{error}; it waits in {:?}", waits_in(&child)));
    assert_eq!(lun.held(2).len(), 2);
    lun.release();
    assert_eq!(child.wait().code(), Some(0));
    assert_every_tag_is_free(&lun);
}

/// A process that another one starts meanwhile inherits neither ring nor commands: both are close-on-exec, and the
/// completions come to the one that submitted.
#[test]
fn process_started_meanwhile_inherits_nothing() {
    declare!(Contract, FEW_TAGS);
    if child::role().is_some() {
        let mut parent = Parent::connect();
        let links = fs::read_dir("/proc/self/fd").expect("proc is mounted");
        let files = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
        let ours = files.map(|file| file.display().to_string());
        let inherited = ours.filter(|file| file.contains("io_uring") || file.contains("/bsg/"));
        parent.tell(&format!("inherited {:?}", Vec::from_iter(inherited)));
        parent.until_killed();
    }
    let (lun, mut bsg) = opened();
    block::write(&mut bsg, Size::Ten, 7, 1, &cdb::pattern(7, 1, 2));
    lun.hold(1);
    let token = bsg.submit(read(7)).expect("submitted");
    lun.held(1);
    let mut child = Child::start("bystander");
    assert_eq!(child.hear(), "inherited []");
    lun.release();
    let done = bsg.wait_for(token, soon()).expect("completed").completion().expect("executed");
    assert_good(&done);
    assert_eq!(done.data, cdb::pattern(7, 1, 2));
    child.kill();
    assert_every_tag_is_free(&lun);
}

/// io_uring/io_uring.c:io_fallback_req_func: a thread that has ended runs nothing either; a worker of the kernel does it in its
/// place, which has no memory of the process to write to. What is mapped arrives; sense data does not (EFAULT, the
/// statuses stay), and neither does what was bounced (block/blk-map.c:bio_uncopy_user), of which nobody is told.
#[test]
fn thread_that_ends_leaves_its_commands_to_a_worker() {
    declare!(Accident, FEW_TAGS);
    let (lun, mut bsg) = opened();
    block::write(&mut bsg, Size::Ten, 0, 1, &cdb::pattern(0, 1, 4));
    hold(&lun, TAGS);
    let (mut bsg, tokens) = thread::spawn(move || {
        let bounced = bsg::Buffer::at_offset(1, 512).expect("a page");
        let frames = [
            test_unit_ready(),
            read(0),
            Request::new(&cdb::read(Size::Ten, 0, 1)).data(bsg::Data::In(bounced)).into(),
            Request::new(&[0xff, 0, 0, 0, 0, 0]).into(),
        ];
        let tokens = frames.map(|frame| bsg.submit(frame).expect("submitted"));
        (bsg, tokens)
    })
    .join()
    .expect("no panic");
    lun.held(TAGS);
    lun.release();
    let [ready, mapped, bounced, failed]: [UringCompletion; 4] =
        tokens.map(|token| bsg.wait_for(token, soon()).expect("completed"));
    assert_good(&ready.completion().expect("executed"));
    assert_eq!(mapped.completion().expect("executed").data, cdb::pattern(0, 1, 4));
    let bounced = bounced.completion().expect("executed");
    assert_good(&bounced);
    assert_eq!((bounced.residual, bounced.data), (0, vec![0; 512]));
    assert_eq!((failed.res, failed.res2), (-14, Some(0x1200_0802)));
    // The ring is as good as before.
    assert_good(&execute(&mut bsg, Request::new(&[0; 6])));
    assert_every_tag_is_free(&lun);
}
