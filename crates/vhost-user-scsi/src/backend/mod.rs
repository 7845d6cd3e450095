//! The vhost-user protocol, its messages by means of the `vhost` crate, hidden behind this module: the
//! rest of the crate sees a [`QueueHandler`] that is handed [`Ring`]s, and a [`FrontEnd`] to start and
//! stop. Another implementation of the protocol replaces this folder and nothing else.
//!
//! * `front_end` accepts a connection and reads its messages until it ends.
//! * `session` is what the messages do; `memory` and `inflight` are what they share.
//! * `worker` waits for kicks and has queues served.
//! * `ring` is a queue's life, `notifier` how its driver is told, `split` the structures in guest memory.
//! * `detached` is a ring without a front end, for tests that are their own.

mod detached;
mod front_end;
mod inflight;
mod memory;
mod notifier;
mod ring;
mod session;
mod split;
mod worker;

pub use detached::{Detached, Placed};
pub use front_end::{Connection, FrontEnd};
pub(crate) use memory::{Memory, Segment};
#[cfg(test)]
pub(crate) use ring::tests::ring_with_a_command;
pub use ring::{Ring, Ticket};
pub(crate) use split::Descriptors;
pub use split::RingError;

/// Somebody who keeps chains of a ring for later.
pub trait Keeper: Send + Sync {
    /// A ring stops: its chains have to be dropped now.
    fn ring_stops(&self);
}

/// A virtio device: what the protocol has to ask it. It may be served on several sockets at once, its
/// ports, numbered from 0; each has queues of its own.
pub trait QueueHandler: Send + Sync + 'static {
    /// Number of virtqueues of a port, at most [`QUEUES_MAX`].
    fn queue_count(&self) -> usize;

    /// The queues each worker thread serves, every queue exactly once.
    fn queues_of_workers(&self) -> Vec<Vec<usize>>;

    /// Feature bits of the device type; those of the transport are added to them.
    fn features(&self) -> u64;

    /// The driver may have made chains available on this queue of this port. Called on the queue's
    /// worker.
    fn serve(&self, port: usize, queue: usize, ring: &Ring);

    /// Rings of a port have stopped: what was kept of them is gone.
    fn rings_stopped(&self);

    /// A front end has come to this port.
    fn session_began(&self, port: usize, connection: Connection);

    /// The front end of this port has gone, its rings are stopped, and no worker of it runs any more.
    fn session_ended(&self, port: usize);
}

/// Most virtqueues of a device: the protocol names one in a byte.
pub const QUEUES_MAX: usize = 256;
