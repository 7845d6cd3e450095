//! The buffers a command moves its data through.

use vm_memory::VolatileSlice;

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

/// What the initiator offers for one command.
#[derive(Debug, Default)]
pub struct DataBuffers<'a> {
    /// Data-Out Buffer: bytes from the initiator.
    pub data_out: SgList<'a>,
    /// Data-In Buffer: room for bytes to the initiator.
    pub data_in: SgList<'a>,
}
