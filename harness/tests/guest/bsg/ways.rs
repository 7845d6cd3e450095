//! The three ways to send a command, and the two devices to send it to, so that a law is written once.

use std::path::Path;

use bsg::{Access, BsgIoctl, BsgUring, Completion, Passthrough, Request, SgIoctl};
use harness::{Lun, ScsiDevice, scsi_debug};

/// A way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `SG_IO` with `struct sg_io_v4` on a bsg node.
    SgIoV4,
    /// `IORING_OP_URING_CMD` on a bsg node.
    UringCmd,
    /// `SG_IO` with `struct sg_io_hdr` on an sg node.
    SgV3,
}

/// A device to send commands to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A fresh unit of our target.
    Ours,
    /// The kernel's scsi_debug, as a second opinion.
    ScsiDebug,
}

impl Unit {
    /// The device; a leased unit stays the test's until it ends.
    #[track_caller]
    pub(crate) fn device(self) -> ScsiDevice {
        match self {
            Unit::Ours => Lun::fresh().device().clone(),
            Unit::ScsiDebug => scsi_debug::device(),
        }
    }
}

impl Way {
    /// Opens the node of a device that this way goes through.
    #[track_caller]
    pub(crate) fn open(self, device: &ScsiDevice) -> Box<dyn Passthrough> {
        fn opened<T>(path: &Path, result: Result<T, bsg::Error>) -> T {
            result.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        }
        match self {
            Way::SgIoV4 => {
                let node = device.bsg();
                Box::new(opened(&node, BsgIoctl::open(&node, Access::ReadWrite)))
            }
            Way::UringCmd => {
                let node = device.bsg();
                Box::new(opened(&node, BsgUring::open(&node, Access::ReadWrite)))
            }
            Way::SgV3 => {
                let node = device.sg();
                Box::new(opened(&node, SgIoctl::open(&node, Access::ReadWrite)))
            }
        }
    }
}

/// Executes a command that the kernel has to accept, whatever the device makes of it.
#[track_caller]
pub(crate) fn execute(way: &mut dyn Passthrough, request: Request) -> Completion {
    way.execute(request).unwrap_or_else(|error| panic!("the kernel refused the command: {error}"))
}
