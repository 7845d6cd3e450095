//! A driver's side of a ring, and what it puts there.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use fastrand::Rng;
use vhost_user_scsi::backend::Placed;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::cdb;
use crate::mutate::{number, once_in, one};

/// Bytes for each ring, from address 0 on.
pub(super) const RING_LEN: u64 = 0x2000;
/// Where buffers are, behind the rings, and where they end.
const BUFFERS: std::ops::Range<u64> = 0x8000..0x4_0000;
/// Where the indirect tables of the rings are, in the last region.
pub(super) const TABLES: u64 = 0x100_0000;
/// Bytes for the tables of a ring, and for each of them.
pub(super) const TABLES_LEN: u64 = 0x1_0000;
const TABLE_LEN: u64 = 0x400;

/// What has not come back after this will not.
const BACK_LIMIT: Duration = Duration::from_secs(5);

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor as it lies in the table, but for `next`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    address: u64,
    len: u32,
    flags: u16,
}

/// A chain before it is offered.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pieces: Vec<Piece>,
    /// What stands at the beginning of the first piece.
    header: Vec<u8>,
    indirect: bool,
    /// Which piece, if any, is followed by another than the next, and which.
    astray: Option<(usize, u16)>,
}

impl Made {
    /// Bytes the device may write at most, however it understands the chain.
    fn writable_len(&self) -> u64 {
        match self.astray {
            Some(_) => u32::MAX.into(),
            None => {
                let writable = self.pieces.iter().filter(|piece| piece.flags & WRITE != 0);
                writable.map(|piece| u64::from(piece.len)).sum()
            }
        }
    }
}

/// A place for a buffer. Buffers may overlap; in a wild session they may lie anywhere.
fn place(rng: &mut Rng, wild: bool) -> u64 {
    match rng.u8(0..32) {
        0 => 0x2_0000 - rng.u64(0..200),
        1 => BUFFERS.end - rng.u64(0..200),
        // Beyond all memory, or at the end of all addresses.
        2 if once_in(rng, 4) => {
            *one(rng, &[0x200_0000, 0x4_0000, u64::MAX, u64::MAX - 107, 1 << 63])
        }
        3..8 if wild => number(rng) & 0x7_ffff,
        8..10 if wild => number(rng),
        _ => rng.u64(BUFFERS.start..BUFFERS.end - 0x2000),
    }
}

fn lun(rng: &mut Rng) -> [u8; 8] {
    match rng.u8(0..20) {
        0 => rng.u64(..).to_be_bytes(),
        1 => [1, rng.u8(..), 0x40, 0, 0, 0, 0, 0],
        2 => [1, 0, 0x41, 0x2c, 0, 0, 0, 0],
        _ => [1, 0, 0x40, rng.u8(0..2), 0, 0, 0, 0],
    }
}

/// The device-readable header of a request, and lengths of data out and in.
fn request(rng: &mut Rng) -> (Vec<u8>, u32, u32) {
    let (cdb, direction) = cdb::any(rng);
    let mut header = lun(rng).to_vec();
    header.extend(rng.u64(0..8).to_le_bytes());
    header.extend([if once_in(rng, 6) { rng.u8(0..5) } else { 0 }, 0, 0]);
    header.extend(cdb);
    let len = u32::try_from(cdb::data_len(rng)).expect("small");
    match direction {
        scsi::DataDirection::None => (header, 0, 0),
        scsi::DataDirection::Out => (header, len, 0),
        scsi::DataDirection::In => (header, 0, len),
    }
}

/// A task management or notification request.
fn control_request(rng: &mut Rng) -> Vec<u8> {
    let kind = if once_in(rng, 20) { rng.u32(..) } else { *one(rng, &[0, 0, 0, 1, 2]) };
    let mut header = kind.to_le_bytes().to_vec();
    if kind == 0 {
        header.extend((if once_in(rng, 20) { rng.u32(..) } else { rng.u32(0..8) }).to_le_bytes());
        header.extend(lun(rng));
        header.extend(rng.u64(0..8).to_le_bytes());
    } else {
        header.extend(lun(rng));
        header.extend(rng.u32(..).to_le_bytes());
    }
    header
}

/// A chain for a queue: control, event or request.
pub(super) fn any(rng: &mut Rng, queue: usize, wild: bool) -> Made {
    let (header, lens) = match queue {
        0 => {
            let header = control_request(rng);
            let len = u32::try_from(header.len()).expect("small");
            (header, vec![(len, 0), (*one(rng, &[1, 5, 8]), WRITE)])
        }
        1 => (Vec::new(), vec![(16, WRITE)]),
        _ => {
            let (header, out, data_in) = request(rng);
            let lens = vec![(51, 0), (out, 0), (108, WRITE), (data_in, WRITE)];
            (header, lens.into_iter().filter(|(len, _)| *len > 0).collect())
        }
    };
    let mut made = Made { pieces: Vec::new(), header, indirect: once_in(rng, 3), astray: None };
    for (len, flags) in lens {
        let mut rest = len;
        let mut address = place(rng, wild);
        while rest > 0 {
            // The header stays in one piece here: it is written to one place.
            let first = made.pieces.is_empty();
            let cut = !first && once_in(rng, 3);
            let now = if cut { rng.u32(1..=rest) } else { rest };
            made.pieces.push(Piece { address, len: now, flags });
            rest -= now;
            let after = address.wrapping_add(now.into());
            let follows = rng.bool() && (wild || BUFFERS.contains(&after));
            address = if follows { after } else { place(rng, wild) };
        }
    }
    while once_in(rng, 5) {
        spoil(rng, &mut made, wild);
    }
    made
}

fn spoil(rng: &mut Rng, made: &mut Made, wild: bool) {
    let count = made.pieces.len();
    if count == 0 {
        return;
    }
    let at = rng.usize(0..count);
    match rng.u8(0..10) {
        0 => made.pieces[at].flags ^= WRITE,
        1 => drop(made.pieces.remove(at)),
        2 => made.pieces.swap(0, at),
        // A long one may reach a ring only in a wild session.
        3 if wild => {
            made.pieces[at].len = u32::try_from(number(rng) & 0xffff_ffff).expect("masked");
        }
        3 => made.pieces[at].len = *one(rng, &[0, 1, 50, 52, 107, 109, 0x3000, u32::MAX]),
        4 => made.pieces[at].address = place(rng, wild),
        5 if wild => made.pieces[at].flags = rng.u16(..),
        5 => {
            made.pieces[at].flags |= INDIRECT;
            made.astray = Some((at, rng.u16(0..16)));
        }
        // A loop, or an entry beyond the table.
        6 | 7 => made.astray = Some((at, if rng.bool() { rng.u16(0..4) } else { rng.u16(..) })),
        8 => {
            let again = made.pieces[at];
            let times = if once_in(rng, 4) { 100 } else { 1 };
            made.pieces.extend(std::iter::repeat_n(again, times));
        }
        _ if !made.header.is_empty() => {
            let byte = rng.usize(0..made.header.len());
            made.header[byte] = rng.u8(..);
        }
        _ => {}
    }
}

/// The driver of one ring.
pub(super) struct Driver<'a> {
    memory: &'a GuestMemoryMmap,
    placed: Placed,
    wild: bool,
    /// The next free descriptor, and how many are taken since all were free.
    next: u16,
    taken: usize,
    available: u16,
    used: u16,
    /// For each head that was offered and has not come back, how often, and how much may be written.
    out: HashMap<u32, (usize, u64)>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(memory: &'a GuestMemoryMmap, placed: Placed, wild: bool) -> Self {
        Driver {
            memory,
            placed,
            wild,
            next: 0,
            taken: 0,
            available: 0,
            used: 0,
            out: HashMap::new(),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        // A header may be meant for nowhere, which is what is tried.
        let _nowhere = self.memory.write_slice(bytes, GuestAddress(address));
    }

    fn put(&self, table: u64, index: u16, piece: Piece, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&piece.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&piece.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&piece.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + 16 * u64::from(index), &bytes);
    }

    /// Writes a chain and makes it available. Chains of a round may take each other's descriptors.
    pub(super) fn offer(&mut self, rng: &mut Rng, made: &Made) {
        let outstanding: usize = self.out.values().map(|(times, _)| times).sum();
        if outstanding >= usize::from(self.placed.size) {
            return;
        }
        if let Some(first) = made.pieces.first()
            && (self.wild || BUFFERS.contains(&first.address))
        {
            let len = made.header.len().min(first.len as usize);
            self.write(first.address, &made.header[..len]);
        }
        let size = self.placed.size;
        let head = self.next;
        let count = u16::try_from(made.pieces.len()).expect("a few hundred");
        let table = self.table() + TABLE_LEN * u64::from(head);
        let mut astray = made.pieces.is_empty();
        if made.indirect && u64::from(count) * 16 <= TABLE_LEN {
            self.put_all(table, 0, u16::MAX, made);
            let lies = once_in(rng, 20);
            let len = if lies { rng.u32(..) } else { u32::from(count) * 16 };
            astray |= lies;
            let piece = Piece { address: table, len, flags: INDIRECT };
            self.put(self.placed.descriptors, head, piece, 0);
            self.take(1);
        } else {
            self.put_all(self.placed.descriptors, head, size, made);
            self.take(count);
        }
        let another = once_in(rng, 100);
        astray |= another;
        let head = if another { rng.u16(..) } else { head };
        let entry = 4 + 2 * u64::from(self.available % size);
        self.write(self.placed.available + entry, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        let overlaps = self.taken > usize::from(size);
        let writable = if overlaps || astray { u32::MAX.into() } else { made.writable_len() };
        if head < size {
            let (times, most) = self.out.entry(head.into()).or_default();
            *times += 1;
            *most = writable.max(*most);
        }
        if overlaps {
            // Those before have been spoilt.
            self.out.values_mut().for_each(|(_, most)| *most = u32::MAX.into());
        }
    }

    /// Where its indirect tables are.
    fn table(&self) -> u64 {
        TABLES + self.placed.descriptors / RING_LEN * TABLES_LEN
    }

    fn take(&mut self, count: u16) {
        self.next = (self.next + count.max(1)) % self.placed.size;
        self.taken += usize::from(count.max(1));
    }

    fn put_all(&self, table: u64, first: u16, size: u16, made: &Made) {
        let count = made.pieces.len();
        for (index, piece) in made.pieces.iter().enumerate() {
            let at = (first + u16::try_from(index).expect("a few hundred")) % size;
            let mut next = (at + 1) % size;
            if let Some((_, to)) = made.astray.filter(|(from, _)| *from == index) {
                next = to;
            }
            let goes_on = index + 1 < count || made.astray.is_some_and(|(from, _)| from == index);
            let flags = if goes_on { piece.flags | NEXT } else { piece.flags };
            self.put(table, at, Piece { flags, ..*piece }, next);
        }
    }

    /// Shows the device what was offered; now and then something else first. False if that made no sense.
    pub(super) fn disturb(&mut self, rng: &mut Rng) -> bool {
        let mut index = self.available;
        if once_in(rng, 60) {
            // The rest of the ring is of no use then: heads are fetched that were never offered.
            index = rng.u16(..);
            self.wild = true;
        }
        if once_in(rng, 4) {
            // No interrupts, or an event index from anywhere.
            self.write(self.placed.available, &rng.u16(0..3).to_le_bytes());
            let event = 4 + 2 * u64::from(self.placed.size);
            self.write(self.placed.available + event, &rng.u16(..).to_le_bytes());
        }
        let address = GuestAddress(self.placed.available + 2);
        self.memory.store(index.to_le(), address, Ordering::Release).expect("a ring is mapped");
        self.available = index;
        !self.wild
    }

    /// Takes what came back: each head was offered, and no more was written than it has room for.
    pub(super) fn check(&mut self) {
        if self.wild {
            return;
        }
        let index = GuestAddress(self.placed.used + 2);
        let index: u16 = self.memory.load(index, Ordering::Acquire).expect("a ring is mapped");
        while self.used != u16::from_le(index) {
            let entry = 4 + 8 * u64::from(self.used % self.placed.size);
            let mut bytes = [0; 8];
            self.memory
                .read_slice(&mut bytes, GuestAddress(self.placed.used + entry))
                .expect("mapped");
            let [head, len] =
                [0, 4].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")));
            self.used = self.used.wrapping_add(1);
            let Some((times, most)) = self.out.get_mut(&head) else {
                panic!("head {head} came back that is not out");
            };
            assert!(u64::from(len) <= *most, "{len} bytes written, there is room for {most}");
            *times -= 1;
            if *times == 0 {
                self.out.remove(&head);
            }
        }
        if self.out.is_empty() {
            self.taken = 0;
        }
    }

    /// Nothing is held, so everything has come back, or does when it has been waited for.
    pub(super) fn check_all_back(&mut self) {
        let back = wait::until(BACK_LIMIT, "the last to come back", || {
            self.check();
            self.out.is_empty().then_some(())
        });
        assert!(back.is_ok(), "{:?} did not come back", self.out);
    }
}
