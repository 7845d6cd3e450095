//! Errors that a driver reports, and the error handler's rungs that virtio_scsi does not have, on stock
//! kernels: scsi_debug fails what its debugfs file says (drivers/scsi/scsi_debug.c:sdebug_error_write).
//!
//! Host statuses are those of include/scsi/scsi_status.h, statuses and sense keys those of SAM-5 and SPC-4.
//! No test sends FORMAT UNIT or SANITIZE, of which scsi_debug dies (see `scsi_debug.rs`).

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use bsg::{Access, Completion, Request};
use harness::{
    BlockDevice, Feature, Module, Needs, ScsiDevice, assert::assert_good, declare, scsi_debug,
};
use rstest::rstest;
use rustix::fs::OFlags;

use super::{
    cdb::{self, Size},
    ways::{Way, execute, uring_cmd},
};

/// A machine whose scsi_debug is for the tests of this file: its error handler stops a whole host.
const INJECTION: Needs = Needs {
    modules: Cow::Borrowed(&[Module {
        name: Cow::Borrowed("scsi_debug"),
        params: Cow::Borrowed("dev_size_mb=8 delay=0 opts=0x2000"),
    }]),
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_SCSI_DEBUG")),
        Feature::Config(Cow::Borrowed("CONFIG_DEBUG_FS")),
        Feature::KernelAtLeast(7, 1),
    ]),
    ..Needs::DEFAULT
};

const DID_OK: u32 = 0x00;
const DID_NO_CONNECT: u32 = 0x01;
const DID_TIME_OUT: u32 = 0x03;
const DID_BAD_TARGET: u32 = 0x04;
const DID_ABORT: u32 = 0x05;
const DID_ERROR: u32 = 0x07;
const DID_RESET: u32 = 0x08;
const DID_TRANSPORT_DISRUPTED: u32 = 0x0e;
const DID_TRANSPORT_FAILFAST: u32 = 0x0f;

/// Rules of scsi_debug for one of its units; those still there go when the test ends, passed or not.
struct Injection {
    file: PathBuf,
    added: Vec<String>,
}

impl Injection {
    fn on(device: &ScsiDevice) -> Self {
        let file = PathBuf::from("/sys/kernel/debug/scsi_debug").join(&device.hctl).join("error");
        Injection { file, added: Vec::new() }
    }

    /// Adds a rule: type, count (negative: so many times, positive: always), operation code, details.
    #[track_caller]
    fn add(&mut self, rule: &str) {
        fs::write(&self.file, rule)
            .unwrap_or_else(|error| panic!("{}: {rule:?}: {error}", self.file.display()));
        let words: Vec<_> = rule.split(' ').collect();
        self.added.push(format!("- {} {}", words[0], words[2]));
    }

    /// How many of the rules' times are left: zero says that each has fired as often as it was to.
    #[track_caller]
    fn left(&self) -> i32 {
        let text = fs::read_to_string(&self.file).expect("the rules can be read");
        let counts = text.lines().skip(1).map(|line| line.split('\t').nth(1).expect("a count"));
        counts.map(|count| count.parse::<i32>().expect("a number")).sum()
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        for rule in &self.added {
            // One that a later rule has replaced is gone already, and the kernel says so.
            let _gone = fs::write(&self.file, rule);
        }
    }
}

fn read() -> Request {
    Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512)
}

fn statuses(done: &Completion) -> (u32, u32, u32) {
    (done.device_status, done.driver_status, done.host_status)
}

/// The kernel's log from now on, in which scsi_debug says what it is asked for (`opts`, SDEBUG_OPT_RESET_NOISE).
struct Log(File);

impl Log {
    fn from_now() -> Self {
        let nonblock = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = File::options();
        let mut log = options.read(true).custom_flags(nonblock).open("/dev/kmsg").expect("a log");
        log.seek(SeekFrom::End(0)).expect("the end of the log");
        Log(log)
    }

    /// How often the driver was asked to abort a command and to reset a unit, a target, a bus, a host.
    fn rungs(&mut self) -> [usize; 5] {
        let mut text = String::new();
        let mut record = [0; 8192];
        // A read is one record, and fails where there is none.
        while let Ok(len) = self.0.read(&mut record) {
            text.push_str(&String::from_utf8_lossy(&record[..len]));
        }
        [
            "fail abort command",
            "doing device reset",
            "doing target reset",
            "doing bus reset",
            "doing host reset",
        ]
        .map(|words| text.matches(words).count())
    }
}

#[track_caller]
fn counter(device: &ScsiDevice, name: &str) -> u64 {
    let text = device.attribute(name);
    let digits = text.strip_prefix("0x").expect("hexadecimal");
    u64::from_str_radix(digits, 16).expect("a number")
}

#[track_caller]
fn write_attribute(device: &ScsiDevice, name: &str, value: &str) {
    let path = device.dir().join(name);
    fs::write(&path, format!("{value}\n"))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// drivers/scsi/scsi_error.c:scsi_decide_disposition, scsi_noretry_cmd and
/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn: the host byte and the status arrive as the driver set
/// them; the byte above them, which drivers do not set any more, never does.
#[rstest]
fn host_byte_and_status_of_the_driver_arrive(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract, INJECTION);
    let device = scsi_debug::device();
    let mut node = way.open(&device);
    let errors = counter(&device, "ioerr_cnt");
    let mut ended = 0;
    let outcomes = [
        ("1 0 0", (0, 0, DID_NO_CONNECT)),
        ("4 0 0", (0, 0, DID_BAD_TARGET)),
        ("5 0 0", (0, 0, DID_ABORT)),
        ("7 0 0", (0, 0, DID_ERROR)),
        ("8 0 0", (0, 0, DID_RESET)),
        ("e 0 0", (0, 0, DID_TRANSPORT_DISRUPTED)),
        ("f 0 0", (0, 0, DID_TRANSPORT_FAILFAST)),
        ("0 0 18", (0x18, 0, DID_OK)),
        ("0 0 2", (2, 8, DID_OK)),
        ("0 6 2", (2, 8, DID_OK)),
        ("4 0 18", (0x18, 0, DID_BAD_TARGET)),
        ("4 6 2", (2, 8, DID_BAD_TARGET)),
    ];
    for (bytes, expected) in outcomes {
        // SG_IO v4 has the retries of whoever had its request before (drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn sets none).
        let retried = [DID_ERROR, DID_RESET, DID_TRANSPORT_DISRUPTED].contains(&expected.2);
        if retried && way == Way::SgIoV4 {
            continue;
        }
        // drivers/scsi/sg.c:sg_new_read: sg v3 says DRIVER_SENSE wherever there is sense data.
        let driver = if way == Way::SgV3 { 8 } else { expected.1 };
        let expected = (expected.0, driver, expected.2);
        ended += 1;
        let mut injection = Injection::on(&device);
        // MEDIUM ERROR, UNRECOVERED READ ERROR.
        injection.add(&format!("2 -1 28 {bytes} 3 11 0"));
        let done = execute(&mut *node, read());
        assert_eq!((statuses(&done), injection.left()), (expected, 0), "{bytes}: {done:?}");
        if expected == (2, 8, DID_OK) {
            // SPC-4, 4.5.3: fixed format, current.
            assert_eq!((done.sense[0] & 0x7f, done.sense[2] & 0xf), (0x70, 3), "{done:?}");
            assert_eq!(done.sense[12..14], [0x11, 0], "{done:?}");
        }
    }
    // drivers/scsi/scsi_lib.c:scsi_complete: each that ended with any result but 0.
    assert_eq!(counter(&device, "ioerr_cnt") - errors, ended);
    assert_good(&execute(&mut *node, read()));
}

/// drivers/scsi/scsi_lib.c:scsi_result_to_blk_status and block/blk-core.c:blk_errors: what a reader of
/// the disk is told of the same outcomes.
#[test]
fn reader_of_the_disk_gets_the_errno_of_the_outcome() {
    declare!(Contract, INJECTION);
    let device = scsi_debug::device();
    let disk = BlockDevice::open(&device.disk(), Access::ReadOnly);
    for (bytes, errno) in [
        ("0 0 2 3 11 0", 61),  // MEDIUM ERROR: ENODATA
        ("0 0 2 5 24 0", 121), // ILLEGAL REQUEST: EREMOTEIO
        ("0 0 18 0 0 0", 52),  // RESERVATION CONFLICT: EBADE
        ("1 0 0 0 0 0", 5),    // DID_NO_CONNECT: EIO
        ("f 0 0 0 0 0", 67),   // DID_TRANSPORT_FAILFAST: ENOLINK
    ] {
        let mut injection = Injection::on(&device);
        injection.add(&format!("2 1 28 {bytes}"));
        let error = disk.read(0, 4096).map(|_| ()).expect_err("the read fails");
        assert_eq!(error.raw_os_error(), Some(errno), "{bytes}: {error}");
    }
    disk.read(0, 4096).map(|_| ()).expect("the read succeeds");
}

/// drivers/scsi/scsi_error.c:scsi_eh_ready_devs: where the abort fails the unit is reset and tested,
/// and each TEST UNIT READY that fails leads to the next rung: target, bus, host, offline. The command
/// ends with DID_TIME_OUT wherever the ladder ends.
#[test]
fn each_failed_test_of_the_unit_leads_to_the_next_rung() {
    declare!(Contract, INJECTION);
    let device = scsi_debug::device();
    for (failed_tests, expected, state) in [
        (0, [1, 1, 0, 0, 0], "running"),
        (1, [1, 1, 1, 0, 0], "running"),
        (2, [1, 1, 1, 1, 0], "running"),
        (3, [1, 1, 1, 1, 1], "running"),
        (4, [1, 1, 1, 1, 1], "offline"),
    ] {
        let (mut log, timeouts) = (Log::from_now(), counter(&device, "iotmo_cnt"));
        let mut injection = Injection::on(&device);
        injection.add("0 -1 28");
        injection.add("3 -1 28");
        injection.add(&format!("2 -{failed_tests} 0 1 0 0 0 0 0"));
        let mut ring = uring_cmd(&device, Access::ReadWrite);
        let done = execute(&mut ring, read().timeout_ms(1));
        assert_eq!(statuses(&done), (0, 0, DID_TIME_OUT), "{failed_tests}: {done:?}");
        assert_eq!(log.rungs(), expected, "after {failed_tests} failed tests");
        assert_eq!(injection.left(), 0, "{failed_tests}");
        assert_eq!(device.attribute("state"), state, "{failed_tests}");
        assert_eq!(counter(&device, "iotmo_cnt") - timeouts, 1);
        if state == "offline" {
            let refused = execute(&mut ring, read());
            assert_eq!(statuses(&refused), (0, 0, DID_NO_CONNECT), "{refused:?}");
            write_attribute(&device, "state", "running");
        } else {
            // The unit attention of the reset was for the error handler's own command.
            assert_good(&execute(&mut ring, read()));
        }
    }
}

/// drivers/scsi/scsi_error.c:scsi_eh_bus_device_reset, scsi_eh_target_reset: a reset that the driver
/// calls failed is followed by the next one, without a test between.
#[test]
fn each_failed_reset_leads_to_the_next_rung() {
    declare!(Contract, INJECTION);
    let device = scsi_debug::device();
    let target = device.hctl.rsplit_once(':').expect("an address").0;
    let switch = PathBuf::from(format!("/sys/kernel/debug/scsi_debug/target{target}/fail_reset"));
    let fail_target = |value: &str| -> io::Result<()> { fs::write(&switch, value) };
    for (fails, expected) in [("N", [1, 1, 1, 0, 0]), ("Y", [1, 1, 1, 1, 0])] {
        let mut log = Log::from_now();
        let mut injection = Injection::on(&device);
        for rule in ["0 -1 28", "3 -1 28", "4 -1 28"] {
            injection.add(rule);
        }
        fail_target(fails).expect("the switch can be set");
        let done = execute(&mut uring_cmd(&device, Access::ReadWrite), read().timeout_ms(1));
        fail_target("N").expect("the switch can be set");
        assert_eq!(statuses(&done), (0, 0, DID_TIME_OUT), "{done:?}");
        assert_eq!((log.rungs(), injection.left()), (expected, 0));
    }
}

/// drivers/scsi/scsi_sysfs.c:store_shost_eh_deadline: seconds that the attribute has taken are those it shows and keeps to;
/// what is too long for it is EINVAL. It keeps ticks in an `int`.
#[test]
fn deadline_that_was_taken_is_the_one_that_is_shown() {
    declare!(Contract, INJECTION);
    let device = scsi_debug::device();
    let host = device.hctl.split(':').next().expect("host:channel:target:lun");
    let path = PathBuf::from(format!("/sys/class/scsi_host/host{host}/eh_deadline"));
    let shown = || fs::read_to_string(&path).expect("it is there").trim_end().to_owned();
    assert_eq!(shown(), "off");
    let mut wrong = Vec::new();
    for seconds in (0..63).map(|bit| 1_u64 << bit) {
        match fs::write(&path, seconds.to_string()) {
            Ok(()) if shown() == seconds.to_string() => {}
            Ok(()) => wrong.push((seconds, shown())),
            Err(error) => assert_eq!(error.raw_os_error(), Some(22), "{seconds}: {error}"),
        }
    }
    fs::write(&path, "off").expect("it can be switched off");
    assert_eq!(wrong, [], "seconds taken, and shown");
}
