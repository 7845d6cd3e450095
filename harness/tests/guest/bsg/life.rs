//! A host that goes and comes back while commands are held or in flight.
//!
//! Linux waits for every command before it lets a host go (drivers/scsi/hosts.c:scsi_remove_host,
//! block/blk-mq.c:blk_mq_destroy_queue), and virtio_scsi has no timeout: unbinding, removal and unloading stand still
//! until the target answers. Then the command ends as it would have, and no later one is lost.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bsg::{Access, BsgUring, Passthrough, Request};
use control::{Command, LunAddress};
use fault::Times;
use harness::{
    Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost,
    assert::assert_good,
    bench, declare,
    modules::{self, Modules},
    sysfs, wait,
};
use rstest::rstest;
use rustix::io::Errno;
use scsi_fault::{Effect, Rule, When};

use super::{
    block,
    cdb::{self, Size},
    ways::{soon, uring_cmd},
};

const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_scsi";

/// How a host goes.
#[derive(Clone, Copy, Debug)]
enum Removal {
    /// virtio_scsi lets go of the virtio device.
    Unbind,
    /// The guest removes the PCI function.
    Forget,
    /// QEMU asks the guest to eject it.
    Eject,
}

#[track_caller]
fn write(path: impl AsRef<Path>, value: &str) {
    let path = path.as_ref();
    fs::write(path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The test's HBA.
#[derive(Clone, Debug)]
struct Adapter {
    slot: PathBuf,
    function: PathBuf,
    /// Name of the virtio device on its bus.
    virtio: String,
}

impl Adapter {
    #[track_caller]
    fn of_test() -> Self {
        let slot = PathBuf::from(&bench::host().slots[0]);
        let host = sysfs::scsi_host_below(&slot);
        // slot/function/virtioN/hostN
        let class = Path::new("/sys/class/scsi_host").join(format!("host{host}/device"));
        sysfs::appear(&class);
        let host = fs::canonicalize(&class).expect("a link");
        let virtio = host.parent().expect("a virtio device");
        let function = virtio.parent().expect("a PCI function").to_owned();
        let virtio = virtio.file_name().expect("a name").to_string_lossy().into_owned();
        Adapter { slot, function, virtio }
    }

    /// Returns when the host is gone.
    #[track_caller]
    fn remove(&self, how: Removal) {
        match how {
            Removal::Unbind => write(Path::new(DRIVER).join("unbind"), &self.virtio),
            Removal::Forget => write(self.function.join("remove"), "1"),
            Removal::Eject => {
                bench::pull_adapter();
                sysfs::vanish(&self.function);
            }
        }
    }

    /// It may come back elsewhere.
    #[track_caller]
    fn bring_back(&self, how: Removal) -> Self {
        match how {
            Removal::Unbind => write(Path::new(DRIVER).join("bind"), &self.virtio),
            Removal::Forget => write(self.slot.join("rescan"), "1"),
            Removal::Eject => bench::plug_adapter(),
        }
        Self::of_test()
    }

    /// A unit behind it, once it is there. The host's number is another each time.
    #[track_caller]
    fn unit(&self, at: LunAddress) -> ScsiDevice {
        let host = sysfs::scsi_host_below(&self.slot);
        let device = ScsiDevice { hctl: format!("{host}:0:{}:{}", at.target, at.lun) };
        sysfs::appear(&device.bsg());
        device
    }
}

const COMMANDS: u8 = 8;

/// Blocks that say where they belong, so that what is brought to a wrong buffer shows.
#[track_caller]
fn fill(bsg: &mut BsgUring) {
    block::write(bsg, Size::Ten, 0, COMMANDS, &cdb::pattern(0, COMMANDS, 5));
}

/// Submits a read of each block.
#[track_caller]
fn submit(bsg: &mut BsgUring) -> Vec<(u64, u32)> {
    let submit = |lba| {
        let read = Request::new(&cdb::read(Size::Ten, lba, 1)).data_in(cdb::BLOCK);
        (bsg.submit(read.into()).expect("submitted"), lba)
    };
    (0..u32::from(COMMANDS)).map(submit).collect()
}

/// What becomes of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// They are held, and released while the host goes.
    Released,
    /// They are held, and aborted.
    Aborted,
    /// They are in flight, and end by themselves.
    ByThemselves,
}

impl End {
    fn effect(self) -> Effect {
        match self {
            End::Released | End::Aborted => Effect::hold(),
            End::ByThemselves => Effect {
                delay_us: Some(100_000),
                delay_up_to_us: Some(300_000),
                ..Effect::default()
            },
        }
    }
}

fn reads(effect: Effect) -> Rule {
    Rule::new("reads", effect).when(When::command("READ(10)")).times(Times::First(COMMANDS.into()))
}

/// Each ended as it had to, with its own data.
#[track_caller]
fn assert_ended(bsg: &mut BsgUring, submitted: Vec<(u64, u32)>, end: End) {
    for (token, lba) in submitted {
        let done = bsg.wait_for(token, soon()).expect("completed").completion().expect("executed");
        if end == End::Aborted {
            // include/scsi/scsi_status.h: DID_ABORT is 5.
            assert_eq!((done.device_status, done.host_status, done.residual), (0, 5, 512));
            assert_eq!(done.data, [0; 512]);
        } else {
            assert_good(&done);
            assert_eq!(done.data, cdb::pattern(lba, 1, 5), "block {lba}");
        }
    }
}

/// The unit works, and holds what it held.
#[track_caller]
fn assert_works(device: &ScsiDevice) {
    let mut bsg = uring_cmd(device, Access::ReadWrite);
    let seen = block::read(&mut bsg, Size::Ten, 0, COMMANDS);
    assert_eq!(seen, cdb::pattern(0, COMMANDS, 5));
}

#[rstest]
fn host_that_goes_waits_for_its_commands_and_comes_back(
    #[values(Removal::Unbind, Removal::Forget, Removal::Eject)] removal: Removal,
    #[values(End::Released, End::Aborted, End::ByThemselves)] end: End,
) {
    declare!(Quirk, OWN_HOST);
    let lun = Lun::fresh();
    let adapter = Adapter::of_test();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    fill(&mut bsg);
    lun.faults([reads(end.effect())]);
    let submitted = submit(&mut bsg);
    lun.held(COMMANDS.into());
    thread::scope(|scope| {
        let removing = scope.spawn(|| adapter.remove(removal));
        sysfs::vanish(&lun.device().bsg());
        // Asserted when nothing waits any more: a test that panics has to end.
        let (over, held) = (removing.is_finished(), lun.journal().held.len());
        match end {
            End::Released => lun.release(),
            End::Aborted => bench::control(Command::AbortHeld { address: lun.address() }),
            End::ByThemselves => {}
        }
        removing.join().expect("no panic");
        if end != End::ByThemselves {
            assert!(!over, "the host is gone, and its commands are not");
            assert_eq!(held, usize::from(COMMANDS));
        }
    });
    assert_ended(&mut bsg, submitted, end);
    // block/blk-core.c:blk_queue_enter: a queue that dies takes nothing.
    let late = Request::new(&[0; 6]);
    let refused = bsg.execute(late).expect_err("the unit is gone");
    assert_eq!(refused.errno(), Some(Errno::NODEV), "{refused}");
    drop(bsg);
    assert_works(&adapter.bring_back(removal).unit(lun.address()));
    assert!(lun.journal().held.is_empty());
}

/// A bsg node that is open keeps no module. The module goes when the commands of its hosts have ended; what is left of a
/// unit goes with its last file, when the module is long gone.
#[test]
fn module_that_is_unloaded_waits_for_its_commands_and_comes_back() {
    declare!(Quirk, Needs { own_vm: true, ..OWN_HOST });
    if !Path::new("/sys/module/virtio_scsi/initstate").exists() {
        bench::skip("virtio_scsi is built into this kernel");
    }
    let lun = Lun::fresh();
    let adapter = Adapter::of_test();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    fill(&mut bsg);
    lun.hold(COMMANDS.into());
    let submitted = submit(&mut bsg);
    lun.held(COMMANDS.into());
    thread::scope(|scope| {
        let unloading = scope.spawn(|| modules::unload("virtio_scsi"));
        sysfs::vanish(&lun.device().bsg());
        let (over, held) = (unloading.is_finished(), lun.journal().held.len());
        let state = sysfs::attribute(Path::new("/sys/module/virtio_scsi/initstate"));
        lun.release();
        unloading.join().expect("no panic").expect("nothing uses it any more");
        assert_eq!(state.expect("it has one"), "going");
        assert!(!over, "the module is gone, and its commands are not");
        assert_eq!(held, usize::from(COMMANDS));
    });
    assert_ended(&mut bsg, submitted, End::Released);
    assert!(!modules::is_loaded("virtio_scsi"));
    let refused = bsg.execute(Request::new(&[0; 6])).expect_err("the unit is gone");
    assert_eq!(refused.errno(), Some(Errno::NODEV), "{refused}");
    drop(bsg);
    Modules::of_image().expect("a list").load("virtio_scsi", "").expect("loads again");
    assert_works(&adapter.unit(lun.address()));
}

/// Whatever the guest has lost by booting again, the target has not: it is the same daemon, and the rings are new ones
/// (vhost-user, GET_VRING_BASE stops a ring). What was held is dropped with its ring, also what would have ended while
/// there was none, or on the new one.
#[test]
fn machine_that_boots_again_leaves_what_was_held_behind() {
    declare!(Contract, Needs { own_vm: true, ..OWN_HOST });
    let Some(note) = bench::rebooted() else {
        let lun = Lun::fresh();
        let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
        fill(&mut bsg);
        let late =
            Effect { delay_us: Some(0), delay_up_to_us: Some(5_000_000), ..Effect::default() };
        let held = Rule::new("held", Effect::hold()).when(When::command("READ(10)").lba(0, 3));
        let late = Rule::new("late", late).when(When::command("READ(10)").lba(4, 7));
        lun.faults([held, late].map(|rule| rule.times(Times::First(4))));
        submit(&mut bsg);
        let all_arrived = || (lun.fired("held") + lun.fired("late") == 8).then_some(());
        wait::until(Duration::from_secs(20), "the reads", all_arrived)
            .unwrap_or_else(|error| panic!("{error}"));
        let LunAddress { target, lun } = lun.address();
        bench::reboot(&format!("{target} {lun}"));
    };
    let (target, lun) = note.split_once(' ').expect("two numbers");
    let address = LunAddress {
        target: target.parse().expect("a number"),
        lun: lun.parse().expect("a number"),
    };
    let lun = Lun::leased(address);
    assert_works(lun.device());
    lun.release();
    assert_works(lun.device());
    let journal = lun.journal();
    assert!(journal.held.is_empty(), "{:?}", journal.held);
    let fills = journal.entries.iter().filter(|entry| entry.command == "WRITE(10)").count();
    assert_eq!(fills, 1, "this is another daemon");
    let released = journal.entries.iter().filter(|entry| entry.rule.as_deref() == Some("held"));
    assert_eq!(released.count(), 0);
}
