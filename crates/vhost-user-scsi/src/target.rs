//! The device server with what the transport adds to it: requests in flight, journals, counters.

mod changes;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use control::{Faults, Statistics};
use device_server::{Aborts, Device, LuConfig, LunAddress, NexusId};
use scsi_fault::RawEvent;

use crate::{
    backend::{Connection, QUEUES_MAX, QueueHandler, Ring},
    control_queue,
    event_queue::{EventQueue, Happening},
    faults::{self, RuleProblem},
    held::Held,
    journal::JOURNAL_LEN,
    request_queue,
    storage::Storage,
    timers::Timers,
    unit::{Unit, Which},
    wire::{self, CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, Response},
};

pub use changes::ChangeError;

/// Most request queues: what is left of [`QUEUES_MAX`].
pub const REQUEST_QUEUES_MAX: usize = QUEUES_MAX - FIRST_REQUEST_QUEUE;

/// How long a reset or a task management function waits for requests in flight.
const WAIT_LIMIT: Duration = Duration::from_secs(3);

/// Most addresses that units are plugged at, beside those of the beginning: something is kept for each, and
/// whoever plugs and unplugs without end must not have it grow without end.
const PLUGGED_MAX: usize = 1024;

/// Of these, most that are kept for logical units which are absent, so that a driver which asks for them all
/// leaves room for those that are plugged.
const ABSENT_MAX: usize = 256;

/// How a device is reached.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Ports; each is the target's end of one I_T nexus, and all share the units.
    pub ports: usize,
    /// Request queues of each port.
    pub request_queues: usize,
    /// How long a change or a task management function waits for requests in flight.
    pub wait_limit: Duration,
    /// Whether faults may do what no device may do.
    pub hostile: bool,
    /// How many entries the journal of each unit keeps. Without one no command pays for it.
    pub journal_len: usize,
    /// Whether data that is not cached is waited for on an io_uring, if the system has one.
    pub io_uring: bool,
}

impl Settings {
    /// So many ports and queues, and nothing out of the ordinary.
    #[must_use]
    pub fn new(ports: usize, request_queues: usize) -> Self {
        Settings {
            ports,
            request_queues,
            wait_limit: WAIT_LIMIT,
            hostile: false,
            journal_len: JOURNAL_LEN,
            io_uring: true,
        }
    }
}

/// A SCSI device behind virtqueues.
#[derive(Debug)]
pub struct Target {
    device: Device,
    /// Every unit there has ever been: the journal of one that is gone is still of interest.
    units: ArcSwap<BTreeMap<LunAddress, Arc<Unit>>>,
    units_at_start: usize,
    /// What goes wrong on every unit that is not known yet.
    standing: Mutex<Option<Arc<Faults>>>,
    /// One for each port.
    events: Vec<EventQueue>,
    ports: usize,
    /// One lock for each queue of each port, held from popping a chain until its request is registered with its
    /// unit. Whoever holds them all knows that nothing is between ring and registry.
    fetch_locks: Vec<Mutex<()>>,
    wait_limit: Duration,
    /// Whether faults may do what no device may do.
    hostile: bool,
    journal_len: usize,
    /// How many changes wait for a unit.
    changes: AtomicUsize,
    /// The session of each port.
    connections: Vec<Mutex<Option<Connection>>>,
    timers: Timers,
    io_uring: bool,
    /// Who lets commands wait for the host's storage, if that is not done by whoever executes them. Made when the first
    /// may have to.
    storage: OnceLock<Option<Storage>>,
    itself: Weak<Target>,
    statistics: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    commands: AtomicU64,
    control_requests: AtomicU64,
    malformed: AtomicU64,
}

impl Target {
    /// Puts a device behind its ports.
    ///
    /// # Errors
    /// If the system gives no thread.
    ///
    /// # Panics
    /// If there is no port, no request queue or more than [`REQUEST_QUEUES_MAX`].
    pub fn new(device: Device, settings: Settings) -> io::Result<Arc<Self>> {
        let Settings { ports, request_queues, wait_limit, hostile, journal_len, io_uring } =
            settings;
        assert!(ports > 0);
        assert!((1..=REQUEST_QUEUES_MAX).contains(&request_queues));
        let addresses = device.addresses();
        let target = Arc::new_cyclic(|itself| Target {
            units_at_start: addresses.len(),
            standing: Mutex::default(),
            units: ArcSwap::from_pointee(
                addresses
                    .into_iter()
                    .map(|(address, config)| (address, Arc::new(Unit::new(&config, journal_len))))
                    .collect(),
            ),
            events: (0..ports).map(|_| EventQueue::default()).collect(),
            ports,
            fetch_locks: fetch_locks(ports * (FIRST_REQUEST_QUEUE + request_queues)),
            device,
            wait_limit,
            hostile,
            journal_len,
            changes: AtomicUsize::new(0),
            connections: (0..ports).map(|_| Mutex::default()).collect(),
            timers: Timers::default(),
            io_uring,
            storage: OnceLock::new(),
            itself: Weak::clone(itself),
            statistics: Counters::default(),
        });
        target.timers.start(Arc::downgrade(&target))?;
        Ok(target)
    }

    /// Who lets commands wait for the host's storage, if anybody does.
    pub(crate) fn storage(&self) -> Option<&Storage> {
        let start = || self.io_uring.then(|| Storage::start(self.itself.clone())).flatten();
        self.storage.get_or_init(start).as_ref()
    }

    /// Who lets requests go on when their time has come.
    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The device server.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the transport keeps for a logical unit, if there is one.
    #[must_use]
    pub fn unit(&self, address: LunAddress) -> Option<Arc<Unit>> {
        self.units.load().get(&address).cloned()
    }

    /// The same for an address that may have no unit: where something goes wrong on all of them, an absent one
    /// is kept account of too.
    pub(crate) fn unit_or_absent(&self, address: LunAddress) -> Option<Arc<Unit>> {
        let known = self.unit(address);
        if known.is_some() || self.standing().is_none() {
            return known;
        }
        let has_room = self.units.load().len() < self.units_at_start + ABSENT_MAX;
        has_room.then(|| self.keep(address))
    }

    /// What is kept for an address, from now on if it was not before.
    fn keep(&self, address: LunAddress) -> Arc<Unit> {
        let new = Arc::new(Unit::new(&LuConfig::default(), self.journal_len));
        // Kept locked until the unit is known to whoever changes them next.
        let standing = self.standing();
        if let Some(faults) = &*standing {
            new.set_faults(self.engine(faults, address).expect("compiled when it was installed"));
        }
        self.units.rcu(|units| {
            let mut units = BTreeMap::clone(units);
            units.entry(address).or_insert_with(|| Arc::clone(&new));
            units
        });
        self.unit(address).expect("it is kept")
    }

    /// The units of a target.
    #[must_use]
    pub fn units_of(&self, target: u8) -> Vec<Arc<Unit>> {
        let all = LunAddress { target, lun: 0 }..=LunAddress { target, lun: u16::MAX };
        self.units.load().range(all).map(|(_, unit)| Arc::clone(unit)).collect()
    }

    /// How long a task management function waits for the commands it concerns.
    #[must_use]
    pub fn wait_limit(&self) -> Duration {
        self.wait_limit
    }

    /// Whether anybody will want to know when commands came and went.
    pub(crate) fn keeps_journals(&self) -> bool {
        self.journal_len > 0
    }

    /// To be held from popping a chain of this queue until its request is registered with its unit.
    pub(crate) fn fetching(&self, nexus: NexusId, queue: usize) -> MutexGuard<'_, ()> {
        let port = nexus.0 as usize;
        self.fetch_locks[port * self.queue_count() + queue].lock().expect("no holder panics")
    }

    /// Not as reset: the initiator would send them again, to a unit that is now another test's.
    fn end_held(&self, unit: &Arc<Unit>) {
        for held in unit.take_held(Which::All) {
            held.end(self, Response::Aborted);
        }
    }

    /// Ends what a command of `by` has aborted: what waits; what runs ends by itself. Initiators whose commands
    /// another one has aborted learn of it.
    pub(crate) fn abort(&self, unit: &Arc<Unit>, at: LunAddress, by: NexusId, aborts: &Aborts) {
        match aborts {
            Aborts::Nothing => {}
            Aborts::SameNexus => drop(self.end_commands(unit, Which::CommandsOf(by))),
            Aborts::TaskSet => {
                let of = self.end_commands(unit, Which::Commands);
                self.device.commands_cleared(at, by, &of);
            }
            Aborts::Nexuses(nexuses) => {
                for nexus in nexuses {
                    self.end_commands(unit, Which::CommandsOf(*nexus));
                }
            }
        }
    }

    /// Ends commands that wait as aborted; whose they were.
    fn end_commands(&self, unit: &Arc<Unit>, which: Which) -> Vec<NexusId> {
        let held = unit.take_held(which);
        let nexuses = held.iter().map(Held::nexus).collect();
        held.into_iter().for_each(|held| held.end(self, Response::Aborted));
        nexuses
    }

    fn standing(&self) -> MutexGuard<'_, Option<Arc<Faults>>> {
        self.standing.lock().expect("no holder panics")
    }

    fn engine(&self, faults: &Faults, address: LunAddress) -> Result<faults::Engine, RuleProblem> {
        let rules = faults::compile(&faults.rules, address, self.hostile)?;
        Ok(faults::Engine::new(rules, faults.seed)?)
    }

    /// A logical unit is gone without a word to anybody; commands already running on it finish.
    pub(crate) fn vanish(&self, address: LunAddress) {
        // Another command may have made it vanish before, which is as good.
        if let Err(error) = self.device.remove_lu(address) {
            tracing::debug!(%error, "it has vanished already");
        }
    }

    /// Ends the session of a nexus.
    pub(crate) fn hang_up(&self, nexus: NexusId) {
        if let Some(connection) = &*self.connection(nexus.0 as usize) {
            connection.hang_up();
        }
    }

    fn connection(&self, port: usize) -> MutexGuard<'_, Option<Connection>> {
        self.connections[port].lock().expect("no holder panics")
    }

    /// Tells every driver, whether or not it is true.
    pub fn report(&self, address: LunAddress, happening: Happening) {
        for events in &self.events {
            events.report(address, happening);
        }
    }

    /// Sends the driver of a nexus an event that may mean nothing.
    pub(crate) fn send_raw_event(&self, nexus: NexusId, event: RawEvent) {
        self.events[nexus.0 as usize].send_raw(event);
    }

    fn report_unless(&self, silent: bool, address: LunAddress, happening: Happening) {
        if !silent {
            self.report(address, happening);
        }
    }

    pub(crate) fn count_command(&self) {
        self.statistics.commands.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_control_request(&self) {
        self.statistics.control_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_malformed(&self) {
        self.statistics.malformed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters since start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            commands: self.statistics.commands.load(Ordering::Relaxed),
            control_requests: self.statistics.control_requests.load(Ordering::Relaxed),
            malformed: self.statistics.malformed.load(Ordering::Relaxed),
            storage_waits: self.storage.get().and_then(Option::as_ref).map_or(0, Storage::waits),
        }
    }
}

fn fetch_locks(queues: usize) -> Vec<Mutex<()>> {
    (0..queues).map(|_| Mutex::default()).collect()
}

/// All queues of a socket are one initiator port.
fn nexus_of(port: usize) -> NexusId {
    NexusId(u32::try_from(port).expect("a few ports"))
}

impl QueueHandler for Target {
    fn queue_count(&self) -> usize {
        self.fetch_locks.len() / self.ports
    }

    /// A worker for each request queue, and one for the control and event queues: a task management
    /// function that waits for commands must not keep them from running.
    fn queues_of_workers(&self) -> Vec<Vec<usize>> {
        let others = std::iter::once(vec![CONTROL_QUEUE, EVENT_QUEUE]);
        others.chain((FIRST_REQUEST_QUEUE..self.queue_count()).map(|queue| vec![queue])).collect()
    }

    fn features(&self) -> u64 {
        1 << wire::F_HOTPLUG | 1 << wire::F_CHANGE
    }

    fn serve(&self, port: usize, queue: usize, ring: &Ring) {
        let nexus = nexus_of(port);
        match queue {
            CONTROL_QUEUE => control_queue::serve(self, nexus, ring),
            EVENT_QUEUE => self.events[port].serve(ring),
            _ => request_queue::serve(self, nexus, queue, ring),
        }
    }

    fn rings_stopped(&self) {
        for unit in self.units.load().values() {
            unit.start_waiting(self);
        }
    }

    fn session_began(&self, port: usize, connection: Connection) {
        *self.connection(port) = Some(connection);
    }

    fn session_ended(&self, port: usize) {
        *self.connection(port) = None;
        let nexus = nexus_of(port);
        self.events[port].forget();
        for unit in self.units.load().values() {
            unit.forget_held(nexus);
            // Something that was held may just have been released.
            if let Err(left) = unit.wait_for(Which::AllOf(nexus), self.wait_limit) {
                tracing::warn!(%left, "a session has ended");
            }
            unit.start_waiting(self);
        }
    }
}

#[cfg(test)]
mod tests;
