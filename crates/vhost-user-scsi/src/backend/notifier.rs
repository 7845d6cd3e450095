//! An eventfd of the front end that something is told on. It may be any descriptor at all, and nothing it is may
//! make the device wait.

use std::fs::File;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl},
};
use tracing::debug;

/// What is written to tell somebody.
#[derive(Debug)]
pub(super) struct Notifier {
    eventfd: File,
    /// Whether a write may wait: a front end's own eventfds are non-blocking.
    may_wait: bool,
}

impl Notifier {
    pub(super) fn new(eventfd: File) -> Self {
        let may_wait = !fcntl_getfl(&eventfd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        Notifier { eventfd, may_wait }
    }

    /// Tells, unless it is full, which tells as well.
    pub(super) fn notify(&self, whom: &str) {
        if self.may_wait && !self.has_room() {
            return;
        }
        if let Err(error) = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes()) {
            debug!(whom, %error, "cannot write to an eventfd");
        }
    }

    fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(&self.eventfd, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
    }
}
