//! Commands that wait: for a time, for a release, for each other, for ever.

use std::collections::BTreeSet;

use bsg::{Access, BsgUring, SgIoctl, UringFrame};
use fault::Times;
use harness::{Lun, assert::assert_good, declare};
use scsi_fault::{Effect, Hold, Rule, When};

use super::{OWN_HOST, execute, read, scenario, statuses, test_unit_ready, unit_with, write};
use crate::bsg::{
    cdb,
    ways::{MANY_TAGS, soon, uring_cmd},
};

fn reading(name: &str, effect: Effect) -> Rule {
    Rule::new(name, effect).when(When::command("READ(10)"))
}

/// LOGICAL BLOCK ADDRESS of each READ(10) in the journal, in order of completion.
fn completed(lun: &Lun) -> Vec<u8> {
    let entries = lun.journal().entries;
    let lba = |cdb: &str| u8::from_str_radix(&cdb[10..12], 16).expect("hex");
    entries
        .iter()
        .filter(|entry| entry.command == "READ(10)")
        .map(|entry| lba(&entry.cdb))
        .collect()
}

/// Submits a read of each block one after the other, as the unit has the one before.
#[track_caller]
fn submit(bsg: &mut BsgUring, count: u8) {
    for lba in 0..count {
        bsg.submit(UringFrame::from(read(lba.into(), 1))).expect("submitted");
    }
}

#[track_caller]
fn assert_all_end_well(bsg: &mut BsgUring) {
    while bsg.in_flight() > 0 {
        let done = bsg.wait(soon()).expect("completed").completion().expect("executed");
        assert_good(&done);
    }
}

#[test]
fn delayed_command_takes_its_time_and_others_do_not() {
    declare!(Contract, OWN_HOST);
    let rules = vec![reading("slow", Effect::delay_us(300_000))];
    let lun = unit_with(&scenario!("delay", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let slow = bsg.submit(read(0, 1).into()).expect("submitted");
    let quick = bsg.submit(test_unit_ready().into()).expect("submitted");
    assert_eq!(bsg.wait(soon()).expect("completed").token, quick);
    assert_eq!(bsg.wait(soon()).expect("completed").token, slow);
    let entries = lun.journal().entries;
    let taken: Vec<_> = entries.iter().map(|entry| entry.completed_us - entry.fetched_us).collect();
    assert!(taken[0] < 300_000 && taken[1] >= 300_000, "{taken:?}");
    assert_eq!((entries[0].held, entries[1].held), (false, true));
}

#[test]
fn random_delays_bring_commands_out_of_order() {
    declare!(Contract, OWN_HOST);
    let effect = Effect { delay_us: Some(0), delay_up_to_us: Some(200_000), ..Effect::default() };
    let rules = vec![reading("slow", effect).times(Times::Always)];
    let lun = unit_with(&scenario!("delay-random", 11, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    submit(&mut bsg, 16);
    assert_all_end_well(&mut bsg);
    let mut order = completed(&lun);
    assert!(!order.is_sorted(), "{order:?}");
    order.sort_unstable();
    assert_eq!(order, Vec::from_iter(0..16));
}

#[test]
fn held_commands_are_released_in_a_given_order() {
    declare!(Contract, OWN_HOST);
    let rules = vec![reading("held", Effect::hold()).times(Times::First(4))];
    let lun = unit_with(&scenario!("hold", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    submit(&mut bsg, 4);
    // SAM-5, command identifier: unique among those of a unit that have not ended.
    let tags: BTreeSet<_> = lun.held(4).into_iter().map(|entry| entry.tag).collect();
    assert_eq!(tags.len(), 4, "{tags:x?}");
    // The unit goes on meanwhile, and what it does is seen by what is held.
    assert_good(&execute(&mut bsg, write(2, 1, 9)));
    lun.release_in_order([3, 1, 0, 2]);
    let mut brought = None;
    while bsg.in_flight() > 0 {
        let done = bsg.wait(soon()).expect("completed").completion().expect("executed");
        assert_good(&done);
        if done.data == cdb::pattern(2, 1, 9) {
            brought = Some(done);
        }
    }
    assert!(brought.is_some(), "the held read has not met the write");
    assert_eq!(completed(&lun), [3, 1, 0, 2]);
}

#[test]
fn commands_wait_for_each_other() {
    declare!(Contract, OWN_HOST);
    let effect = Effect { hold: Some(Hold::Order(vec![2, 0, 3, 1])), ..Effect::default() };
    let rules = vec![reading("ordered", effect).times(Times::First(4))];
    let lun = unit_with(&scenario!("order", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    submit(&mut bsg, 4);
    assert_all_end_well(&mut bsg);
    assert_eq!(completed(&lun), [2, 0, 3, 1]);
}

/// virtio 1.2, 5.6.6.2: LOGICAL UNIT RESET ends it with RESET, which is DID_RESET (8) to the initiator.
#[test]
fn command_that_never_completes_is_ended_by_a_reset() {
    declare!(Contract, OWN_HOST);
    let effect = Effect { hold: Some(Hold::ForEver), ..Effect::default() };
    let lun = unit_with(&scenario!("never", 0, vec![reading("lost", effect)]));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let token = bsg.submit(read(0, 1).into()).expect("submitted");
    lun.held(1);
    lun.release();
    assert_eq!(lun.held(1).len(), 1, "no release reaches it");
    let sg = SgIoctl::open(lun.device().sg(), Access::ReadWrite).expect("the node opens");
    sg.reset_logical_unit().expect("answered");
    let done = bsg.wait_for(token, soon()).expect("completed").completion().expect("executed");
    assert_eq!(statuses(&done), (0, 8));
}

/// With 100 commands held, a thousand others on the same queue complete.
#[test]
fn held_commands_keep_no_worker() {
    declare!(Contract, MANY_TAGS);
    let lun = Lun::fresh();
    lun.faults([reading("held", Effect::hold()).times(Times::First(100))]);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    submit(&mut bsg, 100);
    // So many may be requeued on their way, and arrive in another order than they were submitted in.
    let arrived: Vec<_> = lun.held(100).into_iter().map(|entry| entry.tag).collect();
    for _ in 0..1000 {
        assert_good(&execute(&mut bsg, test_unit_ready()));
    }
    let order: Vec<u8> =
        (0..100_u32).map(|at| u8::try_from(at * 37 % 100).expect("below")).collect();
    lun.release_in_order(order.iter().map(|at| u32::from(*at)));
    assert_all_end_well(&mut bsg);
    let entries = lun.journal().entries;
    let ended: Vec<_> = entries.iter().filter(|entry| entry.held).map(|entry| entry.tag).collect();
    let expected: Vec<_> = order.iter().map(|at| arrived[usize::from(*at)]).collect();
    assert_eq!(ended, expected);
}
