//! Planted defects: what the bench must see, say and survive. `cargo xtask self-test` runs them one by
//! one; an ordinary run leaves them out.

use std::{borrow::Cow, fs, path::Path, time::Duration};

use bsg::{Access, BsgIoctl, Completion, Passthrough, Request};
use control::Faults;
use guest_protocol::message::TargetSignal;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, bench, declare, program, sysfs, wait};
use scsi_fault::{Effect, Rule, When};

const OWN_HOST: Needs = Needs { host: ScsiHost::Own(HostShape::DEFAULT), ..Needs::DEFAULT };

/// A host whose longest transfer is shorter than a page: the block layer warns when it makes the
/// queue of a unit (block/blk-settings.c:blk_validate_limits).
const WARNS: Needs = Needs {
    host: ScsiHost::Own(HostShape { max_sectors: Some(1), ..HostShape::DEFAULT }),
    ..Needs::DEFAULT
};

fn open(lun: &Lun) -> BsgIoctl {
    BsgIoctl::open(lun.device().bsg(), Access::ReadWrite).expect("node opens")
}

fn test_unit_ready(bsg: &mut BsgIoctl) -> Completion {
    bsg.execute(Request::new(&[0; 6])).expect("executed")
}

fn sysrq(key: &str) {
    fs::write("/proc/sysrq-trigger", key).expect("root may use sysrq");
}

#[test]
fn passes() {
    declare!(Contract);
    Lun::fresh();
}

#[test]
fn passes_on_its_own_host() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let mut bsg = open(&lun);
    let done = test_unit_ready(&mut bsg);
    assert_eq!(done.device_status, 0);
    // Not one command of the scan that found the unit.
    let journal = lun.journal();
    let cdbs: Vec<_> = journal.entries.iter().map(|entry| entry.cdb.as_str()).collect();
    assert_eq!(cdbs, ["000000000000"]);
}

/// Runs on the other QEMU, if the host's is too old to reconnect.
#[test]
fn passes_on_a_reconnecting_qemu() {
    declare!(Contract, Needs { features: Cow::Borrowed(&[Feature::Reconnect]), ..OWN_HOST });
    Lun::fresh();
}

#[test]
fn passes_with_programs() {
    declare!(Contract, Needs { programs: Some(Cow::Borrowed("storage")), ..Needs::DEFAULT });
    program::run("sg_inq", &["--version"]).ended_with(0);
}

#[test]
fn skips_on_an_old_kernel() {
    declare!(
        Contract,
        Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(99, 0)]), ..Needs::DEFAULT }
    );
    panic!("no kernel is that new");
}

#[test]
fn fails() {
    declare!(Contract);
    let lun = Lun::fresh();
    let mut bsg = open(&lun);
    test_unit_ready(&mut bsg);
    assert_eq!(1, 2, "planted failure");
}

#[test]
fn fails_by_accident() {
    declare!(Accident);
    assert_eq!(1, 2, "planted accident");
}

/// A kernel's report is no accident, whatever the test asserts.
#[test]
fn warns_by_accident() {
    declare!(Accident, WARNS);
    scan_own_host();
}

/// Leaves the guest without the unit it was given; the next test gets the same one.
#[test]
fn deletes_its_unit_and_fails() {
    declare!(Contract);
    let lun = Lun::fresh();
    fs::write(lun.device().dir().join("delete"), "1").expect("the unit can be deleted");
    panic!("planted failure");
}

/// A rule about every unit that fires on none, while another does.
#[test]
fn has_a_rule_about_every_unit_that_never_fires() {
    declare!(Contract, OWN_HOST);
    let lun = Lun::fresh();
    let rule = |name, command| Rule::new(name, Effect::status("BUSY")).when(When::command(command));
    let rules = vec![rule("seen", "READ CAPACITY(10)"), rule("never seen", "WRITE(10)")];
    bench::all_faults(Faults { seed: 0, rules }, &["seen"]);
    test_unit_ready(&mut open(&lun));
}

#[test]
fn skips() {
    declare!(Contract);
    bench::skip("planted reason");
}

#[test]
fn panics_the_guest() {
    declare!(Contract);
    sysrq("c");
}

#[test]
fn hangs() {
    declare!(Contract, Needs { deadline_s: Some(1), ..Needs::DEFAULT });
    loop {
        std::thread::park();
    }
}

#[test]
fn waits_for_ever() {
    declare!(Contract, Needs { deadline_s: Some(600), ..Needs::DEFAULT });
    loop {
        std::thread::park();
    }
}

/// A task that waits for a stopped target is in D state: no signal reaches it.
#[test]
fn hangs_in_the_kernel() {
    declare!(Contract, Needs { deadline_s: Some(1), ..OWN_HOST });
    let lun = Lun::fresh();
    let mut bsg = open(&lun);
    bench::signal_target(TargetSignal::Stop);
    test_unit_ready(&mut bsg);
}

#[test]
fn loses_its_target() {
    declare!(Contract, Needs { deadline_s: Some(10), ..OWN_HOST });
    let lun = Lun::fresh();
    let mut bsg = open(&lun);
    bench::signal_target(TargetSignal::Kill);
    test_unit_ready(&mut bsg);
}

#[test]
fn loses_its_machine() {
    declare!(Contract);
    bench::kill_vm();
}

/// A WARN of the stock kernel, from its own code.
#[test]
fn warns() {
    declare!(Contract, WARNS);
    scan_own_host();
}

/// The same WARN, announced.
#[test]
fn warns_as_expected() {
    declare!(Contract, WARNS);
    bench::expect_splat("blk_validate_limits");
    scan_own_host();
}

/// Scans the test's own host for its first unit.
fn scan_own_host() {
    let host = sysfs::scsi_host_below(Path::new(&bench::host().slots[0]));
    let scan = format!("/sys/class/scsi_host/host{host}/scan");
    fs::write(scan, "0 0 0").expect("the host scans");
}

#[test]
fn expects_a_splat_that_does_not_come() {
    declare!(Contract);
    bench::expect_splat("planted splat");
}

/// Tests that run side by side while one of them makes the kernel warn.
mod together {
    use super::*;

    pub(super) const WARNED: &str = "/tmp/warned";

    #[test]
    fn warns() {
        declare!(Contract, WARNS);
        scan_own_host();
        fs::write(WARNED, "").expect("the file can be made");
    }

    #[test]
    fn is_innocent() {
        declare!(Contract);
        // Alone, nobody warns: the test then has nothing to wait for.
        let limit = Duration::from_secs(3);
        drop(wait::until(limit, "the warning", || Path::new(WARNED).exists().then_some(())));
    }
}

/// The same, announced: nobody is guilty.
mod announced {
    use super::{together::WARNED, *};

    #[test]
    fn warns() {
        declare!(Contract, WARNS);
        bench::expect_splat("blk_validate_limits");
        scan_own_host();
        fs::write(WARNED, "").expect("the file can be made");
    }

    #[test]
    fn is_innocent() {
        declare!(Contract);
        let limit = Duration::from_secs(3);
        drop(wait::until(limit, "the warning", || Path::new(WARNED).exists().then_some(())));
    }
}
