//! Answers that are chosen: statuses, sense data, residuals, responses.

use harness::{
    Lun, Needs,
    assert::{assert_good, assert_sense_bytes},
    bench, declare,
};
use rstest::rstest;
use scsi_fault::{Code, Direction, Effect, FieldPointer, Hostile, Rule, Sense, SenseFormat, When};

use super::{contents, execute, read, scenario, statuses, test_unit_ready, unit_with, write};
use crate::bsg::ways::{URING_CMD, Way};

use bsg::{Access, Request};
use fault::Times;

use crate::bsg::{cdb, ways::uring_cmd};

/// SAM-5, Status codes: RESERVATION CONFLICT is 18h. Nothing was written, and all data is residual.
#[rstest]
fn status_comes_instead_of_execution(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let effect = Effect {
        status: Some(Code::from("RESERVATION CONFLICT")),
        status_qualifier: Some(0x4001),
        ..Effect::default()
    };
    let rules = vec![Rule::new("reserved", effect).when(When::command("WRITE(10)"))];
    let lun = unit_with(&scenario!("status", 0, rules));
    let mut way = way.open(lun.device());
    let done = execute(&mut *way, write(5, 2, 1));
    assert_eq!((statuses(&done), done.residual), ((0x18, 0), 1024));
    assert_eq!(contents(&mut *way, 5, 2), [0; 1024]);
    assert_good(&execute(&mut *way, write(5, 2, 1)));
    assert_eq!(contents(&mut *way, 5, 2), cdb::pattern(5, 2, 1));
    let rules: Vec<_> = lun.journal().entries.into_iter().map(|entry| entry.rule).collect();
    assert_eq!(rules, [Some("reserved".to_owned()), None, None, None]);
}

/// drivers/scsi/scsi_error.c:scsi_decide_disposition: a command that meets BUSY is sent again.
#[rstest]
fn busy_is_met_three_times(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let rules = vec![
        Rule::new("busy", Effect::status("BUSY"))
            .when(When::command("READ(10)"))
            .times(Times::First(3)),
    ];
    let lun = unit_with(&scenario!("busy", 0, rules));
    assert_good(&execute(&mut *way.open(lun.device()), read(0, 1)));
    let statuses: Vec<_> = lun.journal().entries.iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [0x08, 0x08, 0x08, 0]);
    assert_eq!(lun.fired("busy"), 3);
}

/// SPC-4, Fixed format sense data: F0h is current with VALID, INFORMATION is in bytes 3 to 6. Blocks 100 to
/// 107 are bad for whoever touches one of them.
#[rstest]
fn medium_error_has_its_block(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let sense = Sense::named("UNRECOVERED READ ERROR").information(103);
    let rules = vec![
        Rule::new("bad block", Effect::sense(sense))
            .when(When::command("READ(10)").lba(100, 107))
            .times(Times::Always),
    ];
    let lun = unit_with(&scenario!("sense-name", 0, rules));
    let mut way = way.open(lun.device());
    let expected = [0xf0, 0, 0x03, 0, 0, 0, 103, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0];
    for (lba, blocks) in [(100, 1), (107, 1), (98, 3), (107, 4), (96, 32)] {
        let done = execute(&mut *way, read(lba, blocks));
        assert_sense_bytes(&done, &expected);
        assert_eq!(done.residual, i64::from(blocks) * 512);
    }
    for (lba, blocks) in [(98, 2), (108, 1), (0, 100)] {
        assert_good(&execute(&mut *way, read(lba, blocks)));
    }
    assert_good(&execute(&mut *way, write(100, 8, 1)));
    assert_eq!(lun.fired("bad block"), 5);
}

/// SPC-4, Descriptor format sense data: information 00h, command specific information 01h, sense key
/// specific 02h; with HARDWARE ERROR the last is ACTUAL RETRY COUNT.
#[rstest]
fn sense_has_descriptors(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let sense = Sense {
        command_specific: Some(7),
        retry_count: Some(9),
        ..Sense::codes(4, 0x44, 0).format(SenseFormat::Descriptor).information(0x11_2233_4455)
    };
    let lun = unit_with(&scenario!(
        "sense-codes",
        0,
        vec![Rule::new("descriptors", Effect::sense(sense))]
    ));
    #[rustfmt::skip]
    let expected = [
        0x72, 0x04, 0x44, 0x00, 0, 0, 0, 32,
        0x00, 0x0a, 0x80, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55,
        0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        0x02, 0x06, 0, 0, 0x80, 0, 9, 0,
    ];
    assert_sense_bytes(&execute(&mut *way.open(lun.device()), read(0, 1)), &expected);
}

/// SPC-4, Field pointer sense key specific data: SKSV 80h, C/D 40h, BPV 08h. Progress indication: SKSV and
/// 65536ths.
#[test]
fn sense_key_specific_data_is_as_chosen() {
    declare!(Contract, URING_CMD);
    let field = FieldPointer { byte: 2, bit: Some(5), in_data: false };
    let pointing = Sense { field_pointer: Some(field), ..Sense::named("INVALID FIELD IN CDB") };
    let half = Sense {
        progress: Some(0x8000),
        ..Sense::named("LOGICAL UNIT IS IN PROCESS OF BECOMING READY")
    };
    let fields =
        scenario!("sense-field-pointer", 0, vec![Rule::new("field", Effect::sense(pointing))]);
    let progress = scenario!("sense-progress", 0, vec![Rule::new("half way", Effect::sense(half))]);
    for (scenario, expected) in [
        (fields, [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcd, 0, 2]),
        (progress, [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x01, 0, 0x80, 0x80, 0]),
    ] {
        let lun = unit_with(&scenario);
        let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
        assert_sense_bytes(&execute(&mut bsg, read(0, 1)), &expected);
    }
}

/// SPC-4, Sense data: 71h is deferred. What breaks off is zeros to the kernel, which takes the length from
/// byte 7 (scsi_normalize_sense; virtio_scsi.c:virtscsi_complete_cmd copies what there is into zeros); bytes
/// that mean nothing arrive as they are.
#[test]
fn sense_may_be_late_cut_off_or_garbage() {
    declare!(Quirk, URING_CMD);
    let deferred = Sense::named("WRITE ERROR").deferred();
    let cut = Sense::named("WRITE ERROR").truncate(8);
    let garbage = Sense { raw: Some("70 ff fe fd fc fb fa 02 f8 f7".into()), ..Sense::default() };
    let one = |name: &str, sense: Sense| vec![Rule::new(name, Effect::sense(sense))];
    let deferred = scenario!("sense-deferred", 0, one("earlier", deferred));
    let cut = scenario!("sense-truncated", 0, one("cut", cut));
    let garbage = scenario!("sense-garbage", 0, one("garbage", garbage));
    let late = [0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0];
    let broken_off = [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (scenario, expected) in [
        (deferred, &late[..]),
        (cut, &broken_off),
        (garbage, &[0x70, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 2, 0xf8, 0xf7]),
    ] {
        let lun = unit_with(&scenario);
        let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
        assert_sense_bytes(&execute(&mut bsg, read(0, 1)), expected);
        assert_good(&execute(&mut bsg, read(0, 1)));
    }
}

/// virtio 1.2, 5.6.6.1: `residual` is what the device says it is, and the initiator is told that.
#[rstest]
fn residual_is_what_the_device_says(#[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way) {
    declare!(Contract);
    let rules = vec![
        Rule::new("too many", Effect::residual(100)).when(When::command("READ(10)")),
        Rule::new("none", Effect::residual(0)).when(When::command("INQUIRY")),
    ];
    let lun = unit_with(&scenario!("residual", 0, rules));
    let mut way = way.open(lun.device());
    let inquiry = || Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(96);
    assert_eq!(execute(&mut *way, read(0, 1)).residual, 100);
    assert_eq!(execute(&mut *way, read(0, 1)).residual, 0);
    assert_eq!(execute(&mut *way, inquiry()).residual, 0);
    assert_eq!(execute(&mut *way, inquiry()).residual, 60);
}

/// Device and host status for each response, in order of number: DID_OK 0, DID_BUS_BUSY 2, DID_BAD_TARGET 4,
/// DID_ABORT 5, DID_ERROR 7, DID_RESET 8, DID_TRANSPORT_DISRUPTED 14. None is sent again.
#[test]
fn every_response_has_its_host_status() {
    declare!(Contract, URING_CMD);
    let names = [
        "OVERRUN",
        "ABORTED",
        "BAD TARGET",
        "RESET",
        "BUSY",
        "TRANSPORT FAILURE",
        "TARGET FAILURE",
        "NEXUS FAILURE",
        "FAILURE",
        "FUNCTION SUCCEEDED",
        "FUNCTION REJECTED",
        "INCORRECT LUN",
    ];
    let rule = |(lba, name): (u64, &str)| {
        Rule::new(name, Effect::response(name)).when(When::command("READ(10)").lba(lba, lba))
    };
    let rules: Vec<_> = (1..).zip(names).map(rule).collect();
    let lun = unit_with(&scenario!("responses", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let expected = [
        (0, 7),
        (0, 5),
        (0, 4),
        (0, 8),
        (0, 2),
        (0, 14),
        (0, 4),
        (0x18, 0),
        (0, 7),
        (0, 7),
        (0, 7),
        (0, 7),
    ];
    for (lba, expected) in (1..).zip(expected) {
        let done = execute(&mut bsg, read(lba, 1));
        assert_eq!((statuses(&done), done.residual), (expected, 512), "response {lba}");
    }
    let responses: Vec<_> = lun.journal().entries.iter().map(|entry| entry.response).collect();
    assert_eq!(responses, Vec::from_iter(1..=12));
}

/// An answer may contradict what was done: the write happens, and is said to have failed.
#[test]
fn command_may_be_executed_and_answered_otherwise() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let effect = Effect::response("TRANSPORT FAILURE").executed();
    let when = When::any().direction(Direction::Out);
    lun.faults([Rule::new("doubtful", effect).when(when)]);
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_eq!(statuses(&execute(&mut bsg, write(7, 1, 3))), (0, 14));
    assert_eq!(contents(&mut bsg, 7, 1), cdb::pattern(7, 1, 3));
    assert_good(&execute(&mut bsg, test_unit_ready()));
}

/// drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd warns of sense data longer than its buffer, and takes 96
/// bytes.
#[test]
fn sense_longer_than_its_buffer_is_warned_of() {
    declare!(Quirk, Needs { own_vm: true, ..super::OWN_HOST });
    let hostile = Hostile { sense_len: Some(97), ..Hostile::default() };
    let effect = Effect { hostile: Some(hostile), ..Effect::status("CHECK CONDITION") };
    let rules = vec![Rule::new("long sense", effect)];
    bench::expect_splat("virtscsi_complete_cmd");
    let lun = unit_with(&scenario!("hostile", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    execute(&mut bsg, read(0, 1));
    assert_eq!(lun.fired("long sense"), 1);
}

/// SAM-5, Status codes: RESERVATION CONFLICT is 18h; yet the write is on the medium.
#[test]
fn write_that_is_refused_can_have_been_carried_out() {
    declare!(Contract, URING_CMD);
    let effect = Effect::status("RESERVATION CONFLICT").executed();
    let rules = vec![Rule::new("doubtful", effect).when(When::command("WRITE(10)"))];
    let lun = unit_with(&scenario!("executed", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_eq!(statuses(&execute(&mut bsg, write(7, 1, 3))), (0x18, 0));
    assert_eq!(contents(&mut bsg, 7, 1), cdb::pattern(7, 1, 3));
    assert_eq!(lun.fired("doubtful"), 1);
}
