//! Commands that the device does not answer in time, and the error handler's ladder: abort, logical unit
//! reset, host reset, offline.
//!
//! Linux' virtio_scsi never times a command out. Our patch `virtio-scsi-timeout` lets it, on a host whose
//! attribute `tmf_timeout_ms` is set; the ladder itself is the midlayer's
//! (drivers/scsi/scsi_error.c), whose values these tests assert. Response numbers of the journal are
//! those of virtio 1.2, 5.6.6.1 and 5.6.6.2; host statuses are those of include/scsi/scsi_status.h.

mod deadline;
mod gone;
mod late;
mod recovery;

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bsg::{Access, BsgUring, Completion, Errno, Request, SgIoctl};
use control::JournalPage;
use fault::Times;
use harness::{
    BlockDevice, Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, bench, declare,
    sysfs, wait,
};
use rstest::rstest;
use scsi_fault::{Effect, Rule, When};

use super::{
    cdb::{self, Size},
    ways::{Way, execute, soon, uring_cmd},
};

/// A host of the test's own.
const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// As above, on a kernel with the patch.
const TIMEOUTS: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 1),
        Feature::ModuleParameter {
            module: Cow::Borrowed("virtio_scsi"),
            name: Cow::Borrowed("tmf_timeout_ms"),
        },
    ]),
    ..Needs::DEFAULT
};

/// Tags of a host that has few: the smallest ring QEMU takes. A unit gets them all (block/blk-mq.h:hctx_may_queue).
const TAGS: u32 = 4;

/// As [`TIMEOUTS`], on a host with so few tags that all can be used again.
const FEW_TAGS: Needs = Needs {
    host: ScsiHost::Own(HostShape { tags: Some(4), ..HostShape::DEFAULT }),
    features: TIMEOUTS.features,
    ..Needs::DEFAULT
};

const DID_NO_CONNECT: u32 = 0x01;
const DID_TIME_OUT: u32 = 0x03;

const ABORT_TASK: &str = "ABORT TASK";
/// After a reset the unit is tested twice: the first answer is its unit attention condition
/// (drivers/scsi/scsi_error.c:scsi_eh_tur, scsi_check_sense).
const TESTED: (&str, u8) = ("TEST UNIT READY", 0);
const LOGICAL_UNIT_RESET: &str = "LOGICAL UNIT RESET";

const COMPLETE: u8 = 0;
const ABORTED: u8 = 2;
const RESET: u8 = 4;
const REJECTED: u8 = 11;

/// Longer than a device that answers needs, even under emulation with other tests beside.
const LONG_MS: u32 = 20_000;
/// Shorter than a test's patience.
const SHORT_MS: u32 = 300;

/// An attribute of the test's host.
#[track_caller]
fn host_attribute(name: &str) -> PathBuf {
    let host = sysfs::scsi_host_below(Path::new(&bench::host().slots[0]));
    Path::new("/sys/class/scsi_host").join(format!("host{host}")).join(name)
}

/// Sets how long the test's host waits for a task management function. From now on commands time out.
#[track_caller]
fn wait_for_functions(limit_ms: u32) {
    let path = host_attribute("tmf_timeout_ms");
    fs::write(&path, limit_ms.to_string())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A fresh unit on a host that lets commands time out.
#[track_caller]
fn unit() -> Lun {
    let lun = Lun::fresh();
    wait_for_functions(LONG_MS);
    lun
}

/// Takes the retry budget from every request of a host with few tags: `SG_IO` v4 has that of whoever had its request
/// before (drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn sets none), and uring_cmd none. The ring stays open: closing it would
/// have sg's call begun anew.
#[track_caller]
fn spend_retries(lun: &Lun) -> BsgUring {
    lun.hold(TAGS.into());
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    for _ in 0..TAGS {
        ring.submit(Request::new(&[0; 6]).into()).expect("submitted");
    }
    lun.held(TAGS as usize);
    lun.release();
    while ring.in_flight() > 0 {
        let done = ring.wait(soon()).expect("completed");
        assert_good(&done.completion().expect("executed"));
    }
    lun.renew();
    ring
}

/// Has so many commands held, and each of these befall the next task management function.
#[track_caller]
fn ladder(lun: &Lun, hold: u64, functions: &[Effect]) {
    let holding = Rule::new("hold", Effect::hold()).times(Times::First(hold));
    let of_function = |(nth, effect): (u64, &Effect)| {
        Rule::new(format!("function {nth}"), effect.clone())
            .when(When::task_management("any"))
            .nth(nth)
    };
    let functions = (1..).zip(functions).map(of_function);
    lun.faults(std::iter::once(holding).chain(functions));
}

fn rejected() -> Effect {
    Effect::response("FUNCTION REJECTED")
}

#[track_caller]
fn write_attribute(lun: &Lun, name: &str, value: &str) {
    let path = lun.device().dir().join(name);
    // drivers/scsi/scsi_sysfs.c:store_state_field knows a state by its newline.
    fs::write(&path, format!("{value}\n"))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A READ(10) of one block that has the shortest time there is: over io_uring about a second, because
/// the block layer rounds it up; SG_IO takes no less than seven (block/bsg.c:bsg_timeout).
fn read() -> Request {
    Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512).timeout_ms(1)
}

/// Sends that command over io_uring.
#[track_caller]
fn read_over(ring: &mut BsgUring) -> Completion {
    let token = ring.submit(read().into()).expect("submitted");
    ring.wait_for(token, soon()).expect("completed").completion().expect("executed")
}

/// It has ended by the clock alone: no status, nothing transferred that the kernel knows of.
#[track_caller]
fn assert_timed_out(done: &Completion) {
    let statuses = (done.device_status, done.driver_status, done.host_status);
    assert_eq!(statuses, (0, 0, DID_TIME_OUT), "{done:?}");
    assert_eq!((done.residual, done.sense.as_slice()), (0, &[][..]));
}

/// Function, tag and response of what the unit was asked.
fn functions(page: &JournalPage) -> Vec<(&str, u64, u8)> {
    let entries = page.task_management.iter();
    entries.map(|entry| (entry.function.as_str(), entry.tag, entry.response)).collect()
}

/// Name and response of the commands it has answered.
fn commands(page: &JournalPage) -> Vec<(&str, u8)> {
    page.entries.iter().map(|entry| (entry.command.as_str(), entry.response)).collect()
}

/// The unit takes commands as if nothing had been, more than there are tags.
#[track_caller]
fn assert_works(lun: &Lun) {
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let count = lun.device().attribute("queue_depth").parse::<usize>().expect("a number") + 10;
    for _ in 0..count {
        assert_good(&execute(&mut ring, Request::new(&cdb::read(Size::Ten, 1, 1)).data_in(512)));
    }
    assert_eq!(lun.journal().held, []);
    assert_eq!(lun.device().attribute("state"), "running");
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler: a command that was aborted ends with DID_TIME_OUT.
/// It is not sent again, because passthrough never is (scsi_noretry_cmd).
#[rstest]
fn command_not_answered_in_time_is_aborted_and_did_time_out(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    lun.hold(1);
    let done = execute(&mut *way.open(lun.device()), read());
    assert_timed_out(&done);
    let page = lun.journal();
    assert_eq!(commands(&page), [("READ(10)", ABORTED)]);
    assert_eq!(functions(&page), [(ABORT_TASK, page.entries[0].tag, COMPLETE)]);
    // The least a way takes, and the most the block layer adds to it (block/blk-timeout.c:blk_round_jiffies); it may be
    // busy for a while beside.
    let least_ms = if way == Way::SgIoV4 { 7000 } else { 1 };
    let asked = page.task_management[0].fetched_us;
    let waited_ms = (asked - page.entries[0].fetched_us) / 1000;
    assert!((least_ms - 1..least_ms + 8000).contains(&waited_ms), "aborted after {waited_ms} ms");
    assert_works(&lun);
}

/// include/uapi/linux/bsg.h: res 0 and the host status in bits 16 to 23 of res2.
#[test]
fn uring_cmd_of_a_command_not_answered_in_time_has_the_host_status_alone() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    lun.hold(1);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let token = ring.submit(read().into()).expect("submitted");
    let done = ring.wait_for(token, soon()).expect("completed");
    assert_eq!((done.res, done.res2, done.extra2), (0, Some(0x0003_0000), Some(0)));
}

/// drivers/scsi/scsi_error.c:scsi_eh_bus_device_reset: where the abort fails, the unit is reset, and
/// tested with TEST UNIT READY before anything else reaches it.
#[rstest]
fn unit_is_reset_when_the_abort_is_refused(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract, FEW_TAGS);
    let lun = unit();
    let _stays_open = spend_retries(&lun);
    ladder(&lun, 1, &[rejected()]);
    assert_timed_out(&execute(&mut *way.open(lun.device()), read()));
    let page = lun.journal();
    assert_eq!(commands(&page), [("READ(10)", RESET), TESTED, TESTED]);
    let expected = [(ABORT_TASK, page.entries[0].tag, REJECTED), (LOGICAL_UNIT_RESET, 0, COMPLETE)];
    assert_eq!(functions(&page), expected);
    assert_works(&lun);
}

/// drivers/scsi/scsi_error.c:scsi_eh_flush_done_q: what a reset has ended is sent again if its budget of retries allows,
/// passthrough too, because it has no result yet at which scsi_noretry_cmd could look. Only `SG_IO` v4 has such a budget:
/// that of whoever had its request before it, sd's of five here (sd.h: SD_MAX_RETRIES).
#[test]
fn sg_io_v4_that_a_reset_has_ended_is_sent_again() {
    declare!(Accident, FEW_TAGS);
    let lun = Lun::disk_unit();
    wait_for_functions(LONG_MS);
    let disk = BlockDevice::open(&lun.device().disk(), Access::ReadOnly);
    lun.hold(TAGS.into());
    thread::scope(|scope| {
        for reader in 0..u64::from(TAGS) {
            let disk = &disk;
            // Far from each other, so that none becomes part of another.
            scope.spawn(move || disk.read(reader << 20, 512).expect("read"));
        }
        lun.held(TAGS as usize);
        lun.release();
    });
    let before = lun.journal().entries.len();
    ladder(&lun, 1, &[rejected()]);
    assert_good(&execute(&mut *Way::SgIoV4.open(lun.device()), read()));
    assert_eq!(
        commands(&lun.journal())[before..],
        [("READ(10)", RESET), TESTED, TESTED, ("READ(10)", 0)]
    );
}

/// drivers/scsi/scsi_error.c:scsi_eh_host_reset: the last rung takes back what the device still has,
/// and the unit is tested as above. What the device had never ends for it.
#[test]
fn host_is_reset_when_abort_and_unit_reset_are_refused() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    ladder(&lun, 1, &[rejected(), rejected()]);
    let done = read_over(&mut uring_cmd(lun.device(), Access::ReadWrite));
    assert_timed_out(&done);
    let page = lun.journal();
    assert_eq!((page.held.as_slice(), commands(&page)), (&[][..], vec![("TEST UNIT READY", 0)]));
    let seen: Vec<_> =
        functions(&page).into_iter().map(|(name, _, answer)| (name, answer)).collect();
    assert_eq!(seen, [(ABORT_TASK, REJECTED), (LOGICAL_UNIT_RESET, REJECTED)]);
    lun.release();
    assert_works(&lun);
}

/// drivers/scsi/scsi_error.c:scsi_eh_offline_sdevs: a unit that does not answer TEST UNIT READY after
/// all that is offline; its command ends with DID_TIME_OUT and later ones with DID_NO_CONNECT, without
/// reaching it, until it is set running by hand.
#[test]
fn unit_that_no_reset_brings_back_is_offline_until_set_running() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    // In seconds: for the error handler's own commands.
    write_attribute(&lun, "eh_timeout", "1");
    // The command and the TEST UNIT READY that follows the reset; an abort and a reset for each.
    ladder(&lun, 2, &[rejected(), rejected(), rejected(), rejected()]);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let mut sg = Way::SgV3.open(lun.device());
    assert_timed_out(&read_over(&mut ring));
    assert_eq!(lun.device().attribute("state"), "offline");
    let page = lun.journal();
    assert_eq!((page.held.as_slice(), commands(&page)), (&[][..], vec![]));
    let names: Vec<_> = functions(&page).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [ABORT_TASK, LOGICAL_UNIT_RESET, ABORT_TASK, LOGICAL_UNIT_RESET]);

    for way in [Way::SgIoV4, Way::UringCmd] {
        let done = execute(&mut *way.open(lun.device()), Request::new(&[0; 6]));
        assert_eq!((done.device_status, done.host_status), (0, DID_NO_CONNECT), "{way:?}");
    }
    // sg's node can be opened and used only while the unit is online (drivers/scsi/sg.c:sg_open, sg_ioctl_common).
    let refused = sg.execute(Request::new(&[0; 6])).expect_err("the unit is offline");
    assert_eq!(refused.errno(), Some(Errno::NXIO), "{refused}");
    let refused = SgIoctl::open(lun.device().sg(), Access::ReadWrite).expect_err("as above");
    assert_eq!(refused.errno(), Some(Errno::NXIO), "{refused}");
    assert_eq!(lun.journal().entries, []);
    write_attribute(&lun, "state", "running");
    assert_works(&lun);
    assert_good(&execute(&mut *sg, Request::new(&[0; 6])));
}

/// No function is answered at all: the host reset takes the functions back too.
#[test]
fn host_is_reset_when_no_function_is_answered() {
    declare!(Contract, TIMEOUTS);
    let lun = unit();
    wait_for_functions(SHORT_MS);
    ladder(&lun, 1, &[Effect::hold(), Effect::hold()]);
    assert_timed_out(&read_over(&mut uring_cmd(lun.device(), Access::ReadWrite)));
    let page = lun.journal();
    assert_eq!((page.held.as_slice(), functions(&page)), (&[][..], vec![]));
    assert_eq!(commands(&page), [("TEST UNIT READY", 0)]);
    lun.release();
    assert_works(&lun);
}

/// drivers/scsi/scsi_error.c:scmd_eh_abort_handler: what the block layer reads is sent again after its
/// abort, and the reader never knows.
#[test]
fn aborted_read_of_a_disk_is_sent_again() {
    declare!(Contract, TIMEOUTS);
    let lun = Lun::disk_unit();
    wait_for_functions(LONG_MS);
    let data = cdb::pattern(8, 8, 3);
    let disk = BlockDevice::open(&lun.device().disk(), Access::ReadWrite);
    disk.write(8 * 512, &data).expect("written");
    // In seconds: for the block layer's commands.
    write_attribute(&lun, "timeout", "1");
    let before = lun.journal().entries.len();
    lun.hold(1);
    assert_eq!(disk.read(8 * 512, data.len()).expect("read"), data);
    let page = lun.journal();
    let seen: Vec<_> = page.entries[before..].iter().map(|e| (&*e.command, e.response)).collect();
    assert_eq!(seen, [("READ(10)", ABORTED), ("READ(10)", 0)]);
    assert_eq!(functions(&page), [(ABORT_TASK, page.entries[before].tag, COMPLETE)]);
}

/// The patch changes nothing by itself.
#[test]
fn commands_time_out_only_where_they_are_asked_to() {
    declare!(Contract, TIMEOUTS);
    for path in [
        PathBuf::from("/sys/module/virtio_scsi/parameters/tmf_timeout_ms"),
        host_attribute("tmf_timeout_ms"),
    ] {
        assert_eq!(sysfs::attribute(&path).expect("it is there"), "0", "{}", path.display());
    }
}

/// drivers/scsi/virtio_scsi.c:virtscsi_eh_timed_out: the timer is started again whenever it fires, so a
/// command ends when the device answers it, however late, and the device is asked nothing else.
#[test]
fn command_not_answered_in_time_stays_pending_and_ends_well() {
    declare!(Quirk, OWN_HOST);
    let lun = Lun::fresh();
    lun.hold(1);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let token = ring.submit(read().into()).expect("submitted");
    let tag = lun.held(1)[0].tag;
    let timeouts = || {
        let text = lun.device().attribute("iotmo_cnt");
        let digits = text.strip_prefix("0x").expect("hexadecimal");
        u64::from_str_radix(digits, 16).ok().filter(|count| *count >= 2)
    };
    wait::until(Duration::from_secs(30), "two timeouts", timeouts).expect("the timer fires");
    assert_eq!(ring.in_flight(), 1);
    lun.release();
    let done = ring.wait_for(token, soon()).expect("completed").completion().expect("executed");
    assert_good(&done);
    let page = lun.journal();
    assert_eq!((commands(&page), functions(&page)), (vec![("READ(10)", 0)], vec![]));
    assert_eq!((page.entries[0].tag, page.entries[0].held), (tag, true));
}
