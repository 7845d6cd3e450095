//! CDBs are those of SBC-3; operations and flags those of include/uapi/linux/ublk_cmd.h.

use super::*;

fn disk() -> Disk {
    Disk {
        block_len: 512,
        blocks: 1 << 40,
        physical_exponent: 0,
        write_protected: false,
        write_cache: true,
        force_unit_access: true,
        transfer_max: 0,
        unmapping: Some(Unmapping::Unmap),
        unmap_max: 0,
        unmap_granularity: 0,
        unmap_alignment: 0,
        write_same: true,
        write_same_max: 0,
        unmapped_is_zero: true,
    }
}

fn ordered(
    op: Op,
    flags: u32,
    start_sector: u64,
    sectors: u32,
    disk: &Disk,
) -> Result<Order, Errno> {
    let data = &mut [];
    let metadata = &mut [];
    order(&Request { op, flags, start_sector, sectors, data, metadata, queue: 0, tag: 0 }, disk)
}

#[track_caller]
fn cdb_of(op: Op, flags: u32, start_sector: u64, sectors: u32) -> Vec<u8> {
    ordered(op, flags, start_sector, sectors, &disk()).expect("a command").cdb().to_vec()
}

#[test]
fn reads_and_writes_have_the_shortest_cdb_that_holds_them() {
    assert_eq!(cdb_of(Op::Read, 0, 0x1234, 8), [0x28, 0, 0, 0, 0x12, 0x34, 0, 0, 8, 0]);
    assert_eq!(cdb_of(Op::Write, 0, 8, 0xffff), [0x2a, 0, 0, 0, 0, 8, 0, 0xff, 0xff, 0]);
    // UBLK_IO_F_FUA is 1 << 13.
    assert_eq!(cdb_of(Op::Write, 1 << 13, 1, 1), [0x2a, 8, 0, 0, 0, 1, 0, 0, 1, 0]);
    let long = [0x88, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    assert_eq!(cdb_of(Op::Read, 0, 1 << 32, 8), long);
    let long = [0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(cdb_of(Op::Write, 1 << 13, 0, 0x1_0000), long);
}

#[test]
fn flush_synchronizes_the_whole_cache() {
    assert_eq!(cdb_of(Op::Flush, 0, 0, 0), [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn discard_is_unmap_or_write_same_as_the_disk_has_it() {
    let order = ordered(Op::Discard, 0, 0x1000, 64, &disk()).expect("a command");
    assert_eq!(order.cdb(), [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
    let list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 64, 0, 0, 0, 0];
    assert_eq!((order.payload, order.asked.len), (Payload::List(list), 0));
    let other = Disk { unmapping: Some(Unmapping::WriteSame), ..disk() };
    let order = ordered(Op::Discard, 0, 0x1000, 64, &other).expect("a command");
    assert_eq!(order.cdb(), [0x93, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 64, 0, 0]);
    assert_eq!(order.payload, Payload::Zeroes);
    let none = Disk { unmapping: None, ..disk() };
    assert_eq!(ordered(Op::Discard, 0, 0, 8, &none), Err(Errno::OPNOTSUPP));
}

/// UBLK_IO_F_NOUNMAP is 1 << 15.
#[test]
fn write_zeroes_unmaps_where_it_may_and_zeroes_are_left() {
    let write_same = |flags| vec![0x93, flags, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0];
    assert_eq!(cdb_of(Op::WriteZeroes, 0, 2, 9), write_same(8));
    assert_eq!(cdb_of(Op::WriteZeroes, 1 << 15, 2, 9), write_same(0));
    let full = Disk { unmapped_is_zero: false, ..disk() };
    let order = ordered(Op::WriteZeroes, 0, 2, 9, &full).expect("a command");
    assert_eq!(order.cdb(), write_same(0));
}

#[test]
fn sectors_are_counted_in_blocks() {
    let large = Disk { block_len: 4096, ..disk() };
    let order = ordered(Op::Read, 0, 16, 8, &large).expect("a command");
    assert_eq!(order.cdb(), [0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0]);
    assert_eq!(order.asked, Asked { lba: 2, len: 4096, block_len: 4096 });
    assert_eq!(ordered(Op::Read, 0, 4, 8, &large), Err(Errno::IO));
    assert_eq!(ordered(Op::Read, 0, 8, 4, &large), Err(Errno::IO));
    assert_eq!(ordered(Op::ZoneAppend, 0, 8, 8, &large), Err(Errno::OPNOTSUPP));
}
