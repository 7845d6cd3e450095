//! An io_uring for `IORING_OP_URING_CMD`, the operation by which a character device takes commands of
//! its own through a ring.
//!
//! This crate must not know what the commands mean: neither SCSI, bsg nor ublk. It knows how an entry
//! is laid out, who owns the memory a command refers to while the kernel has it, and how to wait no
//! longer than a deadline.
//!
//! **Ownership.** [`Ring::push`] takes an [`Operation`] with everything the kernel may touch on its
//! behalf; [`Ring::wait`] hands it back with the completion. A ring that ends earlier either leaks the
//! operations still in flight (their drivers cannot be made to let go, and memory that is never freed is
//! never written to by mistake), or goes to the [`keeper`], which frees them as they complete.
//!
//! **Memory.** A [`Buffer`] is a window with guards around it that can be borrowed as a slice, and belongs to one
//! command at a time. A [`Region`] is shared with the kernel and only copied from and to: it can be registered
//! ([`Ring::register_buffers`]), made read-only, or taken away while a command is in flight.
//!
//! **Features.** A ring the kernel cannot set up fails with a [`SetupError`] that names what is missing;
//! [`Feature::is_supported`] asks beforehand.
//!
//! Everything is synchronous: no runtime, no thread.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use uring_cmd::{Operation, Ring, Shape};
//!
//! fn run<O: Operation>(operations: Vec<O>) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut ring = Ring::new(&Shape::big(64))?;
//!     for operation in operations {
//!         ring.push(operation).map_err(|refused| refused.kind)?;
//!     }
//!     // All of them by one system call.
//!     ring.submit()?;
//!     while ring.in_flight() > 0 {
//!         let done = ring.wait(Instant::now() + Duration::from_secs(30))?;
//!         println!("{:?}", done.cqe);
//!     }
//!     Ok(())
//! }
//! ```

mod cancel;
mod entrance;
pub mod feature;
mod fixed;
mod in_flight;
pub mod keeper;
mod mapped;
pub mod memory;
pub mod region;
pub mod ring;
pub mod shape;
pub mod sqe;

pub use cancel::{Cancel, CancelError};
pub use feature::{Feature, SetupError};
pub use mapped::LooseWord;
pub use memory::{Buffer, Pointer};
pub use region::{Region, Slice};
pub use ring::{Completed, Either, Operation, PushError, PushErrorKind, Ring, WaitError};
pub use shape::{CqeSize, Shape, SqeSize};
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
