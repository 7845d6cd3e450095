//! READ and WRITE of every length: what was written comes back, by whatever way it is read.

use bsg::{Passthrough, Request};
use control::LunSpec;
use harness::{Lun, assert::assert_good, declare};
use rstest::rstest;

use super::{
    cdb::{self, Size},
    ways::{Unit, Way, execute},
};

/// Writes the blocks and says that it worked.
#[track_caller]
pub(crate) fn write(way: &mut dyn Passthrough, size: Size, lba: u32, blocks: u8, data: &[u8]) {
    let done = execute(way, Request::new(&cdb::write(size, lba, blocks)).data_out(data));
    assert_good(&done);
    assert_eq!(done.residual, 0);
}

/// Reads the blocks, of `block_len` bytes.
#[track_caller]
pub(crate) fn read_of(
    block_len: usize,
    way: &mut dyn Passthrough,
    size: Size,
    lba: u32,
    blocks: u8,
) -> Vec<u8> {
    let len = block_len * usize::from(blocks);
    let done = execute(way, Request::new(&cdb::read(size, lba, blocks)).data_in(len));
    assert_good(&done);
    assert_eq!(done.residual, 0);
    done.data
}

/// Reads blocks of 512 bytes.
#[track_caller]
pub(crate) fn read(way: &mut dyn Passthrough, size: Size, lba: u32, blocks: u8) -> Vec<u8> {
    read_of(512, way, size, lba, blocks)
}

/// SBC-3, READ and WRITE (6) to (16): one medium, whichever CDB addresses it and whichever way it
/// takes. The blocks before and behind are untouched.
#[rstest]
#[case::six_and_sixteen(Way::SgIoV4, Size::Six, Way::UringCmd, Size::Sixteen, 0x1000)]
#[case::ten_and_twelve(Way::UringCmd, Size::Ten, Way::SgV3, Size::Twelve, 0x1100)]
#[case::twelve_and_six(Way::SgV3, Size::Twelve, Way::SgIoV4, Size::Six, 0x1200)]
#[case::sixteen_and_ten(Way::UringCmd, Size::Sixteen, Way::SgIoV4, Size::Ten, 0x1300)]
fn write_is_read_back_by_another_cdb_over_another_way(
    #[case] write_way: Way,
    #[case] write_size: Size,
    #[case] read_way: Way,
    #[case] read_size: Size,
    #[case] lba: u32,
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract);
    let device = unit.device();
    let mut writer = write_way.open(&device);
    let mut reader = read_way.open(&device);
    // scsi_debug remembers earlier runs, so begin with something known.
    write(&mut *writer, Size::Ten, lba, 18, &cdb::pattern(lba, 18, 1));
    write(&mut *writer, write_size, lba + 1, 16, &cdb::pattern(lba + 1, 16, 2));
    let expected =
        [cdb::pattern(lba, 1, 1), cdb::pattern(lba + 1, 16, 2), cdb::pattern(lba + 17, 1, 1)];
    assert_eq!(read(&mut *reader, read_size, lba, 18), expected.concat());
}

/// SBC-3, LOGICAL BLOCK LENGTH: LBA and TRANSFER LENGTH count blocks, here of 4096 bytes.
#[rstest]
fn blocks_of_4096_bytes_are_addressed_as_such() {
    declare!(Contract);
    let lun = Lun::with(LunSpec { block_len: 4096, blocks: 64, ..LunSpec::default() });
    let mut writer = Way::UringCmd.open(lun.device());
    let mut reader = Way::SgIoV4.open(lun.device());
    write(&mut *writer, Size::Ten, 60, 4, &cdb::pattern_of(4096, 60, 4, 1));
    assert_eq!(read_of(4096, &mut *reader, Size::Sixteen, 60, 4), cdb::pattern_of(4096, 60, 4, 1));
    assert_eq!(read_of(4096, &mut *reader, Size::Six, 59, 1), [0; 4096]);
}

/// SBC-3, WRITE(10), DPO and FUA (bits 4 and 3 of byte 1): hints about caches that change no data.
#[rstest]
#[case::dpo(0x10)]
#[case::fua(0x08)]
fn dpo_and_fua_change_no_data(#[case] bits: u8, #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit) {
    declare!(Contract);
    let mut way = Way::SgIoV4.open(&unit.device());
    let lba = 0x1400 + u32::from(bits);
    let data = cdb::pattern(lba, 1, u32::from(bits));
    let mut write = cdb::write(Size::Ten, lba, 1);
    write[1] = bits;
    assert_good(&execute(&mut *way, Request::new(&write).data_out(&data)));
    let mut read = cdb::read(Size::Ten, lba, 1);
    read[1] = bits;
    let done = execute(&mut *way, Request::new(&read).data_in(512));
    assert_good(&done);
    assert_eq!(done.data, data);
}
