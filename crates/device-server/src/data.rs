//! The buffers a command moves its data through, and the count of what it moved.

use vm_memory::{Bytes, VolatileSlice};

use crate::medium::{Medium, MediumError};

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

    /// Sends `len` bytes of the medium from `offset`; as much as there is room for, if that is less.
    pub(crate) fn read(
        &mut self,
        medium: &dyn Medium,
        offset: u64,
        len: u64,
    ) -> Result<(), MediumError> {
        let room = self.buffers.data_in.len();
        let wanted = len.min(room);
        let read = medium.read_at(offset, self.buffers.data_in.slices(), wanted);
        self.moved.data_in = match &read {
            Ok(()) => wanted,
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
