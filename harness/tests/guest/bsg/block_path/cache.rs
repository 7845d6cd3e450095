//! Caches: the device's, which is flushed, and the guest's, which hears of failures late.

use std::{
    borrow::Cow,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

use bsg::Errno;
use harness::{Feature, Lun, Needs, declare};
use scsi_fault::{Effect, Sense};

use super::{ForgottenDisk, always, asked, disk, errno, names};

/// drivers/scsi/sd.c:cache_type_store: the kernel takes the unit for one with a volatile cache.
#[track_caller]
fn with_a_cache() -> ForgottenDisk {
    let lun = ForgottenDisk(Lun::disk_unit());
    let path = format!("/sys/class/scsi_disk/{}/cache_type", lun.device().hctl);
    fs::write(&path, "temporary write back").unwrap_or_else(|error| panic!("{path}: {error}"));
    lun
}

/// drivers/scsi/sd.c:sd_setup_flush_cmnd, block/fops.c:blkdev_fsync: SYNCHRONIZE CACHE, and its failure is the
/// caller's (scsi_lib.c:scsi_io_completion_nz_result: a flush has no bytes to tell it by).
#[test]
fn failed_flush_is_told() {
    declare!(Contract);
    let lun = with_a_cache();
    let disk = disk(&lun);
    let (result, entries) = asked(&lun, || disk.flush());
    assert_eq!((errno(result), names(&entries)), (None, vec!["SYNCHRONIZE CACHE(10)"]));
    for (sense, expected, attempts) in [
        (Sense::codes(3, 0x11, 0), Errno::NODATA, 1),
        (Sense::codes(3, 0x0c, 0), Errno::IO, 6),
        (Sense::codes(4, 0x44, 0), Errno::REMOTEIO, 1),
        (Sense::codes(5, 0x20, 0), Errno::REMOTEIO, 1),
        (Sense::codes(7, 0x27, 7), Errno::NOSPC, 1),
    ] {
        let what = format!("{sense:?}");
        always(&lun, "SYNCHRONIZE CACHE(10)", Effect::sense(sense));
        let (result, entries) = asked(&lun, || disk.flush());
        assert_eq!((errno(result), entries.len()), (Some(expected), attempts), "{what}");
    }
}

/// fs/buffer.c:end_buffer_async_write, fs/sync.c: what could not be written back is told by fsync, once, and as EIO
/// whatever it was. (Without buffer heads, fs/iomap tells what it was.)
#[test]
fn failed_write_back_is_told_by_fsync_once_and_as_eio() {
    declare!(
        Quirk,
        Needs {
            features: Cow::Borrowed(&[Feature::Config(Cow::Borrowed("CONFIG_BUFFER_HEAD"))]),
            ..Needs::DEFAULT
        }
    );
    let lun = Lun::disk_unit();
    let path = lun.device().disk();
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    for sense in [Sense::codes(3, 0x11, 0), Sense::codes(7, 0x27, 7)] {
        let what = format!("{sense:?}");
        always(&lun, "WRITE(10)", Effect::sense(sense));
        let (result, entries) = asked(&lun, || file.write_all_at(&[7; 4096], 8192));
        assert_eq!((errno(result), entries.len()), (None, 0), "{what}: a cache takes it");
        let (result, entries) = asked(&lun, || file.sync_all());
        assert_eq!(
            (errno(result), names(&entries)),
            (Some(Errno::IO), vec!["WRITE(10)"]),
            "{what}"
        );
        assert_eq!(errno(file.sync_all()), None, "{what}: told once");
    }
}

/// mm/filemap.c:filemap_read_folio: a page that could not be read is EIO, whatever it was; the pages before the bad
/// block are read.
#[test]
fn cached_read_of_a_bad_block_is_eio_and_others_are_read() {
    declare!(Quirk);
    let lun = Lun::disk_unit();
    let file = OpenOptions::new().read(true).open(lun.device().disk()).expect("opened");
    lun.faults([scsi_fault::Rule::new("fault", Effect::sense(Sense::codes(3, 0x11, 0)))
        .when(scsi_fault::When::command("READ(10)").lba(1000, 1000))
        .times(fault::Times::Always)]);
    let mut page = [1; 4096];
    assert_eq!(errno(file.read_exact_at(&mut page, 1000 * 512)), Some(Errno::IO));
    let (result, entries) = asked(&lun, || file.read_exact_at(&mut page, 1000 * 512));
    assert_eq!(errno(result), Some(Errno::IO));
    assert!(!entries.is_empty(), "a failure is not cached");
    assert_eq!(errno(file.read_exact_at(&mut page, 992 * 512)), None);
    assert_eq!(page, [0; 4096]);
}
