//! Reads and writes of a block device with metadata of the application's own, through io_uring
//! (include/uapi/linux/io_uring.h, `IORING_RW_ATTR_FLAG_PI` and `struct io_uring_attr_pi`).

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use uring_cmd::{Buffer, CqeSize, Operation, Ring, Shape, Sqe, SqeSize};

use crate::BlockDevice;

const DEADLINE: Duration = Duration::from_secs(20);

/// `IORING_OP_READ`, `IORING_OP_WRITE`.
const READ: u8 = 22;
const WRITE: u8 = 23;

/// `IORING_RW_ATTR_FLAG_PI`.
const ATTR_PI: u64 = 1;

/// A transfer, with all that its entry refers to.
#[derive(Debug)]
struct Transfer {
    file: File,
    opcode: u8,
    offset: u64,
    data: Buffer,
    metadata: Buffer,
    /// `struct io_uring_attr_pi`.
    attribute: Buffer,
}

impl Transfer {
    /// `seed` is the reference tag of the first interval as the application counts them. Nothing is said of checks.
    fn new(opcode: u8, file: File, offset: u64, data: Buffer, metadata: Buffer, seed: u64) -> Self {
        let attribute = Buffer::zeroed(32).expect("a page of memory");
        let mut transfer = Transfer { file, opcode, offset, data, metadata, attribute };
        let len = u32::try_from(transfer.metadata.len()).expect("short");
        let address = transfer.metadata.address();
        transfer.attribute[4..8].copy_from_slice(&len.to_le_bytes());
        transfer.attribute[8..16].copy_from_slice(&address.to_le_bytes());
        transfer.attribute[16..24].copy_from_slice(&seed.to_le_bytes());
        transfer
    }

    /// Returns itself and the number of bytes.
    fn run(self) -> io::Result<(Self, usize)> {
        let shape = Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..Shape::big(1) };
        let mut ring = Ring::new(&shape).map_err(io::Error::other)?;
        ring.push(self).map_err(|refused| io::Error::other(refused.kind))?;
        let done = ring.wait(Instant::now() + DEADLINE).map_err(io::Error::other)?;
        match usize::try_from(done.cqe.res) {
            Ok(len) => Ok((done.operation.expect("it is complete"), len)),
            Err(_) => Err(io::Error::from_raw_os_error(-done.cqe.res)),
        }
    }
}

// SAFETY: the three addresses are those of buffers with their own lengths, which stay where they are when the transfer
// moves and are out of reach while the ring has it; that of the metadata is written in the attribute, which nobody changes
// after that. `file` keeps the descriptor open.
unsafe impl Operation for Transfer {
    fn sqe(&mut self) -> Sqe {
        // `off` of the kernel's union is where a command of a driver has its number and padding; `attr_ptr` and
        // `attr_type_mask` are where it has its payload.
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.offset.to_le_bytes();
        let mut sqe = Sqe {
            opcode: self.opcode,
            fd: self.file.as_raw_fd(),
            cmd_op: u32::from_le_bytes([o0, o1, o2, o3]),
            pad1: u32::from_le_bytes([o4, o5, o6, o7]),
            addr: self.data.address(),
            len: u32::try_from(self.data.len()).expect("short"),
            ..Sqe::zeroed()
        };
        sqe.cmd[..8].copy_from_slice(&self.attribute.address().to_le_bytes());
        sqe.cmd[8..16].copy_from_slice(&ATTR_PI.to_le_bytes());
        sqe
    }
}

impl BlockDevice {
    /// Writes data and its metadata at an offset in bytes. `seed` is the reference tag of the first interval.
    pub fn write_with_metadata(
        &self,
        offset: u64,
        data: &[u8],
        metadata: &[u8],
        seed: u64,
    ) -> io::Result<()> {
        let (file, bytes) = (self.file.try_clone()?, Buffer::copy_of(data)?);
        let metadata = Buffer::copy_of(metadata)?;
        let (_, done) = Transfer::new(WRITE, file, offset, bytes, metadata, seed).run()?;
        if done == data.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads data and its metadata, likewise.
    pub fn read_with_metadata(
        &self,
        offset: u64,
        len: usize,
        metadata_len: usize,
        seed: u64,
    ) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (file, data) = (self.file.try_clone()?, Buffer::zeroed(len)?);
        let metadata = Buffer::zeroed(metadata_len)?;
        let (done, len) = Transfer::new(READ, file, offset, data, metadata, seed).run()?;
        Ok((done.data[..len].to_vec(), done.metadata.to_vec()))
    }
}
