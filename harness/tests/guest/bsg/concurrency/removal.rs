//! A unit that goes, or whose target does, while its commands are with the device and others wait for a tag.

use std::{borrow::Cow, collections::BTreeMap, fs, thread};

use bsg::{Access, BsgUring, Request};
use control::{LunSpec, Medium};
use guest_protocol::message::TargetSignal;
use harness::{Feature, Lun, Needs, assert::assert_good, bench, declare, sysfs};
use rstest::rstest;

use super::{
    super::{
        block,
        cdb::{self, Size},
        ways::{execute, soon, uring_cmd},
    },
    FEW_TAGS, Flavour, TAGS, assert_every_tag_is_free, await_waiting, hold, read,
};

/// Reads that are submitted: some more than there are tags.
const COMMANDS: u8 = 6;

#[track_caller]
fn submit(lun: &Lun, bsg: &mut BsgUring) -> BTreeMap<u64, u32> {
    block::write(bsg, Size::Ten, 0, COMMANDS, &cdb::pattern(0, COMMANDS, 3));
    hold(lun, TAGS);
    let submit = |lba: u32| (bsg.submit(read(lba)).expect("submitted"), lba);
    let reads = (0..u32::from(COMMANDS)).map(submit).collect();
    lun.held(TAGS);
    await_waiting(1);
    reads
}

/// drivers/scsi/scsi_sysfs.c:__scsi_remove_device: the node goes first, the unit when its commands have ended. Those that
/// the device has end as if nothing were; those that wait for a tag get one, and no further (DID_NO_CONNECT, 1, or DID_ERROR, 7,
/// drivers/scsi/scsi_lib.c:scsi_device_state_check); later ones are refused.
#[rstest]
fn deleted_unit_waits_for_its_commands(
    #[values(
        Flavour::Plain,
        Flavour::SqPoll,
        Flavour::DeferTaskrun,
        Flavour::IoPoll,
        Flavour::Mixed
    )]
    flavour: Flavour,
) {
    declare!(Quirk, FEW_TAGS);
    // Scans of the host wait for its first unit, which is another.
    let (_first, lun) = (Lun::fresh(), Lun::fresh());
    let mut bsg = flavour.open(&lun);
    let mut reads = submit(&lun, &mut bsg);
    let delete = lun.device().dir().join("delete");
    thread::scope(|scope| {
        let deleting = scope.spawn(|| fs::write(&delete, "1"));
        sysfs::vanish(&lun.device().bsg());
        let (over, held) = (deleting.is_finished(), lun.journal().held.len());
        lun.release();
        let mut ends = Vec::new();
        while !reads.is_empty() {
            let done = bsg.wait(soon()).expect("completed");
            let lba = reads.remove(&done.token).expect("completed once");
            let end = done.completion().map(|done| (done.host_status, done.data));
            ends.push((lba, end));
        }
        deleting.join().expect("no panic").expect("deleted");
        assert!(!over, "the unit is gone, and its commands are not");
        assert_eq!(held, TAGS);
        ends.sort_by_key(|(lba, _)| *lba);
        for (lba, end) in ends {
            let (host, data) = end.expect("executed");
            if host == 0 {
                assert_eq!(data, cdb::pattern(lba, 1, 3), "block {lba}");
            } else {
                assert!(matches!(host, 1 | 7), "host status {host} of block {lba}");
                assert_eq!(data, [0; 512], "block {lba}");
            }
        }
    });
    let refused = bsg.submit(Request::new(&[0; 6]).into()).expect("submitted");
    let refused = bsg.wait_for(refused, soon()).expect("completed");
    assert_eq!(refused.res, -19);
    drop(bsg);
    assert_every_tag_is_free(&Lun::leased(lun.address()));
}

const RECONNECTS: Needs = Needs {
    features: Cow::Borrowed(&[Feature::Reconnect, Feature::KernelAtLeast(7, 1)]),
    ..FEW_TAGS
};

/// A target that is killed, and another in its place (vhost-user, Inflight I/O tracking): what it had is carried out by its
/// successor, and what waits for a tag gets one.
#[rstest]
fn restarted_target_answers_what_the_old_one_had(
    #[values(
        Flavour::Plain,
        Flavour::SqPoll,
        Flavour::DeferTaskrun,
        Flavour::IoPoll,
        Flavour::Mixed
    )]
    flavour: Flavour,
) {
    declare!(Contract, RECONNECTS);
    let medium = Medium::File { path: "concurrency".into() };
    let lun = Lun::with(LunSpec { medium, ..LunSpec::default() });
    let mut bsg = flavour.open(&lun);
    let mut reads = submit(&lun, &mut bsg);
    bench::signal_target(TargetSignal::Restart);
    while !reads.is_empty() {
        let done = bsg.wait(soon()).expect("completed");
        let lba = reads.remove(&done.token).expect("completed once");
        let done = done.completion().expect("executed");
        assert_good(&done);
        assert_eq!(done.data, cdb::pattern(lba, 1, 3), "block {lba}");
    }
    let mut other = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut other, Request::new(&[0; 6])));
    assert_every_tag_is_free(&lun);
}
