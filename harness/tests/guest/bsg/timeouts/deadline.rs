//! The host's attribute `eh_deadline`: seconds from the first timeout, after which the error handler skips what is left of
//! the ladder but its last rung (drivers/scsi/scsi_error.c:scsi_host_eh_past_deadline).

use std::{fs, io};

use bsg::Access;
use harness::{declare, sysfs};
use rstest::rstest;
use scsi_fault::Effect;

use super::{
    ABORT_TASK, ABORTED, COMPLETE, FEW_TAGS, LOGICAL_UNIT_RESET, TIMEOUTS, Way, assert_timed_out,
    assert_works, commands, execute, functions, host_attribute, ladder, read, read_over, rejected,
    spend_retries, unit, uring_cmd, wait_for_functions,
};

fn set(value: &str) -> io::Result<()> {
    fs::write(host_attribute("eh_deadline"), value)
}

#[track_caller]
fn deadline() -> String {
    sysfs::attribute(&host_attribute("eh_deadline")).expect("it is there")
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler, scsi_eh_bus_device_reset: past the deadline nothing is asked of the
/// unit. With 0 it has passed at once: the host is reset, whoever sent the command.
#[rstest]
fn host_is_reset_at_once_when_no_time_is_left(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract, FEW_TAGS);
    let lun = unit();
    let _stays_open = spend_retries(&lun);
    set("0").expect("it can be set");
    lun.hold(1);
    assert_timed_out(&execute(&mut *way.open(lun.device()), read()));
    let page = lun.journal();
    assert_eq!((page.held.as_slice(), functions(&page)), (&[][..], vec![]));
    assert_eq!(commands(&page), [("TEST UNIT READY", 0)]);
    assert_works(&lun);
}

/// A deadline that passes while the abort is waited for spares the reset of the unit; one that does not, does not.
#[rstest]
#[case::passes("1", &[])]
#[case::is_far("60", &[LOGICAL_UNIT_RESET])]
#[case::is_none("off", &[LOGICAL_UNIT_RESET])]
fn reset_of_the_unit_is_left_out_past_the_deadline(
    #[case] seconds: &str,
    #[case] answered: &[&str],
) {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    set(seconds).expect("it can be set");
    assert_eq!(deadline(), seconds);
    // Longer than the deadline; the abort is held for ever.
    wait_for_functions(1300);
    ladder(&lun, 1, &[Effect::hold()]);
    assert_timed_out(&read_over(&mut uring_cmd(lun.device(), Access::ReadWrite)));
    let page = lun.journal();
    let names: Vec<_> = functions(&page).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, answered);
    // The host reset takes the abort back.
    assert_eq!(page.held.len(), answered.len(), "{page:?}");
    lun.release();
    assert_works(&lun);
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler, scsi_restart_operations: the time begins anew when the host has
/// recovered, by an abort or by more. The second timeout is further from the first than the deadline is.
#[test]
fn deadline_begins_anew_with_each_recovery() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    set("1").expect("it can be set");
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    lun.hold(1);
    assert_timed_out(&read_over(&mut ring));
    ladder(&lun, 1, &[rejected()]);
    assert_timed_out(&read_over(&mut ring));
    lun.hold(1);
    assert_timed_out(&read_over(&mut ring));
    let page = lun.journal();
    let names: Vec<_> = functions(&page).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [ABORT_TASK, ABORT_TASK, LOGICAL_UNIT_RESET, ABORT_TASK]);
    let last = page.task_management.last().expect("four functions");
    assert_eq!(last.response, COMPLETE);
    assert_eq!(commands(&page).last(), Some(&("READ(10)", ABORTED)));
    let apart: Vec<_> = page.task_management.iter().map(|it| it.fetched_us).collect();
    assert!(apart[1] - apart[0] > 1_000_000 && apart[3] - apart[2] > 1_000_000, "{apart:?}");
    assert_works(&lun);
}

/// drivers/scsi/scsi_sysfs.c:store_shost_eh_deadline: whole seconds or `off`, which it is at first, and at most so many that
/// ticks of the kernel count them in 32 bits. EBUSY while the host recovers.
#[test]
fn deadline_is_a_number_of_seconds_or_off() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    assert_eq!(deadline(), "off");
    for taken in ["7", "0", "off"] {
        set(taken).expect(taken);
        assert_eq!(deadline(), taken);
    }
    let errno = |value: &str| set(value).expect_err(value).raw_os_error();
    for refused in ["-1", "never", "\n", "18446744073709551615", "4294967296"] {
        assert_eq!((errno(refused), deadline()), (Some(22), "off".to_owned()), "{refused:?}");
    }
    ladder(&lun, 1, &[rejected(), Effect::hold()]);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let token = ring.submit(read().into()).expect("submitted");
    lun.held(2);
    assert_eq!(errno("7"), Some(16), "in recovery");
    lun.release();
    let done = ring.wait_for(token, super::soon()).expect("completed");
    assert_timed_out(&done.completion().expect("executed"));
    set("7").expect("it has recovered");
    assert_works(&lun);
}

/// drivers/scsi/scsi_sysfs.c:store_shost_eh_deadline: a driver that has no last rung has no deadline, EINVAL. With our patch
/// virtio_scsi has one.
#[test]
fn driver_without_a_host_reset_takes_no_deadline() {
    declare!(Contract);
    let patched = host_attribute("tmf_timeout_ms").exists();
    assert_eq!(deadline(), "off");
    match set("7") {
        Ok(()) => assert!(patched, "virtio_scsi resets no host"),
        Err(error) => assert_eq!((error.raw_os_error(), patched), (Some(22), false), "{error}"),
    }
    assert_eq!(set("off").is_ok(), patched);
}
