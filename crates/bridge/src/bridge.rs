//! The target of a device whose medium is a disk.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bsg::{Access, Node};
use rustix::io::Errno;
use ublk::{Memory, Progress, Request, Target, Worker};

use crate::{Disk, error::Error, log::Log, relay::Relay};

/// How long something is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How often a command that failed is sent again, where that may help.
    pub retries: u8,
    /// Time of a command. A unit that is busy is asked again by the kernel until then.
    pub command: Duration,
    /// Time of a request for what passes.
    pub request: Duration,
}

impl Default for Patience {
    /// That of the kernel's disk driver: `SD_MAX_RETRIES` and `SD_TIMEOUT` of drivers/scsi/sd.h, and their product with
    /// the first attempt (`scsi_lib.c:scsi_cmd_runtime_exceeced`).
    fn default() -> Self {
        Patience { retries: 5, command: Duration::from_secs(30), request: Duration::from_secs(180) }
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) disk: Disk,
    pub(crate) patience: Patience,
    pub(crate) log: Option<Arc<Log>>,
    idle: Mutex<Idle>,
}

/// Relays between two requests, in the boxes a queue takes them in.
pub(crate) type Idle = Vec<Box<Relay>>;

impl Shared {
    pub(crate) fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends each request to a disk as a command, on the ring the request came by.
#[derive(Debug)]
pub struct Bridge(Arc<Shared>);

impl Bridge {
    /// A bridge to the disk behind this node, which has said this of itself.
    ///
    /// # Errors
    /// The node cannot be opened.
    pub fn new(node: &Path, disk: Disk, patience: Patience) -> Result<Self, Error> {
        let node = Node::open(node, Access::ReadWrite)?;
        Ok(Bridge(Arc::new(Shared { node, disk, patience, log: None, idle: Mutex::default() })))
    }

    /// Notes what happens.
    ///
    /// # Panics
    /// If it serves already.
    #[must_use]
    pub fn noting(mut self, log: &Arc<Log>) -> Self {
        let shared = Arc::get_mut(&mut self.0).expect("nothing is under way yet");
        shared.log = Some(log.clone());
        self
    }
}

impl Target for Bridge {
    /// # Panics
    /// A queue asks the [`Worker`] instead.
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        unreachable!("a queue has the worker do {:?}", request.op)
    }

    fn worker(&self) -> Option<&dyn Worker> {
        Some(self)
    }
}

impl Worker for Bridge {
    fn begin(&self, request: &Request<'_>, memory: Memory) -> Progress {
        let idle = self.0.idle().pop();
        match idle.map_or_else(|| Relay::new(&self.0).map(Box::new), Ok) {
            Ok(relay) => relay.begin(&self.0, request, memory),
            Err(_) => Progress::Done(Err(Errno::NOMEM), memory),
        }
    }
}
