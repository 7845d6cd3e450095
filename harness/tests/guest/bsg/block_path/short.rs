//! Transfers that are short under GOOD.

use harness::{Lun, declare};
use scsi_fault::{DataIn, Effect};

use super::{asked, disk, errno, first};
use crate::bsg::cdb;
use fault::Times;

const LEN: usize = 8 * 512;

/// SPC-4, READ(10): LOGICAL BLOCK ADDRESS from byte 2, TRANSFER LENGTH from byte 7.
fn ranges(entries: &[control::JournalEntry]) -> Vec<(u32, u16)> {
    let number = |hex: &str| u32::from_str_radix(hex, 16).expect("hex");
    let range =
        |cdb: &str| (number(&cdb[4..12]), u16::try_from(number(&cdb[14..18])).expect("16 bits"));
    entries.iter().map(|entry| range(&entry.cdb)).collect()
}

/// drivers/scsi/scsi.c:scsi_finish_command takes the residual from what was good, and
/// scsi_lib.c:scsi_io_completion asks for the rest; drivers/scsi/sd.c:sd_done counts whole blocks alone.
#[test]
fn rest_of_a_short_read_is_asked_for() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    let data = cdb::pattern(16, 8, 1);
    disk.write(16 * 512, &data).expect("written");
    for (sent, good) in [(1024, 2), (700, 1), (0, 0)] {
        first(&lun, "READ(10)", Effect::data_in(DataIn::Limit(sent)), Times::Once);
        let (result, entries) = asked(&lun, || disk.read(16 * 512, LEN));
        assert_eq!(result.expect("read"), data, "{sent} bytes");
        assert_eq!(ranges(&entries), [(16, 8), (16 + u32::from(good), 8 - good)], "{sent} bytes");
    }
}

/// As above, in the other direction.
#[test]
fn rest_of_a_short_write_is_sent() {
    declare!(Contract);
    let lun = Lun::disk_unit();
    let disk = disk(&lun);
    for (taken, good, mark) in [(1024, 2, 1), (512, 1, 2), (0, 0, 3)] {
        let effect = Effect { data_out_limit: Some(taken), ..Effect::default() };
        first(&lun, "WRITE(10)", effect, Times::Once);
        let data = cdb::pattern(16, 8, mark);
        let (result, entries) = asked(&lun, || disk.write(16 * 512, &data));
        assert_eq!(errno(result), None);
        assert_eq!(ranges(&entries), [(16, 8), (16 + u32::from(good), 8 - good)], "{taken} bytes");
        assert_eq!(disk.read(16 * 512, LEN).expect("read"), data, "{taken} bytes");
    }
}
