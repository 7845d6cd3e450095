//! Waiting for a descriptor, so that no thread has to be ended by force.

use std::{io, os::fd::AsFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Waits until one of the two has something to read or its other end is gone.
///
/// # Errors
/// What poll(2) says, other than that a signal came.
pub(crate) fn either_readable(one: &impl AsFd, other: &impl AsFd) -> io::Result<()> {
    let mut fds = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}
