//! Which command it befalls: by its bytes, its turn, another rule, chance.

use bsg::{Access, Passthrough, Request};
use fault::Times;
use harness::{
    HostShape, Lun, Needs, ScsiHost,
    assert::{assert_good, assert_sense},
    declare,
};
use scsi_fault::{Effect, Rule, Sense, When};

use super::{OWN_HOST, execute, read, scenario, statuses, test_unit_ready, unit_with, write};
use crate::bsg::ways::{URING_CMD, uring_cmd};

/// SBC-3, READ(10): FUA is bit 3 of byte 1, DPO bit 4.
#[test]
fn bytes_of_the_cdb_are_compared_under_a_mask() {
    declare!(Contract, URING_CMD);
    let sense = Sense::named("LOGICAL UNIT COMMUNICATION FAILURE");
    let rules =
        vec![Rule::new("fua", Effect::sense(sense)).when(When::any().cdb("28 08", "ff 08"))];
    let lun = unit_with(&scenario!("cdb-bytes", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let with = |byte: u8| Request::new(&[0x28, byte, 0, 0, 0, 0, 0, 0, 1, 0]).data_in(512);
    assert_good(&execute(&mut bsg, with(0)));
    assert_good(&execute(&mut bsg, with(0x10)));
    assert_sense(&execute(&mut bsg, with(0x18)), 0x0b, 0x08, 0x00);
    assert_good(&execute(&mut bsg, with(0x08)));
}

/// POWER ON OCCURRED is 6/29/01, MODE PARAMETERS CHANGED 6/2A/01 (SPC-4).
#[test]
fn rules_follow_each_other() {
    declare!(Contract, URING_CMD);
    let ready = || When::command("TEST UNIT READY");
    let rules = vec![
        Rule::new("third", Effect::sense(Sense::named("POWER ON OCCURRED"))).when(ready()).nth(3),
        Rule::new("then", Effect::sense(Sense::named("MODE PARAMETERS CHANGED")))
            .when(ready())
            .after("third")
            .times(Times::Every(2)),
    ];
    let lun = unit_with(&scenario!("after", 3, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let codes: Vec<_> = (0..8)
        .map(|_| execute(&mut bsg, test_unit_ready()).sense.get(12).copied().unwrap_or(0))
        .collect();
    assert_eq!(codes, [0, 0, 0x29, 0x2a, 0, 0x2a, 0, 0x2a]);
    assert_eq!((lun.fired("third"), lun.fired("then")), (1, 3));
}

fn failures(bsg: &mut dyn Passthrough) -> Vec<u32> {
    let failed = |lba: &u32| execute(bsg, read(*lba, 1)).device_status == 0x02;
    (0..100).filter(failed).collect()
}

/// The same seed and the same commands give the same failures, on another unit too; and another seed
/// others.
#[test]
fn chance_is_the_seeds() {
    declare!(Contract, URING_CMD);
    let rules = vec![
        Rule::new("unlucky", Effect::sense(Sense::named("UNRECOVERED READ ERROR")))
            .when(When::command("READ(10)"))
            .times(Times::Ratio { hits: 1, of: 4 }),
    ];
    let scenario = scenario!("ratio", 5, rules.clone());
    let (one, same, other) = (unit_with(&scenario), unit_with(&scenario), Lun::fresh());
    other.possible_faults(6, rules);
    let [one, same, other] =
        [one, same, other].map(|lun| failures(&mut uring_cmd(lun.device(), Access::ReadWrite)));
    assert_eq!(one, same);
    assert_ne!(one, other);
    // Six standard deviations of a binomial distribution around 25.
    assert!((1..=50).contains(&one.len()), "{one:?}");
}

/// A rule about another unit is none of this one's.
#[test]
fn another_units_rule_does_not_fire_here() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let elsewhere = Rule::new("elsewhere", Effect::status("BUSY")).when(When::any().target(200));
    let over_another = Rule::new("other nexus", Effect::status("BUSY")).when(When::any().nexus(7));
    lun.possible_faults(0, [elsewhere, over_another]);
    assert_good(&execute(&mut uring_cmd(lun.device(), Access::ReadWrite), test_unit_ready()));
    assert_eq!((lun.fired("elsewhere"), lun.fired("other nexus")), (0, 0));
}

/// SBC-3: of OPERATION CODE 9Eh, SERVICE ACTION 10h is READ CAPACITY(16), 12h GET LBA STATUS.
#[test]
fn one_service_action_is_told_from_another() {
    declare!(Contract, URING_CMD);
    let sense = Sense::named("LOGICAL UNIT COMMUNICATION FAILURE");
    let when = When::command(0x9e).service_action(0x12);
    let rules = vec![Rule::new("lba status", Effect::sense(sense)).when(when)];
    let lun = unit_with(&scenario!("service-action", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let with = |action| {
        let cdb = [0x9e, action, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
        Request::new(&cdb).data_in(32)
    };
    assert_good(&execute(&mut bsg, with(0x10)));
    assert_sense(&execute(&mut bsg, with(0x12)), 0x0b, 0x08, 0x00);
    assert_eq!(lun.fired("lba status"), 1);
}

/// SAM-5, Status codes: RESERVATION CONFLICT is 18h. Each rule fires in its place, and in no other.
#[test]
fn target_unit_and_nexus_are_told_from_others() {
    declare!(
        Contract,
        Needs {
            host: ScsiHost::Own(HostShape { nexuses: Some(2), ..HostShape::DEFAULT }),
            ..OWN_HOST
        }
    );
    const RESERVATION_CONFLICT: (u32, u32) = (0x18, 0);
    let sense = Sense::named("LOGICAL UNIT COMMUNICATION FAILURE");
    let conflict = || Effect::status("RESERVATION CONFLICT");
    let rules = vec![
        Rule::new("target", conflict()).when(When::command("TEST UNIT READY").target(0)),
        Rule::new("lun", Effect::sense(sense)).when(When::command("READ(10)").lun(1)),
        Rule::new("nexus", conflict()).when(When::command("WRITE(10)").nexus(1)),
    ];
    let scenario = scenario!("place", 0, rules);
    let (zero, one) = (Lun::fresh(), Lun::fresh());
    zero.possible_faults(0, scenario.rules.clone());
    one.scenario(&scenario);
    let [mut first, mut second] =
        [0, 1].map(|nexus| uring_cmd(&one.devices()[nexus], Access::ReadWrite));
    let mut other = uring_cmd(zero.device(), Access::ReadWrite);
    assert_eq!(statuses(&execute(&mut first, test_unit_ready())), RESERVATION_CONFLICT);
    assert_good(&execute(&mut other, read(0, 1)));
    assert_sense(&execute(&mut first, read(0, 1)), 0x0b, 0x08, 0x00);
    assert_good(&execute(&mut first, write(0, 1, 1)));
    assert_eq!(statuses(&execute(&mut second, write(0, 1, 2))), RESERVATION_CONFLICT);
    assert_eq!((one.fired("target"), one.fired("lun"), one.fired("nexus")), (1, 1, 1));
    assert_eq!(zero.fired("lun"), 0);
}
