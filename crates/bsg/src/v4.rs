//! `SG_IO` v4 on a bsg node.

use std::{io, os::fd::AsFd, path::Path};

use rustix::io::Errno;
use uring_cmd::Pointer;

use crate::{
    Access, Completion, Error, Node, Passthrough, Raw, Request, ioctl,
    request::{Call, Placed, cdb_memory, data_bytes, len_u32, sense_memory, sense_written},
    uapi::SgIoV4,
};

/// A command as `struct sg_io_v4`, to bend as a test likes.
#[derive(Debug, Default)]
pub struct V4Frame {
    /// The structure. Its address fields are overwritten from the pointers below by
    /// [`V4Frame::place`]; all others go to the kernel as they are.
    pub header: SgIoV4,
    /// What `request` points to.
    pub request: Pointer,
    /// What `response` points to.
    pub response: Pointer,
    /// What `dout_xferp` points to.
    pub dout: Pointer,
    /// What `din_xferp` points to.
    pub din: Pointer,
}

impl From<Request> for V4Frame {
    fn from(request: Request) -> Self {
        let mut frame = V4Frame {
            request: cdb_memory(&request.cdb),
            response: sense_memory(request.sense_capacity),
            ..V4Frame::default()
        };
        frame.header.request_len = len_u32(request.cdb.len());
        frame.header.max_response_len = request.sense_capacity;
        frame.header.timeout = request.timeout_ms;
        let data = Placed::from(request.data);
        frame.header.dout_xfer_len = data.dout_len;
        frame.header.din_xfer_len = data.din_len;
        V4Frame { dout: data.dout, din: data.din, ..frame }
    }
}

impl V4Frame {
    /// Writes the addresses of the pointers into the structure. [`BsgIoctl::sg_io`] does so; a test
    /// that compares the structure before and after does it earlier.
    pub fn place(&mut self) {
        self.header.request = self.request.address();
        self.header.response = self.response.address();
        self.header.dout_xferp = self.dout.address();
        self.header.din_xferp = self.din.address();
    }

    /// The outcome after a successful [`BsgIoctl::sg_io`].
    pub fn completion(&self) -> Result<Completion, Error> {
        let header = self.header;
        let (data, residual) = match &self.dout {
            Pointer::Null => (&self.din, header.din_resid),
            dout => (dout, header.dout_resid),
        };
        Ok(Completion {
            device_status: header.device_status,
            driver_status: header.driver_status,
            host_status: header.transport_status,
            sense: sense_written(&self.response, header.response_len)?,
            residual: residual.into(),
            info: Some(header.info),
            data: data_bytes(data),
            raw: Raw::V4(header),
        })
    }
}

/// A bsg node and its `SG_IO`.
#[derive(Debug)]
pub struct BsgIoctl {
    node: Node,
}

impl BsgIoctl {
    /// Opens a node, for example `/dev/bsg/0:0:0:0`.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, Error> {
        Ok(BsgIoctl { node: Node::open(path, access)? })
    }

    /// Hands a frame to the kernel. Blocks, uninterruptibly, until the command is done. On an error
    /// the kernel has written nothing into the structure.
    pub fn sg_io(&self, frame: &mut V4Frame) -> Result<(), Errno> {
        ioctl::sg_io_v4(self.node.file().as_fd(), frame)
    }
}

/// Where `struct sg_io_v4` is that the kernel cannot have, or cannot write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructurePlace {
    /// At address 0.
    Null,
    /// Where this process has no memory.
    Unmapped,
    /// In the kernel's half.
    Kernel,
    /// In a page that can be read and not written.
    ReadOnly,
}

impl BsgIoctl {
    /// As [`BsgIoctl::sg_io`], with the structure at another place than in the frame, which stays as it is. The outer
    /// error is that of the memory for it.
    pub fn sg_io_at(
        &self,
        frame: &mut V4Frame,
        place: StructurePlace,
    ) -> io::Result<Result<(), Errno>> {
        ioctl::sg_io_v4_at(self.node.file().as_fd(), frame, place)
    }
}

/// The calls of a bsg node that move no command (block/bsg.c:bsg_ioctl), and some it does not know. Each takes the
/// address of an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum NodeIoctl {
    /// `SCSI_IOCTL_SEND_COMMAND`, of which only the refusal is left.
    SendCommand = 0x1,
    /// `SG_SET_TIMEOUT`: for commands that name none, in `USER_HZ`.
    SetTimeout = 0x2201,
    /// `SG_GET_TIMEOUT`: what the call returns.
    GetTimeout = 0x2202,
    /// `SG_EMULATED_HOST`
    EmulatedHost = 0x2203,
    /// `SG_GET_COMMAND_Q`
    GetCommandQ = 0x2270,
    /// `SG_SET_COMMAND_Q`
    SetCommandQ = 0x2271,
    /// `SG_GET_RESERVED_SIZE`
    GetReservedSize = 0x2272,
    /// `SG_SET_RESERVED_SIZE`
    SetReservedSize = 0x2275,
    /// `SG_GET_SCSI_ID`, of sg nodes.
    GetScsiId = 0x2276,
    /// `SG_GET_VERSION_NUM`
    GetVersionNum = 0x2282,
    /// `SG_SCSI_RESET`, of sg nodes.
    ScsiReset = 0x2284,
    /// `SCSI_IOCTL_GET_IDLUN`
    GetIdlun = 0x5382,
    /// `SCSI_IOCTL_GET_BUS_NUMBER`
    GetBusNumber = 0x5386,
}

impl BsgIoctl {
    /// Calls the node with the address of an `int`, and returns what the call does.
    ///
    /// # Panics
    /// If `argument` points to memory with less room than an `int` takes.
    pub fn call(&self, call: NodeIoctl, argument: &mut Pointer) -> Result<i32, Errno> {
        ioctl::node_ioctl(self.node.file().as_fd(), call, argument)
    }
}

/// The same calls as a program of 32 bits makes them, whatever this one is (block/bsg.c:bsg_fops, `compat_ioctl`). They need
/// a kernel with `CONFIG_IA32_EMULATION`; another one ends the process. The outer error is that of memory below 4 GiB.
#[cfg(target_arch = "x86_64")]
impl BsgIoctl {
    /// As [`BsgIoctl::sg_io`].
    pub fn sg_io_of_32_bits(&self, frame: &mut V4Frame) -> io::Result<Result<(), Errno>> {
        ioctl::sg_io_v4_of_32_bits(self.node.file().as_fd(), frame)
    }

    /// As [`BsgIoctl::call`], with this `int`.
    pub fn call_of_32_bits(
        &self,
        call: NodeIoctl,
        argument: &mut i32,
    ) -> io::Result<Result<i32, Errno>> {
        ioctl::node_ioctl_of_32_bits(self.node.file().as_fd(), call, argument)
    }
}

impl Passthrough for BsgIoctl {
    fn execute(&mut self, request: Request) -> Result<Completion, Error> {
        let mut frame = V4Frame::from(request);
        self.sg_io(&mut frame).map_err(|errno| Error::Refused { call: Call::SgIoV4, errno })?;
        frame.completion()
    }
}
