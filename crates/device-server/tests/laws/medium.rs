//! Media in RAM and in files, and their failures.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use device_server::{ConfigError, Device, DeviceConfig, LuConfig, MediumConfig};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use scsi::Status;

use crate::fixture::{Bench, UNIT, disk, pattern};

fn file_at(path: &Path) -> LuConfig {
    LuConfig { medium: MediumConfig::File { path: path.to_path_buf() }, ..disk() }
}

fn refused(config: LuConfig) -> ConfigError {
    let units = vec![(UNIT, config)];
    Device::new(DeviceConfig { units, ..DeviceConfig::default() }).expect_err("refused")
}

const WRITE_4: [u8; 10] = [0x2a, 0, 0, 0, 0, 10, 0, 0, 4, 0];
const READ_4: [u8; 10] = [0x28, 0, 0, 0, 0, 10, 0, 0, 4, 0];

#[test]
fn a_file_is_created_sparsely_and_holds_the_blocks() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("disk");
    let bench = Bench::new(LuConfig { blocks: 1 << 30, ..file_at(&path) });
    let created = fs::metadata(&path).expect("created");
    assert_eq!((created.len(), created.blocks()), (512 << 30, 0));

    let mut data = pattern(1, 4, 512);
    let (head, tail) = data.split_at_mut(700);
    assert_eq!(bench.scattered(&WRITE_4, &mut [head, tail], &mut []).data_out_len, 2048);
    let mut stored = vec![0; 2048];
    File::open(&path).and_then(|file| file.read_exact_at(&mut stored, 5120)).expect("stored");
    assert_eq!(stored, pattern(1, 4, 512));
    assert_eq!(bench.receive(&READ_4), stored);
    assert_eq!(bench.run(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]).status, Status::Good);
}

#[test]
fn a_longer_file_is_kept_and_a_shorter_one_extended() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (len, expected) in [(100_000, 100_000), (100, 32_768)] {
        let path = folder.path().join(len.to_string());
        fs::write(&path, vec![5; len]).expect("written");
        let bench = Bench::new(file_at(&path));
        assert_eq!(bench.receive(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])[..100], [5; 100]);
        assert_eq!(fs::metadata(&path).expect("there").len(), expected);
    }
}

/// As many pieces as one `preadv` takes, and some more.
#[test]
fn a_file_takes_more_pieces_than_one_system_call() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let bench = Bench::new(file_at(&folder.path().join("disk")));
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    let mut data: Vec<u8> = (0..4096u16).map(|index| index.to_le_bytes()[0] ^ 0x5a).collect();
    let expected = data.clone();
    let mut pieces: Vec<_> = data.chunks_mut(3).collect();
    assert_eq!(bench.scattered(&write, &mut pieces, &mut []).data_out_len, 4096);

    let mut data = vec![0; 4096];
    let mut pieces: Vec<_> = data.chunks_mut(3).collect();
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    assert_eq!(bench.scattered(&read, &mut [], &mut pieces).data_in_len, 4096);
    assert_eq!(data, expected);
}

/// More files than are read in a mapping: nobody sees which are.
#[test]
fn eighty_files_are_read_alike() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let benches: Vec<_> = (0..80u8)
        .map(|number| {
            let path = folder.path().join(number.to_string());
            fs::write(&path, vec![number; 64 << 10]).expect("written");
            Bench::new(file_at(&path))
        })
        .collect();
    for _ in 0..2 {
        for (number, bench) in (0..80u8).zip(&benches) {
            assert_eq!(bench.receive(&READ_4), [number; 2048]);
        }
    }
}

/// SBC: INFORMATION is the first block in error. The file is cut behind the unit's back.
#[test]
fn a_failing_read_is_unrecovered_read_error_at_its_block() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("disk");
    let bench = Bench::new(file_at(&path));
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(12 * 512))
        .expect("cut");
    let mut data = vec![0xee; 2048];
    let outcome = bench.transfer(&READ_4, &mut [], &mut data);
    assert_eq!(outcome.status, Status::CheckCondition);
    let expected = [0xf0, 0, 3, 0, 0, 0, 12, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0];
    assert_eq!(outcome.sense.as_deref(), Some(&expected[..]));
    assert_eq!((outcome.data_in_len, outcome.overrun), (1024, false));
}

/// A sealed memory file stands in for a full disk: it takes two of four blocks.
#[test]
fn a_failing_write_is_write_error_at_its_block() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("medium", flags).expect("memory file");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let bench = Bench::new(LuConfig { block_len: 4096, ..file_at(Path::new(&path)) });
    ftruncate(&file, 12 * 4096)
        .and_then(|()| fcntl_add_seals(&file, SealFlags::GROW))
        .expect("cut");
    let outcome = bench.transfer(&WRITE_4, &mut [1; 4 * 4096], &mut []);
    assert_eq!(outcome.status, Status::CheckCondition);
    let expected = [0xf0, 0, 3, 0, 0, 0, 12, 10, 0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0];
    assert_eq!(outcome.sense.as_deref(), Some(&expected[..]));
    assert_eq!((outcome.data_out_len, outcome.overrun), (8192, false));
}

#[test]
fn a_write_protected_file_is_not_opened_for_writing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("disk");
    let config = LuConfig { write_protect: true, ..file_at(&path) };
    let _created = Bench::new(config.clone());
    assert_eq!(fs::metadata(&path).expect("created").len(), 64 * 512);

    let _opened = Bench::new(config);
    let modes: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("own descriptors")
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|fd| fs::read_link(Path::new("/proc/self/fd").join(fd)).is_ok_and(|to| to == path))
        .map(|fd| fs::read_to_string(Path::new("/proc/self/fdinfo").join(fd)).expect("own fdinfo"))
        .map(|info| info.lines().any(|line| line.starts_with("flags:") && line.ends_with('0')))
        .collect();
    assert_eq!(modes.iter().filter(|read_only| **read_only).count(), 1, "O_RDONLY is 0");
    assert_eq!(modes.len(), 2);
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for path in [folder.path(), Path::new("/dev/null"), Path::new("/nonexistent/disk")] {
        for write_protect in [false, true] {
            let error = refused(LuConfig { write_protect, ..file_at(path) });
            assert!(matches!(error, ConfigError::File { .. }), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()));
        }
    }
}

#[test]
fn ram_is_bounded_and_costs_nothing_until_written() {
    let error = refused(LuConfig { blocks: (16 << 30) / 512 + 1, ..disk() });
    assert!(matches!(error, ConfigError::RamTooLarge { .. }), "{error}");
    let bench = Bench::new(LuConfig { blocks: (16 << 30) / 512, ..disk() });
    assert_eq!(bench.receive(&READ_4), [0; 2048]);
}
