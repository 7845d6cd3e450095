//! A daemon that dies at a chosen point of a WRITE, and its successor, which finds the command in the memory that
//! both share with QEMU (vhost-user, Inflight I/O tracking).

use std::borrow::Cow;

use bsg::{Access, UringFrame};
use control::{LunSpec, Medium};
use guest_protocol::message::TargetSignal;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, bench, declare};
use rstest::rstest;
use scsi_fault::{DiePoint, Effect, Rule, Scenario, When};

use super::{contents, same_in_both, write};
use crate::bsg::{
    cdb,
    ways::{soon, uring_cmd},
};

/// The medium outlives the daemon.
const RECONNECTS: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::Reconnect, Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

#[track_caller]
fn scenario(text: &str, point: DiePoint) -> Scenario {
    let rule = Rule::new("die", Effect::die(point)).when(When::command("WRITE(10)"));
    same_in_both(text, 0, vec![rule])
}

/// Wherever the daemon dies, the command is answered once, with GOOD, and its data is there: the successor carries
/// out again what the driver has not seen the end of. Of four points the last is behind that.
#[rstest]
#[case::fetched(include_str!("../../../../scenarios/die-fetched.toml"), DiePoint::Fetched, true)]
#[case::executed(include_str!("../../../../scenarios/die-executed.toml"), DiePoint::Executed, true)]
#[case::answered(include_str!("../../../../scenarios/die-answered.toml"), DiePoint::Answered, true)]
#[case::completed(include_str!("../../../../scenarios/die-completed.toml"), DiePoint::Completed, false)]
fn command_survives_the_death_of_its_daemon(
    #[case] file: &str,
    #[case] point: DiePoint,
    #[case] again: bool,
) {
    declare!(Contract, RECONNECTS);
    let medium = Medium::File { path: "death".into() };
    let lun = Lun::with(LunSpec { medium, ..LunSpec::default() });
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    lun.scenario(&scenario(file, point));
    bench::signal_target(TargetSignal::MayEnd);
    bsg.submit(UringFrame::from(write(5, 2, 1).timeout_ms(60_000))).expect("submitted");
    // An error if it has not died.
    bench::signal_target(TargetSignal::Succeed);
    let done = bsg.wait(soon()).expect("completed").completion().expect("executed");
    assert_good(&done);
    assert_eq!(done.residual, 0);
    assert_eq!(contents(&mut bsg, 5, 2), cdb::pattern(5, 2, 1));
    // The successor's journal has what it was asked.
    let journal = lun.journal();
    let commands: Vec<_> = journal.entries.iter().map(|entry| entry.command.as_str()).collect();
    let expected: &[&str] = if again { &["WRITE(10)", "READ(10)"] } else { &["READ(10)"] };
    assert_eq!(commands, expected);
}
