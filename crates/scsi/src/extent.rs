//! Which logical blocks a CDB is about (SBC).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{BlockRange, Command, Lba, cdb};

/// The logical blocks a command concerns, whether or not the unit has them; `None` if it concerns none, or
/// its CDB is no CDB of a known command. A count of zero that stands for "to the end" is that.
#[must_use]
pub fn concerned_blocks(cdb: &[u8]) -> Option<BlockRange> {
    let (lba, blocks) = match Command::lookup(cdb)? {
        Command::Read6 | Command::Write6 => {
            return parsed::<cdb::ReadWrite6>(cdb).map(|cdb| cdb.transfer().range);
        }
        Command::Read10 | Command::Write10 => {
            return parsed::<cdb::ReadWrite10>(cdb).map(|cdb| cdb.transfer().range);
        }
        Command::Read12 | Command::Write12 => {
            return parsed::<cdb::ReadWrite12>(cdb).map(|cdb| cdb.transfer().range);
        }
        Command::Read16 | Command::Write16 => {
            return parsed::<cdb::ReadWrite16>(cdb).map(|cdb| cdb.transfer().range);
        }
        Command::SynchronizeCache10 => {
            let cdb = parsed::<cdb::SynchronizeCache10>(cdb)?;
            to_the_end(cdb.lba.get().into(), cdb.blocks.get().into())
        }
        Command::SynchronizeCache16 => {
            let cdb = parsed::<cdb::SynchronizeCache16>(cdb)?;
            to_the_end(cdb.lba.get(), cdb.blocks.get().into())
        }
        Command::WriteSame10 => {
            let cdb = parsed::<cdb::WriteSame10>(cdb)?;
            to_the_end(cdb.lba.get().into(), cdb.blocks.get().into())
        }
        Command::WriteSame16 => {
            let cdb = parsed::<cdb::WriteSame16>(cdb)?;
            to_the_end(cdb.lba.get(), cdb.blocks.get().into())
        }
        Command::Verify10 => {
            let cdb = parsed::<cdb::Verify10>(cdb)?;
            (cdb.lba.get().into(), cdb.blocks.get().into())
        }
        Command::Verify16 => {
            let cdb = parsed::<cdb::Verify16>(cdb)?;
            (cdb.lba.get(), cdb.blocks.get().into())
        }
        Command::CompareAndWrite => {
            let cdb = parsed::<cdb::CompareAndWrite>(cdb)?;
            (cdb.lba.get(), cdb.blocks.into())
        }
        Command::GetLbaStatus => to_the_end(parsed::<cdb::GetLbaStatus>(cdb)?.lba.get(), 0),
        // UNMAP names its blocks in the parameter list; the others are about none.
        _ => return None,
    };
    Some(BlockRange { start: Lba(lba), blocks })
}

fn parsed<T: FromBytes + KnownLayout + Immutable + Unaligned>(cdb: &[u8]) -> Option<&T> {
    cdb::parse(cdb)
}

/// A count of zero stands for all blocks from the first on.
fn to_the_end(lba: u64, blocks: u64) -> (u64, u64) {
    (lba, if blocks == 0 { u64::MAX - lba } else { blocks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_where_the_standard_puts_them() {
        for (cdb, expected) in [
            (&[0x08, 0x1f, 0xff, 0xfe, 0, 0][..], Some((0x1f_fffe, 256))),
            (&[0x2a, 0, 0, 0, 1, 0, 0, 0, 7, 0], Some((256, 7))),
            (&[0xa8, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0], Some((9, 65_536))),
            (&[0x8a, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0], Some((1 << 32, 3))),
            (&[0x35, 0, 0, 0, 0, 5, 0, 0, 0, 0], Some((5, u64::MAX - 5))),
            (&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], Some((5, 2))),
            (&[0x2f, 0, 0, 0, 0, 3, 0, 0, 4, 0], Some((3, 4))),
            (&[0x41, 0, 0, 0, 0, 3, 0, 0, 0, 0], Some((3, u64::MAX - 3))),
            (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0], Some((3, 9))),
            (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0], Some((3, 2))),
            (&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 24, 0, 0], Some((3, u64::MAX - 3))),
            (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], None),
            (&[0x12, 0, 0, 0, 36, 0], None),
            (&[0x2a, 0, 0], None),
            (&[0xff], None),
            (&[], None),
        ] {
            let blocks = concerned_blocks(cdb).map(|range| (range.start.0, range.blocks));
            assert_eq!(blocks, expected, "{cdb:02x?}");
        }
    }
}
