//! What befalls more than one command of one unit: a disk that is bad in several ways, a target, a connection.

use std::{borrow::Cow, collections::BTreeMap};

use bsg::{Access, BsgUring};
use control::{Command, Faults, LunAddress, LunSpec};
use fault::Times;
use harness::{
    Feature, Lun, Needs, ScsiDevice,
    assert::{assert_good, assert_sense_bytes},
    bench, declare, sysfs,
};
use scsi_fault::{Direction, Effect, Rule, Sense, When, WriteFault};

use super::{OWN_HOST, contents, execute, read, scenario, test_unit_ready, unit_with, write};
use crate::bsg::{
    cdb,
    ways::{soon, uring_cmd},
};

/// virtio 1.2 has no word for it: the front end connects again, and finds the write among those in flight (vhost-user,
/// Inflight I/O tracking). It is carried out once.
#[test]
fn write_whose_connection_breaks_is_carried_out_over_the_next() {
    declare!(
        Contract,
        Needs {
            features: Cow::Borrowed(&[Feature::Reconnect, Feature::KernelAtLeast(7, 1)]),
            ..OWN_HOST
        }
    );
    let effect = Effect { drop_socket: true, ..Effect::default() };
    let rules = vec![Rule::new("broken", effect).when(When::command("WRITE(10)"))];
    let lun = unit_with(&scenario!("drop-socket", 0, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut bsg, write(3, 2, 1)));
    assert_eq!(contents(&mut bsg, 3, 2), cdb::pattern(3, 2, 1));
    assert_eq!(lun.fired("broken"), 1);
    let writes: Vec<_> = lun.journal().entries;
    let writes = writes.iter().filter(|entry| entry.command == "WRITE(10)");
    let seen: Vec<_> = writes.map(|entry| (entry.status, entry.rule.clone())).collect();
    assert_eq!(seen, [(0, None)], "the answer is the second session's");
}

/// Most writes until one is forgotten, of which each has a chance of one in a hundred. The seed decides.
const WRITES_MAX: u32 = 1000;

/// Writes each of these blocks, several at a time.
#[track_caller]
fn write_all(bsg: &mut BsgUring, blocks: std::ops::Range<u32>) {
    for lba in blocks {
        bsg.submit(write(lba, 1, 9).into()).expect("submitted");
    }
    while bsg.in_flight() > 0 {
        assert_good(&bsg.wait(soon()).expect("completed").completion().expect("executed"));
    }
}

/// SPC-4, Fixed format sense data: INFORMATION in bytes 3 to 6 is block 2048.
#[test]
fn bad_disk_has_a_bad_spot_forgets_and_is_slow() {
    declare!(Contract, OWN_HOST);
    let sense = Sense::named("UNRECOVERED READ ERROR").information(2048);
    let slow = Effect { delay_us: Some(100), delay_up_to_us: Some(20_000), ..Effect::default() };
    let bad_spot = When::any().lba(2048, 2055).direction(Direction::In);
    let rules = vec![
        Rule::new("bad spot", Effect::sense(sense)).when(bad_spot).times(Times::Always),
        Rule::new("forgetful", Effect::write(WriteFault::Lost))
            .when(When::command("WRITE(10)"))
            .times(Times::Ratio { hits: 1, of: 100 }),
        Rule::new("slow", slow).times(Times::Ratio { hits: 1, of: 10 }),
    ];
    let lun = unit_with(&scenario!("bad-disk", 1, rules));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let bad = execute(&mut bsg, read(2040, 16));
    assert_sense_bytes(&bad, &[0xf0, 0, 3, 0, 0, 8, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0]);
    assert_eq!(bad.residual, 16 * 512);
    let mut end = 4096;
    while lun.fired("forgetful") == 0 {
        assert!(end < 4096 + WRITES_MAX, "none was forgotten");
        write_all(&mut bsg, end..end + 64);
        end += 64;
    }
    let lost = (4096..end).step_by(64).flat_map(|lba| {
        let (seen, written) = (contents(&mut bsg, lba, 64), cdb::pattern(lba, 64, 9));
        let blocks = seen.chunks(512).zip(written.chunks(512)).zip(lba..);
        let lost = blocks.filter(|((seen, written), _)| seen != written);
        lost.map(|((seen, _), lba)| (lba, seen.to_vec())).collect::<Vec<_>>()
    });
    let lost: BTreeMap<_, _> = lost.collect();
    assert_eq!(lost.len(), usize::try_from(lun.fired("forgetful")).expect("a few"), "{lost:?}");
    assert!(lost.values().all(|block| block == &[0; 512]), "{lost:?}");
    assert!(lun.fired("slow") > 0);
}

/// A rule about a target is one of each of its units, and each counts for itself, also one that is plugged later.
/// LOGICAL UNIT COMMUNICATION FAILURE is B/08/00 (SPC-4).
#[test]
fn targets_rule_befalls_each_of_its_units() {
    declare!(Contract, OWN_HOST);
    const LATER: LunAddress = LunAddress { target: 0, lun: 77 };
    let (one, other) = (Lun::fresh(), Lun::fresh());
    let sense = Sense::named("LOGICAL UNIT COMMUNICATION FAILURE");
    let ready = || When::command("TEST UNIT READY");
    let rules = vec![
        Rule::new("here", Effect::sense(sense)).when(ready().target(0)).times(Times::First(2)),
        Rule::new("elsewhere", Effect::status("RESERVATION CONFLICT")).when(ready().target(1)),
    ];
    bench::all_faults(Faults { seed: 0, rules }, &["elsewhere"]);
    bench::control(Command::Plug { address: LATER, spec: LunSpec::default(), silent: false });
    let host = one.device().hctl.split(':').next().expect("a host");
    let later = ScsiDevice { hctl: format!("{host}:0:0:77") };
    sysfs::appear(&later.bsg());
    let nodes = [one.device(), other.device(), &later];
    let mut nodes = nodes.map(|device| uring_cmd(device, Access::ReadWrite));
    for bsg in &mut nodes {
        let mut answers: Vec<_> = (0..4).map(|_| execute(bsg, test_unit_ready())).collect();
        assert_good(&answers.pop().expect("four"));
        // REPORTED LUNS DATA HAS CHANGED, 6/3F/0E, may come first once nothing goes wrong.
        let codes: Vec<_> =
            answers.iter().map(|done| done.sense.get(12).copied().unwrap_or(0)).collect();
        assert_eq!(codes[..2], [0x08, 0x08]);
        assert!(matches!(codes[2], 0 | 0x3f), "{codes:?}");
    }
    for lun in [&one, &other] {
        assert_eq!((lun.fired("here"), lun.fired("elsewhere")), (2, 0));
    }
}
