//! What the messages of one front end do, from its connection to its end (vhost-user, Front-end message
//! types). A message that is refused ends the session: a front end that did not ask for a reply has no
//! other way to learn of it.

use std::{
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use vhost::{
    VhostUserMemoryRegionBase,
    vhost_user::{
        Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
        message::{
            VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags,
            VhostUserInflight, VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures,
            VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
            VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
        },
    },
};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use super::{
    QueueHandler, Ring,
    inflight::{self, Inflight, InflightError},
    memory::{Extent, Memory, MemoryError, REGIONS_MAX},
    ring::SettingError,
    split::Addresses,
    worker::Worker,
};

/// How long stopping a ring waits for the chains in flight before it gives them up.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What else of the protocol is spoken. Without CONFIG: QEMU's vhost-user-scsi makes the configuration
/// space itself, and warns about a back end that offers one.
const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// The device during one session with a front end.
pub(super) struct Session {
    device: Arc<dyn QueueHandler>,
    port: usize,
    owned: bool,
    features: u64,
    memory: Arc<Memory>,
    queues: Vec<Queue>,
    /// The queues of each worker, and the worker once one of them has been started.
    workers: Vec<(Vec<usize>, Option<Worker>)>,
}

#[derive(Debug)]
struct Queue {
    ring: Ring,
    /// What the ring is kicked with while it runs.
    kick: Option<File>,
    worker: usize,
}

impl From<SettingError> for Error {
    fn from(error: SettingError) -> Self {
        Error::ReqHandlerError(io::Error::other(error))
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Error::ReqHandlerError(io::Error::other(error))
    }
}

impl From<InflightError> for Error {
    fn from(error: InflightError) -> Self {
        Error::ReqHandlerError(io::Error::other(error))
    }
}

/// An answer to a message that was not offered.
fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl Session {
    pub(super) fn new(device: Arc<dyn QueueHandler>, port: usize) -> Self {
        let workers = device.queues_of_workers();
        let worker_of = |queue| {
            let has = |queues: &Vec<usize>| queues.contains(&queue);
            workers.iter().position(has).expect("every queue has a worker")
        };
        let queues = (0..device.queue_count())
            .map(|queue| Queue { ring: Ring::new(), kick: None, worker: worker_of(queue) })
            .collect();
        Session {
            port,
            owned: false,
            features: 0,
            memory: Arc::default(),
            queues,
            workers: workers.into_iter().map(|queues| (queues, None)).collect(),
            device,
        }
    }

    fn offered(&self) -> u64 {
        self.device.features()
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn queue(&self, index: impl Into<u32>) -> Result<&Queue> {
        self.queues.get(index.into() as usize).ok_or(Error::InvalidParam)
    }

    fn any_runs(&self) -> bool {
        self.queues.iter().any(|queue| queue.ring.runs())
    }

    /// Everything in this memory from now on, rings that run included.
    fn set_memory(&mut self, memory: Memory) -> Result<()> {
        for queue in &self.queues {
            queue.ring.can_move_to(&memory)?;
        }
        self.memory = Arc::new(memory);
        for queue in &self.queues {
            queue.ring.move_to(&self.memory);
        }
        Ok(())
    }

    /// The worker of a queue, started if this is the first of its queues.
    fn worker(&mut self, index: usize) -> io::Result<&Worker> {
        let (queues, worker) = &mut self.workers[self.queues[index].worker];
        if worker.is_none() {
            let rings = queues.iter().map(|queue| (*queue, self.queues[*queue].ring.clone()));
            *worker = Some(Worker::start(Arc::clone(&self.device), self.port, rings.collect())?);
        }
        Ok(worker.as_ref().expect("just started"))
    }

    fn forget_kick(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if let (Some(kick), (_, Some(worker))) = (queue.kick.take(), &self.workers[queue.worker]) {
            worker.forget(&kick);
        }
    }

    fn stop(&mut self, index: usize) -> u16 {
        self.forget_kick(index);
        let ring = &self.queues[index].ring;
        ring.begin_stop();
        let base = ring.finish_stop(Instant::now() + STOP_LIMIT);
        self.device.rings_stopped();
        base
    }

    fn stop_all(&mut self) {
        for index in 0..self.queues.len() {
            self.forget_kick(index);
            self.queues[index].ring.begin_stop();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for queue in &self.queues {
            queue.ring.finish_stop(deadline);
        }
        self.device.rings_stopped();
    }

    /// Ends it: when this returns, no thread of it is left and nothing touches its guest's memory any
    /// more, unless a command has hung beyond [`STOP_LIMIT`], which then is waited for.
    pub(super) fn end(&mut self) {
        self.stop_all();
        self.workers.clear();
        self.device.session_ended(self.port);
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.owned, true) {
            return Err(Error::InvalidOperation("already claimed"));
        }
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all();
        self.owned = false;
        self.features = 0;
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered() != 0 {
            return Err(Error::InvalidParam);
        }
        if features == self.features {
            return Ok(());
        }
        let event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        // Without the protocol's own features there is no message that enables a ring.
        let enabled = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        for queue in &self.queues {
            queue.ring.set_event_idx(event_idx)?;
            if enabled {
                queue.ring.set_enabled(true);
            }
        }
        self.features = features;
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mut memory = Memory::default();
        for (region, file) in regions.iter().zip(files) {
            // The fields are packed: no references to them.
            let extent = Extent {
                guest: region.guest_phys_addr,
                user: region.user_addr,
                len: region.memory_size,
                file_offset: region.mmap_offset,
            };
            memory = memory.with(extent, file)?;
        }
        self.set_memory(memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        Ok(self.queue(index)?.ring.set_size(num)?)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = Addresses { descriptors, available, used };
        Ok(self.queue(index)?.ring.set_addresses(addresses)?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        Ok(self.queue(index)?.ring.set_base(base)?)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.queue(index)?;
        let base = self.stop(index as usize);
        Ok(VhostUserVringState::new(index, base.into()))
    }

    /// Starts the ring. Without an eventfd it would have to be polled, which is not done.
    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        self.queue(index)?;
        let index = usize::from(index);
        let kick = kick.ok_or(Error::InvalidOperation("polled rings are not supported"))?;
        self.forget_kick(index);
        self.queues[index].ring.start(&self.memory)?;
        let worker = self.worker(index).map_err(Error::ReqHandlerError)?;
        worker.watch(index, &kick).map_err(Error::ReqHandlerError)?;
        // Chains may wait that were made available, or were in flight, while nobody listened.
        worker.look();
        self.queues[index].kick = Some(kick);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.queue(index)?.ring.set_call(call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, error: Option<File>) -> Result<()> {
        self.queue(index)?.ring.set_error(error);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        if features & !PROTOCOL_FEATURES.bits() != 0 {
            return Err(Error::InvalidParam);
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let queue = self.queue(index)?;
        queue.ring.set_enabled(enable);
        if let (true, Some(worker)) = (enable, &self.workers[queue.worker].1) {
            worker.look();
        }
        Ok(())
    }

    fn get_inflight_fd(&mut self, asked: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Ok(inflight::create(asked)?)
    }

    fn set_inflight_fd(&mut self, given: &VhostUserInflight, file: File) -> Result<()> {
        if self.any_runs() {
            return Err(SettingError::Runs.into());
        }
        let inflight = Inflight::map(given, file)?;
        for (index, queue) in self.queues.iter().enumerate() {
            queue.ring.set_tracker(inflight.tracker(index));
        }
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let extent = Extent {
            guest: region.guest_phys_addr,
            user: region.user_addr,
            len: region.memory_size,
            file_offset: region.mmap_offset,
        };
        let memory = self.memory.with(extent, file)?;
        self.set_memory(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.memory.without(region.guest_phys_addr, region.user_addr)?;
        self.set_memory(memory)
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        not_offered()
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        not_offered()
    }

    fn set_backend_req_fd(&mut self, _: Backend) {}

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        not_offered()
    }
}
