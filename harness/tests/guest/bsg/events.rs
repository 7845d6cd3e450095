//! Events that were lost, that the driver does not know, and that no device may send: virtio 1.2, 5.6.6.3, as
//! drivers/scsi/virtio_scsi.c:virtscsi_handle_event takes them. It has eight buffers.

use std::{
    borrow::Cow,
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use bsg::{Access, BsgUring, Request};
use control::{Command, Event, LunAddress, LunSpec};
use fault::Times;
use harness::{
    Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost,
    assert::{assert_good, assert_sense},
    bench, declare, sysfs, wait,
};
use rustix::fs::OFlags;
use scsi_fault::{Effect, Hostile, RawEvent, Rule, Scenario, When};

use super::ways::{execute, soon, uring_cmd};

const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// A LUN the pool of a test's own host does not have.
const NEW: LunAddress = LunAddress { target: 0, lun: 77 };
/// One that never comes to be.
const NEVER: LunAddress = LunAddress { target: 0, lun: 78 };

fn device_at(address: LunAddress) -> ScsiDevice {
    let host = sysfs::scsi_host_below(Path::new(&bench::host().slots[0]));
    ScsiDevice { hctl: format!("{host}:0:{}:{}", address.target, address.lun) }
}

fn send(address: LunAddress, event: Event) {
    bench::control(Command::Event { address, event });
}

/// GOOD, perhaps behind the unit attention condition REPORTED LUNS DATA HAS CHANGED, 6/3F/0E (SPC-4).
#[track_caller]
fn assert_works(bsg: &mut BsgUring) {
    let first = execute(bsg, Request::new(&[0; 6]));
    if first.device_status != 0 {
        assert_sense(&first, 0x06, 0x3f, 0x0e);
    }
    assert_good(&execute(bsg, Request::new(&[0; 6])));
}

/// The commands the unit was sent, by name.
fn commands(lun: &Lun) -> Vec<String> {
    lun.journal().entries.into_iter().map(|entry| entry.command).collect()
}

/// EVENTS_MISSED makes the guest ask every unit it knows, and look for others. Nothing else tells it here of one that
/// went and one that came.
///
/// A removal waits for the commands of its unit, and holds what every scan needs
/// (drivers/scsi/scsi_sysfs.c:scsi_remove_device, `scan_mutex`), so that no event behind it comes to an end: seven more
/// take the other buffers, and the ninth finds none.
#[test]
fn missed_events_make_the_guest_look_for_itself() {
    declare!(Contract, OWN_HOST);
    let (stuck, goes) = (Lun::fresh(), Lun::fresh());
    stuck.hold(1);
    let mut bsg = uring_cmd(stuck.device(), Access::ReadWrite);
    let token = bsg.submit(Request::new(&[0; 6]).into()).expect("submitted");
    stuck.held(1);
    send(stuck.address(), Event::Removed);
    sysfs::vanish(&stuck.device().bsg());
    for _ in 0..7 {
        send(NEVER, Event::Added);
    }
    bench::control(Command::Plug { address: NEW, spec: LunSpec::default(), silent: true });
    bench::control(Command::Unplug { address: goes.address(), silent: true });
    send(NEVER, Event::Added);
    let (known, unknown) = (goes.device().dir().exists(), device_at(NEW).dir().exists());
    stuck.release();
    assert_eq!((known, unknown), (true, false));
    let done = bsg.wait_for(token, soon()).expect("completed").completion().expect("executed");
    // It is carried out now: REPORTED LUNS DATA HAS CHANGED (SPC-4).
    assert_sense(&done, 0x06, 0x3f, 0x0e);
    drop(bsg);
    sysfs::appear(&device_at(NEW).bsg());
    sysfs::vanish(&goes.device().dir());
    // The removal was no truth, so the unit is found again.
    let again = device_at(stuck.address());
    sysfs::appear(&again.bsg());
    for device in [again, device_at(NEW)] {
        assert_works(&mut uring_cmd(&device, Access::ReadWrite));
    }
    assert!(!device_at(NEVER).dir().exists());
}

/// MODE PARAMETERS CHANGED (2A/01) makes the guest ask again (scsi_rescan_device). A hard reset (reason 0) it does not
/// know, and does nothing about it.
#[test]
fn changed_parameter_is_asked_for_and_hard_reset_is_nothing() {
    declare!(Quirk, OWN_HOST);
    let lun = Lun::fresh();
    let before = commands(&lun);
    let mut log = KernelLog::begin();
    send(lun.address(), Event::Reset);
    send(lun.address(), Event::ParameterChanged { asc: 0x2a, ascq: 0x01 });
    let asked = || Some(commands(&lun)).filter(|seen| seen.len() > before.len());
    let seen = wait::until(Duration::from_secs(20), "a question", asked);
    let seen = seen.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(seen[before.len()], "INQUIRY");
    log.wait_for(&["virtio scsi event reason 0"], 1);
    assert!(lun.device().bsg().exists());
    assert_good(&execute(&mut uring_cmd(lun.device(), Access::ReadWrite), Request::new(&[0; 6])));
}

/// What the kernel says from now on.
pub(crate) struct KernelLog(File);

impl KernelLog {
    #[track_caller]
    pub(crate) fn begin() -> Self {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let log = File::options().read(true).custom_flags(nonblocking).open("/dev/kmsg");
        let mut log = log.expect("a kernel log");
        log.seek(SeekFrom::End(0)).expect("the end of the log");
        KernelLog(log)
    }

    /// Waits until each of these has been said so many times, and not once more.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &[&str], times: usize) {
        let mut counts = vec![0; words.len()];
        let said = wait::until(Duration::from_secs(20), format_args!("{words:?}"), || {
            while let Some(record) = self.next() {
                for (count, words) in counts.iter_mut().zip(words) {
                    *count += usize::from(record.contains(words));
                }
            }
            counts.iter().all(|count| *count >= times).then_some(())
        });
        said.unwrap_or_else(|error| panic!("{error}"));
        assert!(counts.iter().all(|count| *count == times), "{words:?}: {counts:?}");
    }

    /// The records with these words that have come by now.
    #[track_caller]
    pub(crate) fn records_with(&mut self, words: &str) -> Vec<String> {
        std::iter::from_fn(|| self.next()).filter(|record| record.contains(words)).collect()
    }

    /// Each read brings one record (Documentation/ABI/testing/dev-kmsg).
    #[track_caller]
    fn next(&mut self) -> Option<String> {
        let mut record = [0; 8192];
        match self.0.read(&mut record) {
            Ok(len) => Some(String::from_utf8_lossy(&record[..len]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the kernel log: {error}"),
        }
    }
}

fn wild(event: u32, lun: [u8; 8], reason: u32) -> Effect {
    let event = RawEvent { event, lun, reason };
    let hostile = Hostile { event: Some(event), ..Hostile::default() };
    Effect { hostile: Some(hostile), ..Effect::default() }
}

/// Units that cannot be are looked for in vain, and those nobody knows are not removed; each buffer comes back, so that
/// a true event is seen afterwards.
#[test]
fn wild_events_bring_nothing_and_take_nothing() {
    declare!(Quirk, OWN_HOST);
    let text = include_str!("../../../scenarios/wild-event.toml");
    let scenario = Scenario::parse(text).expect("a sound scenario");
    let ready = || When::command("TEST UNIT READY");
    let effect = wild(1, [1, 0, 0xff, 0xff, 0, 0, 0, 0], 1);
    assert_eq!(scenario, Scenario::new(0, vec![Rule::new("wild", effect).when(ready())]));
    let lun = Lun::fresh();
    let devices = || {
        let mut all = sysfs::entries(Path::new("/sys/bus/scsi/devices"));
        let host = lun.device().hctl.split(':').next().expect("a host").to_owned() + ":";
        all.retain(|name| name.starts_with(&host));
        all.sort();
        all
    };
    let before = devices();
    let mut log = KernelLog::begin();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    lun.scenario(&scenario);
    assert_good(&execute(&mut bsg, Request::new(&[0; 6])));
    for (event, address, reason) in [
        (1, [0xff; 8], 1),
        (1, [1, 255, 0, 0, 0, 0, 0, 0], 1),
        (1, [1, 0, 0x80, 1, 0, 0, 0, 0], 1),
        (1, [1, 0, 0xc1, 1, 0xff, 0xff, 0xff, 0xff], 2),
        (1, [1, 200, 0, 0, 0, 0, 0, 0], 2),
        (1, [1, 0, 0, 99, 0, 0, 0, 0], 77),
        (3, [0xff; 8], 0xffff_ffff),
        (0x7fff_ffff, [0xff; 8], 0xffff_ffff),
    ] {
        let rule = Rule::new("wild", wild(event, address, reason)).when(ready());
        lun.faults([rule.times(Times::First(2))]);
        for _ in 0..2 {
            assert_good(&execute(&mut bsg, Request::new(&[0; 6])));
        }
    }
    bench::control(Command::Plug { address: NEW, spec: LunSpec::default(), silent: false });
    sysfs::appear(&device_at(NEW).bsg());
    bench::control(Command::Unplug { address: NEW, silent: false });
    sysfs::vanish(&device_at(NEW).dir());
    assert_eq!(devices(), before);
    let host = lun.device().hctl.split(':').next().expect("a host");
    let unknown = [
        &format!("SCSI device {host} 0 200 0 not found"),
        &format!("SCSI device {host} 0 255 65535 not found"),
        "virtio scsi event reason 4d",
        "virtio scsi event 7fffffff",
    ];
    log.wait_for(&unknown, 2);
    assert_works(&mut bsg);
}
