//! What the running kernel's io_uring can do, asked of it rather than read off its version.

use std::{fmt, io};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    mapped::KernelRing,
    shape::{CqeSize, Shape, SqeSize},
    sqe::{OP_URING_CMD, OP_URING_CMD128},
};

/// Something a kernel has or has not. [`Feature::is_supported`] asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// io_uring at all: it may be left out, or forbidden (`kernel.io_uring_disabled`, seccomp).
    Rings,
    /// `IORING_OP_URING_CMD`.
    UringCmd,
    /// `IORING_OP_URING_CMD128`.
    UringCmd128,
    /// `IORING_SETUP_SQE128`.
    Sqe128,
    /// `IORING_SETUP_CQE32`.
    Cqe32,
    /// `IORING_SETUP_SQE_MIXED`.
    SqeMixed,
    /// `IORING_SETUP_CQE_MIXED`.
    CqeMixed,
    /// `IORING_SETUP_SINGLE_ISSUER`.
    SingleIssuer,
    /// `IORING_SETUP_DEFER_TASKRUN`.
    DeferTaskrun,
    /// `IORING_SETUP_SQPOLL`.
    SqPoll,
    /// `IORING_SETUP_IOPOLL`.
    IoPoll,
    /// `IORING_SETUP_SUBMIT_ALL`.
    SubmitAll,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 12] = [
        Feature::Rings,
        Feature::UringCmd,
        Feature::UringCmd128,
        Feature::Sqe128,
        Feature::Cqe32,
        Feature::SqeMixed,
        Feature::CqeMixed,
        Feature::SingleIssuer,
        Feature::DeferTaskrun,
        Feature::SqPoll,
        Feature::IoPoll,
        Feature::SubmitAll,
    ];

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Rings => "io_uring",
            Feature::UringCmd => "IORING_OP_URING_CMD",
            Feature::UringCmd128 => "IORING_OP_URING_CMD128",
            Feature::Sqe128 => "IORING_SETUP_SQE128",
            Feature::Cqe32 => "IORING_SETUP_CQE32",
            Feature::SqeMixed => "IORING_SETUP_SQE_MIXED",
            Feature::CqeMixed => "IORING_SETUP_CQE_MIXED",
            Feature::SingleIssuer => "IORING_SETUP_SINGLE_ISSUER",
            Feature::DeferTaskrun => "IORING_SETUP_DEFER_TASKRUN",
            Feature::SqPoll => "IORING_SETUP_SQPOLL",
            Feature::IoPoll => "IORING_SETUP_IOPOLL",
            Feature::SubmitAll => "IORING_SETUP_SUBMIT_ALL",
        }
    }

    /// Whether the kernel has it, found out with a ring of its own that is closed again.
    pub fn is_supported(self) -> bool {
        match self {
            Feature::UringCmd => has_operation(OP_URING_CMD),
            Feature::UringCmd128 => has_operation(OP_URING_CMD128),
            feature => KernelRing::new(&feature.smallest_shape()).is_ok(),
        }
    }

    /// A ring that needs this and nothing else that can be missing.
    fn smallest_shape(self) -> Shape {
        let small = Shape { sqe: SqeSize::Bytes64, cqe: CqeSize::Bytes16, ..Shape::big(2) };
        match self {
            Feature::Rings | Feature::UringCmd | Feature::UringCmd128 => small,
            Feature::Sqe128 => Shape { sqe: SqeSize::Bytes128, ..small },
            Feature::Cqe32 => Shape { cqe: CqeSize::Bytes32, ..small },
            Feature::SqeMixed => Shape { sqe: SqeSize::Mixed, ..small },
            Feature::CqeMixed => Shape { cqe: CqeSize::Mixed, ..small },
            Feature::SingleIssuer => Shape { single_issuer: true, ..small },
            Feature::DeferTaskrun => Shape { single_issuer: true, defer_taskrun: true, ..small },
            Feature::SqPoll => Shape { sqpoll_idle_ms: Some(1), ..small },
            Feature::IoPoll => Shape { iopoll: true, ..small },
            Feature::SubmitAll => Shape { submit_all: true, ..small },
        }
    }

    /// What a ring of this shape needs.
    fn needed_by(shape: &Shape) -> impl Iterator<Item = Feature> {
        let flags = shape.flags();
        Feature::ALL.into_iter().filter(move |feature| {
            let needed = feature.smallest_shape().flags();
            needed & flags == needed && !matches!(feature, Feature::UringCmd | Feature::UringCmd128)
        })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel does not have what was asked for.
    #[error("this kernel has no {feature}: {source}")]
    Missing {
        /// The first feature that is missing.
        feature: Feature,
        /// What the kernel said to the whole.
        source: io::Error,
    },
    /// It has everything, and refuses the combination, or has no memory for it.
    #[error("the kernel refuses this ring: {0}")]
    Refused(#[from] io::Error),
}

impl SetupError {
    /// Finds out what the refusal of a shape was about.
    pub(crate) fn of(shape: &Shape, source: io::Error) -> Self {
        match Feature::needed_by(shape).find(|feature| !feature.is_supported()) {
            Some(feature) => SetupError::Missing { feature, source },
            None => SetupError::Refused(source),
        }
    }

    /// What the kernel said.
    pub fn io_error(&self) -> &io::Error {
        match self {
            SetupError::Missing { source, .. } | SetupError::Refused(source) => source,
        }
    }
}

/// Operations of a [`Probe`].
pub(crate) const PROBE_OPS: u32 = 255;

/// `struct io_uring_probe` with as many operations as fit its 8-bit count.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Probe {
    last_op: u8,
    ops_len: u8,
    resv: u16,
    resv2: [u32; 3],
    ops: [ProbeOp; PROBE_OPS as usize],
}

/// `struct io_uring_probe_op`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ProbeOp {
    op: u8,
    resv: u8,
    flags: u16,
    resv2: u32,
}

crate::assert_layout!(ProbeOp, 8 { op: 0, flags: 2 });
crate::assert_layout!(Probe, 2056 { last_op: 0, ops_len: 1, ops: 16 });

/// `IO_URING_OP_SUPPORTED`.
const OP_SUPPORTED: u16 = 1;

fn has_operation(op: u8) -> bool {
    let Ok(ring) = KernelRing::new(&Feature::Rings.smallest_shape()) else { return false };
    let has = |probe: Probe| {
        probe.ops.iter().any(|known| known.op == op && known.flags & OP_SUPPORTED != 0)
    };
    ring.probe().is_ok_and(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_needs_what_it_says() {
        let needed = |shape: &Shape| Feature::needed_by(shape).collect::<Vec<_>>();
        let big = [Feature::Rings, Feature::Sqe128, Feature::Cqe32];
        assert_eq!(needed(&Shape::big(1)), big);
        let mixed = [Feature::Rings, Feature::SqeMixed, Feature::CqeMixed];
        assert_eq!(needed(&Shape::mixed(1)), mixed);
        let deferred = Shape { single_issuer: true, defer_taskrun: true, ..Shape::big(1) };
        assert_eq!(needed(&deferred)[3..], [Feature::SingleIssuer, Feature::DeferTaskrun]);
    }
}
