//! Statuses are those of SAM-5, sense keys and codes those of SPC-4, host statuses those of
//! include/scsi/scsi_status.h; errnos those of block/blk-core.c:blk_errors.

use rstest::rstest;

use super::*;

/// Eight blocks of 512 bytes at 96.
const ASKED: Asked = Asked { lba: 96, len: 4096, block_len: 512 };

fn answer(host_status: u8, status: u8, sense: &[u8], residual: u32) -> Answer<'_> {
    Answer { host_status, status, sense, residual }
}

/// Sense data in fixed format.
fn fixed(key: u8, asc: u8, ascq: u8, information: Option<u32>) -> Vec<u8> {
    let mut sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
    if let Some(information) = information {
        sense[0] = 0xf0;
        sense[3..7].copy_from_slice(&information.to_be_bytes());
    }
    sense
}

/// Sense data in descriptor format.
fn descriptors(key: u8, asc: u8, ascq: u8, information: u64) -> Vec<u8> {
    let mut sense = vec![0x72, key, asc, ascq, 0, 0, 0, 12, 0, 10, 0x80, 0];
    sense.extend_from_slice(&information.to_be_bytes());
    sense
}

fn checked(sense: &[u8], residual: u32) -> Verdict {
    verdict(&ASKED, &answer(0, 0x02, sense, residual))
}

fn failed(errno: Errno, good: u32) -> Verdict {
    Verdict::Failed(Failure { errno, good })
}

fn retried(errno: Errno, good: u32) -> Verdict {
    Verdict::Retried(Failure { errno, good })
}

fn passing(pause: bool) -> Verdict {
    Verdict::Passes { pause, failure: Failure { errno: Errno::IO, good: 0 } }
}

/// A residual is what did not move; of a block, all or nothing. Of nothing that moved, all is asked for again.
#[rstest]
#[case(0, Verdict::Done(4096))]
#[case(512, Verdict::Done(3584))]
#[case(1, Verdict::Done(3584))]
#[case(3500, Verdict::Done(512))]
#[case(4096, passing(false))]
#[case(u32::MAX, passing(false))]
fn good_is_done_but_for_the_residual(#[case] residual: u32, #[case] expected: Verdict) {
    for status in [0x00, 0x04] {
        assert_eq!(verdict(&ASKED, &answer(0, status, &[], residual)), expected);
    }
}

#[test]
fn command_without_data_is_done_whatever_the_residual() {
    let asked = Asked { len: 0, ..ASKED };
    assert_eq!(verdict(&asked, &answer(0, 0, &[], 0)), Verdict::Done(0));
    assert_eq!(verdict(&asked, &answer(0, 2, &fixed(1, 0x17, 1, None), 0)), Verdict::Done(0));
}

#[rstest]
#[case(0x08, passing(true))]
#[case(0x28, passing(true))]
#[case(0x18, failed(Errno::BADE, 0))]
#[case(0x30, failed(Errno::IO, 0))]
#[case(0x40, retried(Errno::IO, 0))]
// INTERMEDIATE, COMMAND TERMINATED: no longer a status; and one that never was.
#[case(0x10, retried(Errno::IO, 0))]
#[case(0x22, retried(Errno::IO, 0))]
#[case(0xff, retried(Errno::IO, 0))]
// CHECK CONDITION without a reason.
#[case(0x02, retried(Errno::IO, 0))]
fn status_decides(#[case] status: u8, #[case] expected: Verdict) {
    assert_eq!(verdict(&ASKED, &answer(0, status, &[], 0)), expected);
}

#[rstest]
#[case(0x01, failed(Errno::IO, 0))]
#[case(0x02, retried(Errno::IO, 0))]
#[case(0x03, retried(Errno::IO, 0))]
#[case(0x04, failed(Errno::IO, 0))]
#[case(0x05, failed(Errno::IO, 0))]
#[case(0x06, retried(Errno::IO, 0))]
#[case(0x07, retried(Errno::IO, 0))]
#[case(0x08, passing(false))]
#[case(0x09, retried(Errno::IO, 0))]
#[case(0x0a, Verdict::Done(4096))]
#[case(0x0b, retried(Errno::IO, 0))]
#[case(0x0c, passing(false))]
#[case(0x0d, passing(true))]
#[case(0x0e, retried(Errno::IO, 0))]
#[case(0x0f, failed(Errno::NOLINK, 0))]
#[case(0x10, retried(Errno::IO, 0))]
#[case(0x14, failed(Errno::NOLINK, 0))]
fn host_status_decides_before_the_status(#[case] host: u8, #[case] expected: Verdict) {
    assert_eq!(verdict(&ASKED, &answer(host, 0, &[], 0)), expected);
}

/// scsi_error.c:scsi_decide_disposition: a reservation conflict is one even where the host reports an error.
#[test]
fn reservation_conflict_outweighs_an_error_of_the_host() {
    assert_eq!(verdict(&ASKED, &answer(7, 0x18, &[], 0)), failed(Errno::BADE, 0));
}

#[rstest]
// NO SENSE and RECOVERED DATA.
#[case(0, 0x00, 0x00, passing(false))]
#[case(1, 0x17, 0x01, Verdict::Done(4096))]
// LOGICAL UNIT IS IN PROCESS OF BECOMING READY, FORMAT IN PROGRESS, ASYMMETRIC ACCESS STATE TRANSITION.
#[case(2, 0x04, 0x01, passing(true))]
#[case(2, 0x04, 0x04, passing(true))]
#[case(2, 0x04, 0x0a, passing(true))]
#[case(2, 0x04, 0x1b, passing(true))]
// INITIALIZING COMMAND REQUIRED, MANUAL INTERVENTION REQUIRED, DEPOPULATION IN PROGRESS, MEDIUM NOT PRESENT.
#[case(2, 0x04, 0x02, failed(Errno::IO, 0))]
#[case(2, 0x04, 0x03, failed(Errno::IO, 0))]
#[case(2, 0x04, 0x24, failed(Errno::IO, 0))]
#[case(2, 0x3a, 0x00, failed(Errno::IO, 0))]
#[case(3, 0x11, 0x00, failed(Errno::NODATA, 0))]
#[case(3, 0x13, 0x00, failed(Errno::NODATA, 0))]
#[case(3, 0x14, 0x01, failed(Errno::NODATA, 0))]
#[case(3, 0x0c, 0x02, retried(Errno::IO, 0))]
#[case(3, 0x31, 0x00, retried(Errno::IO, 0))]
#[case(4, 0x44, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(5, 0x10, 0x01, failed(Errno::ILSEQ, 0))]
#[case(5, 0x20, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(5, 0x21, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(5, 0x24, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(5, 0x26, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(5, 0x25, 0x00, failed(Errno::IO, 0))]
// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED; CAPACITY DATA HAS CHANGED.
#[case(6, 0x29, 0x00, passing(false))]
#[case(6, 0x2a, 0x09, passing(false))]
// WRITE PROTECTED, SPACE ALLOCATION FAILED WRITE PROTECT, ACCESS DENIED, INSUFFICIENT ZONE RESOURCES.
#[case(7, 0x27, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(7, 0x27, 0x07, failed(Errno::NOSPC, 0))]
#[case(7, 0x20, 0x02, failed(Errno::REMOTEIO, 0))]
#[case(7, 0x55, 0x0e, failed(Errno::TOOMANYREFS, 0))]
#[case(8, 0x00, 0x05, failed(Errno::REMOTEIO, 0))]
#[case(9, 0x80, 0x00, failed(Errno::IO, 0))]
#[case(0xa, 0x0d, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(0xb, 0x08, 0x00, retried(Errno::IO, 0))]
#[case(0xb, 0x10, 0x03, failed(Errno::ILSEQ, 0))]
#[case(0xb, 0x2e, 0x02, failed(Errno::TIME, 0))]
#[case(0xc, 0x00, 0x00, failed(Errno::IO, 0))]
#[case(0xd, 0x00, 0x02, failed(Errno::REMOTEIO, 0))]
#[case(0xe, 0x1d, 0x00, failed(Errno::REMOTEIO, 0))]
#[case(0xf, 0x55, 0x0a, failed(Errno::TIME, 0))]
#[case(0xf, 0x00, 0x00, failed(Errno::IO, 0))]
fn sense_decides(#[case] key: u8, #[case] asc: u8, #[case] ascq: u8, #[case] expected: Verdict) {
    assert_eq!(checked(&fixed(key, asc, ascq, None), 0), expected, "fixed format");
    let mut other = vec![0x72, key, asc, ascq, 0, 0, 0, 0];
    assert_eq!(checked(&other, 0), expected, "descriptor format");
    other[0] = 0x73;
    assert_eq!(checked(&other, 0), retried(Errno::IO, 0), "of an earlier command");
}

/// sd.c:sd_completed_bytes: INFORMATION is the block in error; what lies before it is good as far as it has arrived.
#[rstest]
#[case(Some(99), 0, 1536)]
#[case(Some(99), 4096 - 1024, 1024)]
#[case(Some(99), 4096 - 1000, 512)]
#[case(Some(99), 4096, 0)]
#[case(Some(96), 0, 0)]
#[case(Some(103), 0, 3584)]
// Not a block of the command's, on either side.
#[case(Some(95), 0, 0)]
#[case(Some(104), 0, 0)]
#[case(Some(u32::MAX), 0, 0)]
#[case(None, 0, 0)]
fn what_lies_before_the_error_is_good(
    #[case] information: Option<u32>,
    #[case] residual: u32,
    #[case] good: u32,
) {
    let sense = fixed(3, 0x11, 0, information);
    assert_eq!(checked(&sense, residual), failed(Errno::NODATA, good));
    if let Some(information) = information {
        let sense = descriptors(3, 0x11, 0, information.into());
        assert_eq!(checked(&sense, residual), failed(Errno::NODATA, good), "descriptor format");
    }
    let sense = fixed(4, 0x44, 0, information);
    assert_eq!(checked(&sense, residual), failed(Errno::REMOTEIO, good), "hardware error");
    let sense = fixed(3, 0x31, 0, information);
    assert_eq!(checked(&sense, residual), retried(Errno::IO, good), "another medium error");
    // Of other sense keys INFORMATION does not say it.
    let sense = fixed(7, 0x27, 0, information);
    assert_eq!(checked(&sense, residual), failed(Errno::REMOTEIO, 0), "data protect");
}

/// An INFORMATION beyond any length, which fixed format cannot hold.
#[test]
fn information_that_overflows_says_nothing() {
    for information in [u64::MAX, 1 << 60, 96 + (1 << 55)] {
        let sense = descriptors(3, 0x11, 0, information);
        assert_eq!(checked(&sense, 0), failed(Errno::NODATA, 0), "{information:#x}");
    }
}

/// Whatever comes back: nobody is told more than was transferred, in whole blocks, and each errno is one that
/// `errno_to_blk_status` knows.
#[test]
fn nobody_is_told_more_than_happened() {
    const KNOWN: [i32; 9] = [5, 28, 52, 61, 62, 67, 84, 109, 121];
    let mut seen = std::collections::BTreeSet::new();
    for (host, status) in (0..=u8::MAX).flat_map(|host| [0, 2, 4, 8, 0x18, 0x40].map(|s| (host, s)))
    {
        for (key, asc) in (0..16).flat_map(|key| (0..0x60).map(move |asc| (key, asc))) {
            let residual = u32::from(asc) * 50;
            let sense = fixed(key, asc, 0x0a, Some(96 + u32::from(asc) % 9));
            let told = match verdict(&ASKED, &answer(host, status, &sense, residual)) {
                Verdict::Done(bytes) => bytes,
                Verdict::Failed(failure)
                | Verdict::Retried(failure)
                | Verdict::Passes { failure, .. } => {
                    seen.insert(failure.errno.raw_os_error());
                    failure.good
                }
            };
            assert!(told + residual <= 4096 || told == 0, "{told} of 4096 less {residual}");
            assert_eq!(told % 512, 0, "host {host:#x} status {status:#x} key {key} asc {asc:#x}");
        }
    }
    assert!(seen.iter().all(|errno| KNOWN.contains(errno)), "{seen:?}");
}

#[test]
fn refusals_are_told_as_what_they_are() {
    assert_eq!(refused(Errno::NODEV), Errno::NODEV);
    assert_eq!(refused(Errno::NOMEM), Errno::NOMEM);
    assert_eq!(refused(Errno::INVAL), Errno::IO);
}
