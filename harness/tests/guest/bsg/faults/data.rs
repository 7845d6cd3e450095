//! Data that is short, long or wrong on its way to the initiator or from it.

use bsg::{Access, Request};
use harness::{assert::assert_good, declare};
use rstest::rstest;
use scsi_fault::{DataIn, Direction, Effect, Rule, When};

use super::{contents, execute, read, scenario, unit_with, write};
use crate::bsg::{
    cdb,
    ways::{URING_CMD, Way, uring_cmd},
};

/// GOOD, less moved than asked for, and a residual that says so. Of a write what was not taken is not
/// written.
#[rstest]
fn short_data_is_residual(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let taken = Effect { data_out_limit: Some(512), ..Effect::default() };
    let rules = vec![
        Rule::new("short read", Effect::data_in(DataIn::Limit(700)))
            .when(When::any().direction(Direction::In)),
        Rule::new("short write", taken).when(When::any().direction(Direction::Out)),
    ];
    let lun = unit_with(&scenario!("short-data", 0, rules));
    let mut way = way.open(lun.device());
    let done = execute(&mut *way, write(4, 2, 1));
    assert_good(&done);
    assert_eq!(done.residual, 512);
    let done = execute(&mut *way, read(4, 2));
    assert_good(&done);
    assert_eq!(done.residual, 324);
    let written = [cdb::pattern(4, 1, 1), vec![0; 512]].concat();
    assert_eq!(done.data[..700], written[..700]);
    assert_eq!(contents(&mut *way, 4, 2), written);
}

/// INQUIRY of 36 bytes brings 46.
#[rstest]
fn long_data_arrives(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let rules =
        vec![Rule::new("long", Effect::data_in(DataIn::Extend(10))).when(When::command("INQUIRY"))];
    let lun = unit_with(&scenario!("long-data", 0, rules));
    let mut way = way.open(lun.device());
    let inquiry = || Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(96);
    let long = execute(&mut *way, inquiry());
    let right = execute(&mut *way, inquiry());
    assert_eq!((long.residual, right.residual), (50, 60));
    assert_eq!(long.data[..36], right.data[..36]);
    assert_eq!(long.data[36..46], [0xa5; 10]);
}

/// The medium is as it was.
#[test]
fn corrupt_data_is_good_at_the_next_look() {
    declare!(Contract, URING_CMD);
    let rules = vec![
        Rule::new("bit", Effect::data_in(DataIn::CorruptFrom(511))).when(When::command("READ(10)")),
    ];
    let lun = unit_with(&scenario!("corrupt-data", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut bsg, write(9, 1, 2)));
    let mut bad = contents(&mut bsg, 9, 1);
    let good = contents(&mut bsg, 9, 1);
    assert_eq!(good, cdb::pattern(9, 1, 2));
    assert_ne!(bad[511], good[511]);
    bad[511] = good[511];
    assert_eq!(bad, good);
}
