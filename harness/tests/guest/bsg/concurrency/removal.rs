//! A unit that goes, or whose target does, while its commands are with the device and others wait for a tag.

use std::{borrow::Cow, collections::BTreeMap, fs, thread, time::Duration};

use bsg::{Access, BsgUring, Completion, Request, UringFrame};
use control::{Command, LunSpec, Medium};
use guest_protocol::message::TargetSignal;
use harness::{
    Feature, Lun, Needs,
    assert::{assert_good, assert_sense},
    bench, declare, sysfs, wait,
};
use rstest::rstest;

use super::{
    super::{
        cdb,
        ways::{complete, execute, soon, uring_cmd},
    },
    FEW_TAGS, Flavour, TAGS, assert_every_tag_is_free, await_waiting, hold, read, write_blocks,
};

/// Reads that are submitted: some more than there are tags.
const COMMANDS: u8 = 6;

#[track_caller]
fn submit(lun: &Lun, bsg: &mut BsgUring) -> BTreeMap<u64, u32> {
    write_blocks(bsg, COMMANDS);
    hold(lun, TAGS);
    let submit = |lba: u32| (bsg.submit(read(lba)).expect("submitted"), lba);
    let reads = (0..u32::from(COMMANDS)).map(submit).collect();
    lun.held(TAGS);
    await_waiting(1);
    reads
}

/// What became of each, by block.
#[track_caller]
fn ends(bsg: &mut BsgUring, mut reads: BTreeMap<u64, u32>) -> BTreeMap<u32, Completion> {
    let mut ends = BTreeMap::new();
    while !reads.is_empty() {
        let done = bsg.wait(soon()).expect("completed");
        let lba = reads.remove(&done.token).expect("completed once");
        ends.insert(lba, done.completion().expect("executed"));
    }
    ends
}

/// block/blk-core.c:blk_queue_enter: ENODEV, 19, is what a node says that is still open. The queue ends a moment after the
/// directory (drivers/scsi/scsi_sysfs.c:__scsi_remove_device); until then a command gets no further than the midlayer.
#[track_caller]
fn assert_gone(mut bsg: BsgUring) {
    let gone = wait::until(Duration::from_secs(10), "the end of the queue", || {
        let done = complete(&mut bsg, UringFrame::from(Request::new(&[0; 6])));
        if done.res == -19 {
            return Some(());
        }
        let done = done.completion().expect("executed, or ENODEV");
        assert!(matches!(done.host_status, 1 | 7), "{done:?}");
        None
    });
    gone.unwrap_or_else(|error| panic!("{error}"));
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
    let reads = submit(&lun, &mut bsg);
    let delete = lun.device().dir().join("delete");
    thread::scope(|scope| {
        let deleting = scope.spawn(|| fs::write(&delete, "1"));
        sysfs::vanish(&lun.device().bsg());
        let (over, held) = (deleting.is_finished(), lun.journal().held.len());
        lun.release();
        let ends = ends(&mut bsg, reads);
        deleting.join().expect("no panic").expect("deleted");
        assert!(!over, "the unit is gone, and its commands are not");
        assert_eq!(held, TAGS);
        let good = ends.iter().filter(|(_, done)| done.host_status == 0);
        assert_eq!(good.count(), TAGS);
        for (lba, done) in ends {
            if done.host_status == 0 {
                assert_good(&done);
                assert_eq!(done.data, cdb::pattern(lba, 1, 3), "block {lba}");
            } else {
                assert!(matches!(done.host_status, 1 | 7), "block {lba}: {done:?}");
                assert_eq!(done.data, [0; 512], "block {lba}");
            }
        }
    });
    assert_gone(bsg);
    assert_every_tag_is_free(&Lun::leased(lun.address()));
}

/// A target that drops a unit aborts what the unit holds (DID_ABORT, 5), and says that it is gone (virtio 1.2, 5.6.6.3,
/// VIRTIO_SCSI_EVT_RESET_REMOVED). What waits for a tag meets the unit's absence at the target (LOGICAL UNIT NOT SUPPORTED,
/// SPC-4) or in the kernel. One in its place has all the tags.
#[test]
fn dropped_unit_aborts_what_it_holds() {
    declare!(Contract, FEW_TAGS);
    let (_first, lun) = (Lun::fresh(), Lun::fresh());
    let mut bsg = Flavour::Plain.open(&lun);
    let reads = submit(&lun, &mut bsg);
    bench::control(Command::Unplug { address: lun.address(), silent: false });
    let ends = ends(&mut bsg, reads);
    sysfs::vanish(&lun.device().dir());
    let aborted = ends.values().filter(|done| done.host_status == 5).count();
    assert_eq!(aborted, TAGS);
    for (lba, done) in ends {
        if done.device_status == 2 {
            assert_sense(&done, 0x05, 0x25, 0x00);
        } else {
            assert!(matches!(done.host_status, 1 | 4 | 5 | 7), "block {lba}: {done:?}");
        }
        assert_eq!(done.data, [0; 512], "block {lba}");
    }
    assert_gone(bsg);
    let (address, spec) = (lun.address(), LunSpec::default());
    bench::control(Command::Plug { address, spec, silent: false });
    sysfs::appear(&lun.device().bsg());
    assert_every_tag_is_free(&lun);
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
    let reads = submit(&lun, &mut bsg);
    bench::signal_target(TargetSignal::Restart);
    for (lba, done) in ends(&mut bsg, reads) {
        assert_good(&done);
        assert_eq!(done.data, cdb::pattern(lba, 1, 3), "block {lba}");
    }
    let mut other = uring_cmd(lun.device(), Access::ReadWrite);
    assert_good(&execute(&mut other, Request::new(&[0; 6])));
    assert_every_tag_is_free(&lun);
}
