//! A [`QueueHandler`] in the shape the `vhost-user-backend` crate asks for.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex},
};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use super::{
    QueueHandler,
    ring::{Memory, Ring},
};

/// Most entries of a virtqueue, QEMU's own limit.
const QUEUE_SIZE_MAX: usize = 1024;

/// The device during one session with a front end.
pub(super) struct Handler {
    device: Arc<dyn QueueHandler>,
    port: usize,
    workers: Vec<Vec<usize>>,
    exit_events: Mutex<Vec<RawFd>>,
}

impl Handler {
    pub(super) fn new(device: Arc<dyn QueueHandler>, port: usize) -> Self {
        let workers = device.queues_of_workers();
        Handler { device, port, workers, exit_events: Mutex::new(Vec::new()) }
    }

    /// Closes the reading ends of the exit events. To be called once, when the workers have ended.
    ///
    /// vhost-user-backend 0.24 (`VringEpollHandler::new`) turns each into a raw descriptor and
    /// forgets it, so that every session would leave one open for each worker.
    pub(super) fn close_exit_events(&self) {
        let descriptors = std::mem::take(&mut *self.exit_events.lock().expect("no holder panics"));
        for descriptor in descriptors {
            // SAFETY: the descriptor was released by `into_raw_fd` and has no other owner; the epoll
            // instance that watched it has gone with the workers. The list is emptied, so none is
            // closed twice. A test counts descriptors over many sessions.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}

impl VhostUserBackend for Handler {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        self.device.queue_count()
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE_MAX
    }

    fn features(&self) -> u64 {
        self.device.features()
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Without CONFIG: QEMU's vhost-user-scsi makes the configuration space itself, and warns about a
    /// back end that offers one.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The rings are told themselves.
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        // Each chain takes the memory of its moment from its ring.
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        self.workers
            .iter()
            .map(|queues| queues.iter().fold(0, |mask, queue| mask | 1 << queue))
            .collect()
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        let pair = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
            .inspect_err(|error| tracing::error!(%error, "no eventfd to end a worker with"))
            .ok()?;
        self.exit_events.lock().expect("no holder panics").push(pair.0.as_raw_fd());
        Some(pair)
    }

    /// `event` counts among the queues of the worker. An error would end the worker, so there is none.
    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        rings: &[Ring],
        worker: usize,
    ) -> io::Result<()> {
        let index = usize::from(event);
        if let (Some(ring), Some(queue)) = (rings.get(index), self.workers[worker].get(index)) {
            self.device.serve(self.port, *queue, ring);
        }
        Ok(())
    }
}
