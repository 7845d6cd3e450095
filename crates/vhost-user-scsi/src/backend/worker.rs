//! A thread that waits for kicks of its queues and has them served.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags, PollFd, PollFlags, Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
        eventfd, poll,
    },
};

use super::{QueueHandler, Ring};

/// What the worker's own eventfd is called among the events; queues have their numbers.
const OWN: u64 = u64::MAX;

/// A running worker. Dropping it ends the thread, after the command it is at.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    own: OwnedFd,
    ends: AtomicBool,
}

impl Worker {
    /// Starts a worker for these queues of a port.
    pub(super) fn start(
        device: Arc<dyn QueueHandler>,
        port: usize,
        queues: Vec<(usize, Ring)>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &own, EventData::new_u64(OWN), EventFlags::IN | EventFlags::ET)?;
        let shared = Arc::new(Shared { epoll, own, ends: AtomicBool::new(false) });
        let first = queues.first().map_or(0, |(queue, _)| *queue);
        let thread = {
            let shared = Arc::clone(&shared);
            Builder::new()
                .name(format!("port-{port}-q{first}"))
                .spawn(move || shared.work(&*device, port, &queues))?
        };
        Ok(Worker { shared, thread: Some(thread) })
    }

    /// Serves `queue` from now on whenever `kick` is written.
    pub(super) fn watch(&self, queue: usize, kick: &impl AsFd) -> io::Result<()> {
        // Edge-triggered: every write is an event, and the counter need not be read.
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&self.shared.epoll, kick, EventData::new_u64(queue as u64), flags)?)
    }

    /// Serves no kick of this eventfd any more.
    pub(super) fn forget(&self, kick: &File) {
        if let Err(error) = epoll::delete(&self.shared.epoll, kick) {
            tracing::warn!(%error, "cannot forget an eventfd");
        }
        // The front end may look at the counter when it has the queue back; what it says was seen.
        let mut fds = [PollFd::new(kick, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1) {
            let _count = rustix::io::read(kick, &mut [0; 8]);
        }
    }

    /// Has all its queues looked at, kicked or not.
    pub(super) fn look(&self) {
        self.shared.wake();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

impl Shared {
    fn wake(&self) {
        if let Err(error) = rustix::io::write(&self.own, &1_u64.to_ne_bytes()) {
            // Only if it has been woken 2^64 - 2 times, in which case it is awake.
            tracing::debug!(%error, "cannot wake a worker");
        }
    }

    fn work(&self, device: &dyn QueueHandler, port: usize, queues: &[(usize, Ring)]) {
        let mut events = Vec::with_capacity(queues.len() + 1);
        while !self.ends.load(Ordering::Acquire) {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // It is our own descriptor, and a good one.
                Err(error) => panic!("epoll_wait(2) fails: {error}"),
            }
            let all = events.iter().any(|event: &epoll::Event| event.data.u64() == OWN);
            for (queue, ring) in queues {
                if all || events.iter().any(|event| event.data.u64() == *queue as u64) {
                    device.serve(port, *queue, ring);
                }
            }
        }
    }
}
