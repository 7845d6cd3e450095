//! Requests of the block layer as commands.

use rustix::io::Errno;
use scsi::{
    Command,
    cdb::{self, ReadWrite10, ReadWrite16, SynchronizeCache10, Unmap, WriteSame16},
    provisioning::{UnmapDescriptor, UnmapHeader},
};
use ublk::{
    Op, Request,
    uapi::{SECTOR_LEN, io_flag},
};
use zerocopy::{FromZeros, IntoBytes};

use crate::{Disk, Unmapping, verdict::Asked};

/// Bytes of an UNMAP parameter list with one descriptor.
pub(crate) const UNMAP_LIST_LEN: usize = size_of::<UnmapHeader>() + size_of::<UnmapDescriptor>();

/// The data of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// None.
    None,
    /// From the disk, to where the request wants it.
    In,
    /// To the disk, from where the request has it.
    Out,
    /// An UNMAP parameter list.
    List([u8; UNMAP_LIST_LEN]),
    /// A block of zeroes.
    Zeroes,
}

/// A command for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    cdb: [u8; 16],
    cdb_len: usize,
    pub(crate) payload: Payload,
    pub(crate) asked: Asked,
}

impl Order {
    fn new(cdb: &impl AsCdb, payload: Payload, asked: Asked) -> Self {
        let bytes = cdb.bytes();
        let mut room = [0; 16];
        room[..bytes.len()].copy_from_slice(bytes);
        Order { cdb: room, cdb_len: bytes.len(), payload, asked }
    }

    /// The CDB.
    pub(crate) fn cdb(&self) -> &[u8] {
        &self.cdb[..self.cdb_len]
    }
}

/// A CDB of at most 16 bytes.
trait AsCdb {
    fn bytes(&self) -> &[u8];
}

impl<T: IntoBytes + zerocopy::Immutable> AsCdb for T {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The command that a request becomes.
///
/// # Errors
/// `EOPNOTSUPP` for what the disk cannot, `EIO` for what is not whole blocks.
pub(crate) fn order(request: &Request<'_>, disk: &Disk) -> Result<Order, Errno> {
    let sectors = u64::from(disk.block_len / SECTOR_LEN);
    let blocks = u64::from(request.sectors) / sectors;
    let whole = |number: u64| number.is_multiple_of(sectors);
    if !whole(request.start_sector) || !whole(request.sectors.into()) {
        return Err(Errno::IO);
    }
    let lba = request.start_sector / sectors;
    let blocks = u32::try_from(blocks).map_err(|_| Errno::IO)?;
    let len = u32::try_from(request.len_bytes()).map_err(|_| Errno::IO);
    let asked = |len| Asked { lba, len, block_len: disk.block_len };
    let fua = if request.flags & io_flag::FUA != 0 { cdb::FUA } else { 0 };
    match request.op {
        Op::Read => Ok(transfer(Payload::In, fua, blocks, asked(len?))),
        Op::Write => Ok(transfer(Payload::Out, fua, blocks, asked(len?))),
        Op::Flush => {
            let mut cdb = SynchronizeCache10::new_zeroed();
            cdb.opcode = Command::SynchronizeCache10.opcode();
            Ok(Order::new(&cdb, Payload::None, asked(0)))
        }
        Op::Discard => match disk.unmapping {
            Some(Unmapping::Unmap) => Ok(unmap(blocks, asked(0))),
            Some(Unmapping::WriteSame) => Ok(write_same(cdb::UNMAP, blocks, asked(0))),
            None => Err(Errno::OPNOTSUPP),
        },
        Op::WriteZeroes => {
            let may_unmap = request.flags & io_flag::NOUNMAP == 0 && disk.unmapped_is_zero;
            let flags = if may_unmap { cdb::UNMAP } else { 0 };
            Ok(write_same(flags, blocks, asked(0)))
        }
        Op::ZoneAppend | Op::ReportZones | Op::Zone(_) | Op::Other(_) => Err(Errno::OPNOTSUPP),
    }
}

fn transfer(payload: Payload, flags: u8, blocks: u32, asked: Asked) -> Order {
    let read = payload == Payload::In;
    if let (Ok(lba), Ok(blocks)) = (u32::try_from(asked.lba), u16::try_from(blocks)) {
        let mut cdb = ReadWrite10::new_zeroed();
        cdb.opcode = if read { Command::Read10 } else { Command::Write10 }.opcode();
        (cdb.flags, cdb.lba, cdb.transfer_length) = (flags, lba.into(), blocks.into());
        return Order::new(&cdb, payload, asked);
    }
    let mut cdb = ReadWrite16::new_zeroed();
    cdb.opcode = if read { Command::Read16 } else { Command::Write16 }.opcode();
    (cdb.flags, cdb.lba, cdb.transfer_length) = (flags, asked.lba.into(), blocks.into());
    Order::new(&cdb, payload, asked)
}

fn unmap(blocks: u32, asked: Asked) -> Order {
    let mut cdb = Unmap::new_zeroed();
    cdb.opcode = Command::Unmap.opcode();
    let len = u16::try_from(UNMAP_LIST_LEN).expect("24");
    cdb.parameter_list_length = len.into();
    let mut header = UnmapHeader::new_zeroed();
    header.data_length = (len - 2).into();
    header.descriptor_length = (len - 8).into();
    let mut descriptor = UnmapDescriptor::new_zeroed();
    (descriptor.lba, descriptor.blocks) = (asked.lba.into(), blocks.into());
    let mut list = [0; UNMAP_LIST_LEN];
    list[..8].copy_from_slice(header.as_bytes());
    list[8..].copy_from_slice(descriptor.as_bytes());
    Order::new(&cdb, Payload::List(list), asked)
}

fn write_same(flags: u8, blocks: u32, asked: Asked) -> Order {
    let mut cdb = WriteSame16::new_zeroed();
    cdb.opcode = Command::WriteSame16.opcode();
    (cdb.flags, cdb.lba, cdb.blocks) = (flags, asked.lba.into(), blocks.into());
    Order::new(&cdb, Payload::Zeroes, asked)
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
