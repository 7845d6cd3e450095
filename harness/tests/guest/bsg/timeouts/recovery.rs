//! Several commands of one host that are not answered in time, and what its recovery is to all others.

use std::{thread, time::Duration};

use bsg::{Access, BsgUring, Completion, Request, SgIoctl};
use control::TaskManagementEntry;
use fault::Times;
use harness::{Lun, ScsiDevice, assert::assert_good, declare, sysfs, wait};
use scsi_fault::{Effect, Rule, When};

use super::{
    super::ways::sg_io_v4, ABORT_TASK, ABORTED, COMPLETE, LOGICAL_UNIT_RESET, LONG_MS, REJECTED,
    RESET, TESTED, TIMEOUTS, assert_timed_out, assert_works, commands, execute, functions,
    host_attribute, read, rejected, soon, uring_cmd, wait_for_functions,
};

/// Its units; each has a ring.
#[track_caller]
fn units<const COUNT: usize>() -> ([Lun; COUNT], [BsgUring; COUNT]) {
    let luns = [(); COUNT].map(|()| Lun::fresh());
    wait_for_functions(LONG_MS);
    let rings = luns.each_ref().map(|lun| uring_cmd(lun.device(), Access::ReadWrite));
    (luns, rings)
}

fn test_unit_ready() -> Request {
    Request::new(&[0; 6])
}

/// What the sysfs attribute `state` of the test's host says (drivers/scsi/scsi_sysfs.c:show_shost_state).
#[track_caller]
fn state_of_host() -> String {
    let path = host_attribute("state");
    sysfs::attribute(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn await_recovery() {
    let recovers = || (state_of_host() == "recovery").then_some(());
    let found = wait::until(Duration::from_secs(30), "the host to recover", recovers);
    found.unwrap_or_else(|error| panic!("{error}, its state is {}", state_of_host()));
}

fn holding(commands: u64) -> Rule {
    Rule::new("hold", Effect::hold()).times(Times::First(commands))
}

/// Every ABORT TASK is refused.
fn refusing() -> Rule {
    let aborts = When::task_management(ABORT_TASK);
    Rule::new("refused", rejected()).when(aborts).times(Times::Always)
}

/// Everything the ring has in flight, which ends.
#[track_caller]
fn ends(ring: &mut BsgUring) -> Vec<Completion> {
    let mut ended = Vec::new();
    while ring.in_flight() > 0 {
        let done = ring.wait(soon()).expect("completed");
        ended.push(done.completion().expect("executed"));
    }
    ended
}

/// What all these units were asked, in the order it came to them.
#[track_caller]
fn functions_of_all(luns: &[Lun]) -> Vec<(usize, TaskManagementEntry)> {
    let mut seen: Vec<_> = (0..)
        .zip(luns)
        .flat_map(|(at, lun)| lun.journal().task_management.into_iter().map(move |it| (at, it)))
        .collect();
    seen.sort_by_key(|(_, entry)| entry.fetched_us);
    seen
}

#[track_caller]
fn counted(device: &ScsiDevice, name: &str) -> u64 {
    let text = device.attribute(name);
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

/// drivers/scsi/scsi_error.c:scsi_abort_command: the aborts of a host are made one after the other, by its work queue
/// (hosts.c:scsi_host_alloc, one at a time), each of its own command. The host does not recover meanwhile: others' commands
/// go on, and its state is `running`.
#[test]
fn commands_that_time_out_together_are_aborted_one_after_the_other() {
    declare!(Quirk, TIMEOUTS);
    let ([mut luns @ .., beside], [mut rings @ .., mut other]) = units::<3>();
    let slow = || {
        let aborts = When::task_management(ABORT_TASK);
        Rule::new("slow", Effect::delay_us(300_000)).when(aborts).times(Times::First(2))
    };
    for (lun, ring) in luns.iter_mut().zip(&mut rings) {
        lun.faults([holding(2), slow()]);
        for _ in 0..2 {
            ring.submit(read().into()).expect("submitted");
        }
    }
    for lun in &luns {
        lun.held(2);
    }
    let first = wait::until(Duration::from_secs(30), "an abort", || {
        let held = luns.iter().flat_map(|lun| lun.journal().held);
        Some(held.filter(|entry| entry.name == ABORT_TASK).count()).filter(|count| *count > 0)
    });
    assert_eq!(first.expect("the first abort comes"), 1, "aborts wait for each other");
    assert_good(&execute(&mut other, test_unit_ready()));
    assert_eq!(state_of_host(), "running");

    for (lun, ring) in luns.iter().zip(&mut rings) {
        let ended = ends(ring);
        assert_eq!(ended.len(), 2);
        ended.iter().for_each(assert_timed_out);
        let page = lun.journal();
        assert_eq!(commands(&page), [("READ(10)", ABORTED); 2]);
        let mut aborted: Vec<_> = page.entries.iter().map(|entry| entry.tag).collect();
        let mut asked: Vec<_> = page.task_management.iter().map(|entry| entry.tag).collect();
        aborted.sort_unstable();
        asked.sort_unstable();
        assert_eq!(asked, aborted);
        assert_eq!(counted(lun.device(), "iotmo_cnt"), 2);
    }
    let seen = functions_of_all(&luns);
    assert!(seen.iter().all(|(_, it)| it.function == ABORT_TASK && it.response == COMPLETE));
    for pair in seen.windows(2) {
        assert!(pair[1].1.fetched_us >= pair[0].1.completed_us, "{pair:?}");
    }
    assert_eq!(seen.len(), 4);
    // Between the first abort and the last, and not after them all.
    let good = &beside.journal().entries[0];
    assert!(good.completed_us < seen[3].1.completed_us, "{good:?} {seen:?}");
    luns.iter().for_each(assert_works);
}

/// drivers/scsi/scsi_error.c:scsi_eh_bus_device_reset: a unit is reset once for all of its commands, and one that has
/// none of them is asked nothing.
#[test]
fn unit_is_reset_once_for_all_its_commands_and_no_other_unit_is() {
    declare!(Contract, TIMEOUTS);
    let (luns, mut rings) = units::<3>();
    for (lun, (ring, count)) in luns.iter().zip(rings.iter_mut().zip([2, 1])) {
        lun.faults([holding(count), refusing()]);
        for _ in 0..count {
            ring.submit(read().into()).expect("submitted");
        }
    }
    for ring in &mut rings {
        ends(ring).iter().for_each(assert_timed_out);
    }
    let pages = luns.each_ref().map(Lun::journal);
    assert_eq!(commands(&pages[0]), [("READ(10)", RESET), ("READ(10)", RESET), TESTED, TESTED]);
    assert_eq!(commands(&pages[1]), [("READ(10)", RESET), TESTED, TESTED]);
    for (page, count) in pages.iter().zip([2, 1]) {
        let seen: Vec<_> =
            functions(page).into_iter().map(|(name, _, answer)| (name, answer)).collect();
        let mut expected = vec![(ABORT_TASK, REJECTED); count];
        expected.push((LOGICAL_UNIT_RESET, COMPLETE));
        assert_eq!(seen, expected);
    }
    assert_eq!((commands(&pages[2]), functions(&pages[2])), (vec![], vec![]));
    assert_eq!(state_of_host(), "running");
    luns.iter().for_each(assert_works);
}

/// drivers/scsi/scsi_error.c:scsi_eh_wakeup: the handler begins when every command of the host has ended or failed, so
/// another's, which is not late at all, keeps it waiting; and what is sent meanwhile waits for both. The host says
/// `recovery` from the failed abort on (scsi_eh_scmd_add).
#[test]
fn recovery_waits_for_every_command_of_the_host() {
    declare!(Contract, TIMEOUTS);
    let ([late, patient], [mut one, mut other]) = units::<2>();
    late.faults([holding(1), refusing()]);
    patient.hold(1);
    let first = other.submit(test_unit_ready().into()).expect("submitted");
    patient.held(1);
    assert_eq!(state_of_host(), "running");
    let token = one.submit(read().into()).expect("submitted");
    await_recovery();
    let second = other.submit(test_unit_ready().into()).expect("submitted");
    assert_eq!((patient.held(1).len(), late.held(1).len()), (1, 1));
    patient.release();

    for token in [first, second] {
        let done = other.wait_for(token, soon()).expect("completed");
        assert_good(&done.completion().expect("executed"));
    }
    let done = one.wait_for(token, soon()).expect("completed");
    assert_timed_out(&done.completion().expect("executed"));
    let page = late.journal();
    let names: Vec<_> = functions(&page).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [ABORT_TASK, LOGICAL_UNIT_RESET]);
    assert_eq!(commands(&page), [("READ(10)", RESET), TESTED, TESTED]);
    let (reset, tested) = (&page.task_management[1], &page.entries[2]);
    let [before, after] = &patient.journal().entries[..] else { panic!("two commands") };
    assert!(reset.fetched_us >= before.completed_us, "{reset:?} {before:?}");
    assert!(after.fetched_us >= tested.completed_us, "{after:?} {tested:?}");
    assert_eq!(state_of_host(), "running");
    assert_works(&late);
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler: a command whose time passes while the host already recovers from
/// another is still aborted; the unit of the first is reset after that, as none of the host's is under way any more.
#[test]
fn command_that_times_out_while_the_host_recovers_is_aborted_first() {
    declare!(Contract, TIMEOUTS);
    let (luns, [mut one, mut other]) = units::<2>();
    luns[0].faults([holding(1), refusing()]);
    luns[1].hold(1);
    let later = other.submit(read().timeout_ms(2000).into()).expect("submitted");
    luns[1].held(1);
    let token = one.submit(read().into()).expect("submitted");
    await_recovery();
    assert_eq!(functions_of_all(&luns[1..]), []);
    for (ring, token) in [(&mut other, later), (&mut one, token)] {
        let done = ring.wait_for(token, soon()).expect("completed");
        assert_timed_out(&done.completion().expect("executed"));
    }
    let seen = functions_of_all(&luns);
    let order: Vec<_> = seen.iter().map(|(at, it)| (*at, &*it.function, it.response)).collect();
    let expected =
        [(0, ABORT_TASK, REJECTED), (1, ABORT_TASK, COMPLETE), (0, LOGICAL_UNIT_RESET, COMPLETE)];
    assert_eq!(order, expected);
    assert_eq!(commands(&luns[1].journal()), [("READ(10)", ABORTED)]);
    luns.iter().for_each(assert_works);
}

/// drivers/scsi/scsi_lib.c:scsi_queue_rq and scsi_error.c:scsi_block_when_processing_errors: what is sent while
/// the host recovers is dispatched when it has done so. Its time begins only then: it may be far shorter than the recovery.
#[test]
fn command_sent_while_the_host_recovers_has_its_whole_time_afterwards() {
    declare!(Contract, TIMEOUTS);
    /// Longer than the block layer takes to notice the end of the shortest time.
    const RESET_US: u64 = 1_700_000;
    let ([late, beside @ ..], [mut ring, ..]) = units::<4>();
    let slow = Rule::new("slow", Effect::delay_us(RESET_US));
    late.faults([holding(1), refusing(), slow.when(When::task_management(LOGICAL_UNIT_RESET))]);
    let node = beside[2].device().sg();
    let mut sg = SgIoctl::open(node, Access::ReadWrite).expect("the node opens");
    let token = ring.submit(read().into()).expect("submitted");
    let held: Vec<_> = late.held(2).into_iter().map(|entry| entry.name).collect();
    assert_eq!(held, ["READ(10)", LOGICAL_UNIT_RESET]);
    assert_eq!(state_of_host(), "recovery");
    thread::scope(|scope| {
        let senders = [
            scope.spawn(|| execute(&mut sg_io_v4(beside[0].device(), Access::ReadWrite), read())),
            scope.spawn(|| execute(&mut uring_cmd(beside[1].device(), Access::ReadWrite), read())),
            scope.spawn(|| execute(&mut sg, read())),
        ];
        for sender in senders {
            assert_good(&sender.join().expect("no panic"));
        }
    });
    assert_timed_out(
        &ring.wait_for(token, soon()).expect("completed").completion().expect("executed"),
    );
    let page = late.journal();
    let reset = &page.task_management[1];
    assert!(reset.completed_us - reset.fetched_us >= RESET_US, "{reset:?}");
    for lun in &beside {
        let page = lun.journal();
        assert_eq!((commands(&page), functions(&page)), (vec![("READ(10)", 0)], vec![]));
        assert!(page.entries[0].fetched_us >= reset.completed_us, "{page:?}");
        assert_eq!(counted(lun.device(), "iotmo_cnt"), 0);
    }
    assert_works(&late);
}
