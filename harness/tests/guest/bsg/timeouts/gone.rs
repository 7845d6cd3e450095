//! Who is gone before the error handler has done with a command: its submitter, or its unit.

use std::{fs, os::unix::process::ExitStatusExt as _, path::Path, thread, time::Duration};

use bsg::{Access, BsgUring};
use harness::{
    Child, ScsiDevice,
    assert::{assert_good, assert_sense},
    child::{self, Parent},
    declare, sysfs, wait,
};
use rstest::rstest;
use scsi_fault::Effect;

use super::{
    ABORT_TASK, ABORTED, COMPLETE, LOGICAL_UNIT_RESET, RESET, TESTED, TIMEOUTS, Way,
    assert_timed_out, assert_works, commands, execute, functions, ladder, read, rejected, soon,
    unit, uring_cmd,
};

/// The child: sends the read by the way its role says to the unit it says.
fn send(role: &str) {
    let mut parent = Parent::connect();
    let (way, hctl) = role.split_once(' ').expect("a way and a unit");
    let device = ScsiDevice { hctl: hctl.to_owned() };
    if way == "ring" {
        let mut ring = BsgUring::open(device.bsg(), Access::ReadWrite).expect("the node opens");
        ring.submit(read().into()).expect("submitted");
        parent.tell("sends");
        parent.until_killed();
    }
    let mut node = Way::SgIoV4.open(&device);
    parent.tell("sends");
    execute(&mut *node, read());
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler: a command is aborted whether or not anybody waits for it. A ring is
/// closed by the death of its process; who is in `SG_IO` v4 dies when that is done (block/blk-mq.c:blk_execute_rq waits
/// uninterruptibly).
#[rstest]
fn command_of_a_killed_submitter_is_aborted(#[values("ring", "call")] way: &str) {
    declare!(Contract, TIMEOUTS);
    if let Some(role) = child::role() {
        return send(&role);
    }
    let lun = unit();
    lun.hold(1);
    let mut submitter = Child::start(&format!("{way} {}", lun.device().hctl));
    assert_eq!(submitter.hear(), "sends");
    let tag = lun.held(1)[0].tag;
    assert_eq!(submitter.kill().signal(), Some(9));
    let aborted = || Some(lun.journal()).filter(|page| !page.task_management.is_empty());
    let page = wait::until(Duration::from_secs(30), "the abort", aborted);
    let page = page.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(functions(&page), [(ABORT_TASK, tag, COMPLETE)]);
    assert_eq!(commands(&page), [("READ(10)", ABORTED)]);
    assert_works(&lun);
}

/// drivers/scsi/scsi_sysfs.c:__scsi_remove_device: a unit can go while its host recovers from one of its commands. The node
/// goes at once, the rest when the command has ended, and that ends as it would have. Once the unit counts as gone the error
/// handler does not test it any more (scsi_error.c:scsi_eh_bus_device_reset); then who comes after a scan has the unit
/// attention of the reset.
#[test]
fn unit_that_is_deleted_while_its_host_recovers_goes_with_its_last_command() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    ladder(&lun, 1, &[rejected(), Effect::hold()]);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let token = ring.submit(read().into()).expect("submitted");
    lun.held(2);
    thread::scope(|scope| {
        let dir = lun.device().dir();
        let removal = scope.spawn(move || fs::write(dir.join("delete"), "1").expect("written"));
        sysfs::vanish(&lun.device().bsg());
        assert!(!removal.is_finished());
        lun.release_in_order([1, 0]);
        let done = ring.wait_for(token, soon()).expect("completed").completion().expect("executed");
        assert_timed_out(&done);
        removal.join().expect("no panic");
    });
    assert!(!lun.device().dir().exists());
    let page = lun.journal();
    let seen = commands(&page);
    let (first, tests) = seen.split_first().expect("it was asked something");
    assert_eq!(*first, ("READ(10)", RESET));
    assert!(tests.is_empty() || tests == [TESTED, TESTED], "{tests:?}");
    let names: Vec<_> = functions(&page).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [ABORT_TASK, LOGICAL_UNIT_RESET]);
    drop(ring);

    let hctl: Vec<&str> = lun.device().hctl.split(':').collect();
    let host = Path::new("/sys/class/scsi_host").join(format!("host{}", hctl[0]));
    fs::write(host.join("scan"), hctl[1..].join(" ")).expect("scanned");
    sysfs::appear(&lun.device().bsg());
    let done = execute(&mut *Way::UringCmd.open(lun.device()), read());
    if tests.is_empty() {
        // BUS DEVICE RESET FUNCTION OCCURRED (SPC-4).
        assert_sense(&done, 0x06, 0x29, 0x03);
    } else {
        assert_good(&done);
    }
    assert_works(&lun);
}
