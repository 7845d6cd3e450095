//! Residuals, one line for each kind of transfer: what a command moves is said by its CDB and by what the standard
//! has it return, the rest of the buffer is residual (virtio 1.2, 5.6.6.1; include/uapi/linux/bsg.h, din_resid and
//! dout_resid).

use bsg::{Completion, Request};
use control::{LunSpec, Provisioning};
use fault::Times;
use harness::{Lun, declare};
use rstest::rstest;
use scsi_fault::{DataIn, Effect, Rule, Sense};

use super::ways::{Way, execute};

/// The buffer of a command, and its length.
#[derive(Clone, Copy, Debug)]
enum Buffer {
    In(usize),
    Out(&'static [u8]),
}

const IN: fn(usize) -> Buffer = Buffer::In;
const OUT: fn(&'static [u8]) -> Buffer = Buffer::Out;

/// Statuses of device and host.
const GOOD: (u32, u32) = (0, 0);
const CHECK_CONDITION: (u32, u32) = (2, 0);
/// `DID_ERROR`: what drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd makes of OVERRUN, which says that the CDB wants
/// more than the buffers hold.
const OVERRUN: (u32, u32) = (0, 7);

#[track_caller]
fn sent(way: Way, lun: &Lun, cdb: &[u8], buffer: Buffer) -> Completion {
    let request = Request::new(cdb);
    let request = match buffer {
        Buffer::In(len) => request.data_in(len),
        Buffer::Out(data) => request.data_out(data),
    };
    execute(&mut *way.open(lun.device()), request)
}

/// What was not moved to the initiator is as it was: the buffer begins as zeros.
#[track_caller]
fn assert_rest_is_untouched(done: &Completion, buffer: Buffer) {
    if let Buffer::In(len) = buffer {
        let moved = len - usize::try_from(done.residual).expect("not negative");
        let rest = &done.data[moved..];
        assert!(rest.iter().all(|byte| *byte == 0), "beyond {moved}: {rest:02x?}");
    }
}

#[track_caller]
fn assert_residual(done: &Completion, (device_status, host_status): (u32, u32), residual: i64) {
    let seen = (done.device_status, done.host_status, done.residual);
    assert_eq!(seen, (device_status, host_status, residual), "{done:?}");
}

// READ of one or two blocks of 512 bytes (SBC-3), with buffers that are equal and longer.
#[rstest]
#[case::read_6_equal(&[0x08, 0, 0, 0, 1, 0], IN(512), 0)]
#[case::read_10_longer(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], IN(513), 1)]
#[case::read_12_longer(&[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0], IN(4096), 3072)]
#[case::read_16_longer(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0], IN(1536), 512)]
#[case::read_16_of_0_blocks(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], IN(512), 512)]
// WRITE, the same to the device.
#[case::write_6_equal(&[0x0a, 0, 0, 8, 1, 0], OUT(&[1; 512]), 0)]
#[case::write_10_longer(&[0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0], OUT(&[1; 513]), 1)]
#[case::write_12_longer(&[0xaa, 0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0], OUT(&[1; 4096]), 3072)]
#[case::write_10_of_0_blocks(&[0x2a, 0, 0, 0, 0, 8, 0, 0, 0, 0], OUT(&[1; 512]), 512)]
// SPC-4, INQUIRY: ALLOCATION LENGTH is bytes 3 and 4. Standard data has at least 36 bytes, of which ADDITIONAL LENGTH
// is the fifth; page 00h a header of 4 bytes and a byte for each of our seven pages.
#[case::inquiry_shorter_allocation(&[0x12, 0, 0, 0, 5, 0], IN(36), 31)]
#[case::inquiry_equal(&[0x12, 0, 0, 0, 36, 0], IN(36), 0)]
#[case::inquiry_allocation_0(&[0x12, 0, 0, 0, 0, 0], IN(96), 96)]
#[case::inquiry_allocation_above_255(&[0x12, 1, 0, 1, 2, 0], IN(258), 247)]
// SPC-4, MODE SENSE: the header has 4 bytes, or 8.
#[case::mode_sense_6_header(&[0x1a, 0, 0x3f, 0, 4, 0], IN(64), 60)]
#[case::mode_sense_6_allocation_0(&[0x1a, 0, 0x3f, 0, 0, 0], IN(64), 64)]
#[case::mode_sense_10_header(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 8, 0], IN(64), 56)]
// SPC-4, MODE DATA LENGTH does not count itself. The caching page (08h) has 20 bytes, no block descriptor (DBD).
#[case::mode_sense_6_page(&[0x1a, 0x08, 0x08, 0, 255, 0], IN(255), 231)]
// SPC-4, REPORT LUNS: 8 bytes and 8 for each LUN, of which a target of the pool has four.
#[case::report_luns_longer(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], IN(256), 216)]
#[case::report_luns_shorter_allocation(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], IN(256), 240)]
// SBC-3: READ CAPACITY(10) has 8 bytes, READ CAPACITY(16) 32.
#[case::read_capacity_10_longer(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], IN(32), 24)]
#[case::read_capacity_16_equal(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], IN(32), 0)]
#[case::read_capacity_16_longer(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], IN(64), 32)]
#[case::read_capacity_16_shorter(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], IN(32), 20)]
#[case::read_capacity_16_allocation_0(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], IN(32), 32)]
// SPC-4, REPORT SUPPORTED OPERATION CODES of one command: 4 bytes and its CDB usage data.
#[case::rsoc_of_test_unit_ready(&[0xa3, 0x0c, 1, 0x00, 0, 0, 0, 0, 0, 64, 0, 0], IN(64), 54)]
#[case::rsoc_of_read_16(&[0xa3, 0x0c, 1, 0x88, 0, 0, 0, 0, 0, 64, 0, 0], IN(64), 44)]
#[case::rsoc_allocation_0(&[0xa3, 0x0c, 1, 0x88, 0, 0, 0, 0, 0, 0, 0, 0], IN(64), 64)]
// SPC-4, LOG SENSE: the header of a page has 4 bytes.
#[case::log_sense_header(&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 4, 0], IN(32), 28)]
#[case::log_sense_allocation_0(&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 0, 0], IN(32), 32)]
// SPC-4, REQUEST SENSE: 18 bytes of fixed format, 8 of descriptor format without descriptors.
#[case::request_sense_longer(&[0x03, 0, 0, 0, 252, 0], IN(252), 234)]
#[case::request_sense_shorter(&[0x03, 0, 0, 0, 8, 0], IN(18), 10)]
#[case::request_sense_descriptors(&[0x03, 1, 0, 0, 252, 0], IN(252), 244)]
#[case::request_sense_allocation_0(&[0x03, 0, 0, 0, 0, 0], IN(18), 18)]
// SPC-4, PERSISTENT RESERVE IN, READ KEYS: a header of 8 bytes, and no key.
#[case::read_keys_longer(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0], IN(255), 247)]
// SPC-4, PERSISTENT RESERVE OUT: a parameter list of 24 bytes, here of zeros: REGISTER AND IGNORE EXISTING KEY.
#[case::persistent_reserve_out_longer(&[0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0], OUT(&[0; 32]), 8)]
// SBC-3, VERIFY: with BYTCHK 00b no data is compared, with 01b each block, with 11b one for all.
#[case::verify_10_bytchk_0(&[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0], OUT(&[0; 512]), 512)]
#[case::verify_10_bytchk_1(&[0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0], OUT(&[0; 1024]), 512)]
#[case::verify_10_bytchk_3(&[0x2f, 6, 0, 0, 0, 0, 0, 0, 4, 0], OUT(&[0; 2048]), 1536)]
#[case::verify_16_bytchk_1(&[0x8f, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0], OUT(&[0; 1024]), 0)]
// SBC-3, WRITE SAME: one block is transferred, whatever NUMBER OF LOGICAL BLOCKS is.
#[case::write_same_10(&[0x41, 0, 0, 0, 0, 0, 0, 0, 8, 0], OUT(&[1; 4096]), 3584)]
#[case::write_same_16(&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], OUT(&[1; 512]), 0)]
// SBC-4, COMPARE AND WRITE of one block: two are transferred.
#[case::compare_and_write_equal(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], OUT(&[0; 1024]), 0)]
#[case::compare_and_write_longer(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], OUT(&[0; 2048]), 1024)]
// SPC-4, MODE SELECT: PARAMETER LIST LENGTH 0 transfers nothing and is no error.
#[case::mode_select_10_of_nothing(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], OUT(&[0; 16]), 16)]
// Commands that transfer nothing in either direction.
#[case::test_unit_ready_in(&[0, 0, 0, 0, 0, 0], IN(1), 1)]
#[case::test_unit_ready_out(&[0, 0, 0, 0, 0, 0], OUT(&[1; 512]), 512)]
#[case::synchronize_cache_in(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], IN(512), 512)]
#[case::start_stop_unit_out(&[0x1b, 0, 0, 0, 1, 0], OUT(&[1; 64]), 64)]
fn good(
    #[case] cdb: &[u8],
    #[case] buffer: Buffer,
    #[case] residual: i64,
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let done = sent(way, &lun, cdb, buffer);
    assert_residual(&done, GOOD, residual);
    assert_rest_is_untouched(&done, buffer);
    let told = lun.journal().entries.last().map(|entry| entry.residual.into());
    assert_eq!(told, Some(residual), "what the device said");
}

// SBC-3, UNMAP: a header of 8 bytes and block descriptors of 16; GET LBA STATUS: the same to the initiator, and one
// descriptor for a unit of which nothing is mapped. WRITE SAME(16) with NDOB (bit 0) transfers nothing.
#[rstest]
#[case::unmap_longer(
    &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
    OUT(&[
        0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]),
    16
)]
#[case::unmap_of_nothing(&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], OUT(&[0; 24]), 24)]
#[case::write_same_16_ndob(&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], OUT(&[1; 512]), 512)]
#[case::get_lba_status(&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], IN(64), 40)]
#[case::get_lba_status_shorter(&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], IN(64), 56)]
fn good_of_a_thin_unit(
    #[case] cdb: &[u8],
    #[case] buffer: Buffer,
    #[case] residual: i64,
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::with(LunSpec { provisioning: Provisioning::Thin, ..LunSpec::default() });
    let done = sent(way, &lun, cdb, buffer);
    assert_residual(&done, GOOD, residual);
    assert_rest_is_untouched(&done, buffer);
}

// A command that is refused has moved nothing. The unit has 32768 blocks.
#[rstest]
#[case::unknown_command_in(&[0xff, 0, 0, 0, 0, 0], IN(512), CHECK_CONDITION, 512)]
#[case::unknown_command_out(&[0xff, 0, 0, 0, 0, 0], OUT(&[1; 512]), CHECK_CONDITION, 512)]
#[case::read_10_past_the_end(&[0x28, 0, 0, 0, 0x80, 0, 0, 0, 1, 0], IN(512), CHECK_CONDITION, 512)]
#[case::read_10_across_the_end(
    &[0x28, 0, 0, 0, 0x7f, 0xff, 0, 0, 2, 0], IN(1024), CHECK_CONDITION, 1024
)]
#[case::write_10_across_the_end(
    &[0x2a, 0, 0, 0, 0x7f, 0xff, 0, 0, 2, 0], OUT(&[1; 1024]), CHECK_CONDITION, 1024
)]
#[case::inquiry_of_an_unknown_page(&[0x12, 1, 0xcc, 0, 255, 0], IN(255), CHECK_CONDITION, 255)]
#[case::mode_sense_of_an_unknown_page(&[0x1a, 0, 0x2e, 0, 64, 0], IN(64), CHECK_CONDITION, 64)]
// The CDB wants more than there is, and what is there is moved to the initiator, not from it.
#[case::read_10_shorter(&[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], IN(512), OVERRUN, 0)]
#[case::write_10_shorter(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0], OUT(&[1; 512]), OVERRUN, 512)]
#[case::read_capacity_10_shorter(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], IN(4), OVERRUN, 0)]
#[case::inquiry_shorter(&[0x12, 0, 0, 0, 36, 0], IN(16), OVERRUN, 0)]
#[case::verify_10_bytchk_1_shorter(&[0x2f, 2, 0, 0, 0, 0, 0, 0, 2, 0], OUT(&[0; 512]), OVERRUN, 512)]
#[case::write_same_10_shorter(&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], OUT(&[0; 64]), OVERRUN, 64)]
#[case::compare_and_write_shorter(
    &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], OUT(&[0; 512]), OVERRUN, 512
)]
// The buffer is on the wrong side: there is none on the right one.
#[case::read_10_out(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], OUT(&[1; 512]), OVERRUN, 512)]
#[case::write_10_in(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], IN(512), OVERRUN, 512)]
fn refused(
    #[case] cdb: &[u8],
    #[case] buffer: Buffer,
    #[case] statuses: (u32, u32),
    #[case] residual: i64,
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let done = sent(way, &lun, cdb, buffer);
    assert_residual(&done, statuses, residual);
    assert_rest_is_untouched(&done, buffer);
}

const READ_10: &[u8] = &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE_10: &[u8] = &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn medium_error() -> Effect {
    Effect::sense(Sense::named("UNRECOVERED READ ERROR"))
}

// What the device says is told, up to the length of the buffer (drivers/scsi/virtio_scsi.c:virtscsi_compute_resid).
#[rstest]
#[case::of_one_byte(READ_10, IN(512), Effect::residual(1), GOOD, 1)]
#[case::none_of_a_longer_buffer(READ_10, IN(4096), Effect::residual(0), GOOD, 0)]
#[case::more_than_the_buffer(READ_10, IN(512), Effect::residual(513), GOOD, 512)]
#[case::of_all_bits(WRITE_10, OUT(&[1; 512]), Effect::residual(u32::MAX), GOOD, 512)]
#[case::short_data(READ_10, IN(512), Effect::data_in(DataIn::Limit(100)), GOOD, 412)]
#[case::long_data(READ_10, IN(1024), Effect::data_in(DataIn::Extend(100)), GOOD, 412)]
#[case::short_data_out(
    WRITE_10, OUT(&[1; 512]), Effect { data_out_limit: Some(100), ..Effect::default() }, GOOD, 412
)]
#[case::of_a_failure(READ_10, IN(512), medium_error(), CHECK_CONDITION, 512)]
#[case::of_a_failure_half_way(READ_10, IN(512), medium_error().with_residual(256), CHECK_CONDITION, 256)]
#[case::of_a_failure_after_all(READ_10, IN(512), medium_error().executed(), CHECK_CONDITION, 0)]
#[case::of_a_conflict(
    WRITE_10, OUT(&[1; 512]), Effect::status("RESERVATION CONFLICT").with_residual(3), (0x18, 0), 3
)]
#[case::of_an_overrun(READ_10, IN(512), Effect::response("OVERRUN").with_residual(7), OVERRUN, 7)]
#[case::without_data(&[0; 6], IN(8), Effect::residual(5), GOOD, 5)]
fn chosen(
    #[case] cdb: &[u8],
    #[case] buffer: Buffer,
    #[case] effect: Effect,
    #[case] statuses: (u32, u32),
    #[case] residual: i64,
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    // Each time: SG_IO v4 has the retry budget of whoever had its request before, and sends again what failed on its way.
    lun.faults([Rule::new("chosen", effect).times(Times::Always)]);
    assert_residual(&sent(way, &lun, cdb, buffer), statuses, residual);
}
