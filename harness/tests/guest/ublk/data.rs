//! Data through a server: what the application asks is what the server is asked, byte for byte.

use std::sync::Arc;

use bsg::Access;
use harness::{BlockDevice, declare};
use proptest::{prelude::*, test_runner::TestRunner};
use rstest::rstest;
use ublk::{Config, Op, RamTarget, Server};

use super::recorder::{Recorder, pattern, unscanned};

const SECTORS: u64 = 256;

fn recording() -> (Server, Arc<Recorder>, BlockDevice) {
    let target = Arc::new(Recorder::new(SECTORS));
    let server = Server::start(&unscanned(SECTORS), target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    // Before 7.0 the search for partitions cannot be turned off, and is over when START_DEV returns.
    target.take();
    (server, target, disk)
}

fn end(server: Server, disk: BlockDevice) {
    drop(disk);
    server.delete().expect("deleted");
}

/// include/uapi/linux/ublk_cmd.h, `struct ublksrv_io_desc`: a direct write is one request with its
/// sectors, its data arrives at their place, and a read brings them back.
#[rstest]
#[case::first_sector(0, 1)]
#[case::several(7, 9)]
#[case::last_sector(SECTORS - 1, 1)]
#[case::whole_device(0, SECTORS)]
fn write_reaches_the_server_and_reads_back(#[case] sector: u64, #[case] sectors: u64) {
    declare!(Contract);
    let (server, target, disk) = recording();
    let data = pattern(sector, sectors, 1);
    let count = u32::try_from(sectors).expect("short");
    disk.write(sector * 512, &data).expect("written");
    let written = target.take();
    assert_eq!(written.len(), 1, "{written:?}");
    let (op, _, start, len) = written[0];
    assert_eq!((op, start, len), (Op::Write, sector, count));

    let at = usize::try_from(sector * 512).expect("short");
    let mut expected = vec![0; usize::try_from(SECTORS * 512).expect("short")];
    expected[at..at + data.len()].copy_from_slice(&data);
    assert!(*target.bytes() == expected, "the medium differs from what was written");

    assert_eq!(disk.read(sector * 512, data.len()).expect("read"), data);
    let read: Vec<_> = target.take().iter().map(|seen| (seen.0, seen.2, seen.3)).collect();
    assert_eq!(read, [(Op::Read, sector, count)]);
    end(server, disk);
}

/// UBLK_ATTR_VOLATILE_CACHE: fdatasync sends a FLUSH behind the writes; a flush has no sectors.
#[rstest]
fn fdatasync_after_a_write_sends_a_flush() {
    declare!(Contract);
    let (server, target, disk) = recording();
    disk.write(0, &pattern(0, 1, 1)).expect("written");
    disk.flush().expect("flushed");
    let seen: Vec<_> = target.take().iter().map(|seen| (seen.0, seen.3)).collect();
    assert_eq!(seen, [(Op::Write, 1), (Op::Flush, 0)]);
    end(server, disk);
}

/// BLKDISCARD sends DISCARD for exactly its range; our server makes it zero, and only it.
#[rstest]
fn discard_reads_zero_in_its_range_only() {
    declare!(Contract);
    let (server, target, disk) = recording();
    disk.write(0, &pattern(0, SECTORS, 1)).expect("written");
    target.take();
    disk.discard(16 * 512, 8 * 512).expect("discarded");
    let seen: Vec<_> = target.take().iter().map(|seen| (seen.0, seen.2, seen.3)).collect();
    assert_eq!(seen, [(Op::Discard, 16, 8)]);
    assert_eq!(disk.read(15 * 512, 512).expect("read"), pattern(15, 1, 1));
    assert_eq!(disk.read(16 * 512, 8 * 512).expect("read"), [0; 8 * 512]);
    assert_eq!(disk.read(24 * 512, 512).expect("read"), pattern(24, 1, 1));
    end(server, disk);
}

/// Punching a hole sends WRITE_ZEROES, here with permission to unmap: UBLK_IO_F_NOUNMAP, bit 15, is
/// not set (include/uapi/linux/ublk_cmd.h).
#[rstest]
fn punch_hole_sends_write_zeroes() {
    declare!(Contract);
    let (server, target, disk) = recording();
    disk.write(0, &pattern(0, SECTORS, 1)).expect("written");
    target.take();
    disk.punch_hole(32 * 512, 4 * 512).expect("punched");
    let seen = target.take();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let (op, flags, start, len) = seen[0];
    assert_eq!((op, start, len), (Op::WriteZeroes, 32, 4));
    assert_eq!(flags & 1 << 15, 0, "{flags:#x}");
    assert_eq!(disk.read(32 * 512, 4 * 512).expect("read"), [0; 4 * 512]);
    assert_eq!(disk.read(36 * 512, 512).expect("read"), pattern(36, 1, 1));
    end(server, disk);
}

/// A device holds what was last written to each of its sectors.
#[test]
fn any_writes_and_reads_behave_like_an_array_of_sectors() {
    declare!(Contract);
    let target = Arc::new(RamTarget::new(SECTORS));
    let server = Server::start(&Config::disk(SECTORS), target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    let model = std::cell::RefCell::new(target.bytes().clone());
    let step = (any::<bool>(), 0..SECTORS - 16, 1..=16_u64, any::<u8>());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let law = TestRunner::new(config).run(&prop::collection::vec(step, 1..8), |steps| {
        for (write, sector, sectors, mark) in steps {
            let data = pattern(sector, sectors, mark);
            let at = usize::try_from(sector * 512).expect("short");
            let stored = &mut model.borrow_mut()[at..at + data.len()];
            if write {
                disk.write(sector * 512, &data).expect("written");
                stored.copy_from_slice(&data);
            } else {
                assert_eq!(disk.read(sector * 512, data.len()).expect("read"), stored);
            }
        }
        Ok(())
    });
    law.unwrap_or_else(|error| panic!("{error}"));
    assert!(*target.bytes() == *model.borrow(), "the medium differs from the model");
    end(server, disk);
}
