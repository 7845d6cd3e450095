//! The buffers a command moves its data through, and the count of what it moved.

use vm_memory::{Bytes, VolatileSlice};

use crate::medium::{FileWait, Medium, MediumError};

/// A scatter-gather list: pieces of memory that may change under our hands (a guest's), seen as one
/// range of bytes.
#[derive(Debug, Default)]
pub struct SgList<'a> {
    slices: Vec<VolatileSlice<'a>>,
    len: u64,
}

impl<'a> SgList<'a> {
    /// A list of these pieces, in order. Empty pieces are welcome.
    #[must_use]
    pub fn new(slices: Vec<VolatileSlice<'a>>) -> Self {
        let len = slices.iter().map(|slice| slice.len() as u64).sum();
        SgList { slices, len }
    }

    /// A list of no bytes.
    #[must_use]
    pub const fn empty() -> Self {
        SgList { slices: Vec::new(), len: 0 }
    }

    /// Total length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is not a byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces.
    #[must_use]
    pub fn slices(&self) -> &[VolatileSlice<'a>] {
        &self.slices
    }

    /// Its first `len` bytes.
    #[must_use]
    pub fn limited(self, len: u64) -> Self {
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        let slices = self.slices.into_iter().map(|slice| {
            let kept = slice.len().min(left);
            left -= kept;
            slice.subslice(0, kept).expect("no longer than the piece")
        });
        SgList::new(slices.collect())
    }

    /// Sets `count` bytes from `from` on to a value, as far as there are so many; returns how many were.
    pub fn fill_with(&self, value: u8, from: u64, count: u64) -> u64 {
        let mut filled = 0;
        self.each_piece(from, count, |piece| {
            filled += piece.write(&vec![value; piece.len()], 0).unwrap_or(0);
        });
        filled as u64
    }

    /// Turns the lowest bit of each byte from `from` to below `end`.
    pub fn corrupt(&self, from: u64, end: u64) {
        self.each_piece(from, end.saturating_sub(from), |piece| {
            let mut bytes = vec![0; piece.len()];
            let read = piece.read(&mut bytes, 0).unwrap_or(0);
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
            // Both are as long as the piece, so that what was read is what is written.
            let _ = piece.write(&bytes[..read], 0);
        });
    }

    /// The pieces of at most 64 KiB that make up `count` bytes from `from` on.
    fn each_piece(&self, from: u64, count: u64, mut each: impl FnMut(VolatileSlice<'_>)) {
        const PIECE: usize = 64 << 10;
        let mut skip = usize::try_from(from).unwrap_or(usize::MAX);
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        for slice in &self.slices {
            let mut at = skip.min(slice.len());
            skip -= at;
            while at < slice.len() && left > 0 {
                let len = (slice.len() - at).min(left).min(PIECE);
                each(slice.subslice(at, len).expect("within the slice"));
                at += len;
                left -= len;
            }
        }
    }

    /// Copies as much of `bytes` as there is room for to the beginning; returns how much that was.
    fn fill(&self, bytes: &[u8]) -> u64 {
        let mut copied = 0;
        for slice in &self.slices {
            if copied == bytes.len() {
                break;
            }
            copied += slice.write(&bytes[copied..], 0).unwrap_or(0);
        }
        copied as u64
    }
}

impl<'a> From<&'a mut [u8]> for SgList<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        SgList::new(vec![VolatileSlice::from(bytes)])
    }
}

impl<'a> FromIterator<VolatileSlice<'a>> for SgList<'a> {
    fn from_iter<I: IntoIterator<Item = VolatileSlice<'a>>>(slices: I) -> Self {
        SgList::new(slices.into_iter().collect())
    }
}

/// How much of a medium is held in a buffer of ours.
const STAGE_LEN: usize = 64 << 10;

/// Hands the medium's bytes from `offset` to `compare`, piece by piece with the number of bytes before
/// it, until that finds a difference: how many bytes into the piece it is. Returns how many bytes in all
/// came before it.
pub(crate) fn compare_with(
    medium: &dyn Medium,
    offset: u64,
    len: u64,
    mut compare: impl FnMut(u64, &[u8]) -> Option<usize>,
) -> Result<Option<u64>, MediumError> {
    let mut stage = vec![0; STAGE_LEN];
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done).map_or(STAGE_LEN, |left| left.min(STAGE_LEN));
        let stored = &mut stage[..count];
        medium
            .read_at(offset + done, &[VolatileSlice::from(&mut *stored)], count as u64)
            .map_err(|error| MediumError { done: done + error.done, ..error })?;
        if let Some(different) = compare(done, stored) {
            return Ok(Some(done + different as u64));
        }
        done += count as u64;
    }
    Ok(None)
}

/// Where two equally long pieces differ first.
pub(crate) fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    if one == other {
        return None;
    }
    one.iter().zip(other).position(|(one, other)| one != other)
}

/// Fills `len` bytes of the medium from `offset` with a pattern whose length divides both.
pub(crate) fn fill(
    medium: &dyn Medium,
    offset: u64,
    len: u64,
    pattern: &[u8],
) -> Result<(), MediumError> {
    let mut stage = pattern.repeat((STAGE_LEN / pattern.len()).max(1));
    let slice = VolatileSlice::from(&mut stage[..]);
    let mut done = 0;
    while done < len {
        let count = (len - done).min(slice.len() as u64);
        medium
            .write_at(offset + done, &[slice], count)
            .map_err(|error| MediumError { done: done + error.done, ..error })?;
        done += count;
    }
    Ok(())
}

impl<'a> SgList<'a> {
    /// The same without its first bytes.
    fn behind(&self, mut skip: u64) -> SgList<'a> {
        let rest = |slice: &VolatileSlice<'a>| {
            let start = usize::try_from(skip).map_or(slice.len(), |skip| skip.min(slice.len()));
            skip -= start as u64;
            slice.subslice(start, slice.len() - start).expect("within")
        };
        self.slices.iter().map(rest).collect()
    }
}

impl SgList<'_> {
    /// Copies bytes from `offset` on into `bytes`, which the list must cover.
    fn copy_out(&self, mut offset: u64, mut bytes: &mut [u8]) {
        for slice in &self.slices {
            let len = slice.len() as u64;
            if offset >= len {
                offset -= len;
                continue;
            }
            let start = usize::try_from(offset).expect("below the length of a slice");
            let copied = slice.read(bytes, start).unwrap_or(0);
            bytes = &mut bytes[copied..];
            offset = 0;
            if bytes.is_empty() {
                break;
            }
        }
    }
}

/// What the initiator offers for one command.
#[derive(Debug, Default)]
pub struct DataBuffers<'a> {
    /// Data-Out Buffer: bytes from the initiator.
    pub data_out: SgList<'a>,
    /// Data-In Buffer: room for bytes to the initiator.
    pub data_in: SgList<'a>,
}

/// What a command has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) data_in: u64,
    pub(crate) data_out: u64,
    pub(crate) overrun: bool,
}

/// The buffers of a running command: every byte that moves goes through here and is counted.
#[derive(Debug)]
pub(crate) struct Mover<'a, 'b> {
    buffers: &'a DataBuffers<'b>,
    moved: Moved,
}

impl<'a, 'b> Mover<'a, 'b> {
    pub(crate) fn new(buffers: &'a DataBuffers<'b>) -> Self {
        Mover { buffers, moved: Moved::default() }
    }

    /// What has moved so far.
    pub(crate) fn moved(&self) -> Moved {
        self.moved
    }

    /// Sends parameter data, cut to `allocation_length` (SPC, Allocation length). Data that is left
    /// and finds no room is an overrun.
    pub(crate) fn send(&mut self, data: &[u8], allocation_length: impl Into<u64>) {
        let allowed = usize::try_from(allocation_length.into()).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(allowed)];
        self.moved.data_in = self.buffers.data_in.fill(data);
        self.moved.overrun = self.moved.data_in < data.len() as u64;
    }

    /// Sends `len` bytes of the medium from `offset`; as much as there is room for, if that is less. If
    /// others `may_wait` for it, what is to be waited for comes back, and counts as moved.
    pub(crate) fn read(
        &mut self,
        medium: &dyn Medium,
        offset: u64,
        len: u64,
        may_wait: bool,
    ) -> Result<Option<FileWait>, MediumError> {
        let room = self.buffers.data_in.len();
        let wanted = len.min(room);
        let into = self.buffers.data_in.slices();
        let read = if may_wait {
            medium.begin_read_at(offset, into, wanted)
        } else {
            medium.read_at(offset, into, wanted).map(|()| None)
        };
        self.moved.data_in = match &read {
            Ok(_) => wanted,
            Err(error) => error.done,
        };
        self.moved.overrun = read.is_ok() && len > room;
        read
    }

    /// Takes a parameter list of `len` bytes. `None` if fewer are offered: nothing moves then.
    pub(crate) fn take(&mut self, len: u32) -> Option<Vec<u8>> {
        let len_bytes = usize::try_from(len).ok()?;
        if u64::from(len) > self.buffers.data_out.len() {
            self.moved.overrun = true;
            return None;
        }
        let mut list = vec![0; len_bytes];
        self.buffers.data_out.copy_out(0, &mut list);
        self.moved.data_out = len.into();
        Some(list)
    }

    /// Whether `len` bytes are offered. If fewer are, that is an overrun, and nothing moves.
    pub(crate) fn offers(&mut self, len: u64) -> bool {
        self.moved.overrun |= len > self.buffers.data_out.len();
        !self.moved.overrun
    }

    /// Compares `len` bytes of the medium from `offset` with the beginning of what is offered, and
    /// returns the first byte that differs, counted from there. Nothing is written.
    pub(crate) fn compare(
        &mut self,
        medium: &dyn Medium,
        offset: u64,
        len: u64,
    ) -> Result<Option<u64>, MediumError> {
        let mut offered = vec![0; STAGE_LEN];
        let mismatch = compare_with(medium, offset, len, |at, stored| {
            let offered = &mut offered[..stored.len()];
            self.buffers.data_out.copy_out(at, offered);
            first_difference(stored, offered)
        })?;
        self.moved.data_out = self.moved.data_out.max(len);
        Ok(mismatch)
    }

    /// Takes `len` bytes that are offered behind the first `skip` to the medium at `offset`.
    pub(crate) fn write_behind(
        &mut self,
        skip: u64,
        medium: &dyn Medium,
        offset: u64,
        len: u64,
    ) -> Result<(), MediumError> {
        let written = medium.write_at(offset, self.buffers.data_out.behind(skip).slices(), len);
        self.moved.data_out = skip
            + match &written {
                Ok(()) => len,
                Err(error) => error.done,
            };
        written
    }

    /// Takes `len` bytes to the medium at `offset`. If fewer are offered, nothing moves: half a
    /// write would leave blocks nobody asked for.
    pub(crate) fn write(
        &mut self,
        medium: &dyn Medium,
        offset: u64,
        len: u64,
    ) -> Result<(), MediumError> {
        if len > self.buffers.data_out.len() {
            self.moved.overrun = true;
            return Ok(());
        }
        let written = medium.write_at(offset, self.buffers.data_out.slices(), len);
        self.moved.data_out = match &written {
            Ok(()) => len,
            Err(error) => error.done,
        };
        written
    }
}
