//! How a ring is set up.

/// Size of a submission entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqeSize {
    /// The default of io_uring: 16 bytes of payload.
    Bytes64,
    /// `IORING_SETUP_SQE128`: 80 bytes of payload.
    Bytes128,
    /// `IORING_SETUP_SQE_MIXED` (Linux 6.19): 64 bytes, and 128 for the operations named so, such as
    /// [`crate::sqe::OP_URING_CMD128`], which take two slots.
    Mixed,
}

/// Size of a completion entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CqeSize {
    /// The default of io_uring: one 32-bit result.
    Bytes16,
    /// `IORING_SETUP_CQE32`: two more 64-bit words.
    Bytes32,
    /// `IORING_SETUP_CQE_MIXED` (Linux 6.18): the words only where there is something to say; such an entry
    /// takes two slots.
    Mixed,
}

/// How a ring is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Submission slots; the kernel rounds up to a power of two and doubles it for completions.
    pub entries: u32,
    /// Size of a submission entry.
    pub sqe: SqeSize,
    /// Size of a completion entry.
    pub cqe: CqeSize,
    /// `IORING_SETUP_SINGLE_ISSUER`: only one task submits.
    pub single_issuer: bool,
    /// `IORING_SETUP_DEFER_TASKRUN`: completions run only while the owner waits. Needs `single_issuer`.
    pub defer_taskrun: bool,
    /// `IORING_SETUP_SQPOLL` with the idle time of its thread in milliseconds.
    pub sqpoll_idle_ms: Option<u32>,
    /// `IORING_SETUP_IOPOLL`. A driver without polling, as bsg is, completes as ever, but the kernel does not
    /// sleep for it: [`crate::Ring::wait`] then asks again and again.
    pub iopoll: bool,
    /// `IORING_SETUP_SUBMIT_ALL`: an entry that is refused does not end its batch.
    pub submit_all: bool,
}

pub(crate) const IOPOLL: u32 = 1 << 0;
pub(crate) const SQPOLL: u32 = 1 << 1;
pub(crate) const SUBMIT_ALL: u32 = 1 << 7;
pub(crate) const SQE128: u32 = 1 << 10;
pub(crate) const CQE32: u32 = 1 << 11;
pub(crate) const SINGLE_ISSUER: u32 = 1 << 12;
pub(crate) const DEFER_TASKRUN: u32 = 1 << 13;
pub(crate) const CQE_MIXED: u32 = 1 << 18;
pub(crate) const SQE_MIXED: u32 = 1 << 19;

impl Shape {
    /// 128-byte submissions and 32-byte completions, what a `URING_CMD` can need at most.
    pub fn big(entries: u32) -> Self {
        Shape {
            entries,
            sqe: SqeSize::Bytes128,
            cqe: CqeSize::Bytes32,
            single_issuer: false,
            defer_taskrun: false,
            sqpoll_idle_ms: None,
            iopoll: false,
            submit_all: false,
        }
    }

    /// Both sizes of both entries in one ring, with slots for as many large submissions as `entries`.
    pub fn mixed(entries: u32) -> Self {
        let entries = entries.saturating_mul(2);
        Shape { sqe: SqeSize::Mixed, cqe: CqeSize::Mixed, ..Shape::big(entries) }
    }

    /// `IORING_SETUP_*` bits.
    pub(crate) fn flags(&self) -> u32 {
        let sqe = match self.sqe {
            SqeSize::Bytes64 => 0,
            SqeSize::Bytes128 => SQE128,
            SqeSize::Mixed => SQE_MIXED,
        };
        let cqe = match self.cqe {
            CqeSize::Bytes16 => 0,
            CqeSize::Bytes32 => CQE32,
            CqeSize::Mixed => CQE_MIXED,
        };
        let options = [
            (self.single_issuer, SINGLE_ISSUER),
            (self.defer_taskrun, DEFER_TASKRUN),
            (self.sqpoll_idle_ms.is_some(), SQPOLL),
            (self.iopoll, IOPOLL),
            (self.submit_all, SUBMIT_ALL),
        ];
        options.iter().filter(|(set, _)| *set).fold(sqe | cqe, |flags, (_, bit)| flags | bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// include/uapi/linux/io_uring.h.
    #[test]
    fn flags_are_those_of_the_header() {
        assert_eq!(Shape::big(4).flags(), 0xc00);
        assert_eq!(Shape::mixed(4).flags(), 0xc_0000);
        let all = Shape {
            sqe: SqeSize::Bytes64,
            cqe: CqeSize::Bytes16,
            single_issuer: true,
            defer_taskrun: true,
            sqpoll_idle_ms: Some(1),
            iopoll: true,
            submit_all: true,
            ..Shape::big(4)
        };
        assert_eq!(all.flags(), 0x3083);
    }
}
