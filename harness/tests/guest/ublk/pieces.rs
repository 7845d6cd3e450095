//! Registered data of a request, moved in pieces by one operation: IORING_OP_READV_FIXED and WRITEV_FIXED
//! (io_uring/rsrc.c:io_import_reg_vec), which came with 6.15.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    ops::Range,
    sync::{Arc, mpsc::Receiver},
    time::Instant,
};

use bsg::Access;
use harness::{BlockDevice, UblkDevice, declare};
use rstest::rstest;
use rustix::fs::{MemfdFlags, memfd_create};
use ublk::{DataMode, Errno, FixedTransfer, RawCommand, RawQueue};

use super::{
    modes::SINCE_7_0,
    protocol::{COMMIT, DEADLINE, FETCH, REGISTER, UNREGISTER, device, say},
    recorder::pattern,
};

/// Length of the request: more than one page, so that its data is in several places.
const LEN: usize = 16384;

/// A request whose data is buffer 0 of the ring.
struct Registered {
    queue: RawQueue,
    device: UblkDevice,
    client: Receiver<std::io::Result<Vec<u8>>>,
}

fn registered(write: bool) -> Registered {
    let (mut device, mut queue) = device(DataMode::ZeroCopy, 1);
    queue.make_table(1).expect("a table");
    let fetch = queue.begin(RawCommand::new(FETCH, 0, 0)).expect("submitted");
    let id = device.id();
    device.control().start(id).expect("START_DEV");
    let path = device.block_path();
    let ask = move |disk: &BlockDevice| match write {
        true => disk.write(0, &pattern(0, 32, 4)).map(|()| Vec::new()),
        false => disk.read(0, LEN),
    };
    let client = BlockDevice::beside(move || BlockDevice::open(&path, Access::ReadWrite), ask);
    let request = queue.finish(fetch, Instant::now() + DEADLINE).expect("no error");
    assert_eq!(request.expect("the request is delivered").res, 0);
    assert_eq!(queue.descriptor(0, 1, 0).expect("mapped").nr_sectors, 32, "in one request");
    assert_eq!(say(&mut queue, RawCommand::new(REGISTER, 0, 0)), Some(Ok(0)));
    Registered { queue, device, client }
}

impl Registered {
    #[track_caller]
    fn move_pieces(&mut self, to: FixedTransfer, pieces: &[(u64, u64)]) -> Result<i32, Errno> {
        let transfer = to.pieces(pieces).expect("memory");
        let token = self.queue.begin_transfer(transfer).expect("submitted");
        let reply = self.queue.finish(token, Instant::now() + DEADLINE).expect("no error");
        reply.expect("files do not wait").result()
    }

    /// Commits all of the request, and returns what the application got.
    #[track_caller]
    fn end(mut self) -> Vec<u8> {
        assert_eq!(say(&mut self.queue, RawCommand::new(UNREGISTER, 0, 0)), Some(Ok(0)));
        let result = i32::try_from(LEN).expect("short");
        let commit = RawCommand { result, ..RawCommand::new(COMMIT, 0, 0) };
        assert_eq!(say(&mut self.queue, commit), None);
        let got = self.client.recv_timeout(DEADLINE).expect("answered").expect("done");
        drop(self.queue);
        self.device.delete();
        got
    }
}

fn file(bytes: &[u8]) -> Arc<File> {
    let mut file = File::from(memfd_create("data", MemfdFlags::CLOEXEC).expect("a file"));
    file.write_all(bytes).expect("memory takes bytes");
    Arc::new(file)
}

/// Pieces that begin and end in pages, at their ends and beyond them, and go backwards.
const PIECES: [Range<usize>; 6] =
    [16383..16384, 4090..4102, 0..1, 8192..12288, 12289..16000, 4096..4097];

fn pieces() -> Vec<(u64, u64)> {
    PIECES.iter().map(|piece| (piece.start as u64, piece.len() as u64)).collect()
}

/// Pieces go to the file one after the other.
#[rstest]
fn pieces_are_written_in_their_order() {
    declare!(Contract, SINCE_7_0);
    let mut registered = registered(true);
    let sink = file(&[]);
    let data = pattern(0, 32, 4);
    let expected: Vec<u8> = PIECES.iter().flat_map(|piece| data[piece.clone()].to_vec()).collect();
    let to = FixedTransfer::to(&sink, 0, 0);
    let moved = registered.move_pieces(to, &pieces()).expect("moved");
    assert_eq!(usize::try_from(moved), Ok(expected.len()));
    let mut got = Vec::new();
    (&*sink).rewind().expect("a file has a beginning");
    (&*sink).read_to_end(&mut got).expect("read");
    assert!(got == expected, "the pieces differ");
    registered.end();
}

/// And from it each to its place, and no other byte changes.
#[rstest]
fn pieces_are_read_to_their_places() {
    declare!(Contract, SINCE_7_0);
    let mut registered = registered(false);
    let len = PIECES.iter().map(Range::len).sum();
    // No byte is 0, as those that nothing is read to, and no page repeats one before it.
    let bytes: Vec<u8> = (1..=251).cycle().take(len).collect();
    let from = FixedTransfer::from(&file(&bytes), 0, 0);
    assert_eq!(registered.move_pieces(from, &pieces()).map(usize::try_from), Ok(Ok(len)));
    let mut expected = vec![0; LEN];
    let mut rest = bytes.as_slice();
    for piece in PIECES {
        let (part, later) = rest.split_at(piece.len());
        expected[piece].copy_from_slice(part);
        rest = later;
    }
    assert!(registered.end() == expected, "the data differs");
}

/// io_uring/rsrc.c:validate_fixed_range: not a byte beyond the request by any of the pieces, and then nothing is moved.
#[rstest]
#[case::one_past_the_end(&[(16384, 1)])]
#[case::one_too_long(&[(0, 16385)])]
#[case::last_byte_too_many(&[(16383, 2)])]
#[case::the_last_of_some(&[(0, 512), (512, 512), (16384, 1)])]
#[case::the_first_of_some(&[(16384, 1), (0, 512)])]
#[case::overflow(&[(u64::MAX, 2)])]
#[case::above_32_bits(&[(1 << 32, 1)])]
fn no_piece_reaches_beyond_the_request(#[case] pieces: &[(u64, u64)]) {
    declare!(Contract, SINCE_7_0);
    let mut registered = registered(true);
    let sink = file(&[]);
    let refused = registered.move_pieces(FixedTransfer::to(&sink, 0, 0), pieces);
    assert_eq!(refused, Err(Errno::FAULT));
    assert_eq!(sink.metadata().expect("its length").len(), 0);
    let end = registered.move_pieces(FixedTransfer::to(&sink, 0, 0), &[(16383, 1)]);
    assert_eq!(end, Ok(1), "its last byte");
    registered.end();
}

/// io_uring/rsrc.c:io_kern_bvec_size: no piece is empty (EFAULT), though one of the memory of a process may be.
#[rstest]
#[case::alone(&[(0, 0)])]
#[case::behind_another(&[(0, 512), (512, 0)])]
#[case::at_the_end(&[(16384, 0), (0, 512)])]
fn empty_piece_is_refused(#[case] pieces: &[(u64, u64)]) {
    declare!(Quirk, SINCE_7_0);
    let mut registered = registered(true);
    let sink = file(&[]);
    let refused = registered.move_pieces(FixedTransfer::to(&sink, 0, 0), pieces);
    assert_eq!(refused, Err(Errno::FAULT));
    assert_eq!(sink.metadata().expect("its length").len(), 0);
    registered.end();
}

/// Data of a WRITE is not written to, nor that of a READ read (EFAULT), by pieces either.
#[rstest]
fn pieces_go_in_the_direction_of_the_request(#[values(true, false)] write: bool) {
    declare!(Contract, SINCE_7_0);
    let mut registered = registered(write);
    let other = file(&[7; 512]);
    let transfer = match write {
        true => FixedTransfer::from(&other, 0, 0),
        false => FixedTransfer::to(&other, 0, 0),
    };
    assert_eq!(registered.move_pieces(transfer, &[(0, 512)]), Err(Errno::FAULT));
    let got = registered.end();
    assert!(!got.contains(&7), "it was read to");
}
