//! What the kernel allows a command on its way to a disk.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use bsg::{Access, BsgIoctl, Errno, NodeIoctl, Pointer};
use rustix::fs::{major, minor};
use ublk::Buffer;

use crate::error::Error;

/// The limits of a unit's queue in the kernel. A command that keeps to them is carried out in the memory it names; of
/// one with more segments the kernel makes a copy first (`block/blk-map.c:blk_rq_map_user_iov`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Bytes of one command.
    pub len_max: u32,
    /// Segments of one command.
    pub segments_max: u16,
    /// Bytes of one segment.
    pub segment_len_max: u32,
    /// Boundary between segments, as a mask; 0 for none.
    pub virt_boundary: u64,
    /// Alignment of data in memory less one, in bytes.
    pub alignment: u32,
    /// Commands at the same time.
    pub depth: u16,
}

/// `BLK_MAX_SEGMENT_SIZE` of include/linux/blkdev.h: of a host that says nothing else.
const SEGMENT_LEN: u32 = 65_536;
/// What `drivers/scsi/hosts.c:scsi_host_alloc` takes if a driver says nothing else.
const ALIGNMENT: u32 = 3;

fn attribute(path: PathBuf) -> Result<u64, Error> {
    let text = fs::read_to_string(&path);
    let number = text.and_then(|text| {
        let number = text.trim().parse::<u64>();
        number.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    number.map_err(|source| Error::Sysfs { path, source })
}

/// The directory of the SCSI device behind a bsg node.
fn device(node: &Path) -> Result<PathBuf, Error> {
    let sysfs = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Sysfs { path, source }
    };
    let rdev = fs::metadata(node).map_err(sysfs(node))?.rdev();
    let link = format!("/sys/dev/char/{}:{}/device", major(rdev), minor(rdev));
    fs::canonicalize(&link).map_err(sysfs(link.as_ref()))
}

/// The limits that only a block device shows, if the unit has one.
fn queue(device: &Path) -> Option<PathBuf> {
    let disk = fs::read_dir(device.join("block")).ok()?.next()?.ok()?;
    Some(disk.path().join("queue"))
}

fn small<T: TryFrom<u64>>(number: u64, largest: T) -> T {
    T::try_from(number).unwrap_or(largest)
}

impl Route {
    /// The limits of the unit behind a bsg node.
    ///
    /// # Errors
    /// It is no bsg node of a SCSI device.
    pub fn of(node: &Path) -> Result<Self, Error> {
        let bsg = BsgIoctl::open(node, Access::ReadOnly)?;
        // `SG_GET_RESERVED_SIZE` is bounded by what a command may move, and unbounded otherwise (block/bsg.c:bsg_ioctl).
        let memory = Buffer::zeroed(size_of::<i32>()).map_err(|_| Error::Limit(Errno::NOMEM))?;
        let mut room = Pointer::To(memory);
        bsg.call(NodeIoctl::GetReservedSize, &mut room).map_err(Error::Limit)?;
        let bytes = room.buffer().and_then(|buffer| buffer.first_chunk()).expect("an int");
        let len_max = u32::try_from(i32::from_ne_bytes(*bytes));
        let len_max = len_max.map_err(|_| Error::Limit(Errno::RANGE))?;
        let device = device(node)?;
        let name = device.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let host = name.split(':').next().unwrap_or_default();
        let host = Path::new("/sys/class/scsi_host").join(format!("host{host}"));
        let tables = attribute(host.join("sg_tablesize"))?;
        let (segment_len_max, virt_boundary, alignment) = match queue(&device) {
            Some(queue) => (
                small(attribute(queue.join("max_segment_size"))?, u32::MAX),
                attribute(queue.join("virt_boundary_mask"))?,
                small(attribute(queue.join("dma_alignment"))?, ALIGNMENT),
            ),
            None => (SEGMENT_LEN, 0, ALIGNMENT),
        };
        Ok(Route {
            len_max,
            segments_max: small(tables, u16::MAX),
            segment_len_max,
            virt_boundary,
            alignment,
            depth: small(attribute(device.join("queue_depth"))?, u16::MAX),
        })
    }
}
