//! The three ways to send a command, and the two devices to send it to, so that a law is written once.

use std::{
    borrow::Cow,
    path::Path,
    time::{Duration, Instant},
};

use bsg::{
    Access, BsgIoctl, BsgUring, Completion, Passthrough, Request, SgIoctl, UringCompletion,
    UringFrame,
};
use harness::{Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost, scsi_debug};

/// What a test needs that goes through uring_cmd alone: bsg nodes have taken it since Linux 7.1.
pub(crate) const URING_CMD: Needs =
    Needs { features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]), ..Needs::DEFAULT };

/// A host of the test's own with so many tags that one unit has enough of them: it has a fair share only, until those
/// beside it have been idle for some seconds (block/blk-mq.h:hctx_may_queue, block/blk-mq.c:blk_mq_timeout_work).
pub(crate) const MANY_TAGS: Needs =
    Needs { host: ScsiHost::Own(HostShape { tags: Some(512), ..HostShape::DEFAULT }), ..URING_CMD };

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

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::SgIoV4, Way::UringCmd, Way::SgV3];
}

/// A device to send commands to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A fresh unit of our target.
    Ours,
    /// The kernel's scsi_debug, as a second opinion. Every test of a machine shares its medium, so a
    /// test that writes keeps to blocks of its own.
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
    /// Opens the node of a device that this way goes through, for reading and writing.
    #[track_caller]
    pub(crate) fn open(self, device: &ScsiDevice) -> Box<dyn Passthrough> {
        self.open_for(device, Access::ReadWrite)
    }

    /// Opens the node of a device that this way goes through.
    #[track_caller]
    pub(crate) fn open_for(self, device: &ScsiDevice, access: Access) -> Box<dyn Passthrough> {
        match self {
            Way::SgIoV4 => Box::new(sg_io_v4(device, access)),
            Way::UringCmd => Box::new(uring_cmd(device, access)),
            Way::SgV3 => {
                let node = device.sg();
                Box::new(opened(&node, SgIoctl::open(&node, access)))
            }
        }
    }
}

/// Opens a device's bsg node for `SG_IO`.
#[track_caller]
pub(crate) fn sg_io_v4(device: &ScsiDevice, access: Access) -> BsgIoctl {
    let node = device.bsg();
    opened(&node, BsgIoctl::open(&node, access))
}

/// Opens a device's bsg node for uring_cmd, or skips the test on a kernel that has none.
#[track_caller]
pub(crate) fn uring_cmd(device: &ScsiDevice, access: Access) -> BsgUring {
    harness::kernel::require(7, 1);
    let node = device.bsg();
    opened(&node, BsgUring::open(&node, access))
}

#[track_caller]
fn opened<T>(path: &Path, result: Result<T, bsg::Error>) -> T {
    result.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Executes a command that the kernel has to accept, whatever the device makes of it.
#[track_caller]
pub(crate) fn execute(way: &mut dyn Passthrough, request: Request) -> Completion {
    way.execute(request).unwrap_or_else(|error| panic!("the kernel refused the command: {error}"))
}

/// Sends one command over a ring and waits for it, whatever the kernel makes of it.
#[track_caller]
pub(crate) fn complete(bsg: &mut BsgUring, frame: impl Into<UringFrame>) -> UringCompletion {
    let token = bsg.submit(frame.into()).expect("submitted");
    bsg.wait_for(token, soon()).expect("completed")
}

/// The bytes of the data buffer that were transferred.
#[track_caller]
pub(crate) fn transferred(done: &Completion) -> &[u8] {
    let len = i64::try_from(done.data.len()).expect("buffers are short") - done.residual;
    let len = usize::try_from(len).unwrap_or_else(|_| panic!("residual of {done:?}"));
    &done.data[..len]
}

/// When a completion that is not there yet will not come any more.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}
