//! Writes that are acknowledged and that the medium keeps otherwise.

use bsg::{Access, BsgUring};
use harness::{Lun, assert::assert_good, declare};
use scsi_fault::{Effect, Rule, Scenario, When, WriteFault};

use super::{contents, execute, scenario, unit_with, write};
use crate::bsg::{
    cdb,
    ways::{URING_CMD, uring_cmd},
};

const LBA: u32 = 40;

fn rules(name: &str, fault: WriteFault) -> Vec<Rule> {
    vec![Rule::new(name, Effect::write(fault)).when(When::command("WRITE(10)")).nth(1)]
}

/// A unit that has met the fault at a write of two blocks with mark 2, over blocks of mark 1.
#[track_caller]
fn written(scenario: &Scenario) -> (Lun, BsgUring) {
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut bsg, write(LBA, 4, 1)));
    lun.scenario(scenario);
    let done = execute(&mut bsg, write(LBA, 2, 2));
    assert_good(&done);
    assert_eq!(done.residual, 0);
    (lun, bsg)
}

fn old() -> Vec<u8> {
    cdb::pattern(LBA, 4, 1)
}

fn new() -> Vec<u8> {
    [cdb::pattern(LBA, 2, 2), cdb::pattern(LBA + 2, 2, 1)].concat()
}

#[test]
fn lost_write_leaves_what_was_there() {
    declare!(Contract, URING_CMD);
    let (_lun, mut bsg) = written(&scenario!("write-lost", 0, rules("lost", WriteFault::Lost)));
    assert_eq!(contents(&mut bsg, LBA, 4), old());
    assert_good(&execute(&mut bsg, write(LBA, 2, 2)));
    assert_eq!(contents(&mut bsg, LBA, 4), new());
}

#[test]
fn torn_write_has_only_its_beginning_written() {
    declare!(Contract, URING_CMD);
    let (_lun, mut bsg) =
        written(&scenario!("write-torn", 0, rules("torn", WriteFault::Torn(700))));
    assert_eq!(contents(&mut bsg, LBA, 4), [&new()[..700], &old()[700..]].concat());
}

#[test]
fn misdirected_write_is_found_elsewhere() {
    declare!(Contract, URING_CMD);
    let scenario =
        scenario!("write-misdirected", 0, rules("misdirected", WriteFault::Misdirected(2)));
    let (_lun, mut bsg) = written(&scenario);
    let expected = [&old()[..1024], &new()[..1024]].concat();
    assert_eq!(contents(&mut bsg, LBA, 4), expected);
}

/// Of a write that is led over the beginning of the medium only the part behind it is written.
#[test]
fn misdirected_write_ends_with_the_medium() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let fault = Effect::write(WriteFault::Misdirected(-1));
    lun.faults([Rule::new("back", fault).when(When::command("WRITE(10)"))]);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut bsg, write(0, 2, 3)));
    let expected = [cdb::pattern(1, 1, 3), vec![0; 512]].concat();
    assert_eq!(contents(&mut bsg, 0, 2), expected);
}

#[test]
fn corrupt_write_stays_corrupt() {
    declare!(Contract, URING_CMD);
    let scenario = scenario!("write-corrupt", 0, rules("corrupt", WriteFault::CorruptFrom(511)));
    let (_lun, mut bsg) = written(&scenario);
    let first = contents(&mut bsg, LBA, 4);
    assert_eq!(first, contents(&mut bsg, LBA, 4));
    let different: Vec<_> = (0..2048).filter(|at| first[*at] != new()[*at]).collect();
    assert_eq!(different, Vec::from_iter(511..1024));
}

#[test]
fn stale_write_is_seen_after_two_reads() {
    declare!(Contract, URING_CMD);
    let (_lun, mut bsg) =
        written(&scenario!("write-stale", 0, rules("stale", WriteFault::Stale(2))));
    // Reads of other blocks do not count.
    contents(&mut bsg, LBA + 2, 2);
    assert_eq!(contents(&mut bsg, LBA, 4), old());
    assert_eq!(contents(&mut bsg, LBA + 1, 1), cdb::pattern(LBA + 1, 1, 1));
    assert_eq!(contents(&mut bsg, LBA, 4), new());
}

/// What is written later over a stale write is not undone by it.
#[test]
fn stale_write_does_not_come_back_over_a_later_one() {
    declare!(Contract, URING_CMD);
    let lun = unit_with(&scenario!("write-stale", 0, rules("stale", WriteFault::Stale(2))));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut bsg, write(LBA, 2, 2)));
    assert_good(&execute(&mut bsg, write(LBA, 1, 3)));
    for _ in 0..4 {
        let expected = [cdb::pattern(LBA, 1, 3), cdb::pattern(LBA + 1, 1, 2)].concat();
        assert_eq!(contents(&mut bsg, LBA, 2), expected);
    }
}
