//! The device server with what the transport adds to it: requests in flight, journals, counters, and
//! the barrier that makes a reset of a logical unit exact.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use control::{Faults, Statistics};
use device_server::{
    Aborts, ConfigError, Device, LuConfig, LunAddress, NexusId, Nexuses, Readiness,
};
use scsi::{Sense, SenseKey};
use scsi_fault::RawEvent;

use crate::{
    backend::{Connection, QUEUES_MAX, QueueHandler, Ring},
    control_queue,
    event_queue::{EventQueue, Happening},
    faults::{self, RuleProblem},
    held::Held,
    journal::JOURNAL_LEN,
    request_queue,
    timers::Timers,
    unit::{BadOrder, StillInFlight, Unit, Which},
    wire::{self, CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, Response},
};

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

/// Why a logical unit was not changed. Nothing has happened to it then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such unit, or it cannot be what it shall become.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A rule cannot be carried out.
    #[error(transparent)]
    Rule(#[from] RuleProblem),
    /// So many addresses have had a unit that the journals of more are not kept.
    #[error("units have been plugged at {PLUGGED_MAX} addresses; plug at one of them")]
    TooMany,
    /// No unit attention condition has this text.
    #[error("`{0}` is no unit attention condition of the table of additional sense codes")]
    NoAttention(String),
    /// What is held cannot be released in this order.
    #[error(transparent)]
    Order(#[from] BadOrder),
    /// Requests did not end in time, or others kept coming.
    #[error("{source} on target {} LUN {} after {} ms", address.target, address.lun, limit.as_millis())]
    Busy {
        /// Which unit.
        address: LunAddress,
        /// How long was waited.
        limit: Duration,
        /// What was left.
        source: StillInFlight,
    },
}

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
    statistics: Counters,
}

/// A change that waits for its turn, until dropped.
struct Changing<'a>(&'a AtomicUsize);

impl<'a> Changing<'a> {
    fn begin(changes: &'a AtomicUsize) -> Self {
        changes.fetch_add(1, Ordering::Relaxed);
        Changing(changes)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
        let Settings { ports, request_queues, wait_limit, hostile, journal_len } = settings;
        assert!(ports > 0);
        assert!((1..=REQUEST_QUEUES_MAX).contains(&request_queues));
        let addresses = device.addresses();
        let target = Arc::new(Target {
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
            statistics: Counters::default(),
        });
        target.timers.start(Arc::downgrade(&target))?;
        Ok(target)
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

    /// Makes a logical unit as new, behind the barrier.
    ///
    /// # Errors
    /// If the configuration is refused or a request that runs does not end; nothing has changed then.
    pub fn reset_lun(&self, address: LunAddress, config: &LuConfig) -> Result<(), ChangeError> {
        self.change(address, |unit| {
            self.device.reset_lu(address, config.clone())?;
            unit.configure(config);
            unit.set_faults(faults::Engine::default());
            self.end_held(unit);
            unit.clear_journal();
            Ok(())
        })
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

    /// Ends everything that waits on a unit as aborted, whatever it waits for.
    ///
    /// # Errors
    /// If there is no such unit.
    pub fn abort_held(&self, address: LunAddress) -> Result<(), ChangeError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        self.end_held(&unit);
        Ok(())
    }

    /// Carries out what waits on a unit to be released, in order of arrival or in another.
    ///
    /// # Errors
    /// If there is no such unit, or the order is none; nothing has happened then.
    pub fn release(&self, address: LunAddress, order: Option<&[u32]>) -> Result<(), ChangeError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        for turn in unit.release(order)? {
            turn.take(self);
        }
        Ok(())
    }

    /// Says what goes wrong on a logical unit, behind the barrier.
    ///
    /// # Errors
    /// If a rule makes no sense or a request that runs does not end; nothing has changed then.
    pub fn set_faults(&self, address: LunAddress, faults: &Faults) -> Result<(), ChangeError> {
        let engine = self.engine(faults, address)?;
        self.change(address, |unit| {
            unit.set_faults(engine);
            Ok(())
        })
    }

    /// Says what goes wrong on every logical unit, behind the barrier of each: those that are absent or plugged
    /// later too. Each counts for itself.
    ///
    /// # Errors
    /// If a rule makes no sense; nothing has changed then. If a request that runs does not end; the units before
    /// it have changed then.
    pub fn set_standing_faults(&self, faults: &Faults) -> Result<(), ChangeError> {
        // Where a unit is makes no difference to what is wrong with a rule.
        self.engine(faults, LunAddress { target: 0, lun: 0 })?;
        let known: Vec<_> = {
            let mut standing = self.standing();
            *standing = (!faults.rules.is_empty()).then(|| Arc::new(faults.clone()));
            self.units.load().keys().copied().collect()
        };
        known.into_iter().try_for_each(|address| self.set_faults(address, faults))
    }

    fn standing(&self) -> MutexGuard<'_, Option<Arc<Faults>>> {
        self.standing.lock().expect("no holder panics")
    }

    fn engine(&self, faults: &Faults, address: LunAddress) -> Result<faults::Engine, RuleProblem> {
        let rules = faults::compile(&faults.rules, address, self.hostile)?;
        Ok(faults::Engine::new(rules, faults.seed)?)
    }

    /// Adds a logical unit, and tells the drivers.
    ///
    /// # Errors
    /// If there is one already or it cannot be made; nothing has changed then.
    pub fn plug(
        &self,
        address: LunAddress,
        config: LuConfig,
        silent: bool,
    ) -> Result<(), ChangeError> {
        if self.unit(address).is_none()
            && self.units.load().len() >= self.units_at_start + PLUGGED_MAX
        {
            return Err(ChangeError::TooMany);
        }
        // Whoever finds the unit finds what is kept for it.
        let kept_as = config.clone();
        self.device.add_lu(address, config, || self.keep(address).configure(&kept_as))?;
        self.report_unless(silent, address, Happening::Added);
        Ok(())
    }

    /// Removes a logical unit behind the barrier, and tells the drivers. What waits on it ends as aborted.
    ///
    /// # Errors
    /// If there is none or a request that runs does not end; nothing has changed then.
    pub fn unplug(&self, address: LunAddress, silent: bool) -> Result<(), ChangeError> {
        self.change(address, |unit| {
            self.device.remove_lu(address)?;
            self.end_held(unit);
            Ok(())
        })?;
        self.report_unless(silent, address, Happening::Removed);
        Ok(())
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

    /// Gives a logical unit another number of blocks behind the barrier, and tells the drivers.
    ///
    /// # Errors
    /// If it cannot have so many or a request that runs does not end; nothing has changed then.
    pub fn resize(
        &self,
        address: LunAddress,
        blocks: u64,
        silent: bool,
    ) -> Result<(), ChangeError> {
        self.change(address, |_| self.device.resize_lu(address, blocks))?;
        let (_, asc, ascq) = Sense::CAPACITY_DATA_HAS_CHANGED.triple();
        self.report_unless(silent, address, Happening::ParameterChanged(asc, ascq));
        Ok(())
    }

    /// Establishes a unit attention condition by the text of its sense, behind the barrier.
    ///
    /// # Errors
    /// If the text is unknown or a request that runs does not end; nothing has changed then.
    pub fn unit_attention(
        &self,
        address: LunAddress,
        nexus: Option<NexusId>,
        sense: &str,
    ) -> Result<(), ChangeError> {
        let sense = scsi::sense::table::from_name(sense)
            .filter(|sense| sense.key == SenseKey::UnitAttention)
            .ok_or_else(|| ChangeError::NoAttention(sense.to_owned()))?;
        let nexuses = nexus.map_or(Nexuses::All, Nexuses::One);
        self.change(address, |_| self.device.establish_unit_attention(address, nexuses, sense))
    }

    /// Makes a logical unit ready or not, behind the barrier.
    ///
    /// # Errors
    /// If there is none or a request that runs does not end; nothing has changed then.
    pub fn set_readiness(
        &self,
        address: LunAddress,
        readiness: Readiness,
    ) -> Result<(), ChangeError> {
        self.change(address, |_| self.device.set_readiness(address, readiness))
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

    /// The barrier of the control socket: when this returns, no request fetched before the change runs
    /// on the unit, and every one fetched later sees it changed.
    fn change(
        &self,
        address: LunAddress,
        change: impl FnOnce(&Arc<Unit>) -> Result<(), ConfigError>,
    ) -> Result<(), ChangeError> {
        let unit = self.unit(address).ok_or(ConfigError::NoSuchUnit(address))?;
        let _changing = Changing::begin(&self.changes);
        let deadline = std::time::Instant::now() + self.wait_limit;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            unit.wait_for(Which::All, left).map_err(|source| ChangeError::Busy {
                address,
                limit: self.wait_limit,
                source,
            })?;
            let nothing_fetched: Vec<_> = self
                .fetch_locks
                .iter()
                .map(|lock| lock.lock().expect("no holder panics"))
                .collect();
            if unit.runs(Which::All) {
                // Something was fetched between the wait and the locks.
                drop(nothing_fetched);
                continue;
            }
            return Ok(change(&unit)?);
        }
    }

    /// Whether somebody waits for a unit on which nothing runs.
    pub(crate) fn is_changing(&self) -> bool {
        self.changes.load(Ordering::Relaxed) > 0
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
