//! Programs that were written without us, on the bridge; and a target that is killed under them.

use std::{borrow::Cow, thread};

use control::{LunSpec, Medium};
use fault::Times;
use guest_protocol::message::TargetSignal;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, bench, declare, wait};
use rstest::rstest;
use scsi_fault::{Rule, When};
use ublk::DataMode;

use super::{Bridged, asked, thin};
use crate::{
    bsg::cdb,
    programs::{FIO, assert_out_of_order, delays, ext4, fio},
};

/// uring_cmd on bsg nodes, and the program sets of `programs`.
const EXT4: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_EXT4_FS")),
        Feature::KernelAtLeast(7, 1),
    ]),
    ..ext4::EXT4
};

const VERIFY: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_SYSVIPC")),
        Feature::KernelAtLeast(7, 1),
    ]),
    ..FIO
};

const VERIFY_RESTARTED: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::Config(Cow::Borrowed("CONFIG_SYSVIPC")),
        Feature::KernelAtLeast(7, 1),
        Feature::Reconnect,
    ]),
    deadline_s: Some(120),
    ..FIO
};

const RECONNECTS: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::Reconnect, Feature::KernelAtLeast(7, 1)]),
    deadline_s: Some(120),
    ..Needs::DEFAULT
};

/// A file system on the bridge keeps its files; what it gives back is unmapped.
#[test]
fn ext4_keeps_its_files_on_the_bridge() {
    declare!(Contract, EXT4);
    ext4::load();
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let node = bridged.server.block_path().display().to_string();
    let ((), entries) = asked(&lun, || {
        ext4::make(&node);
        ext4::keeps_its_files(&node);
    });
    let count = |command: &str| entries.iter().filter(|entry| entry.command == command).count();
    assert!(count("WRITE(10)") > 24 && count("UNMAP") > 0, "{} commands", entries.len());
    assert!(entries.iter().all(|entry| entry.status == 0), "a command failed");
    bridged.delete();
}

/// fio writes, reads and compares, 16 at a time, while commands overtake each other.
#[rstest]
fn fio_finds_its_data_on_the_bridge(#[values("libaio", "io_uring")] engine: &str) {
    declare!(Contract, VERIFY);
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let late = Rule::new("late", delays(3000)).when(When::default().lba(2048, 6143));
    lun.faults([late.times(Times::Always)]);
    let (ran, entries) = asked(&lun, || fio::verify_disk(&bridged.server.block_path(), engine));
    ran.says(&["issued rwts: total=512,512,0,0 short=0,0,0,0 dropped=0,0,0,0"]);
    for command in ["WRITE(10)", "READ(10)"] {
        let of: Vec<_> = entries.iter().filter(|entry| entry.command == command).cloned().collect();
        assert_out_of_order(&of);
    }
    bridged.delete();
}

/// A target that is killed while fio works, and started again: QEMU hands the new one what the old one had.
#[test]
fn fio_does_not_notice_a_target_that_is_restarted() {
    declare!(Contract, VERIFY_RESTARTED);
    let medium = Medium::File { path: "bridge-fio".into() };
    let lun = Lun::with(LunSpec { medium, ..thin() });
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let late = Rule::new("late", delays(5000)).when(When::default().lba(2048, 6143));
    lun.faults([late.times(Times::Always)]);
    let disk = bridged.server.block_path();
    let fio = thread::spawn(move || fio::verify_disk(&disk, "libaio"));
    let under_way = wait::until(super::DEADLINE, "writes of fio", || {
        let entries = lun.journal().entries;
        let writes = entries.iter().filter(|entry| entry.command == "WRITE(10)").count();
        (writes > 50).then_some(writes)
    });
    let writes = under_way.unwrap_or_else(|error| panic!("{error}"));
    assert!(writes < 500, "{writes} writes: the target is killed too late");
    bench::signal_target(TargetSignal::Restart);
    let ran = fio.join().expect("fio ran");
    ran.says(&["issued rwts: total=512,512,0,0 short=0,0,0,0 dropped=0,0,0,0"]);
    bridged.delete();
}

/// What an application was told is written is there, whoever is killed: writes that the target had and did not answer
/// are done by the next.
#[test]
fn acknowledged_writes_survive_kills_of_the_target() {
    declare!(Contract, RECONNECTS);
    const WRITERS: u32 = 8;
    const HELD: usize = 4;
    let medium = Medium::File { path: "bridge-restart".into() };
    let lun = Lun::with(LunSpec { medium, ..thin() });
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let disk = bridged.open();
    for round in 1..=5 {
        lun.hold(4);
        thread::scope(|scope| {
            let disk = &disk;
            let write = |lba: u32| {
                move || disk.write(u64::from(lba) * 4096, &cdb::pattern(lba * 8, 8, round))
            };
            let writers: Vec<_> = (0..WRITERS).map(|lba| scope.spawn(write(lba))).collect();
            lun.held(HELD);
            bench::signal_target(TargetSignal::Restart);
            for writer in writers {
                writer.join().expect("no panic").expect("written");
            }
        });
        for lba in 0..WRITERS {
            let found = disk.read(u64::from(lba) * 4096, 4096).expect("read");
            assert!(found == cdb::pattern(lba * 8, 8, round), "block {lba} after kill {round}");
        }
    }
    drop(disk);
    bridged.delete();
}
