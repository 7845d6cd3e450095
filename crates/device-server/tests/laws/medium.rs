//! Media in RAM and in files, and their failures.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use device_server::{ConfigError, Device, DeviceConfig, LuConfig, MediumConfig};
use scsi::Status;

use crate::fixture::{Bench, UNIT, disk, pattern};

fn file(path: &Path) -> LuConfig {
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
    let bench = Bench::new(LuConfig { blocks: 1 << 30, ..file(&path) });
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
        let bench = Bench::new(file(&path));
        assert_eq!(bench.receive(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])[..100], [5; 100]);
        assert_eq!(fs::metadata(&path).expect("there").len(), expected);
    }
}

/// As many pieces as one `preadv` takes, and some more.
#[test]
fn a_file_takes_more_pieces_than_one_system_call() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let bench = Bench::new(file(&folder.path().join("disk")));
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

/// SBC: INFORMATION is the first block in error. The file is cut behind the unit's back.
#[test]
fn a_failing_read_is_unrecovered_read_error_at_its_block() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("disk");
    let bench = Bench::new(file(&path));
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

/// Every write to /dev/full fails for want of space; it is no disk, so it stands in behind a limit
/// on the size of files.
#[test]
fn a_failing_write_is_write_error_at_its_block() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("disk");
    fs::write(&path, vec![0; 64 * 512]).expect("written");
    // Opened read-only because it is write protected, then written to as a unit never would be.
    let bench = Bench::new(LuConfig { write_protect: true, ..file(&path) });
    assert_eq!(bench.transfer(&WRITE_4, &mut [1; 2048], &mut []).status, Status::CheckCondition);
    assert!(fs::read(&path).expect("there").iter().all(|byte| *byte == 0));
}

#[test]
fn a_write_protected_file_is_not_opened_for_writing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("disk");
    let _created = Bench::new(LuConfig { write_protect: true, ..file(&path) });
    assert_eq!(fs::metadata(&path).expect("created").len(), 64 * 512);
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for path in [folder.path(), Path::new("/dev/null"), Path::new("/nonexistent/disk")] {
        for write_protect in [false, true] {
            let error = refused(LuConfig { write_protect, ..file(path) });
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
