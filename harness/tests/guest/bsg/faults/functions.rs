//! Task management functions that are held, refused, or answered wrongly. On a kernel without our patch the
//! only way to one is `ioctl(SG_SCSI_RESET)`.

use std::thread;

use bsg::{Access, SgIoctl};
use control::Command;
use harness::{Lun, assert::assert_good, bench, declare};
use rustix::io::Errno;
use scsi_fault::{Effect, Hold, Rule, When};

use super::{OWN_HOST, execute, scenario, test_unit_ready, unit_with};
use crate::bsg::ways::uring_cmd;

const LOGICAL_UNIT_RESET: &str = "LOGICAL UNIT RESET";

fn reset(lun: &Lun) -> Result<(), Errno> {
    SgIoctl::open(lun.device().sg(), Access::ReadWrite)
        .expect("the node opens")
        .reset_logical_unit()
}

/// Function and response of what the unit was asked.
fn functions(lun: &Lun) -> Vec<(String, u8, Option<String>)> {
    let entries = lun.journal().task_management;
    entries.into_iter().map(|entry| (entry.function, entry.response, entry.rule)).collect()
}

/// It may be followed by the unit attention condition of a reset, which the first command meets.
#[track_caller]
fn assert_works(lun: &Lun) {
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    execute(&mut bsg, test_unit_ready());
    assert_good(&execute(&mut bsg, test_unit_ready()));
}

#[test]
fn held_function_is_answered_when_it_is_released() {
    declare!(Contract, OWN_HOST);
    let rules =
        vec![Rule::new("held", Effect::hold()).when(When::task_management(LOGICAL_UNIT_RESET))];
    let lun = unit_with(&scenario!("tmf-held", 0, rules));
    thread::scope(|scope| {
        let resetting = scope.spawn(|| reset(&lun));
        let held: Vec<_> = lun.held(1).into_iter().map(|entry| (entry.name, entry.rule)).collect();
        assert_eq!(held, [(LOGICAL_UNIT_RESET.to_owned(), "held".to_owned())]);
        assert!(!resetting.is_finished());
        lun.release();
        assert_eq!(resetting.join().expect("no panic"), Ok(()));
    });
    assert_eq!(functions(&lun), [(LOGICAL_UNIT_RESET.to_owned(), 0, Some("held".to_owned()))]);
    assert_works(&lun);
}

/// drivers/scsi/virtio_scsi.c:virtscsi_tmf waits for the answer without a limit and without an ear for signals: only
/// the target ends it.
#[test]
fn function_that_is_never_answered_keeps_its_caller() {
    declare!(Quirk, OWN_HOST);
    let effect = Effect { hold: Some(Hold::ForEver), ..Effect::default() };
    let rules = vec![Rule::new("lost", effect).when(When::task_management(LOGICAL_UNIT_RESET))];
    let lun = unit_with(&scenario!("tmf-never", 0, rules));
    thread::scope(|scope| {
        let resetting = scope.spawn(|| reset(&lun));
        lun.held(1);
        lun.release();
        assert_eq!(lun.held(1).len(), 1, "no release reaches it");
        assert_eq!(functions(&lun), []);
        assert!(!resetting.is_finished());
        bench::control(Command::AbortHeld { address: lun.address() });
        assert_eq!(resetting.join().expect("no panic"), Ok(()));
    });
    assert_eq!(functions(&lun), [(LOGICAL_UNIT_RESET.to_owned(), 0, Some("lost".to_owned()))]);
    assert_works(&lun);
}

/// drivers/scsi/scsi_error.c:scsi_ioctl_reset sets `tmf_in_progress`, under which the host takes no command
/// (scsi_host_in_recovery).
#[test]
fn delayed_function_takes_its_time_and_commands_wait_for_it() {
    declare!(Quirk, OWN_HOST);
    let rules = vec![
        Rule::new("slow", Effect::delay_us(300_000))
            .when(When::task_management(LOGICAL_UNIT_RESET)),
    ];
    let lun = unit_with(&scenario!("tmf-delayed", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    thread::scope(|scope| {
        let resetting = scope.spawn(|| reset(&lun));
        lun.held(1);
        // BUS DEVICE RESET FUNCTION OCCURRED: the unit was asked afterwards.
        let sense = execute(&mut bsg, test_unit_ready()).sense;
        assert_eq!((sense[2], sense[12], sense[13]), (6, 0x29, 0x03));
        assert_eq!(resetting.join().expect("no panic"), Ok(()));
    });
    let journal = lun.journal();
    let [slow] = &journal.task_management[..] else { panic!("{journal:?}") };
    assert!(slow.completed_us - slow.fetched_us >= 300_000 && slow.held, "{slow:?}");
    assert_eq!((slow.response, slow.rule.as_deref()), (0, Some("slow")));
    let command = &journal.entries[0];
    assert!(command.fetched_us >= slow.completed_us, "{command:?}");
    assert_works(&lun);
}

/// virtio 1.2, 5.6.6.2: FUNCTION REJECTED is 11. drivers/scsi/scsi_error.c:scsi_ioctl_reset turns a failure
/// into EIO.
#[test]
fn refused_function_is_eio() {
    declare!(Contract, OWN_HOST);
    let effect = Effect::response("FUNCTION REJECTED");
    let rules = vec![Rule::new("refused", effect).when(When::task_management("any"))];
    // Not the first unit of the host, which is 0.
    let _first = Lun::fresh();
    let lun = unit_with(&scenario!("tmf-refused", 0, rules));
    assert_eq!(reset(&lun), Err(Errno::IO));
    assert_eq!(functions(&lun), [(LOGICAL_UNIT_RESET.to_owned(), 11, Some("refused".to_owned()))]);
    assert_works(&lun);
}

/// drivers/scsi/virtio_scsi.c:virtscsi_tmf takes FUNCTION SUCCEEDED (10), the answer to a query, for success.
#[test]
fn function_answered_as_a_query_has_succeeded() {
    declare!(Quirk, OWN_HOST);
    let effect = Effect::response("FUNCTION SUCCEEDED").executed();
    let when = When::task_management(LOGICAL_UNIT_RESET);
    let rules = vec![Rule::new("wrong", effect).when(when)];
    let lun = unit_with(&scenario!("tmf-wrong", 0, rules));
    assert_eq!(reset(&lun), Ok(()));
    assert_eq!(functions(&lun), [(LOGICAL_UNIT_RESET.to_owned(), 10, Some("wrong".to_owned()))]);
    assert_works(&lun);
}
