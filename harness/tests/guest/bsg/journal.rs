//! What the target says it was asked: nothing on the way changes a command.

use bsg::Request;
use control::JournalEntry;
use harness::{Lun, declare};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{Way, execute},
};

/// The parts of an entry that do not depend on the clock.
type Seen<'a> = (&'a str, &'a str, u64, u64, u8, u32, u8);

fn seen(entry: &JournalEntry) -> Seen<'_> {
    let JournalEntry {
        command, cdb, data_out_len, data_in_len, status, residual, response, ..
    } = entry;
    (command, cdb, *data_out_len, *data_in_len, *status, *residual, *response)
}

/// Virtio 1.3, 5.6.6.1: CDB and both data lengths arrive as they were sent, once and in order; status,
/// residual and response are what the initiator is told.
#[rstest]
fn device_sees_each_cdb_once_with_its_lengths(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    let before = lun.journal().entries.len();
    let data = cdb::pattern(0x12, 2, 1);
    for request in [
        Request::new(&[0x00, 0, 0, 0, 0, 0]),
        Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(96),
        Request::new(&cdb::write(Size::Ten, 0x12, 2)).data_out(&data),
        Request::new(&cdb::read(Size::Sixteen, 0x13, 1)).data_in(512),
        Request::new(&cdb::read(Size::Six, 0x8000, 1)).data_in(512),
    ] {
        execute(&mut *way, request);
    }
    let journal = lun.journal();
    assert_eq!(journal.dropped, 0);
    let entries = &journal.entries[before..];
    let expected: [Seen<'_>; 5] = [
        ("TEST UNIT READY", "000000000000", 0, 0, 0, 0, 0),
        ("INQUIRY", "120000002400", 0, 96, 0, 60, 0),
        ("WRITE(10)", "2a000000001200000200", 1024, 0, 0, 0, 0),
        ("READ(16)", "88000000000000000013000000010000", 0, 512, 0, 0, 0),
        ("READ(6)", "080080000100", 0, 512, 2, 512, 0),
    ];
    assert_eq!(entries.iter().map(seen).collect::<Vec<_>>(), expected);
    // LBA OUT OF RANGE in fixed format sense data.
    assert_eq!(entries[4].sense, "70000500".to_owned() + "0000000a" + "00000000" + "210000000000");
    assert!(entries.is_sorted_by_key(|entry| entry.completed_us));
    assert!(entries.iter().all(|entry| entry.fetched_us <= entry.completed_us));
}

/// A unit starts with an empty journal and a zeroed medium: no test sees another's commands. (The
/// processor type keeps the kernel's disk driver away, so nobody but the test sends anything.)
#[rstest]
fn fresh_unit_has_seen_no_command_and_holds_no_data() {
    declare!(Contract);
    let lun = Lun::fresh();
    assert_eq!(lun.journal().entries, []);
    let mut way = Way::SgIoV4.open(lun.device());
    let read = execute(&mut *way, Request::new(&cdb::read(Size::Ten, 0, 255)).data_in(255 * 512));
    assert_eq!((read.device_status, read.residual), (0, 0));
    assert!(read.data.iter().all(|byte| *byte == 0));
    assert_eq!(lun.journal().entries.len(), 1);
}
