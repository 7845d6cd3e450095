//! A device and the threads that serve it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileTypeExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use zerocopy::FromZeros;

use crate::{
    control::{Control, open},
    error::Error,
    queue::{QueueError, QueueSpec, serve},
    target::Target,
    uapi::{ANY_DEVICE, DevInfo, ParamBasic, ParamDiscard, Params, SECTOR_LEN, attr, param_type},
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
        Config { info, params, timeout: Duration::from_secs(30) }
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
    timeout: Duration,
    queues: Vec<QueueThread>,
    abandon: Arc<AtomicBool>,
    deleted: bool,
}

impl Server {
    /// Makes a device and serves it. Returns when its block device exists.
    pub fn start(config: &Config, target: Arc<dyn Target>) -> Result<Self, Error> {
        let mut control = Control::open()?;
        control.set_timeout(config.timeout);
        let info = control.add(&config.info)?;
        let mut server = Server {
            control,
            info,
            timeout: config.timeout,
            queues: Vec::new(),
            abandon: Arc::default(),
            deleted: false,
        };
        server.control.set_params(info.dev_id, &config.params)?;
        server.serve(&target)?;
        server.control.start(info.dev_id)?;
        server.info = server.control.info(info.dev_id)?;
        let path = server.block_path();
        match path.metadata() {
            Ok(node) if node.file_type().is_block_device() => Ok(server),
            Ok(_) => Err(Error::Open { path, source: io::ErrorKind::InvalidInput.into() }),
            Err(source) => Err(Error::Open { path, source }),
        }
    }

    /// Starts the thread of every queue and waits until each has fetched all its tags.
    fn serve(&mut self, target: &Arc<dyn Target>) -> Result<(), Error> {
        let device = Arc::new(open(self.char_path())?);
        let (fetching, fetched) = channel();
        for queue in 0..self.info.nr_hw_queues {
            let thread = self.spawn(queue, &device, target, fetching.clone())?;
            self.queues.push(thread);
        }
        // From here on only the queues keep the char device open and the channel alive.
        drop((device, fetching));
        let deadline = Instant::now() + self.timeout;
        for _ in 0..self.queues.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            // `false` and a closed channel are a thread that ended; stopping collects its reason.
            if fetched.recv_timeout(left) != Ok(true) {
                self.stop()?;
                return Err(Error::NotFetching);
            }
        }
        Ok(())
    }

    fn spawn(
        &self,
        queue: u16,
        device: &Arc<File>,
        target: &Arc<dyn Target>,
        fetching: Sender<bool>,
    ) -> Result<QueueThread, Error> {
        let spec = QueueSpec {
            device: device.clone(),
            queue,
            depth: self.info.queue_depth,
            buffer_len: usize::try_from(self.info.max_io_buf_bytes).expect("at least 32 bits"),
            abandon: self.abandon.clone(),
        };
        let target = target.clone();
        let (end, ending) = channel();
        thread::Builder::new()
            .name(format!("ublk{}q{queue}", self.info.dev_id))
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

    /// Removes the block device, waiting for its requests, and ends the queues. The first queue that
    /// had ended in an error is reported.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.control.stop(self.info.dev_id)?;
        self.join(Instant::now() + self.timeout)
    }

    /// Stops the device and removes it.
    pub fn delete(mut self) -> Result<(), Error> {
        self.stop()?;
        self.remove()
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.control.delete(self.info.dev_id)?;
        self.deleted = true;
        Ok(())
    }

    /// Waits for every queue's end; returns the first error.
    fn join(&mut self, deadline: Instant) -> Result<(), Error> {
        let mut outcome = Ok(());
        for QueueThread { queue, ending } in self.queues.drain(..) {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = match ending.recv_timeout(left) {
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

impl Drop for Server {
    /// Stops and deletes the device if that is still to be done. What fails is logged: there is no
    /// other way to say it, and mostly an error is under way already.
    fn drop(&mut self) {
        if self.deleted {
            return;
        }
        let stopped = self.stop();
        self.abandon.store(true, Ordering::Relaxed);
        let outcome = stopped.and_then(|()| self.remove());
        if let Err(error) = outcome {
            tracing::warn!(dev_id = self.info.dev_id, %error, "ublk device is left behind");
        }
    }
}
