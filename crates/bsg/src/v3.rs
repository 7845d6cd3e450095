//! `SG_IO` v3 on an sg node, the older interface beside bsg.

use std::{fs::File, os::fd::AsFd, path::Path};

use rustix::io::Errno;
use uring_cmd::Pointer;

use crate::{
    Access, Completion, Error, Passthrough, Raw, Request, ioctl, node,
    request::{Call, Placed, cdb_memory, data_bytes, sense_memory, sense_written},
    uapi::{DXFER_FROM_DEV, DXFER_NONE, DXFER_TO_DEV, SgIoHdr},
};

/// A command as `struct sg_io_hdr`, to bend as a test likes. `iovec_count` must stay 0.
#[derive(Debug, Default)]
pub struct V3Frame {
    /// The structure. Its address fields are overwritten from the pointers below by
    /// [`V3Frame::place`]; all others go to the kernel as they are.
    pub header: SgIoHdr,
    /// What `cmdp` points to.
    pub cdb: Pointer,
    /// What `sbp` points to.
    pub sense: Pointer,
    /// What `dxferp` points to.
    pub data: Pointer,
}

impl From<Request> for V3Frame {
    /// # Panics
    /// If the CDB is longer than 255 bytes or there is room for more sense data than that: the
    /// structure cannot say it.
    fn from(request: Request) -> Self {
        let mut frame = V3Frame {
            cdb: cdb_memory(&request.cdb),
            sense: sense_memory(request.sense_capacity),
            ..V3Frame::default()
        };
        frame.header.cmd_len =
            u8::try_from(request.cdb.len()).expect("sg v3 counts CDBs in 8 bits");
        frame.header.mx_sb_len =
            u8::try_from(request.sense_capacity).expect("sg v3 counts sense data in 8 bits");
        frame.header.timeout = request.timeout_ms;
        let data = Placed::from(request.data);
        (frame.header.dxfer_direction, frame.header.dxfer_len, frame.data) =
            match (data.dout_len, data.din_len, &data.dout, &data.din) {
                (_, _, Pointer::Null, Pointer::Null) => (DXFER_NONE, 0, Pointer::Null),
                (_, len, Pointer::Null, _) => (DXFER_FROM_DEV, len, data.din),
                (len, ..) => (DXFER_TO_DEV, len, data.dout),
            };
        frame
    }
}

impl V3Frame {
    /// Writes the addresses of the pointers into the structure. [`SgIoctl::sg_io`] does so; a test
    /// that compares the structure before and after does it earlier.
    pub fn place(&mut self) {
        self.header.cmdp = self.cdb.address();
        self.header.sbp = self.sense.address();
        self.header.dxferp = self.data.address();
    }

    /// The outcome after a successful [`SgIoctl::sg_io`].
    pub fn completion(&self) -> Result<Completion, Error> {
        let header = self.header;
        Ok(Completion {
            device_status: header.status.into(),
            driver_status: header.driver_status.into(),
            host_status: header.host_status.into(),
            sense: sense_written(&self.sense, header.sb_len_wr.into())?,
            residual: header.resid.into(),
            info: Some(header.info),
            data: data_bytes(&self.data),
            raw: Raw::V3(header),
        })
    }
}

/// An sg node and its `SG_IO`.
#[derive(Debug)]
pub struct SgIoctl {
    file: File,
}

impl SgIoctl {
    /// Opens a node, for example `/dev/sg0`, or a SCSI block device. [`Error::WrongNode`] if it is something else.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, Error> {
        Ok(SgIoctl { file: node::open_sg(path.as_ref(), access)? })
    }

    /// Hands a frame to the kernel. Blocks until the command is done.
    ///
    /// # Panics
    /// If the frame asks for an iovec.
    pub fn sg_io(&self, frame: &mut V3Frame) -> Result<(), Errno> {
        ioctl::sg_io_v3(self.file.as_fd(), frame)
    }

    /// Has the logical unit reset by a task management function, and nothing larger if that fails. Blocks
    /// until it is done. `EIO` if the device has refused.
    pub fn reset_logical_unit(&self) -> Result<(), Errno> {
        let what = crate::uapi::SG_SCSI_RESET_DEVICE | crate::uapi::SG_SCSI_RESET_NO_ESCALATE;
        ioctl::sg_scsi_reset(self.file.as_fd(), what)
    }
}

impl Passthrough for SgIoctl {
    fn execute(&mut self, request: Request) -> Result<Completion, Error> {
        let mut frame = V3Frame::from(request);
        self.sg_io(&mut frame).map_err(|errno| Error::Refused { call: Call::SgIoV3, errno })?;
        frame.completion()
    }
}
