//! The word that a server's queues are to end, whatever they have.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::write,
};

/// Said once, to every queue: to those that look, and to those that sleep in their rings, which watch the event.
#[derive(Debug)]
pub(crate) struct Abandon {
    said: AtomicBool,
    /// Readable from then on: nobody reads it.
    event: Arc<File>,
}

impl Abandon {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Abandon { said: AtomicBool::new(false), event: Arc::new(event.into()) }))
    }

    pub(crate) fn say(&self) {
        self.said.store(true, Ordering::Release);
        match write(&*self.event, &1_u64.to_ne_bytes()) {
            // It is as full as can be, and so it can be read.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => panic!("an eventfd of our own takes a 1: {error}"),
        }
    }

    pub(crate) fn is_said(&self) -> bool {
        self.said.load(Ordering::Acquire)
    }

    /// What becomes readable.
    pub(crate) fn event(&self) -> Arc<File> {
        self.event.clone()
    }
}
