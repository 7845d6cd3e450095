//! What fails gives back what it took: tags, pages, memory.

use std::{collections::BTreeMap, fs};

use bsg::{Access, BsgUring, Buffer, Data, Pointer, Region, Request, UringFrame, V4Frame};
use fault::Times;
use harness::{HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare, privilege};
use scsi_fault::{Effect, Rule, When};

use super::{
    super::{
        cdb::{self, Size},
        ways::{URING_CMD, complete, execute, sg_io_v4, soon},
    },
    FEW_TAGS, TAGS, assert_every_tag_is_free, every_tag_is_free_after, opened, pinned_pages,
};

/// As [`FEW_TAGS`], with transfers of at most 64 blocks.
const SHORT: Needs = Needs {
    host: ScsiHost::Own(HostShape { tags: Some(4), max_sectors: Some(64), ..HostShape::DEFAULT }),
    ..FEW_TAGS
};

/// READ(10) of one block.
fn read() -> Request {
    Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512)
}

/// READ(10) of the last of all addresses, which the unit does not have: CHECK CONDITION.
fn out_of_range() -> Request {
    Request::new(&[0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0]).data_in(512)
}

/// READ(10) into two pages, of which the second is not there: the first has been pinned when that shows.
fn half_there() -> Request {
    let region = Region::zeroed(8192).expect("two pages");
    region.unmap(4096..8192).expect("the page is ours");
    let slice = region.slice(0..8192);
    Request::new(&cdb::read(Size::Ten, 0, 16)).data(Data::SliceIn(slice))
}

/// READ(10) that is bounced, to be copied to a page that cannot be written.
fn copied_to_read_only() -> Request {
    let region = Region::zeroed(4096).expect("a page");
    region.make_read_only(0..4096).expect("the page is ours");
    Request::new(&cdb::read(Size::Ten, 0, 1)).data(Data::SliceIn(region.slice(1..513)))
}

/// A way to fail behind the allocation of a request, as both structures say it.
struct Failure {
    name: &'static str,
    request: fn() -> Request,
    uring: fn(&mut UringFrame),
    v4: fn(&mut V4Frame),
    /// Negated errno, or 0 for a command that was executed.
    res: i32,
}

const FAILURES: [Failure; 9] = [
    Failure {
        name: "a CDB too long",
        request: read,
        uring: |frame| frame.command.request_len = 33,
        v4: |frame| frame.header.request_len = 33,
        res: -22,
    },
    Failure {
        name: "a CDB that is not there",
        request: read,
        uring: |frame| frame.request = Pointer::Unmapped,
        v4: |frame| frame.request = Pointer::Unmapped,
        res: -14,
    },
    Failure {
        name: "an opcode that is not allowed",
        request: || Request::new(&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        uring: |_| {},
        v4: |_| {},
        res: -1,
    },
    Failure {
        name: "data that is not there",
        request: read,
        uring: |frame| frame.din = Pointer::Unmapped,
        v4: |frame| frame.din = Pointer::Unmapped,
        res: -14,
    },
    Failure {
        name: "data that is half there",
        request: half_there,
        uring: |_| {},
        v4: |_| {},
        res: -14,
    },
    Failure {
        name: "too much data",
        request: || Request::new(&cdb::read(Size::Ten, 0, 72)).data_in(72 * 512),
        uring: |_| {},
        v4: |_| {},
        res: -22,
    },
    Failure {
        name: "sense data for nowhere",
        request: out_of_range,
        uring: |frame| frame.response = Pointer::Unmapped,
        v4: |frame| frame.response = Pointer::Unmapped,
        res: -14,
    },
    Failure { name: "CHECK CONDITION", request: out_of_range, uring: |_| {}, v4: |_| {}, res: 0 },
    Failure {
        name: "data that cannot be copied",
        request: copied_to_read_only,
        uring: |_| {},
        v4: |_| {},
        res: 0,
    },
];

/// drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd and scsi_bsg_sg_io_fn, `out_free_req` and `out_put_request`: whatever goes
/// wrong once there is a request, the request is freed. One more failure than there are tags, of each kind and over both
/// ways, and every tag is free and no page pinned.
#[test]
fn failed_commands_give_back_tags_and_pages() {
    declare!(Contract, SHORT);
    let (lun, mut bsg) = opened();
    let ioctl = sg_io_v4(lun.device(), Access::ReadWrite);
    privilege::drop_sys_rawio();
    let before = pinned_pages();
    for failure in FAILURES {
        for _ in 0..=TAGS {
            let mut frame = UringFrame::from((failure.request)());
            (failure.uring)(&mut frame);
            assert_eq!(complete(&mut bsg, frame).res, failure.res, "{}, uring_cmd", failure.name);
        }
        every_tag_is_free_after(&lun, &format!("{}, uring_cmd", failure.name));
        for _ in 0..=TAGS {
            let mut frame = V4Frame::from((failure.request)());
            (failure.v4)(&mut frame);
            let errno = ioctl.sg_io(&mut frame).map_or_else(|errno| errno.raw_os_error(), |()| 0);
            assert_eq!(-errno, failure.res, "{}, SG_IO", failure.name);
        }
        every_tag_is_free_after(&lun, &format!("{}, SG_IO", failure.name));
        assert_eq!(pinned_pages(), before, "pinned after {}", failure.name);
    }
}

/// As above, for what only a ring has: a place in a table of buffers that there is not.
#[test]
fn failed_registered_buffers_give_back_tags() {
    declare!(Contract, FEW_TAGS);
    let (lun, mut bsg) = opened();
    for _ in 0..=TAGS {
        let frame = UringFrame::from(read().fixed(0));
        assert_eq!(complete(&mut bsg, frame).res, -14);
    }
    assert_every_tag_is_free(&lun);
}

/// virtio 1.2, 5.6.6.1, as drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd takes it: the responses 1 (OVERRUN) to 9
/// (FAILURE), and one that there is not. One more of each than there are tags.
#[test]
fn failed_responses_give_back_tags_and_pages() {
    declare!(Contract, FEW_TAGS);
    let (lun, mut bsg) = opened();
    let before = pinned_pages();
    // include/scsi/scsi_status.h, DID_*; 8, NEXUS_FAILURE, is a status.
    for (response, host) in
        [(1, 7), (2, 5), (3, 4), (4, 8), (5, 2), (6, 14), (7, 4), (8, 0), (9, 7), (10, 7)]
    {
        let effect = Effect::response(response);
        let when = When::command("READ(10)");
        lun.faults([Rule::new("fails", effect).when(when).times(Times::Always)]);
        for _ in 0..=TAGS {
            let done = execute(&mut bsg, read());
            assert_eq!(done.host_status, host, "response {response}: {done:?}");
        }
        every_tag_is_free_after(&lun, &format!("response {response}"));
        assert_eq!(pinned_pages(), before, "pinned after response {response}");
    }
}

/// A number of /proc/meminfo, in KiB.
#[track_caller]
fn meminfo(name: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
    number.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// A counter of the unit; drivers/scsi/scsi_sysfs.c:show_iostat_counterbits says it in hex.
#[track_caller]
fn counter(lun: &Lun, name: &str) -> u64 {
    let text = lun.device().attribute(name);
    let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("{name}: {text}"));
    u64::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{name}: {text}: {error}"))
}

/// Sends each of these over and over, all at once, and has them again when they are complete.
#[track_caller]
fn send(
    bsg: &mut BsgUring,
    frames: Vec<(UringFrame, i32)>,
    rounds: usize,
) -> Vec<(UringFrame, i32)> {
    (0..rounds).fold(frames, |frames, _| {
        let push = |(frame, res)| (bsg.push(frame).expect("room"), res);
        let expected: BTreeMap<_, _> = frames.into_iter().map(push).collect();
        let take = |_| {
            let done = bsg.wait(soon()).expect("completed");
            assert_eq!(done.res, expected[&done.token]);
            (done.frame, done.res)
        };
        (0..expected.len()).map(take).collect()
    })
}

/// Ten thousand commands, mapped and bounced, good, failed and refused, leave nothing behind: no page is pinned, no
/// memory of the kernel used, and the unit has answered each once.
#[test]
fn ten_thousand_commands_leave_nothing_behind() {
    declare!(Contract, URING_CMD);
    let (lun, mut bsg) = opened();
    let bounced = || {
        let buffer = Buffer::at_offset(1, 4096).expect("two pages");
        Request::new(&cdb::read(Size::Ten, 0, 8)).data(Data::In(buffer))
    };
    let kinds: [(fn() -> Request, i32); 5] = [
        (|| Request::new(&cdb::read(Size::Ten, 0, 8)).data_in(4096), 0),
        (bounced, 0),
        (|| Request::new(&cdb::write(Size::Ten, 0, 8)).data_out(&[0; 4096]), 0),
        (out_of_range, 0),
        (half_there, -14),
    ];
    let frames = kinds
        .iter()
        .flat_map(|(request, res)| (0..10).map(move |_| (UringFrame::from(request()), *res)));
    // What is made once is made now.
    let frames = send(&mut bsg, frames.collect(), 10);
    let requests = ["iorequest_cnt", "iodone_cnt", "ioerr_cnt"];
    let counters = || requests.map(|name| counter(&lun, name));
    let memory = || [pinned_pages(), meminfo("SUnreclaim:"), -meminfo("MemAvailable:")];
    let (counters_before, memory_before) = (counters(), memory());
    send(&mut bsg, frames, 200);
    let grown = memory().into_iter().zip(memory_before).map(|(now, then)| now - then);
    let grown: Vec<_> = grown.collect();
    let counted = counters().into_iter().zip(counters_before).map(|(now, then)| now - then);
    assert_eq!(Vec::from_iter(counted), [8000, 8000, 2000]);
    assert!(grown[0] == 0 && grown[1] < 256 && grown[2] < 4096, "{grown:?}");
    assert_good(&execute(&mut bsg, read()));
}
