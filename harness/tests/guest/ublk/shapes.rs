//! Every shape of I/O that an application has, in each way data moves: what comes to the server, and that a device is an
//! array of bytes.

use std::{
    cell::RefCell,
    fs::File,
    io::{IoSlice, IoSliceMut},
    os::unix::fs::FileExt,
    sync::Arc,
};

use bsg::{Access, Buffer};
use harness::{BlockDevice, declare, property, regressions};
use proptest::prelude::*;
use rstest::rstest;
use ublk::{Config, DataMode, Op, Server};

use super::{
    modes::SINCE_7_0,
    recorder::{Recorder, pattern, unscanned},
};

/// More than the longest request, which has 1024.
const SECTORS: u64 = 1200;
const LEN: usize = 1200 * 512;

/// UBLK_ATTR_VOLATILE_CACHE and UBLK_ATTR_FUA (include/uapi/linux/ublk_cmd.h).
const VOLATILE_CACHE: u32 = 1 << 2;
const FUA: u32 = 1 << 3;

/// A disk with these attributes, and its requests so far forgotten.
fn disk(attrs: u32) -> (Server, Arc<Recorder>, BlockDevice) {
    let target = Arc::new(Recorder::new(SECTORS));
    let mut config = unscanned(SECTORS);
    config.params.basic.attrs = attrs;
    let server = Server::start(&config, target.clone()).expect("started");
    let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
    (server, target, disk)
}

/// What came: operation and the flags of `struct ublksrv_io_desc`, `UBLK_IO_F_*`.
fn flags(target: &Recorder) -> Vec<(Op, u32)> {
    target.take().iter().map(|seen| (seen.0, seen.1)).collect()
}

/// UBLK_ATTR_FUA: a write that has to be durable says so (UBLK_IO_F_FUA, 1 << 13) where the device can do that. Where it has
/// a volatile cache a flush follows, or several: the kernel's own file of a device asks for one besides
/// (block/fops.c:blkdev_write_iter).
#[rstest]
#[case::fua(VOLATILE_CACHE | FUA, 1 << 13)]
#[case::flush(VOLATILE_CACHE, 0)]
#[case::neither(0, 0)]
fn durable_write_is_as_durable_as_the_device_has_it(#[case] attrs: u32, #[case] expected: u32) {
    declare!(Contract, SINCE_7_0);
    let (server, target, disk) = disk(attrs);
    assert_eq!(disk.write_durably(4096, &pattern(8, 8, 1)).expect("written"), 4096);
    let seen = flags(&target);
    assert_eq!(seen[0], (Op::Write, expected));
    assert!(seen[1..].iter().all(|seen| *seen == (Op::Flush, 0)), "{seen:?}");
    assert_eq!(seen.len() > 1, attrs & VOLATILE_CACHE != 0, "{seen:?}");
    assert!(target.bytes()[4096..8192] == pattern(8, 8, 1)[..], "the medium differs");
    drop(disk);
    server.delete().expect("deleted");
}

/// What an application does.
#[derive(Clone, Debug)]
enum Step {
    /// Past the page cache, with memory in pieces: how far each is from the beginning of its page, in words of 4 bytes, and
    /// its sectors.
    Pieces { write: bool, sector: u64, pieces: Vec<(usize, usize)> },
    /// Through the page cache, at any byte.
    Bytes { write: bool, offset: u64, len: usize },
}

fn steps() -> impl Strategy<Value = (usize, Vec<Step>)> {
    let piece = (0..1024_usize, prop_oneof![1..=8_usize, 1..=64_usize]);
    let pieces = (any::<bool>(), 0..SECTORS, prop::collection::vec(piece, 1..=12))
        .prop_map(|(write, sector, pieces)| Step::Pieces { write, sector, pieces });
    let bytes = (any::<bool>(), 0..SECTORS * 512, 1..=20_000_usize)
        .prop_map(|(write, offset, len)| Step::Bytes { write, offset, len });
    (0..MODES.len(), prop::collection::vec(prop_oneof![2 => pieces, 1 => bytes], 1..=4))
}

const MODES: [DataMode; 5] =
    [DataMode::Copy, DataMode::GetData, DataMode::UserCopy, DataMode::ZeroCopy, DataMode::AutoBuf];

/// A device, and what should be on it.
struct Subject {
    server: Server,
    target: Arc<Recorder>,
    disk: BlockDevice,
    cached: File,
    model: Vec<u8>,
    mark: u8,
}

impl Subject {
    fn new(mode: DataMode) -> Self {
        let target = Arc::new(Recorder::new(SECTORS));
        let config: Config = unscanned(SECTORS).mode(mode);
        let server = Server::start(&config, target.clone()).expect("started");
        let disk = BlockDevice::open(&server.block_path(), Access::ReadWrite);
        let cached = File::options().read(true).write(true).open(server.block_path());
        let cached = cached.expect("it opens");
        Subject { server, target, disk, cached, model: vec![0; LEN], mark: 0 }
    }

    /// Bytes that nobody has written there before.
    fn fresh(&mut self, offset: usize, len: usize) -> Vec<u8> {
        self.mark = self.mark.wrapping_add(1);
        let first = offset / 512;
        let whole = pattern(first as u64, (len / 512 + 2) as u64, self.mark);
        whole[offset - first * 512..][..len].to_vec()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pieces { write, sector, pieces } => self.pieces(*write, *sector, pieces),
            Step::Bytes { write, offset, len } => self.bytes(*write, *offset, *len),
        }
    }

    fn pieces(&mut self, write: bool, sector: u64, pieces: &[(usize, usize)]) {
        let at = usize::try_from(sector * 512).expect("short");
        let mut room = LEN - at;
        let mut memory = Vec::new();
        for (words, sectors) in pieces {
            let len = (sectors * 512).min(room);
            room -= len;
            if len > 0 {
                memory.push((words * 4, Buffer::zeroed(words * 4 + len).expect("memory")));
            }
        }
        let len = LEN - at - room;
        if write {
            let data = self.fresh(at, len);
            let mut rest = &data[..];
            for (from, buffer) in &mut memory {
                let piece = &mut buffer[*from..];
                let (this, next) = rest.split_at(piece.len());
                piece.copy_from_slice(this);
                rest = next;
            }
            let slices: Vec<_> = memory.iter().map(|(from, b)| IoSlice::new(&b[*from..])).collect();
            assert_eq!(self.disk.write_pieces(sector * 512, &slices).expect("written"), len);
            self.model[at..at + len].copy_from_slice(&data);
        } else {
            let slices = memory.iter_mut().map(|(from, b)| IoSliceMut::new(&mut b[*from..]));
            let mut slices: Vec<_> = slices.collect();
            assert_eq!(self.disk.read_pieces(sector * 512, &mut slices).expect("read"), len);
            let pieces: Vec<&[u8]> = memory.iter().map(|(from, b)| &b[*from..]).collect();
            assert!(pieces.concat() == self.model[at..at + len], "read in pieces");
        }
    }

    fn bytes(&mut self, write: bool, offset: u64, len: usize) {
        let at = usize::try_from(offset).expect("short");
        let len = len.min(LEN - at);
        if write {
            let data = self.fresh(at, len);
            self.cached.write_all_at(&data, offset).expect("written");
            self.cached.sync_data().expect("written back");
            self.model[at..at + len].copy_from_slice(&data);
        } else {
            let mut data = vec![0; len];
            self.cached.read_exact_at(&mut data, offset).expect("read");
            assert!(data == self.model[at..at + len], "read through the page cache");
        }
    }
}

/// A device is an array of bytes, whatever the shape of reads and writes: direct ones of scattered pieces of memory from a
/// sector to beyond the longest request, and cached ones from and to any byte.
#[rstest]
fn any_shape_of_io_is_that_of_an_array_of_bytes() {
    declare!(Contract, SINCE_7_0);
    let subjects: Vec<_> = MODES.map(|mode| RefCell::new(Subject::new(mode))).into();
    property::check(regressions!("ublk-shapes"), &steps(), |(mode, steps)| {
        let subject = &mut *subjects[mode].borrow_mut();
        // A case that failed has left it otherwise.
        subject.model = subject.target.bytes().clone();
        for step in &steps {
            subject.step(step);
        }
        assert!(*subject.target.bytes() == subject.model, "the medium differs: {:?}", MODES[mode]);
    });
    for subject in subjects {
        let Subject { server, disk, cached, .. } = subject.into_inner();
        drop((disk, cached));
        server.delete().expect("deleted");
    }
}
