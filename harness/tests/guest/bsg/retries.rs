//! How often a command is sent, and for how long: the midlayer's retries of passthrough, counted by the unit.
//! Responses are those of virtio 1.2, 5.6.6.1, host statuses those of include/scsi/scsi_status.h.

use std::{borrow::Cow, thread, time::Duration};

use bsg::{Access, BsgUring, Buffer, Completion, NodeIoctl, Passthrough, Request};
use control::JournalEntry;
use fault::Times;
use harness::{
    BlockDevice, Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare, wait,
};
use rstest::rstest;
use scsi_fault::{Effect, Rule, Sense, When};

use super::{
    cdb::{self, Size},
    events::KernelLog,
    ways::{URING_CMD, Way, execute, sg_io_v4, soon, uring_cmd},
};

/// Tags of a host that has few.
pub(crate) const TAGS: u16 = 16;

/// A host of the test's own, with so few tags that all can be used.
pub(crate) const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape { queues: Some(1), tags: Some(TAGS), ..HostShape::DEFAULT }),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// All units of a host, which share its tags evenly (block/blk-mq.h:hctx_may_queue): four each.
const UNITS: usize = 4;
const SHARE: usize = 4;

/// Takes the retry budget from every request of the host, by using all at once. `SG_IO` v4 alone sets none and has
/// that of whoever had its request before (drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn leaves `scmd->allowed` alone;
/// scsi_bsg_uring_cmd and sg.c:sg_start_req set it to 0): at first the scan, which sends its commands again. The
/// rings stay open.
#[track_caller]
pub(crate) fn spend_retries(luns: &[&Lun; UNITS]) -> [BsgUring; UNITS] {
    let rings = luns.map(|lun| {
        lun.hold(SHARE as u64);
        let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
        for _ in 0..SHARE {
            ring.submit(Request::new(&[0; 6]).into()).expect("submitted");
        }
        ring
    });
    luns.iter().for_each(|lun| drop(lun.held(SHARE)));
    luns.iter().for_each(|lun| lun.release());
    rings.map(|mut ring| {
        while ring.in_flight() > 0 {
            let done = ring.wait(soon()).expect("completed");
            assert_good(&done.completion().expect("executed"));
        }
        ring
    })
}

fn test_unit_ready() -> Request {
    Request::new(&[0; 6])
}

fn read() -> Request {
    Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512)
}

/// Device and host status.
fn statuses(done: &Completion) -> (u32, u32) {
    (done.device_status, done.host_status)
}

/// Befalls every command.
#[track_caller]
fn befall(lun: &Lun, effect: Effect, times: Times) {
    lun.faults([Rule::new("fault", effect).when(When::any()).times(times)]);
}

/// What the unit was asked by this.
#[track_caller]
fn asked(
    lun: &Lun,
    way: &mut dyn Passthrough,
    request: Request,
) -> (Completion, Vec<JournalEntry>) {
    let before = lun.journal().entries.len();
    let done = execute(way, request);
    (done, lun.journal().entries.split_off(before))
}

/// drivers/scsi/scsi_lib.c:scsi_io_completion ends what has data, whatever became of it, and hands what has none to
/// scsi_io_completion_action, which sends a command again after DID_RESET. All others are sent once: uring_cmd and
/// sg v3 have no budget (include/scsi/sg.h: SG_DEFAULT_RETRIES is 0).
#[rstest]
fn response_is_told_at_once_but_for_a_reset_without_data(
    #[values(Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Quirk);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    for (response, host_status) in [
        ("OVERRUN", 7),
        ("ABORTED", 5),
        ("BAD TARGET", 4),
        ("BUSY", 2),
        ("TRANSPORT FAILURE", 14),
        ("TARGET FAILURE", 4),
        ("FAILURE", 7),
        ("INCORRECT LUN", 7),
    ] {
        for request in [test_unit_ready(), read()] {
            befall(&lun, Effect::response(response), Times::Always);
            let (done, entries) = asked(&lun, &mut *way, request);
            assert_eq!((statuses(&done), entries.len()), ((0, host_status), 1), "{response}");
        }
    }
    for request in [test_unit_ready(), read()] {
        befall(&lun, Effect::response("NEXUS FAILURE"), Times::Always);
        let (done, entries) = asked(&lun, &mut *way, request);
        assert_eq!((statuses(&done), entries.len()), ((0x18, 0), 1));
    }
    befall(&lun, Effect::response("RESET"), Times::First(3));
    let (done, entries) = asked(&lun, &mut *way, read());
    assert_eq!((statuses(&done), entries.len()), ((0, 8), 1));
    befall(&lun, Effect::response("RESET"), Times::First(3));
    let (done, entries) = asked(&lun, &mut *way, test_unit_ready());
    assert_eq!((statuses(&done), entries.len()), ((0, 0), 4));
}

/// drivers/scsi/scsi_error.c:scsi_noretry_cmd vetoes retries of passthrough that ended with CHECK CONDITION,
/// whatever the sense data and the host status. Where the status is another, the host has failed and no data was to
/// move, sense data of a UNIT ATTENTION has the command sent again (scsi_lib.c:scsi_io_completion_action).
#[test]
fn unit_attention_is_told_unless_the_host_has_failed_without_data() {
    declare!(Quirk, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let reset = || Effect::sense(Sense::codes(6, 0x29, 0));
    let aborted = || Effect { response: Some("ABORTED".into()), ..reset() };
    let good = || Effect { status: Some("GOOD".into()), ..aborted() };
    for (name, effect, request, expected, attempts) in [
        ("alone", reset(), test_unit_ready(), (2, 0), 1),
        ("alone, data", reset(), read(), (2, 0), 1),
        ("aborted", aborted(), test_unit_ready(), (2, 5), 1),
        ("aborted, data", aborted(), read(), (2, 5), 1),
        ("good, data", good(), read(), (0, 5), 1),
        ("good", good(), test_unit_ready(), (0, 0), 3),
    ] {
        befall(&lun, effect, Times::First(2));
        let (done, entries) = asked(&lun, &mut bsg, request);
        assert_eq!((statuses(&done), entries.len()), (expected, attempts), "{name}");
    }
}

/// drivers/scsi/scsi_lib.c:scsi_io_completion_nz_result notes the length of sense data in the command, and nobody takes
/// it back when that is sent again: scsi_bsg.c:scsi_bsg_sg_io_fn then returns so many bytes of none, zeros. sg v3 looks
/// at the sense data (sg.c:sg_new_read), uring_cmd at the status (scsi_bsg.c:scsi_bsg_uring_task_cb).
#[rstest]
#[case::sg_io_v4(Way::SgIoV4, &[0; 18])]
#[case::uring_cmd(Way::UringCmd, &[])]
#[case::sg_v3(Way::SgV3, &[])]
fn sense_data_of_an_attempt_before_leaves_its_length(#[case] way: Way, #[case] expected: &[u8]) {
    declare!(Accident);
    let lun = Lun::fresh();
    let attention = Effect {
        status: Some("GOOD".into()),
        sense: Some(Sense::codes(6, 0x29, 0)),
        ..Effect::response("ABORTED")
    };
    lun.faults([
        Rule::new("with sense data", attention),
        Rule::new("without", Effect::response("ABORTED")).nth(2),
    ]);
    let done = execute(&mut *way.open(lun.device()), test_unit_ready());
    assert_eq!((statuses(&done), done.sense.as_slice()), ((0, 5), expected));
    assert_eq!(lun.journal().entries.len(), 2);
}

/// drivers/scsi/scsi_lib.c:scsi_complete, scsi_sysfs.c: every attempt counts, as do the failed ones. Attributes are
/// hexadecimal.
#[rstest]
fn attempts_are_counted_in_sysfs(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    let counters = || {
        ["iorequest_cnt", "iodone_cnt", "ioerr_cnt"].map(|name| {
            let text = lun.device().attribute(name);
            let digits = text.strip_prefix("0x").expect("hexadecimal");
            u64::from_str_radix(digits, 16).expect("a number")
        })
    };
    befall(&lun, Effect::status("BUSY"), Times::First(3));
    let before = counters();
    assert_good(&execute(&mut *way, read()));
    let after = counters();
    assert_eq!([0, 1, 2].map(|at| after[at] - before[at]), [4, 4, 3]);
}

/// Has every request of the host used by as many commands in flight at once, a share on each unit.
#[track_caller]
fn use_all_requests(luns: &[Lun; UNITS], submit: impl Fn(&Lun) + Sync) {
    for lun in luns {
        lun.hold(SHARE as u64);
    }
    thread::scope(|scope| {
        for lun in luns {
            let submit = &submit;
            scope.spawn(move || submit(lun));
        }
        luns.iter().for_each(|lun| drop(lun.held(SHARE)));
        luns.iter().for_each(Lun::release);
    });
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn sets no budget of retries (`scmd->allowed`): `SG_IO` v4 is sent again as
/// often as the user of the request before it would have been. sd allows five (sd.h: SD_MAX_RETRIES), uring_cmd and
/// sg v3 none.
#[test]
fn sg_io_v4_is_sent_again_as_often_as_the_user_before_it() {
    declare!(Accident, OWN_HOST);
    let luns = [(); UNITS].map(|()| Lun::disk_unit());
    give_retries(&luns);
    assert_eq!(attempts(&luns[0], Way::SgIoV4), 6);
    drop(spend_retries(&luns.each_ref()));
    assert_eq!(attempts(&luns[0], Way::SgIoV4), 1);
}

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd, drivers/scsi/sg.c:sg_start_req: these say that they want no retries
/// (include/scsi/sg.h: SG_DEFAULT_RETRIES is 0), whoever had the request before.
#[rstest]
fn budget_of_retries_is_not_that_of_the_user_before(#[values(Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract, OWN_HOST);
    let luns = [(); UNITS].map(|()| Lun::disk_unit());
    give_retries(&luns);
    assert_eq!(attempts(&luns[0], way), 1);
}

/// How often a command is sent that the transport fails.
#[track_caller]
fn attempts(lun: &Lun, way: Way) -> usize {
    befall(lun, Effect::response("TRANSPORT FAILURE"), Times::Always);
    let (done, entries) = asked(lun, &mut *way.open(lun.device()), read());
    assert_eq!(statuses(&done), (0, 14));
    entries.len()
}

/// Has sd use every request of the host last, which leaves a budget of five retries there.
#[track_caller]
fn give_retries(luns: &[Lun; UNITS]) {
    use_all_requests(luns, |lun| {
        let node = lun.device().disk();
        let disk = BlockDevice::open(&node, Access::ReadOnly);
        thread::scope(|scope| {
            for reader in 0..SHARE as u64 {
                let disk = &disk;
                // Far from each other, so that none becomes part of another.
                scope.spawn(move || disk.read(reader << 20, 512).expect("read"));
            }
        });
    });
}

/// What a unit answers for ever, and who gives up when.
struct ForEver {
    answer: &'static str,
    has_data: bool,
    /// Device and host status the command ends with.
    statuses: (u32, u32),
    /// The node's own time (SG_SET_TIMEOUT), in hundredths of a second.
    node: i32,
    /// Who sends, with which time in milliseconds, and the time it has. The ring comes last: closing it would have sg's
    /// call begun anew.
    attempts: &'static [(Way, u32, u64)],
}

/// `SG_IO` v4 takes the caller's time, or else the node's, and makes that no less than seven seconds.
const FOR_EVER: [ForEver; UNITS - 1] = [
    ForEver {
        answer: "BUSY",
        has_data: true,
        statuses: (0x08, 0),
        node: 800,
        attempts: &[(Way::SgIoV4, 400, 7000), (Way::SgV3, 400, 400), (Way::UringCmd, 1000, 1000)],
    },
    ForEver {
        answer: "TASK SET FULL",
        has_data: true,
        statuses: (0x28, 0),
        node: 0,
        attempts: &[(Way::SgIoV4, 7100, 7100), (Way::SgV3, 400, 400), (Way::UringCmd, 1000, 1000)],
    },
    ForEver {
        answer: "RESET",
        has_data: false,
        statuses: (0, 8),
        node: 750,
        attempts: &[(Way::SgIoV4, 0, 7500), (Way::SgV3, 400, 400), (Way::UringCmd, 1000, 1000)],
    },
];

/// Sends what is never served, by each way in turn, and has it given up no earlier than it should be.
#[track_caller]
fn give_up(lun: &Lun, row: &ForEver) {
    /// The guest counts in ticks of 4 ms and from before the unit sees the command.
    const SLACK_MS: u64 = 50;
    let effect = || match row.answer {
        "RESET" => Effect::response(row.answer),
        status => Effect::status(status),
    };
    let node = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut int = Buffer::zeroed(4).expect("a page of memory");
    int.copy_from_slice(&row.node.to_ne_bytes());
    assert_eq!(node.call(NodeIoctl::SetTimeout, &mut int.into()), Ok(0));
    for (way, timeout_ms, expected_ms) in row.attempts {
        lun.renew();
        befall(lun, effect(), Times::Always);
        let request = if row.has_data { read() } else { test_unit_ready() };
        let done = execute(&mut *way.open(lun.device()), request.timeout_ms(*timeout_ms));
        assert_eq!(statuses(&done), row.statuses, "{way:?} {}", row.answer);
        let page = lun.journal();
        let entries = &page.entries;
        let ms = (entries[entries.len() - 1].completed_us - entries[0].fetched_us) / 1000;
        assert!(entries.len() > 2, "{way:?} {}: {page:?}", row.answer);
        assert!(ms + SLACK_MS >= *expected_ms, "{way:?} {}: given up after {ms} ms", row.answer);
    }
}

/// What nobody gives a time has 60 s (include/linux/blkdev.h: BLK_DEFAULT_SG_TIMEOUT), of which more than the floor is
/// waited for here.
#[track_caller]
fn outlive_the_floor(lun: &Lun) {
    befall(lun, Effect::status("BUSY"), Times::Always);
    thread::scope(|scope| {
        let senders = [Way::SgIoV4, Way::UringCmd].map(|way| {
            scope.spawn(move || execute(&mut *way.open(lun.device()), read().timeout_ms(0)))
        });
        let tried = wait::until(Duration::from_secs(20), "7.5 s of trying", || {
            let entries = lun.journal().entries;
            let us = entries.last()?.completed_us - entries[0].fetched_us;
            (us >= 7_500_000).then_some(())
        });
        tried.unwrap_or_else(|error| panic!("{error}"));
        lun.faults([]);
        for sender in senders {
            assert_good(&sender.join().expect("no panic"));
        }
    });
}

/// drivers/scsi/scsi_lib.c:scsi_cmd_runtime_exceeced: what is sent again without a budget is so until the time of the
/// command is over, which it says in the log, in seconds. uring_cmd and sg v3 take that from the caller as it is,
/// `SG_IO` v4 makes it no less than seven seconds (block/bsg.c:bsg_timeout, include/linux/blkdev.h:
/// BLK_MIN_SG_TIMEOUT).
#[test]
fn command_is_sent_again_until_its_time_is_over() {
    declare!(Contract, OWN_HOST);
    let luns = [(); UNITS].map(|()| Lun::fresh());
    let _stay_open = spend_retries(&luns.each_ref());
    let mut log = KernelLog::begin();
    thread::scope(|scope| {
        for (lun, row) in luns.iter().zip(&FOR_EVER) {
            scope.spawn(move || give_up(lun, row));
        }
        outlive_the_floor(&luns[UNITS - 1]);
    });
    let records = log.records_with("timing out command");
    for (lun, row) in luns.iter().zip(&FOR_EVER) {
        let unit = format!(" {}: ", lun.device().hctl);
        let of_unit = records.iter().filter(|record| record.contains(&unit));
        let waited = of_unit.map(|record| {
            let (_, rest) = record.split_once("waited ").expect("a time");
            rest.lines().next().expect("a time").to_owned()
        });
        let expected = row.attempts.iter().map(|(.., ms)| format!("{}s", ms / 1000));
        assert_eq!(Vec::from_iter(waited), Vec::from_iter(expected), "{}: {records:?}", row.answer);
    }
}

/// drivers/scsi/sg.c:sg_ioctl_common waits interruptibly and leaves a command to itself that it is torn from; the
/// call is begun anew, and sends it again. A ring that is closed tears the task from it that has used the ring
/// (io_uring/io_uring.c:io_ring_exit_work). bsg waits uninterruptibly.
#[rstest]
#[case::sg_v3(Way::SgV3, 2)]
#[case::sg_io_v4(Way::SgIoV4, 1)]
fn command_of_a_task_that_is_interrupted(#[case] way: Way, #[case] times: usize) {
    declare!(Quirk, OWN_HOST);
    let lun = Lun::fresh();
    let (give, take) = std::sync::mpsc::channel();
    befall(&lun, Effect::hold(), Times::Always);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
            let token = ring.submit(test_unit_ready().into()).expect("submitted");
            lun.held(1);
            lun.release();
            let done = ring.wait_for(token, soon()).expect("completed");
            assert_good(&done.completion().expect("executed"));
            give.send(ring).expect("taken");
            assert_good(&execute(&mut *way.open(lun.device()), read()));
        });
        let ring = take.recv().expect("given");
        lun.held(1);
        drop(ring);
        lun.held(times);
        lun.release();
        sender.join().expect("no panic");
    });
    let entries = lun.journal().entries;
    let reads = entries.iter().filter(|entry| entry.command == "READ(10)");
    assert_eq!(reads.count(), times);
}
