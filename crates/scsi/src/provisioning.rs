//! Parameter data of UNMAP and GET LBA STATUS (SBC).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{U16, U32, U64},
};

use crate::{BlockRange, Lba, mode::ListError};

/// UNMAP parameter list header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UnmapHeader {
    /// UNMAP DATA LENGTH: bytes after this field.
    pub data_length: U16,
    /// UNMAP BLOCK DESCRIPTOR DATA LENGTH in bytes.
    pub descriptor_length: U16,
    reserved: [u8; 4],
}
const _: () = assert!(size_of::<UnmapHeader>() == 8);

/// UNMAP block descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UnmapDescriptor {
    /// UNMAP LOGICAL BLOCK ADDRESS.
    pub lba: U64,
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: U32,
    reserved: [u8; 4],
}
const _: () = assert!(size_of::<UnmapDescriptor>() == 16);

/// The blocks an UNMAP parameter list names, in its order. A descriptor that is cut is not processed.
///
/// # Errors
/// The list is too short for its header, or has more than `descriptors_max` descriptors.
pub fn parse_unmap(list: &[u8], descriptors_max: usize) -> Result<Vec<BlockRange>, ListError> {
    let (header, rest) = UnmapHeader::ref_from_prefix(list).map_err(|_| ListError::Length)?;
    let len = usize::from(header.descriptor_length.get()).min(rest.len());
    let descriptors = rest[..len].chunks_exact(size_of::<UnmapDescriptor>());
    if descriptors.len() > descriptors_max {
        // UNMAP BLOCK DESCRIPTOR DATA LENGTH.
        return Err(ListError::Field(2, None));
    }
    let range = |bytes| {
        let descriptor = UnmapDescriptor::ref_from_bytes(bytes).expect("a chunk of its length");
        BlockRange { start: Lba(descriptor.lba.get()), blocks: descriptor.blocks.get().into() }
    };
    Ok(descriptors.map(range).collect())
}

/// PROVISIONING STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProvisioningStatus {
    /// Mapped.
    Mapped = 0x0,
    /// Deallocated.
    Deallocated = 0x1,
}

/// LBA status descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LbaStatusDescriptor {
    /// LBA STATUS LOGICAL BLOCK ADDRESS.
    pub lba: U64,
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: U32,
    /// PROVISIONING STATUS in bits 3 to 0.
    pub status: u8,
    reserved: [u8; 3],
}
const _: () = assert!(size_of::<LbaStatusDescriptor>() == 16);

impl LbaStatusDescriptor {
    /// Of these blocks.
    #[must_use]
    pub fn new(lba: u64, blocks: u32, status: ProvisioningStatus) -> Self {
        LbaStatusDescriptor {
            lba: lba.into(),
            blocks: blocks.into(),
            status: status as u8,
            reserved: [0; 3],
        }
    }
}

/// GET LBA STATUS parameter data: PARAMETER DATA LENGTH, four reserved bytes, descriptors.
#[must_use]
pub fn lba_status_data(descriptors: &[LbaStatusDescriptor]) -> Vec<u8> {
    let body = descriptors.as_bytes();
    let len = u32::try_from(body.len() + 4).expect("few descriptors");
    [&len.to_be_bytes()[..], &[0; 4], body].concat()
}
