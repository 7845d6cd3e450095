//! fio writes, reads and verifies while commands overtake each other; and says so where a write was lost.

use std::path::Path;

use control::{DeviceType, LunSpec};
use fault::Times;
use harness::{
    Lun, declare,
    program::{self, Ran},
};
use rstest::rstest;
use scsi_fault::{Effect, Hold, Rule, When, WriteFault};

use super::{FIO, assert_out_of_order, delays};

/// The blocks fio works on: not the first ones, where the kernel looks for partitions.
const FIRST: u64 = 2048;
const LAST: u64 = 6143;

/// 512 writes of 4 KiB in random order, 16 at a time, then as many reads that compare checksums.
#[track_caller]
fn verify(lun: &Lun, engine: &str) -> Ran {
    verify_disk(&lun.device().disk(), engine)
}

/// The same on any disk.
#[track_caller]
pub(crate) fn verify_disk(disk: &Path, engine: &str) -> Ran {
    let filename = format!("--filename={}", disk.display());
    let engine = format!("--ioengine={engine}");
    program::run(
        "fio",
        &[
            "--name=verify",
            &filename,
            &engine,
            "--rw=randwrite",
            "--randseed=1",
            "--bs=4k",
            "--offset=1M",
            "--size=2M",
            "--direct=1",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_fatal=1",
            // A process of its own would share the job's memory all the same.
            "--thread",
        ],
    )
}

#[track_caller]
fn disk() -> Lun {
    Lun::with(LunSpec { device_type: DeviceType::Disk, ..LunSpec::default() })
}

/// Whatever order commands are completed in, every block holds what was written to it.
#[rstest]
fn fio_finds_its_data_after_delays_and_reordering(#[values("libaio", "io_uring")] engine: &str) {
    declare!(Contract, FIO);
    let lun = disk();
    let when = |command: &str| When::command(command).lba(FIRST, LAST);
    let order = |name: &str, command: &str| {
        let effect =
            Effect { hold: Some(Hold::Order(vec![5, 2, 7, 0, 3, 6, 1, 4])), ..Effect::default() };
        // As many as complete the last eight; the rest of the 512 is delayed.
        Rule::new(name, effect).when(when(command)).times(Times::First(256))
    };
    let delay = |name: &str, command: &str| {
        Rule::new(name, delays(3000)).when(when(command)).times(Times::Always)
    };
    lun.faults([
        order("writes in order", "WRITE(10)"),
        delay("late writes", "WRITE(10)"),
        order("reads in order", "READ(10)"),
        delay("late reads", "READ(10)"),
    ]);
    verify(&lun, engine).says(&["issued rwts: total=512,512,0,0 short=0,0,0,0 dropped=0,0,0,0"]);
    let fired = ["writes in order", "late writes", "reads in order", "late reads"];
    let fired = fired.map(|rule| lun.fired(rule));
    assert_eq!(fired, [256, 256, 256, 256]);
    let entries = lun.journal().entries;
    for command in ["WRITE(10)", "READ(10)"] {
        let of: Vec<_> = entries.iter().filter(|e| e.command == command).cloned().collect();
        assert_out_of_order(&of);
    }
}

/// The write of LBA 2848, which is byte 1458176, goes wrong unseen.
#[rstest]
#[case::lost(WriteFault::Lost, "bad magic header 0, wanted acca at file")]
#[case::corrupt(WriteFault::CorruptFrom(4000), "crc32c: verify failed at file")]
fn fio_finds_a_write_that_went_wrong(#[case] fault: WriteFault, #[case] words: &str) {
    declare!(Contract, FIO);
    let lun = disk();
    lun.faults([
        Rule::new("wrong", Effect::write(fault)).when(When::command("WRITE(10)").lba(2848, 2855))
    ]);
    let ran = verify(&lun, "libaio");
    ran.ended_with(1);
    assert!(ran.said.contains(words) && ran.said.contains("offset 1458176"), "{ran:?}");
}
