//! What commands do to the host's page cache, on a file system that has a disk behind it.

use std::{
    fs,
    io::Write,
    os::unix::fs::chown,
    path::PathBuf,
    time::{Duration, Instant},
};

use rstest::rstest;
use scsi::{LunAddress, Status, task::TaskAttribute};
use tempfile::{NamedTempFile, tempfile_in};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::*;
use crate::{
    DataBuffers, Device, DeviceConfig, DeviceType, LuConfig, MediumConfig, NexusId, SgList,
    TaskContext, medium::pages::are_resident,
};

const LEN: usize = 64 << 10;
const UNIT: LunAddress = LunAddress { target: 0, lun: 0 };
const PATIENCE: Duration = Duration::from_secs(20);

/// A file on a disk, with its data there and not in the page cache.
struct OnDisk {
    file: NamedTempFile,
    region: MmapRegion,
}

impl OnDisk {
    fn new() -> OnDisk {
        // Of a tmpfs the page cache is the file itself.
        let built_in = std::env::current_exe().expect("a path").parent().map(PathBuf::from);
        let places = built_in.into_iter().chain([std::env::temp_dir()]);
        let file = places
            .filter(|place| !is_resident_for_ever(place))
            .find_map(|place| NamedTempFile::new_in(place).ok());
        let mut file = file.expect("a directory on a disk: set CARGO_TARGET_DIR or TMPDIR to one");
        file.write_all(&[1; LEN]).expect("room");
        forget(file.as_file());
        let offset = FileOffset::new(file.reopen().expect("ours"), 0);
        let region = MmapRegion::from_file(offset, LEN).expect("mapped");
        OnDisk { file, region }
    }

    fn device(&self) -> Device {
        let medium = MediumConfig::File { path: self.file.path().into() };
        let blocks = LEN as u64 / 512;
        let disk =
            LuConfig { device_type: DeviceType::Disk, blocks, medium, ..LuConfig::default() };
        Device::new(DeviceConfig { identifier: 0, units: vec![(UNIT, disk)] }).expect("accepted")
    }

    fn is_cached(&self) -> bool {
        are_resident(&self.region.get_slice(0, LEN).expect("inside")).expect("the system says")
    }

    /// Bytes in the page cache that the disk does not have (proc(5), smaps). Only pages that have been touched
    /// in the mapping count.
    fn dirty(&self) -> u64 {
        let slice = self.region.get_slice(0, LEN).expect("inside");
        let mut bytes = [0; LEN];
        slice.copy_to(&mut bytes[..]);
        let begin = format!("{:x}-", self.region.as_ptr() as usize);
        let maps = fs::read_to_string("/proc/self/smaps").expect("ours");
        let ours = maps.lines().skip_while(|line| !line.starts_with(&begin)).skip(1);
        let lines = ours.take_while(|line| !line.starts_with("VmFlags:"));
        let dirty = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            matches!(name, "Shared_Dirty" | "Private_Dirty")
                .then(|| value.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        });
        dirty.map(|kib| kib.expect("a number") << 10).sum()
    }
}

/// Makes the page cache forget a file, where it can.
fn forget(file: &File) {
    file.sync_all().expect("durable");
    fadvise(file, 0, None, Advice::DontNeed).expect("advice is taken");
}

fn is_resident_for_ever(place: &Path) -> bool {
    let Ok(mut file) = tempfile_in(place) else { return true };
    file.write_all(&[1; LEN]).expect("room");
    forget(&file);
    let region = MmapRegion::<()>::from_file(FileOffset::new(file, 0), LEN).expect("mapped");
    are_resident(&region.get_slice(0, LEN).expect("inside")).expect("the system says")
}

fn run(device: &Device, cdb: &[u8], out: &mut [u8]) -> Status {
    let task = TaskContext { tag: 0, attribute: TaskAttribute::Simple, cdb };
    let mut data = DataBuffers { data_out: SgList::from(out), data_in: SgList::default() };
    device.execute(NexusId(0), UNIT, &task, &mut data).status
}

/// mincore(2) lies about files that are neither the user's nor opened for writing.
#[test]
fn only_files_that_mincore_tells_the_truth_of_are_mapped() {
    let file = NamedTempFile::new().expect("a directory");
    file.as_file().set_len(LEN as u64).expect("room");
    let is_mapped = |path: &Path, len, read_only| {
        FileMedium::open(path, len, read_only, false).expect("a medium").mapped().is_some()
    };
    let len = LEN as u64;
    assert!(is_mapped(file.path(), len, true) && is_mapped(file.path(), len, false));
    if geteuid().is_root() {
        chown(file.path(), Some(65_534), None).expect("we are root");
        assert!(!is_mapped(file.path(), len, true));
        assert!(is_mapped(file.path(), len, false), "opened for writing");
    } else {
        // Everybody may read it and root alone may write it.
        assert!(!is_mapped(Path::new("/etc/passwd"), 1, true));
    }
}

/// SBC, PRE-FETCH: the blocks are read into the cache; without a length, all.
#[rstest]
#[case::ten(&[0x34, 0, 0, 0, 0, 0, 0, 0, 128, 0])]
#[case::sixteen(&[0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
fn pre_fetch_brings_the_file_into_the_page_cache(#[case] cdb: &[u8]) {
    let on_disk = OnDisk::new();
    let device = on_disk.device();
    assert!(!on_disk.is_cached());
    assert_eq!(run(&device, cdb, &mut []), Status::ConditionMet);
    let deadline = Instant::now() + PATIENCE;
    while !on_disk.is_cached() {
        assert!(Instant::now() < deadline, "it is not fetched");
        std::thread::yield_now();
    }
}

/// SBC, SYNCHRONIZE CACHE: what was written is on the disk when it ends.
#[rstest]
#[case::ten(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
#[case::sixteen(&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
fn synchronize_cache_leaves_nothing_dirty(#[case] cdb: &[u8]) {
    let on_disk = OnDisk::new();
    let device = on_disk.device();
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 128, 0];
    assert_eq!(run(&device, &write, &mut [2; LEN]), Status::Good);
    assert_eq!(on_disk.dirty(), LEN as u64);
    assert_eq!(run(&device, cdb, &mut []), Status::Good);
    assert_eq!(on_disk.dirty(), 0);
}
