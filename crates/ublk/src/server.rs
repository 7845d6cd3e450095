//! A device and the threads that serve it.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileTypeExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use zerocopy::FromZeros;

use crate::{
    abandon::Abandon,
    control::{Control, open},
    error::Error,
    faults::Faults,
    features::Features,
    mode::{DataMode, Fallback},
    queue::{BatchSpec, Pool, QueueError, QueueSpec, serve},
    target::Target,
    uapi::{
        ANY_DEVICE, DevInfo, IO_DESC_LEN, ParamBasic, ParamDiscard, ParamIntegrity, Params,
        SECTOR_LEN, attr, param_type,
    },
};

/// What a device is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `ADD_DEV` is given.
    pub info: DevInfo,
    /// What `SET_PARAMS` is given.
    pub params: Params,
    /// Bound of each step of starting, stopping and deleting.
    pub timeout: Duration,
    /// Threads that share the tags of each queue; at most one for each tag. Each has tags of its own, unless they come
    /// in batches ([`Features::BATCH_IO`]): then each gets what it fetches.
    pub threads: u16,
    /// What automatic registration does when it cannot register.
    pub fallback: Fallback,
    /// What goes wrong.
    pub faults: Option<Arc<Faults>>,
}

impl Config {
    /// One queue of 16 tags, requests of up to 512 KiB, a volatile cache, discard and write-zeroes.
    pub fn disk(sectors: u64) -> Self {
        const MAX_IO_LEN: u32 = 512 << 10;
        let mut info = DevInfo::new_zeroed();
        info.dev_id = ANY_DEVICE;
        info.nr_hw_queues = 1;
        info.queue_depth = 16;
        info.max_io_buf_bytes = MAX_IO_LEN;
        let mut params = Params::new_zeroed();
        params.len = u32::try_from(size_of::<Params>()).expect("152");
        params.types = param_type::BASIC | param_type::DISCARD;
        params.basic = ParamBasic {
            attrs: attr::VOLATILE_CACHE,
            logical_bs_shift: 9,
            physical_bs_shift: 12,
            io_opt_shift: 12,
            io_min_shift: 9,
            max_sectors: MAX_IO_LEN / SECTOR_LEN,
            chunk_sectors: 0,
            dev_sectors: sectors,
            virt_boundary_mask: 0,
        };
        params.discard = ParamDiscard {
            discard_alignment: 0,
            discard_granularity: SECTOR_LEN,
            max_discard_sectors: 1 << 20,
            max_write_zeroes_sectors: 1 << 20,
            max_discard_segments: 1,
            reserved0: 0,
        };
        let timeout = Duration::from_secs(30);
        Config { info, params, timeout, threads: 1, fallback: Fallback::Fail, faults: None }
    }

    /// So many zones of so many sectors, a power of two, each to be written in sequence. The driver copies no data of
    /// such a device: it needs another [`DataMode`].
    pub fn zoned(zones: u64, zone_sectors: u32) -> Self {
        let mut config = Config::disk(zones * u64::from(zone_sectors)).with(Features::ZONED);
        config.params.types = param_type::BASIC | param_type::ZONED;
        config.params.basic.chunk_sectors = zone_sectors;
        config.params.zoned.max_zone_append_sectors =
            zone_sectors.min(config.params.basic.max_sectors);
        config
    }

    /// Each interval has metadata of this shape, which the server copies.
    #[must_use]
    pub fn integrity(mut self, shape: ParamIntegrity) -> Self {
        self.params.types |= param_type::INTEGRITY;
        self.params.integrity = shape;
        self.with(Features::INTEGRITY | Features::USER_COPY)
    }

    /// Asks for these features too.
    #[must_use]
    pub fn with(mut self, features: Features) -> Self {
        self.info.flags |= features.bits();
        self
    }

    /// Data moves so.
    #[must_use]
    pub fn mode(self, mode: DataMode) -> Self {
        self.with(mode.features())
    }

    /// This goes wrong.
    #[must_use]
    pub fn faults(mut self, faults: &Arc<Faults>) -> Self {
        self.faults = Some(faults.clone());
        self
    }

    /// Sets the number of queues, which the driver lowers to the number of CPUs, and of tags in each.
    #[must_use]
    pub fn queues(mut self, queues: u16, depth: u16) -> Self {
        self.info.nr_hw_queues = queues;
        self.info.queue_depth = depth;
        self
    }
}

/// How a queue's thread ended: `None` is a panic.
type Ending = Option<Result<(), QueueError>>;

#[derive(Debug)]
struct QueueThread {
    queue: u16,
    ending: Receiver<Ending>,
}

/// A running device, served by threads of this process. Dropping it stops and deletes the device;
/// [`Server::delete`] does so and says how it went.
#[derive(Debug)]
pub struct Server {
    control: Control,
    info: DevInfo,
    config: Config,
    queues: Vec<QueueThread>,
    abandon: Arc<Abandon>,
    /// Somebody else's from now on, or nobody's.
    released: bool,
}

impl Server {
    /// Makes a device and serves it. Returns when its block device exists.
    pub fn start(config: &Config, target: Arc<dyn Target>) -> Result<Self, Error> {
        let mut control = Control::open()?;
        control.set_timeout(config.timeout);
        let abandon = Abandon::new().map_err(Error::Event)?;
        let info = control.add(&config.info)?;
        let mut server = Server::of(control, info, config, abandon);
        server.control.set_params(info.dev_id, &config.params)?;
        server.serve(&target)?;
        server.control.start(info.dev_id)?;
        server.ready()
    }

    /// Takes over a device whose server has died or left. Of the configuration only the server's part counts; what the
    /// device is stays as it was. Waits, no longer than [`Config::timeout`], until nobody has the char device of one that
    /// is without its server.
    pub fn recover(dev_id: u32, config: &Config, target: Arc<dyn Target>) -> Result<Self, Error> {
        let mut control = Control::open()?;
        control.set_timeout(config.timeout);
        let abandon = Abandon::new().map_err(Error::Event)?;
        control.start_recovery_when_free(dev_id, config.timeout)?;
        let info = control.info(dev_id)?;
        let mut server = Server::of(control, info, config, abandon);
        let recovered = server.serve(&target).and_then(|()| server.control.end_recovery(dev_id));
        if let Err(error) = recovered {
            // It was not ours to delete.
            server.leave();
            return Err(error);
        }
        server.ready()
    }

    fn of(mut control: Control, info: DevInfo, config: &Config, abandon: Arc<Abandon>) -> Self {
        if Features::from_bits_retain(info.flags).contains(Features::UNPRIVILEGED_DEV) {
            control.say_path();
        }
        let config = config.clone();
        Server { control, info, config, queues: Vec::new(), abandon, released: false }
    }

    fn ready(mut self) -> Result<Self, Error> {
        self.info = self.control.info(self.info.dev_id)?;
        let path = self.block_path();
        match path.metadata() {
            Ok(node) if node.file_type().is_block_device() => Ok(self),
            Ok(_) => Err(Error::Open { path, source: io::ErrorKind::InvalidInput.into() }),
            Err(source) => Err(Error::Open { path, source }),
        }
    }

    /// Starts the threads of every queue and waits until each has fetched all its tags.
    fn serve(&mut self, target: &Arc<dyn Target>) -> Result<(), Error> {
        let device = Arc::new(open(self.char_path())?);
        let (fetching, fetched) = channel();
        let threads = self.config.threads.clamp(1, self.info.queue_depth);
        // A device that is taken over has what it was given once.
        let integrity = match self.features().contains(Features::INTEGRITY) {
            true => Some(self.control.params(self.info.dev_id)?.integrity),
            false => None,
        };
        let pools: Vec<_> = (0..self.info.nr_hw_queues).map(|_| self.pool()).collect();
        for thread in 0..threads {
            let bound = |at: u16| {
                let tags = u32::from(self.info.queue_depth) * u32::from(at);
                u16::try_from(tags / u32::from(threads)).expect("no more than the depth")
            };
            for (queue, pool) in (0..).zip(&pools) {
                let (tags, batch) = match pool {
                    None => (bound(thread)..bound(thread + 1), None),
                    Some(pool) => {
                        let zoned = self.features().contains(Features::ZONED);
                        let batch = BatchSpec { pool: pool.clone(), prepares: thread == 0, zoned };
                        (0..self.info.queue_depth, Some(batch))
                    }
                };
                let spec = self.spec(queue, tags, batch, integrity, &device);
                let started = self.spawn(spec, thread, target, fetching.clone())?;
                self.queues.push(started);
            }
            // In batches the first thread of a queue prepares its tags for all.
            self.await_fetching(&fetched, pools.len())?;
        }
        Ok(())
    }

    /// Waits until so many threads more say that they fetch.
    fn await_fetching(&mut self, fetched: &Receiver<bool>, threads: usize) -> Result<(), Error> {
        let deadline = Instant::now() + self.config.timeout;
        for _ in 0..threads {
            let left = deadline.saturating_duration_since(Instant::now());
            // `false` is a thread that ended; its reason is collected here.
            if fetched.recv_timeout(left) != Ok(true) {
                self.abandon.say();
                self.join(Instant::now() + self.config.timeout)?;
                return Err(Error::NotFetching);
            }
        }
        Ok(())
    }

    /// The buffers of a queue, if its tags come in batches.
    fn pool(&self) -> Option<Arc<Pool>> {
        let lends = DataMode::of(&self.info).lends_buffer();
        let pool = || Arc::new(Pool::new(self.info.queue_depth, lends));
        self.features().contains(Features::BATCH_IO).then(pool)
    }

    fn features(&self) -> Features {
        Features::from_bits_retain(self.info.flags)
    }

    fn spec(
        &self,
        queue: u16,
        tags: Range<u16>,
        batch: Option<BatchSpec>,
        integrity: Option<ParamIntegrity>,
        device: &Arc<File>,
    ) -> QueueSpec {
        QueueSpec {
            device: device.clone(),
            queue,
            depth: self.info.queue_depth,
            tags,
            buffer_len: usize::try_from(self.info.max_io_buf_bytes).expect("at least 32 bits"),
            // Before 7.3 the field was padding.
            stride: match self.features().contains(Features::IO_DESC_SIZE) {
                true => self.info.io_desc_size,
                false => IO_DESC_LEN,
            },
            mode: DataMode::of(&self.info),
            integrity,
            fallback: self.config.fallback,
            faults: self.config.faults.clone(),
            batch,
            abandon: self.abandon.clone(),
        }
    }

    fn spawn(
        &self,
        spec: QueueSpec,
        thread: u16,
        target: &Arc<dyn Target>,
        fetching: Sender<bool>,
    ) -> Result<QueueThread, Error> {
        let queue = spec.queue;
        let target = target.clone();
        let (end, ending) = channel();
        thread::Builder::new()
            .name(format!("ublk{}q{queue}t{thread}", self.info.dev_id))
            .spawn(move || {
                // Unwinding drops the ring and closes the device, so its requests fail.
                let run = catch_unwind(AssertUnwindSafe(|| serve(spec, &*target, &fetching)));
                let (ending, panic) = match run {
                    Ok(result) => (Some(result), None),
                    Err(panic) => (None, Some(panic)),
                };
                // Nobody listens any more once all queues fetch, or if the server was given up.
                let _ = (fetching.send(false), end.send(ending));
                if let Some(panic) = panic {
                    resume_unwind(panic);
                }
            })
            .map_err(|source| Error::Thread { queue, source })?;
        Ok(QueueThread { queue, ending })
    }

    /// Number of the device.
    pub fn dev_id(&self) -> u32 {
        self.info.dev_id
    }

    /// The device as the driver described it after the start.
    pub fn info(&self) -> &DevInfo {
        &self.info
    }

    /// The char device, `/dev/ublkcN`.
    pub fn char_path(&self) -> PathBuf {
        format!("/dev/ublkc{}", self.info.dev_id).into()
    }

    /// The block device, `/dev/ublkbN`.
    pub fn block_path(&self) -> PathBuf {
        format!("/dev/ublkb{}", self.info.dev_id).into()
    }

    /// The control plane, for commands beyond this type's own.
    pub fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// Waits for the queues to end, however long that takes: for the device to be stopped or quiesced by a control
    /// plane, this one's or another's.
    pub fn wait(&mut self) -> Result<(), Error> {
        self.join(None)
    }

    /// What ends the queues from elsewhere, as while [`Server::wait`] waits.
    pub fn give_up(&self) -> GiveUp {
        GiveUp(self.abandon.clone())
    }

    /// Removes the block device, waiting for its requests, and ends the queues. The first queue that
    /// had ended in an error is reported.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.control.stop(self.info.dev_id)?;
        self.join(Instant::now() + self.config.timeout)
    }

    /// Gives all fetches back and ends the queues; the block device stays, for [`Server::recover`]. Needs
    /// [`Features::QUIESCE`]. On an error the server goes on, as far as the driver lets it.
    pub fn quiesce(&mut self, patience: Duration) -> Result<(), Error> {
        self.control.quiesce(self.info.dev_id, patience)?;
        self.released = true;
        self.join(Instant::now() + self.config.timeout)
    }

    /// Ends as a server does that dies: its queues drop what they have, and nobody stops the device. Returns when they
    /// have ended. What they ended in is of no interest any more.
    pub fn leave(mut self) {
        self.abandon.say();
        if let Err(error) = self.join(Instant::now() + self.config.timeout) {
            tracing::info!(dev_id = self.info.dev_id, %error, "a server that left");
        }
        self.released = true;
    }

    /// Stops the device and removes it.
    pub fn delete(mut self) -> Result<(), Error> {
        self.stop()?;
        self.remove()
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.control.delete(self.info.dev_id)?;
        self.released = true;
        Ok(())
    }

    /// Waits for every queue's end; returns the first error.
    fn join(&mut self, deadline: impl Into<Option<Instant>>) -> Result<(), Error> {
        let deadline = deadline.into();
        let mut outcome = Ok(());
        for QueueThread { queue, ending } in self.queues.drain(..) {
            let ended = match deadline {
                Some(deadline) => {
                    ending.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                }
                None => ending.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let result = match ended {
                Ok(Some(Ok(()))) => Ok(()),
                Ok(Some(Err(source))) => Err(Error::Queue { queue, source }),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                    Err(Error::QueuePanicked { queue })
                }
                Err(RecvTimeoutError::Timeout) => Err(Error::QueueStuck { queue }),
            };
            outcome = outcome.and(result);
        }
        outcome
    }
}

/// Ends the queues of a [`Server`], see [`Server::give_up`].
#[derive(Clone, Debug)]
pub struct GiveUp(Arc<Abandon>);

impl GiveUp {
    /// Has every queue drop what it has, and close the char device: requests of the server end as they do when it dies.
    pub fn now(&self) {
        self.0.say();
    }
}

impl Drop for Server {
    /// Drops what the queues have and deletes the device, if that is still to be done: a request that is held keeps
    /// nobody waiting. What fails is logged: there is no other way to say it, and mostly an error is under way already.
    fn drop(&mut self) {
        if self.released {
            return;
        }
        self.abandon.say();
        let ended = self.join(Instant::now() + self.config.timeout);
        let outcome = self.remove().and(ended);
        if let Err(error) = outcome {
            tracing::warn!(dev_id = self.info.dev_id, %error, "ublk device is left behind");
        }
    }
}
