//! Metadata of requests (UBLK_F_INTEGRITY): protection information goes with the data to the server, which keeps it, and
//! comes back with it (include/uapi/linux/ublk_cmd.h, UBLKSRV_IO_INTEGRITY_FLAG; Documentation/block/data-integrity.rst).

use std::{
    borrow::Cow,
    fs::OpenOptions,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bsg::Access;
use harness::{BlockDevice, Feature, Needs, declare};
use rstest::rstest;
use ublk::{Config, Errno, Features, Op, RamTarget, Request, Server, Target, uapi::ParamIntegrity};

use super::recorder::{pattern, unscanned};

const SECTORS: u64 = 256;

/// EILSEQ, as which the block layer reports BLK_STS_PROTECTION.
const EILSEQ: i32 = 84;

pub(super) const INTEGRITY: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 0),
        Feature::Config(Cow::Borrowed("CONFIG_BLK_DEV_INTEGRITY")),
    ]),
    ..Needs::DEFAULT
};

/// The CRC of T10 (SBC-4, Logical block guard: polynomial 8BB7h, from 0, most significant bit first).
fn crc16_t10dif(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| match crc >> 15 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x8bb7,
        })
    })
}

/// Protection information of type 1 for a sector: guard, application tag, reference tag.
pub(super) fn protection(sector: u64, guarded: &[u8], application: u16) -> Vec<u8> {
    let reference = u32::try_from(sector).expect("a small disk");
    let guard = crc16_t10dif(guarded);
    [&guard.to_be_bytes()[..], &application.to_be_bytes(), &reference.to_be_bytes()].concat()
}

/// LBMD_PI_CAP_INTEGRITY, LBMD_PI_CAP_REFTAG and LBMD_PI_CSUM_CRC16_T10DIF for each sector
/// (include/uapi/linux/fs.h).
fn shape(metadata_size: u8) -> ParamIntegrity {
    ParamIntegrity {
        flags: 3,
        max_integrity_segments: 0,
        interval_exp: 9,
        metadata_size,
        pi_offset: metadata_size - 8,
        csum_type: 2,
        tag_size: 0,
        pad: [0; 5],
    }
}

struct Protected {
    disk: BlockDevice,
    server: Server,
    target: Arc<RamTarget>,
    longest: Arc<Longest>,
}

/// The longest write there was, in sectors.
struct Longest(Arc<RamTarget>, AtomicU32);

impl Target for Longest {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        if request.op == Op::Write {
            self.1.fetch_max(request.sectors, Ordering::Relaxed);
        }
        self.0.handle(request)
    }
}

impl Protected {
    fn start(config: &Config) -> Self {
        let shape = config.params.integrity;
        let target = Arc::new(RamTarget::with_metadata(SECTORS, &shape));
        let longest = Arc::new(Longest(target.clone(), AtomicU32::new(0)));
        let server = Server::start(config, longest.clone()).expect("started");
        let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
        Protected { disk, server, target, longest }
    }

    /// The metadata of a sector.
    fn metadata(&self, sector: u64, size: usize) -> Vec<u8> {
        let at = usize::try_from(sector).expect("a small disk") * size;
        self.target.metadata()[at..at + size].to_vec()
    }

    fn end(self) {
        drop(self.disk);
        self.server.delete().expect("deleted");
    }
}

/// Whoever writes without protection information has it made by the block layer, with a guard over the data and what
/// stands before it in the metadata (block/t10-pi.c); the server is brought it, and what it brings back is found right.
/// Sectors that were never written have information that nobody checks.
#[rstest]
#[case::of_eight_bytes(8, Features::empty())]
#[case::behind_others(64, Features::empty())]
#[case::in_batches(8, Features::BATCH_IO)]
fn protection_information_goes_to_the_server_and_comes_back(
    #[case] size: u8,
    #[case] features: Features,
) {
    declare!(Contract, INTEGRITY);
    assert_eq!(crc16_t10dif(b"123456789"), 0xd0db, "the CRC's own check value");
    let device = Protected::start(&unscanned(SECTORS).integrity(shape(size)).with(features));
    let (size, first) = (usize::from(size), 8);
    let data = pattern(first, 128, 1);
    device.disk.write(first * 512, &data).expect("written");
    for (sector, bytes) in (first..).zip(data.chunks(512)) {
        let before = vec![0; size - 8];
        let guarded = [bytes, &before].concat();
        let expected = [before, protection(sector, &guarded, 0)].concat();
        assert_eq!(device.metadata(sector, size), expected, "sector {sector}");
    }
    assert_eq!(device.metadata(first - 1, size), vec![0xff; size], "the sector before");
    assert!(device.disk.read(first * 512, data.len()).expect("read") == data, "the data differs");
    let all = device.disk.read(0, 256 * 512).expect("read");
    assert!(all[8 * 512..136 * 512] == data && all[136 * 512..].iter().all(|byte| *byte == 0));
    device.end();
}

/// What was changed behind the block layer's back is no data: a read of it is EILSEQ, whether the guard, the reference tag
/// or the data is another. An application tag of FFFFh is the word of the server that there is nothing to check.
#[rstest]
fn wrong_protection_information_fails_the_read() {
    declare!(Contract, INTEGRITY);
    let device = Protected::start(&unscanned(SECTORS).integrity(shape(8)));
    device.disk.write(8 * 512, &pattern(8, 8, 2)).expect("written");
    let read = || device.disk.read(8 * 512, 4096).map_err(|error| error.raw_os_error());
    for at in [9 * 8, 9 * 8 + 1, 9 * 8 + 7] {
        device.target.metadata()[at] ^= 1;
        assert_eq!(read(), Err(Some(EILSEQ)), "byte {at} of the metadata");
        device.target.metadata()[at] ^= 1;
        assert_eq!(read(), Ok(pattern(8, 8, 2)));
    }
    device.target.bytes()[10 * 512 + 100] ^= 0x10;
    assert_eq!(read(), Err(Some(EILSEQ)), "the data");
    assert_eq!(device.disk.read(11 * 512, 512).expect("beside it"), pattern(11, 1, 2));
    device.target.metadata()[10 * 8 + 2..10 * 8 + 4].fill(0xff);
    assert!(read().is_ok(), "nobody checks");
    device.end();
}

/// Protection information of the application's own (IORING_RW_ATTR_FLAG_PI) is the server's as it is, application tag and
/// all, but for the reference tags: the application counts from where it likes, the medium from its first sector
/// (block/t10-pi.c:t10_pi_type1_prepare). What is wrong is stored as it is; whoever leaves it to the kernel to check is
/// told (EILSEQ), whoever reads the information has it.
#[rstest]
fn protection_information_of_the_application_comes_back() {
    declare!(Contract, INTEGRITY);
    let device = Protected::start(&unscanned(SECTORS).integrity(shape(8)));
    let (data, tag, own) = (pattern(16, 4, 5), 0x1234, 1000);
    let counted = |first: u64| {
        let sectors = (first..).zip(data.chunks(512));
        sectors.flat_map(|(at, bytes)| protection(at, bytes, tag)).collect::<Vec<u8>>()
    };
    device.disk.write_with_metadata(16 * 512, &data, &counted(own), own).expect("written");
    assert_eq!(device.target.metadata()[16 * 8..20 * 8], counted(16));
    let back = device.disk.read_with_metadata(16 * 512, 2048, 32, own).expect("read");
    assert!(back == (data.clone(), counted(own)), "{:x?}", back.1);
    assert!(device.disk.read(16 * 512, 2048).expect("it is right") == data, "the data differs");

    let mut wrong = counted(16);
    wrong[8] ^= 0x80;
    device.disk.write_with_metadata(16 * 512, &data, &wrong, 16).expect("written");
    assert_eq!(device.target.metadata()[16 * 8..20 * 8], wrong);
    let back = device.disk.read_with_metadata(16 * 512, 2048, 32, 16).expect("read");
    assert!(back == (data, wrong), "{:x?}", back.1);
    let told = device.disk.read(16 * 512, 2048).expect_err("the guard is wrong");
    assert_eq!(told.raw_os_error(), Some(EILSEQ));
    device.end();
}

/// Writes from the page cache come as one request each for what lies together; each sector has its own metadata then too.
#[rstest]
fn writes_that_were_joined_have_all_their_metadata() {
    declare!(Contract, INTEGRITY);
    let device = Protected::start(&unscanned(SECTORS).integrity(shape(8)));
    let data = pattern(0, 128, 3);
    let mut cached =
        OpenOptions::new().write(true).open(device.server.block_path()).expect("opened");
    cached.write_all(&data).expect("it is in the page cache");
    cached.sync_all().expect("written");
    drop(cached);
    let longest = device.longest.1.load(Ordering::Relaxed);
    assert!(longest > 8, "a page has 8 sectors, the longest write {longest}: nothing was joined");
    for (sector, bytes) in (0..).zip(data.chunks(512)) {
        assert_eq!(device.metadata(sector, 8), protection(sector, bytes, 0), "sector {sector}");
    }
    assert!(device.disk.read(0, data.len()).expect("read") == data, "the data differs");
    device.end();
}

/// A discarded sector reads as zeroes, with information that nobody checks.
#[rstest]
fn discarded_sectors_are_not_checked() {
    declare!(Contract, INTEGRITY);
    let device = Protected::start(&unscanned(SECTORS).integrity(shape(8)));
    device.disk.write(0, &pattern(0, 16, 4)).expect("written");
    device.disk.discard(4 * 512, 4 * 512).expect("discarded");
    let expected = [pattern(0, 4, 4), vec![0; 4 * 512], pattern(8, 8, 4)].concat();
    assert!(device.disk.read(0, 16 * 512).expect("read") == expected, "the data differs");
    assert_eq!(device.metadata(4, 8), [0xff; 8]);
    device.end();
}
