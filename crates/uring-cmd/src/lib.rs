//! An io_uring for `IORING_OP_URING_CMD`, the operation by which a character device takes commands of
//! its own through a ring.
//!
//! This crate must not know what the commands mean: neither SCSI, bsg nor ublk. It knows how an entry
//! is laid out, who owns the memory a command refers to while the kernel has it, and how to wait no
//! longer than a deadline.
//!
//! **Ownership.** [`Ring::push`] takes an [`Operation`] with everything the kernel may touch on its
//! behalf; [`Ring::wait`] hands it back with the completion. A ring that is dropped earlier leaks the
//! operations still in flight: their drivers cannot be made to let go, and memory that is never freed
//! is never written to by mistake.

pub mod memory;
mod raw;
pub mod ring;
pub mod sqe;

pub use memory::{Buffer, Pointer};
pub use ring::{
    Completed, CqeSize, Operation, PushError, PushErrorKind, Ring, Shape, SqeSize, WaitError,
};
pub use sqe::{Cqe, Sqe};

/// Proves at compile time that a structure of the kernel's interface has the size and the field
/// offsets, in bytes, which are written beside it.
///
/// ```
/// #[repr(C)]
/// struct Pair {
///     first: u16,
///     second: u32,
/// }
/// uring_cmd::assert_layout!(Pair, 8 { first: 0, second: 4 });
/// ```
#[macro_export]
macro_rules! assert_layout {
    ($type:ty, $size:literal { $($field:ident : $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(::core::mem::size_of::<$type>() == $size);
            $(assert!(::core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
