//! Block devices as an application sees them, without the page cache.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    thread,
};

use bsg::{Access, Buffer};
use rustix::{
    fs::{FallocateFlags, OFlags, fallocate},
    io::{ReadWriteFlags, preadv, pwritev, pwritev2},
    ioctl::{NoArg, Setter, Updater, ioctl},
    mm::{Advice, madvise},
};

use crate::sysfs;

/// `BLKDISCARD` (include/uapi/linux/fs.h), `_IO(0x12, 119)`: offset and length in bytes.
const BLKDISCARD: u32 = 0x1277;

/// `BLKZEROOUT`, `_IO(0x12, 127)`: offset and length in bytes.
const BLKZEROOUT: u32 = 0x127f;

/// `BLKRRPART`, `_IO(0x12, 95)`.
const BLKRRPART: u32 = 0x125f;

/// What is done to the zones in a range (include/uapi/linux/blkzoned.h), by an ioctl with the first sector and the number
/// of sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneCommand {
    /// `BLKRESETZONE`, `_IOW(0x12, 131, struct blk_zone_range)`.
    Reset,
    /// `BLKOPENZONE`, `_IOW(0x12, 134, …)`.
    Open,
    /// `BLKCLOSEZONE`, `_IOW(0x12, 135, …)`.
    Close,
    /// `BLKFINISHZONE`, `_IOW(0x12, 136, …)`.
    Finish,
}

/// Zones that a report has room for.
const REPORT_ZONES: usize = 80;

/// `BLKREPORTZONE`, `_IOWR(0x12, 130, struct blk_zone_report)`.
const BLKREPORTZONE: u32 = 0xc010_1282;

/// What a disk says of a zone (include/uapi/linux/blkzoned.h, `struct blk_zone`), in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneReport {
    /// First sector.
    pub start: u64,
    /// Length.
    pub len: u64,
    /// Where the next write has to go.
    pub wp: u64,
    /// `BLK_ZONE_COND_*`.
    pub cond: u8,
}

/// An open block device. Transfers go past the page cache (`O_DIRECT`), so that each is what the
/// driver sees.
#[derive(Debug)]
pub struct BlockDevice {
    pub(crate) file: File,
    sysfs: PathBuf,
}

impl BlockDevice {
    /// Opens a node, for example `/dev/sda`.
    #[track_caller]
    pub fn open(node: &Path, access: Access) -> Self {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite).custom_flags(direct);
        let file = options.open(node).unwrap_or_else(|error| panic!("{}: {error}", node.display()));
        let name = node.file_name().expect("a node has a name");
        BlockDevice { file, sysfs: Path::new("/sys/class/block").join(name) }
    }

    /// Opens a disk and does something with it on a thread of its own, so that a request that never ends fails the test
    /// alone. It is closed before the outcome comes: a device with an opener cannot be deleted.
    pub fn beside<T: Send + 'static>(
        open: impl FnOnce() -> BlockDevice + Send + 'static,
        act: impl FnOnce(&BlockDevice) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (send, outcome) = channel();
        thread::spawn(move || {
            let disk = open();
            let done = act(&disk);
            drop(disk);
            // The test may be over.
            let _over = send.send(done);
        });
        outcome
    }

    /// Reads `len` bytes at `offset`; both are multiples of the logical block length. Fewer come back
    /// only where the device ends.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buffer = Buffer::zeroed(len)?;
        let read = self.file.read_at(&mut buffer, offset)?;
        Ok(buffer[..read].to_vec())
    }

    /// As [`BlockDevice::read`], and shows what has arrived where the whole has not: what has not stays as
    /// it is in the buffer.
    pub fn read_into(&self, offset: u64, buffer: &mut Buffer) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Writes `bytes` at `offset`, in one system call if the kernel takes them all.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&Buffer::copy_of(bytes)?, offset)
    }

    /// Reads to several pieces of memory with one call, from `offset` on; says how many bytes came.
    pub fn read_pieces(&self, offset: u64, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(preadv(&self.file, pieces, offset)?)
    }

    /// Writes several pieces of memory with one call, from `offset` on; says how many bytes went.
    pub fn write_pieces(&self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(pwritev(&self.file, pieces, offset)?)
    }

    /// Writes `bytes` at `offset`, and returns when they are durable (`RWF_DSYNC`); says how many bytes went.
    pub fn write_durably(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let buffer = Buffer::copy_of(bytes)?;
        Ok(pwritev2(&self.file, &[IoSlice::new(&buffer)], offset, ReadWriteFlags::DSYNC)?)
    }

    /// `fdatasync`: a flush, if the device has a volatile cache.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Says that the contents of `len` bytes at `offset` are no longer needed.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // SAFETY: the kernel reads two 64-bit numbers, as `BLKDISCARD` wants them, and nothing else.
        let done =
            unsafe { ioctl(self.file.as_fd(), Setter::<BLKDISCARD, [u64; 2]>::new([offset, len])) };
        Ok(done?)
    }

    /// Makes `len` bytes at `offset` zero without unmapping them, by sending zeroes if need be
    /// (block/blk-lib.c:blkdev_issue_zeroout).
    pub fn zero_out(&self, offset: u64, len: u64) -> io::Result<()> {
        // SAFETY: the kernel reads two 64-bit numbers, as `BLKZEROOUT` wants them, and nothing else.
        let done =
            unsafe { ioctl(self.file.as_fd(), Setter::<BLKZEROOUT, [u64; 2]>::new([offset, len])) };
        Ok(done?)
    }

    /// Makes `len` bytes at `offset` zero without sending zeroes
    /// (block/fops.c:blkdev_fallocate: `REQ_OP_WRITE_ZEROES` with permission to unmap).
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, len)?)
    }

    /// Does something to the zones in a range of sectors.
    pub fn zones(&self, command: ZoneCommand, first: u64, sectors: u64) -> io::Result<()> {
        let fd = self.file.as_fd();
        let range = [first, sectors];
        // SAFETY: the kernel reads two 64-bit numbers, `struct blk_zone_range`, and nothing else, for each of them.
        let done = unsafe {
            match command {
                ZoneCommand::Reset => ioctl(fd, Setter::<0x4010_1283, [u64; 2]>::new(range)),
                ZoneCommand::Open => ioctl(fd, Setter::<0x4010_1286, [u64; 2]>::new(range)),
                ZoneCommand::Close => ioctl(fd, Setter::<0x4010_1287, [u64; 2]>::new(range)),
                ZoneCommand::Finish => ioctl(fd, Setter::<0x4010_1288, [u64; 2]>::new(range)),
            }
        };
        Ok(done?)
    }

    /// Makes the disk swap space (mm/swapfile.c:setup_swap_map_and_extents, `union swap_header`), has the kernel put
    /// `pages` of memory there, and ends it: what went there comes back. Returns whether it is what it was.
    pub fn swap_through(&self, pages: usize) -> io::Result<bool> {
        const PAGE: usize = 4096;
        let mut header = vec![0; PAGE];
        header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
        let last = u32::try_from(pages).expect("a small disk");
        header[1028..1032].copy_from_slice(&last.to_le_bytes());
        header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
        self.write(0, &header)?;
        let node = Path::new("/dev").join(self.sysfs.file_name().expect("a name"));
        let node = CString::new(node.as_os_str().as_bytes())?;
        let mut memory = Buffer::zeroed(pages * PAGE)?;
        let bytes = |len: usize| (0..len).map(|at| u8::try_from(at % 251).expect("below"));
        memory.iter_mut().zip(bytes(pages * PAGE)).for_each(|(to, byte)| *to = byte);
        // SAFETY: the name ends with a zero byte, and is all that the kernel reads.
        if unsafe { libc::swapon(node.as_ptr(), 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the memory is the buffer's, and keeps what is in it.
        let advised =
            unsafe { madvise(memory.as_mut_ptr().cast(), memory.len(), Advice::LinuxPageOut) };
        // SAFETY: as for its beginning.
        if unsafe { libc::swapoff(node.as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        advised?;
        Ok(memory.iter().copied().eq(bytes(pages * PAGE)))
    }

    /// Has the kernel look for partitions again.
    pub fn reread_partitions(&self) -> io::Result<()> {
        // SAFETY: `BLKRRPART` has no argument.
        Ok(unsafe { ioctl(self.file.as_fd(), NoArg::<BLKRRPART>::new()) }?)
    }

    /// What the disk says of its zones from the one at the sector `first` on, of eighty at most.
    pub fn report(&self, first: u64) -> io::Result<Vec<ZoneReport>> {
        const WORDS: usize = 8;
        // `struct blk_zone_report`: the first sector, and the number of zones; then the zones.
        let mut report = [0_u64; 2 + WORDS * REPORT_ZONES];
        (report[0], report[1]) = (first, REPORT_ZONES as u64);
        // SAFETY: the kernel writes no more zones than the number in it, for which there is room.
        unsafe {
            let report =
                Updater::<BLKREPORTZONE, [u64; 2 + WORDS * REPORT_ZONES]>::new(&mut report);
            ioctl(self.file.as_fd(), report)?;
        }
        let [count, ..] = report[1].to_le_bytes();
        let zones = report[2..].chunks_exact(WORDS).take(count.into());
        let zone = |zone: &[u64]| {
            let [_, cond, ..] = zone[3].to_le_bytes();
            ZoneReport { start: zone[0], len: zone[1], wp: zone[2], cond }
        };
        Ok(zones.map(zone).collect())
    }

    /// Capacity in sectors of 512 bytes, whatever the logical block length.
    #[track_caller]
    pub fn sectors(&self) -> u64 {
        self.attribute("size").parse().expect("a number of sectors")
    }

    /// An attribute in sysfs, for example `ro` or `queue/logical_block_size`.
    #[track_caller]
    pub fn attribute(&self, name: &str) -> String {
        let path = self.sysfs.join(name);
        sysfs::attribute(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// How many reads and how many writes are under way (Documentation/ABI/stable/sysfs-block, `inflight`).
    pub fn in_flight(&self) -> (u32, u32) {
        let text = self.attribute("inflight");
        let mut counts = text.split_whitespace().map(|count| count.parse().expect("a number"));
        (counts.next().expect("reads"), counts.next().expect("writes"))
    }
}
