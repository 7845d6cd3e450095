//! The short way of a request that needs nothing but an answer: its command goes back as it is, with the result.

use rustix::io::Errno;
use uring_cmd::{Cqe, Either};

use super::{Operation, QueueSpec, Slot};
use crate::{
    command::Payload,
    descriptors::Descriptors,
    mode::DataMode,
    target::{Op, Request, Target},
    uapi::{SECTOR_LEN, fetch_result, io as io_op, io_flag},
};

/// What such an answer takes.
pub(super) struct Quick<'a> {
    pub(super) spec: &'a QueueSpec,
    pub(super) target: &'a dyn Target,
    pub(super) descriptors: &'a Descriptors,
}

/// Out of the way, for hardly anybody listens.
#[cold]
#[inline(never)]
fn tell(request: &Request<'_>, outcome: Result<u32, Errno>) {
    tracing::debug!(queue = request.queue, tag = request.tag, op = ?request.op, ?outcome, "request");
}

impl Quick<'_> {
    /// Whether a queue has such requests: nothing goes wrong, nobody looks at data, and the buffer that a command lends,
    /// if any, is the same each time.
    pub(super) fn can(spec: &QueueSpec, target: &dyn Target) -> bool {
        let is_done_at_once = target.worker().is_none() && !target.needs_data();
        let is_plain = spec.batch.is_none() && spec.integrity.is_none() && spec.faults.is_none();
        is_plain && is_done_at_once && spec.mode != DataMode::GetData
    }

    /// Makes a fetch that has brought a request the commit of its answer, unless there is something about it.
    #[inline]
    pub(super) fn answers(&self, cqe: &Cqe, operation: &mut Operation) -> bool {
        let Either::First(command) = operation else { return false };
        let Payload::Io(io) = &mut command.payload else { return false };
        let is_fetch = matches!(command.cmd_op, io_op::FETCH_REQ | io_op::COMMIT_AND_FETCH_REQ);
        if !is_fetch || cqe.res != fetch_result::OK {
            return false;
        }
        let descriptor = self.descriptors.read(io.tag);
        let len = u64::from(descriptor.nr_sectors) * u64::from(SECTOR_LEN);
        let special = io_flag::SHMEM_ZC | io_flag::NEED_REG_BUF;
        if descriptor.op_flags & special != 0 || len > self.spec.buffer_len as u64 {
            return false;
        }
        let mut request = Slot::request(&descriptor, self.spec.queue, io.tag, &mut []);
        if matches!(request.op, Op::ZoneAppend | Op::ReportZones) {
            // Their commits say more than a result.
            return false;
        }
        let outcome = self.target.handle(&mut request);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tell(&request, outcome);
        }
        io.result = match outcome {
            Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
            Err(errno) => -errno.raw_os_error(),
        };
        command.cmd_op = io_op::COMMIT_AND_FETCH_REQ;
        true
    }
}
