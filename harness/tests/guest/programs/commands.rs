//! Commands of sg3_utils that change something: each is seen by the program and in the target's journal.

use std::{fs, path::Path};

use bsg::{Access, BsgIoctl, Passthrough, Request};
use harness::{HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare, program};

use super::{STORAGE, on_bsg, sends_one, thin_disk};

/// A file with these bytes, for a program to read.
#[track_caller]
fn file(lun: &Lun, bytes: &[u8]) -> String {
    let path = Path::new("/tmp").join(format!("data-{}", lun.device().hctl));
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}

/// READ(10) over bsg.
#[track_caller]
fn read(lun: &Lun, lba: u8, blocks: u8) -> Vec<u8> {
    let mut bsg = BsgIoctl::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    let read = Request::new(&[0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0]);
    let done = bsg.execute(read.data_in(usize::from(blocks) * 512)).expect("executed");
    assert_good(&done);
    done.data
}

/// sg3_utils' exit code 2 is NOT READY. Without `--low` sg_turs 1.48 sends nothing and says so with exit
/// code 0 (doug-gilbert/sg3_utils, issue 81).
#[test]
fn sg_start_stops_and_starts_what_sg_turs_asks() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let turs = |code| {
        let (ran, entry) = sends_one(&lun, "sg_turs", &["--low", "--verbose"]);
        ran.ended_with(code);
        assert_eq!(entry.cdb, "000000000000");
        ran
    };
    turs(0);
    let (ran, entry) = sends_one(&lun, "sg_start", &["--stop"]);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "1b0000000000");
    let not_ready = turs(2);
    assert!(not_ready.said.contains("Logical unit not ready"), "{not_ready:?}");
    on_bsg(&lun, "sg_requests", &[]).says(&[
        "Sense key: Not Ready",
        "Additional sense: Logical unit not ready, initializing command required",
    ]);
    let (ran, entry) = sends_one(&lun, "sg_start", &["--start"]);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "1b0000000100");
    turs(0);
}

#[test]
fn sg_sync_writes_a_cache_out() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (ran, entry) = sends_one(&lun, "sg_sync", &[]);
    ran.ended_with(0);
    assert_eq!((entry.cdb.as_str(), entry.status), ("35000000000000000000", 0));
    let (ran, entry) = sends_one(&lun, "sg_sync", &["--16", "--lba=8", "--count=16"]);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "91000000000000000008000000100000");
}

/// sg3_utils' exit code 22 is LBA OUT OF RANGE, 14 MISCOMPARE.
#[test]
fn sg_verify_finds_the_end_and_a_difference() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (ran, entry) = sends_one(&lun, "sg_verify", &["--lba=10", "--count=4"]);
    ran.ended_with(0);
    assert_eq!((entry.cdb.as_str(), entry.status), ("2f000000000a00000400", 0));
    let (ran, entry) = sends_one(&lun, "sg_verify", &["--lba=32760", "--count=99"]);
    ran.ended_with(22);
    assert!(ran.said.contains("LBA out of range"), "{ran:?}");
    // ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE in fixed format.
    assert_eq!(entry.sense[..6], *"700005");
    assert_eq!(entry.sense[24..28], *"2100");

    let zeros = file(&lun, &[0; 1024]);
    let compare = |file: &str| {
        let (input, arguments) = (format!("--in={file}"), ["--lba=10", "--count=2", "--ndo=1024"]);
        sends_one(&lun, "sg_verify", &[&arguments[..], &[input.as_str()]].concat())
    };
    let (ran, entry) = compare(&zeros);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "2f020000000a00000200");
    let other = file(&lun, &[&[0; 1023][..], &[1]].concat());
    let (ran, entry) = compare(&other);
    ran.ended_with(14);
    assert_eq!((entry.status, &entry.sense[..6], &entry.sense[24..28]), (2, "70000e", "1d00"));
}

/// What sg_write_same wrote is read through bsg; what sg_unmap took away is deallocated for
/// sg_get_lba_status, and reads as zeros (LBPRZ).
#[test]
fn sg_write_same_writes_and_sg_unmap_takes_away() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let status = |lba: &str| {
        let (ran, entry) = sends_one(&lun, "sg_get_lba_status", &[lba]);
        assert_eq!(entry.command, "GET LBA STATUS");
        ran
    };
    status("--lba=0").says(&["[1] LBA: 0x0 blocks: 32768 deallocated"]);

    let block: Vec<u8> = (0..=255).chain(0..=255).collect();
    let input = format!("--in={}", file(&lun, &block));
    let (ran, entry) = sends_one(&lun, "sg_write_same", &[&input, "--lba=16", "--num=8"]);
    ran.ended_with(0);
    assert_eq!((entry.cdb.as_str(), entry.data_out_len), ("41000000001000000800", 512));
    assert_eq!(read(&lun, 15, 10), [&[0; 512][..], &block.repeat(8), &[0; 512]].concat());
    status("--lba=0").says(&[
        "[1] LBA: 0x0 blocks: 16 deallocated",
        "[2] LBA: 0x10 blocks: 8 mapped",
        "[3] LBA: 0x18 blocks: 32744 deallocated",
    ]);

    // Without --force it waits for 15 s whether the user has second thoughts.
    let (ran, entry) = sends_one(&lun, "sg_unmap", &["--force", "--lba=16", "--num=8"]);
    ran.ended_with(0);
    // UNMAP, with one block descriptor of 16 bytes behind the header of 8.
    assert_eq!((entry.cdb.as_str(), entry.data_out_len), ("42000000000000001800", 24));
    assert_eq!(read(&lun, 16, 8), [0; 4096]);
    status("--lba=16").says(&["[1] LBA: 0x10 blocks: 32752 deallocated"]);
}

/// SBC-3, WRITE SAME(16) with NDOB and UNMAP: no data is sent.
#[test]
fn sg_write_same_unmaps_without_data() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let input = format!("--in={}", file(&lun, &[7; 512]));
    on_bsg(&lun, "sg_write_same", &[&input, "--lba=32", "--num=16"]).ended_with(0);
    let arguments = ["--16", "--ndob", "--unmap", "--lba=40", "--num=8"];
    let (ran, entry) = sends_one(&lun, "sg_write_same", &arguments);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "93090000000000000028000000080000");
    assert_eq!(entry.data_out_len, 0);
    assert_eq!(read(&lun, 32, 16), [[7; 4096], [0; 4096]].concat());
    let status = on_bsg(&lun, "sg_get_lba_status", &["--lba=32"]);
    status.says(&["[1] LBA: 0x20 blocks: 8 mapped", "[2] LBA: 0x28 blocks: 32728 deallocated"]);
}

/// sg3_utils' exit code 14 is MISCOMPARE; INFORMATION is the offset of the first difference.
#[test]
fn sg_compare_and_write_writes_once() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (old, new) = ([0; 512], [0xa5; 512]);
    let input = format!("--in={}", file(&lun, &[old, new].concat()));
    let arguments = [input.as_str(), "--lba=16", "--num=1", "--xferlen=1024"];
    let (ran, entry) = sends_one(&lun, "sg_compare_and_write", &arguments);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "89000000000000000010000000010000");
    assert_eq!(read(&lun, 16, 1), new);

    let (ran, entry) = sends_one(&lun, "sg_compare_and_write", &arguments);
    ran.ended_with(14);
    assert!(ran.said.contains("Miscompare at byte offset: 0"), "{ran:?}");
    // VALID and fixed format; MISCOMPARE, MISCOMPARE DURING VERIFY OPERATION.
    assert_eq!((entry.status, &entry.sense[..6], &entry.sense[24..28]), (2, "f0000e", "1d00"));
    assert_eq!(read(&lun, 16, 1), new);
}

/// SPC-4, PERSISTENT RESERVE OUT: REGISTER, RESERVE (exclusive access, 3), RELEASE and CLEAR. A wrong key
/// is RESERVATION CONFLICT, sg3_utils' exit code 24.
#[test]
fn sg_persist_registers_reserves_and_clears() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let read = |what: &str| on_bsg(&lun, "sg_persist", &["--in", what]);
    let send =
        |arguments: &[&str]| sends_one(&lun, "sg_persist", &[&["--out"], arguments].concat());
    read("--read-keys").says(&["PR generation=0x0, there are NO registered reservation keys"]);

    let (ran, entry) = send(&["--register", "--param-sark=0xabc"]);
    ran.ended_with(0);
    assert_eq!((entry.cdb.as_str(), entry.data_out_len), ("5f000000000000001800", 24));
    read("--read-keys")
        .says(&["PR generation=0x1, 1 registered reservation key follows:", "0xabc"]);

    let (ran, entry) = send(&["--reserve", "--param-rk=0xabc", "--prout-type=3"]);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "5f010300000000001800");
    let reserved = ["Reservation follows:", "Key=0xabc", "scope: LU_SCOPE, type: Exclusive Access"];
    read("--read-reservation").says(&reserved);
    read("--read-full-status").says(&["Key=0xabc", "Reservation holder", "type: Exclusive Access"]);

    let (ran, entry) = send(&["--release", "--param-rk=0xabd", "--prout-type=3"]);
    ran.ended_with(24);
    assert_eq!(entry.status, 0x18);
    read("--read-reservation").says(&reserved);
    let (ran, _) = send(&["--release", "--param-rk=0xabc", "--prout-type=3"]);
    ran.ended_with(0);
    read("--read-reservation").says(&["there is NO reservation held"]);

    let (ran, entry) = send(&["--clear", "--param-rk=0xabc"]);
    ran.ended_with(0);
    assert_eq!(entry.cdb, "5f030000000000001800");
    read("--read-keys").says(&["PR generation=0x2, there are NO registered reservation keys"]);
}

/// SPC-4, REPORT CAPABILITIES: TMV says that the type mask counts.
#[test]
fn sg_persist_decodes_the_capabilities() {
    declare!(Contract, STORAGE);
    on_bsg(&thin_disk(), "sg_persist", &["--in", "--report-capabilities"]).says(&[
        "Type Mask Valid(TMV): 1",
        "Write Exclusive, all registrants: 1",
        "Exclusive Access, registrants only: 1",
        "Write Exclusive, registrants only: 1",
        "Exclusive Access: 1",
        "Write Exclusive: 1",
        "Exclusive Access, all registrants: 1",
    ]);
}

/// `SG_SCSI_RESET_DEVICE` (include/scsi/sg.h) becomes LOGICAL UNIT RESET
/// (drivers/scsi/virtio_scsi.c:virtscsi_device_reset), which the target carries out.
#[test]
fn sg_reset_sends_a_logical_unit_reset() {
    declare!(Contract, Needs { host: ScsiHost::Own(HostShape::DEFAULT), ..STORAGE });
    let lun = thin_disk();
    assert_eq!(lun.journal().task_management, []);
    let node = lun.device().sg().display().to_string();
    program::run("sg_reset", &["--device", "--no-esc", &node]).ended_with(0);
    let functions = lun.journal().task_management;
    let functions: Vec<_> =
        functions.iter().map(|entry| (entry.function.as_str(), entry.response)).collect();
    // VIRTIO_SCSI_S_FUNCTION_COMPLETE is 0 (include/uapi/linux/virtio_scsi.h).
    assert_eq!(functions, [("LOGICAL UNIT RESET", 0)]);
}
