//! The daemon ends at a named point in the life of a write; another takes its place.

use std::borrow::Cow;

use bsg::Access;
use control::{LunSpec, Medium};
use harness::{Feature, Lun, Needs, assert::assert_good, bench, declare};
use rstest::rstest;
use scsi_fault::{DiePoint, Effect, Rule, Scenario, When};

use super::{OWN_HOST, contents, execute, same_in_both, test_unit_ready, write};
use crate::bsg::{
    cdb,
    ways::{soon, uring_cmd},
};

const RECONNECTS: Needs = Needs {
    features: Cow::Borrowed(&[Feature::Reconnect, Feature::KernelAtLeast(7, 1)]),
    ..OWN_HOST
};

fn die(at: DiePoint, text: &str) -> Scenario {
    let rule = Rule::new("die", Effect::die(at)).when(When::command("WRITE(10)"));
    same_in_both(text, 0, vec![rule])
}

/// What is not in the used ring yet is found among the commands in flight (vhost-user, Inflight I/O tracking) and is
/// carried out once by the successor; what is there never again.
#[rstest]
#[case::fetched(die(DiePoint::Fetched, include_str!("../../../../scenarios/die-fetched.toml")), 1)]
#[case::executed(die(DiePoint::Executed, include_str!("../../../../scenarios/die-executed.toml")), 1)]
#[case::answered(die(DiePoint::Answered, include_str!("../../../../scenarios/die-answered.toml")), 1)]
#[case::completed(die(DiePoint::Completed, include_str!("../../../../scenarios/die-completed.toml")), 0)]
fn write_at_which_the_daemon_dies_is_good(#[case] scenario: Scenario, #[case] again: usize) {
    declare!(Contract, RECONNECTS);
    let lun =
        Lun::with(LunSpec { medium: Medium::File { path: "death".into() }, ..LunSpec::default() });
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut bsg, write(3, 2, 1)));
    lun.scenario(&scenario);
    bench::expect_target_death();
    bsg.submit(write(3, 2, 2).into()).expect("submitted");
    bench::succeed_target();
    assert_good(&bsg.wait(soon()).expect("completed").completion().expect("executed"));
    let entries = lun.journal().entries;
    let writes = entries.iter().filter(|entry| entry.command == "WRITE(10)").count();
    assert_eq!(writes, again, "carried out by the successor");
    assert_eq!(contents(&mut bsg, 3, 2), cdb::pattern(3, 2, 2));
    assert_good(&execute(&mut bsg, test_unit_ready()));
}
