//! A file system on a disk whose commands overtake each other: made, filled, read back and checked.

use std::{borrow::Cow, fs, path::Path};

use fault::Times;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, declare, modules::Modules, program};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use scsi_fault::{Effect, Rule, When, WriteFault};

use super::{STORAGE, assert_out_of_order, delays, thin_disk};

pub(crate) const EXT4: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_EXT4_FS"))]),
    deadline_s: Some(60),
    ..STORAGE
};

/// Loads the driver.
#[track_caller]
pub(crate) fn load() {
    Modules::of_image().and_then(|modules| modules.load("ext4", "")).expect("ext4 loads");
}

/// Makes a file system on a disk of 16 MiB.
#[track_caller]
pub(crate) fn make(node: &str) {
    let ran = program::run("mkfs.ext4", &[node]);
    ran.says(&["16384 1k blocks", "Creating journal", "done"]);
}

/// Makes a file system on the unit, and returns the node of its disk.
#[track_caller]
fn made(lun: &Lun) -> String {
    let node = lun.device().disk().display().to_string();
    make(&node);
    node
}

/// A mounted file system; its end takes it away.
struct Mount(&'static Path);

impl Mount {
    #[track_caller]
    fn of(node: &str) -> Mount {
        let place = Path::new("/tmp/ext4");
        fs::create_dir_all(place).expect("the directory can be made");
        let mounted = mount(node, place, "ext4", MountFlags::empty(), None);
        mounted.unwrap_or_else(|error| panic!("{node}: {error}"));
        Mount(place)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::empty()).expect("nobody uses the file system");
    }
}

/// 24 files of 1 to about 190,000 bytes, in directories.
fn files() -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..24_u32).map(|number| {
        let len = 1 + number.pow(2) * 359;
        let content = (0..len).map(|at| at.wrapping_mul(number + 7).to_be_bytes()[2]).collect();
        (format!("{}/file-{number}", number % 3), content)
    })
}

/// Fills a file system, mounts it anew, so that nothing comes from the page cache, and finds everything. e2fsck(8): exit
/// code 0 is "no errors", 4 "errors left uncorrected".
#[track_caller]
pub(crate) fn keeps_its_files(node: &str) {
    let mounted = Mount::of(node);
    for (name, content) in files() {
        let path = mounted.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    drop(mounted);
    let mounted = Mount::of(node);
    for (name, content) in files() {
        let found = fs::read(mounted.0.join(&name)).expect("the file is there");
        assert!(found == content, "{name} is not what was written");
    }
    drop(mounted);
    program::run("e2fsck", &["-f", "-n", node])
        .says(&["Pass 5: Checking group summary information", "39/4096 files"]);
}

/// What keeps its files while each command takes a time of its own.
#[test]
fn ext4_keeps_its_files_while_commands_overtake_each_other() {
    declare!(Contract, EXT4);
    load();
    let lun = thin_disk();
    lun.faults([Rule::new("late", delays(2000)).times(Times::Always)]);
    let node = made(&lun);
    keeps_its_files(&node);
    let journal = lun.journal();
    assert_eq!(journal.dropped, 0);
    let writes: Vec<_> =
        journal.entries.into_iter().filter(|entry| entry.command == "WRITE(10)").collect();
    assert!(writes.len() > 24, "{} writes", writes.len());
    assert_out_of_order(&writes);
}

/// The same check finds that the superblock and the group descriptors behind it were never written (ext4,
/// Disk Layout: byte 1024, which is LBA 2). Exit code 4 is "errors left uncorrected", with others added to it.
#[test]
fn e2fsck_finds_a_lost_write() {
    declare!(Contract, EXT4);
    let lun = thin_disk();
    lun.faults([Rule::new("lost", Effect::write(WriteFault::Lost))
        .when(When::command("WRITE(10)").lba(2, 3))
        .times(Times::Always)]);
    let node = made(&lun);
    let ran = program::run("e2fsck", &["-f", "-n", &node]);
    assert!(ran.code.is_some_and(|code| code & 4 != 0), "{ran:?}");
    assert!(ran.said.contains("Superblock invalid, trying backup blocks"), "{ran:?}");
}
