//! A target daemon: its process, its control socket, its pool of logical units.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use control::{Client, ClientError, Faults, JournalPage, LunAddress, LunSpec, Medium};
use guest_protocol::message::{Lease, RunId, TargetSignal};
use rustix::process::Signal;

use crate::vm::VmEvent;
use host::child::Child;

/// How long the daemon may take to listen, and to answer its control socket.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The daemon did not start.
    #[error("the target daemon {binary} did not start: {source}")]
    Start {
        /// Path of the daemon.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon ended, or did not listen in time.
    #[error("the target daemon does not listen on its control socket: {0}")]
    NotReady(String),
    /// The control socket failed or the daemon refused.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// Every unit of the pool belongs to a running test.
    #[error("all {0} logical units of the pool are in use")]
    PoolEmpty(usize),
    /// The daemon cannot be signalled.
    #[error("cannot signal the target daemon: {0}")]
    Signal(io::Error),
}

impl TargetError {
    /// Whether a daemon that lives cannot be spoken to any more: its next answer would be taken for
    /// another's. One that has died says so by its end.
    pub fn ends_the_conversation(&self) -> bool {
        use ClientError::{Closed, Io, Malformed, Refused, Unexpected};
        match self {
            TargetError::Control(Malformed { .. } | Unexpected(_)) => true,
            TargetError::Control(Io(error)) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            }
            TargetError::Control(Closed | Refused { .. }) => false,
            TargetError::Start { .. }
            | TargetError::NotReady(_)
            | TargetError::PoolEmpty(_)
            | TargetError::Signal(_) => false,
        }
    }
}

/// A running daemon; dropping it kills the process.
#[derive(Debug)]
pub struct Target {
    child: Child,
    control: Client,
    pool: BTreeMap<LunAddress, Unit>,
    /// Names of the rules about every unit that have to fire on one of them.
    standing: Vec<String>,
    /// Those of them that were replaced and have not.
    standing_unfired: Vec<String>,
    sockets: Vec<PathBuf>,
    dir: PathBuf,
    launch: Launch,
}

/// How a daemon is started, again too.
#[derive(Debug)]
struct Launch {
    binary: PathBuf,
    arguments: Vec<OsString>,
    control_socket: PathBuf,
    log: PathBuf,
    name: String,
    events: Sender<VmEvent>,
    /// Whether its end is the bench's doing, so that nobody hears of it.
    on_purpose: Arc<AtomicBool>,
}

impl Launch {
    /// Starts a daemon with these arguments besides, and waits until it listens.
    fn start(&self, more: &[OsString]) -> Result<(Child, Client), TargetError> {
        let start_error = |source| TargetError::Start { binary: self.binary.clone(), source };
        let log = File::options().append(true).create(true).open(&self.log).map_err(start_error)?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let (events, name) = (self.events.clone(), self.name.clone());
        let on_purpose = Arc::clone(&self.on_purpose);
        let child = Child::spawn(command, move |status: ExitStatus| {
            if !on_purpose.load(Ordering::SeqCst) {
                // Nobody listens when the daemon was dropped on purpose.
                let _ = events.send(VmEvent::TargetExited(name, status));
            }
        });
        let child = child.map_err(start_error)?;
        let control = connect(&child, &self.control_socket)?;
        Ok((child, control))
    }
}

/// A unit of the pool.
#[derive(Debug, Default)]
struct Unit {
    /// What the guest has last scanned it as, if that is known; it does not look again by itself.
    seen: Option<LunSpec>,
    lessee: Option<RunId>,
    /// Whether the rules it has now all have to fire.
    must_fire: bool,
    /// Rules that were replaced and had to fire and did not.
    unfired: Vec<String>,
}

impl Unit {
    /// Whether the guest that scanned it need not look again when it becomes `spec`.
    fn is_seen_as(&self, spec: &LunSpec) -> bool {
        self.seen.as_ref().is_some_and(|seen| same_to_the_guest(seen, spec))
    }
}

/// How large the pool is.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// Targets.
    pub targets: u16,
    /// Logical units behind each target.
    pub luns: u16,
}

impl PoolSize {
    /// Behind the shared host: enough for the tests of a group that run side by side.
    pub const SHARED: PoolSize = PoolSize { targets: 4, luns: 4 };
    /// Behind a test's own host.
    pub const OWN: PoolSize = PoolSize { targets: 1, luns: 4 };
}

/// What tells a daemon's host from the others of a machine.
#[derive(Clone, Copy, Debug)]
pub struct HostIdentity {
    /// Part of the designators of its units, which have to differ within a guest.
    pub number: u32,
    /// Request queues.
    pub queues: u16,
    /// Sockets, each an I_T nexus.
    pub nexuses: u16,
    /// Whether faults may have it do what no device may do.
    pub hostile: bool,
}

impl Target {
    /// Starts a daemon named `host` with its sockets and files in `dir`, and waits until it listens.
    /// Call it from the main thread: the daemon dies with the thread that started it.
    pub fn start(
        binary: &Path,
        dir: &Path,
        host: &str,
        size: PoolSize,
        identity: HostIdentity,
        events: &Sender<VmEvent>,
    ) -> Result<Self, TargetError> {
        let socket = |nexus| dir.join(format!("{host}-{nexus}.sock"));
        let sockets: Vec<_> = (0..identity.nexuses).map(socket).collect();
        let control_socket = dir.join(format!("{host}.control"));
        let mut arguments: Vec<OsString> = Vec::new();
        for socket in &sockets {
            arguments.extend(["--socket".into(), socket.into()]);
        }
        arguments.extend(["--control".into(), control_socket.clone().into()]);
        for (option, value) in [
            ("--targets", size.targets.into()),
            ("--luns", size.luns.into()),
            ("--queues", identity.queues.into()),
            ("--identifier", identity.number),
        ] {
            let value: u32 = value;
            arguments.extend([option.into(), value.to_string().into()]);
        }
        if identity.hostile {
            arguments.push("--hostile".into());
        }
        let launch = Launch {
            binary: binary.to_owned(),
            arguments,
            control_socket,
            log: dir.join(format!("{host}.log")),
            name: host.to_owned(),
            events: events.clone(),
            on_purpose: Arc::default(),
        };
        let (child, control) = launch.start(&[])?;
        let units = control.hello().luns.iter();
        let pool = units
            .map(|lun| (lun.address, Unit { seen: Some(lun.spec.clone()), ..Unit::default() }))
            .collect();
        Ok(Target {
            child,
            control,
            pool,
            standing: Vec::new(),
            standing_unfired: Vec::new(),
            sockets,
            dir: dir.to_owned(),
            launch,
        })
    }

    /// The vhost-user socket of each nexus.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Gives a unit to a run, as new.
    pub fn lease(&mut self, run: RunId, spec: LunSpec) -> Result<Lease, TargetError> {
        let spec = self.localize(spec);
        let free = || self.pool.iter().filter(|(_, unit)| unit.lessee.is_none());
        let fits = free().find(|(_, unit)| unit.is_seen_as(&spec));
        let Some((&address, unit)) = fits.or_else(|| free().next()) else {
            return Err(TargetError::PoolEmpty(self.pool.len()));
        };
        let rescan = !unit.is_seen_as(&spec);
        self.control.reset_lun(address, spec.clone())?;
        self.pool.insert(address, Unit { seen: Some(spec), lessee: Some(run), ..Unit::default() });
        Ok(Lease { address, rescan })
    }

    /// Makes a unit new again that the run holds. What was to go wrong on it is judged as if it were
    /// given back.
    pub fn renew(&mut self, run: RunId, address: LunAddress) -> Result<(), String> {
        self.leased(run, address)?;
        self.note_unfired(address)?;
        let spec = self.unit(address).seen.clone().expect("a leased unit is known");
        self.control.reset_lun(address, spec).map_err(|error| error.to_string())
    }

    /// Journals of the units a run holds.
    pub fn journals(&mut self, run: RunId) -> Result<Vec<(LunAddress, JournalPage)>, ClientError> {
        self.addresses(run).into_iter().map(|at| Ok((at, self.control.journal(at)?))).collect()
    }

    /// Journal of one unit, if the run holds it.
    pub fn journal(&mut self, run: RunId, address: LunAddress) -> Result<JournalPage, String> {
        self.leased(run, address)?;
        self.control.journal(address).map_err(|error| error.to_string())
    }

    /// Says what goes wrong on a unit the run holds. Unless it may stay unfired, each rule is one that has
    /// to fire.
    pub fn faults(
        &mut self,
        run: RunId,
        address: LunAddress,
        faults: Faults,
        may_stay_unfired: bool,
    ) -> Result<(), String> {
        self.leased(run, address)?;
        // What is replaced now had its time.
        self.note_unfired(address)?;
        self.control.faults(address, faults).map_err(|error| error.to_string())?;
        self.unit(address).must_fire = !may_stay_unfired;
        Ok(())
    }

    /// Says what goes wrong on every unit. Each rule but those named has to fire on one of the run's units.
    pub fn all_faults(
        &mut self,
        run: RunId,
        faults: Faults,
        may_stay_unfired: &[String],
    ) -> Result<(), String> {
        self.note_standing_unfired(run)?;
        let names = faults.rules.iter().map(|rule| rule.name.to_string());
        let names = names.filter(|name| !may_stay_unfired.contains(name)).collect();
        let command = control::Command::AllFaults { faults };
        self.control.done(command).map_err(|error| error.to_string())?;
        self.standing = names;
        Ok(())
    }

    /// Says something whose success has nothing to tell.
    pub fn control(&mut self, command: control::Command) -> Result<(), String> {
        if matches!(command, control::Command::AllFaults { .. }) {
            return Err("call `bench::all_faults`, which fails the test if one never fires".into());
        }
        self.control.done(command).map_err(|error| error.to_string())
    }

    /// Names of the rules that had to fire on the units of a run and did not.
    pub fn unfired(&mut self, run: RunId) -> Result<Vec<String>, String> {
        self.note_standing_unfired(run)?;
        let mut all = std::mem::take(&mut self.standing_unfired);
        for address in self.addresses(run) {
            self.note_unfired(address)?;
            all.append(&mut self.unit(address).unfired);
        }
        Ok(all)
    }

    /// Asks how often the rules about every unit have fired on the units of a run together.
    fn note_standing_unfired(&mut self, run: RunId) -> Result<(), String> {
        let mut unfired = std::mem::take(&mut self.standing);
        for address in self.addresses(run) {
            if unfired.is_empty() {
                break;
            }
            let page = self.control.journal(address).map_err(|error| error.to_string())?;
            let fired = |name: &String| {
                page.rules.iter().any(|count| count.fired > 0 && *count.name == **name)
            };
            unfired.retain(|name| !fired(name));
        }
        self.standing_unfired.extend(unfired.iter().map(|name| format!("`{name}`")));
        Ok(())
    }

    /// The units of a run.
    fn addresses(&self, run: RunId) -> Vec<LunAddress> {
        let leased = self.pool.iter().filter(|(_, unit)| unit.lessee == Some(run));
        leased.map(|(address, _)| *address).collect()
    }

    /// Asks for the rules of a unit that had to fire and have not.
    fn note_unfired(&mut self, address: LunAddress) -> Result<(), String> {
        if self.unit(address).must_fire {
            let page = self.control.journal(address).map_err(|error| error.to_string())?;
            let unfired = page.rules.into_iter().filter(|count| count.fired == 0);
            let unit = self.unit(address);
            unit.unfired.extend(unfired.map(|count| format!("`{}`", count.name)));
            unit.must_fire = false;
        }
        Ok(())
    }

    fn unit(&mut self, address: LunAddress) -> &mut Unit {
        self.pool.get_mut(&address).expect("an address of the pool")
    }

    /// Carries out what a unit holds that the run holds.
    pub fn release_held(
        &mut self,
        run: RunId,
        address: LunAddress,
        order: Option<Vec<u32>>,
    ) -> Result<(), String> {
        self.leased(run, address)?;
        let done = match order {
            None => self.control.release(address),
            Some(order) => self.control.release_in_order(address, order),
        };
        done.map_err(|error| error.to_string())
    }

    /// Nothing goes wrong any more on any unit, and nothing is held: the guest is about to remove the
    /// host, which waits for every command.
    pub fn relent(&mut self) -> Result<(), TargetError> {
        self.control.done(control::Command::AllFaults { faults: Faults::default() })?;
        for address in self.pool.keys() {
            self.control.abort_held(*address)?;
        }
        Ok(())
    }

    fn leased(&self, run: RunId, address: LunAddress) -> Result<(), String> {
        let leased = self.pool.get(&address).and_then(|unit| unit.lessee) == Some(run);
        leased.then_some(()).ok_or_else(|| format!("{address:?} is not a unit of this test"))
    }

    /// Takes back the units of a run. A bad one may have ended before the guest looked at them again,
    /// or have left them deleted or offline.
    pub fn release(&mut self, run: RunId, bad: bool) {
        for unit in self.pool.values_mut().filter(|unit| unit.lessee == Some(run)) {
            unit.lessee = None;
            unit.must_fire = false;
            if bad {
                unit.seen = None;
            }
        }
    }

    /// Stops, continues or kills the daemon; returns when the process is in that state.
    pub fn signal(&mut self, signal: TargetSignal) -> Result<(), TargetError> {
        let number = match signal {
            TargetSignal::Stop => Signal::STOP,
            TargetSignal::Continue => Signal::CONT,
            TargetSignal::Kill => Signal::KILL,
            TargetSignal::Restart => return self.restart(),
            TargetSignal::Succeed => return self.succeed(),
            TargetSignal::ExpectDeath => {
                self.launch.on_purpose.store(true, Ordering::SeqCst);
                return Ok(());
            }
        };
        self.child.signal(number).map_err(TargetError::Signal)?;
        let reached = match signal {
            TargetSignal::Stop => self.wait_stopped(),
            TargetSignal::Continue => true,
            _ => self.child.wait(DEADLINE),
        };
        let late = || TargetError::Signal(io::ErrorKind::TimedOut.into());
        reached.then_some(()).ok_or_else(late)
    }

    /// Kills the daemon and starts another with the same units in its place.
    fn restart(&mut self) -> Result<(), TargetError> {
        self.launch.on_purpose.store(true, Ordering::SeqCst);
        self.child.signal(Signal::KILL).map_err(TargetError::Signal)?;
        self.succeed()
    }

    /// Waits for the end of the daemon and starts another with the same units in its place.
    fn succeed(&mut self) -> Result<(), TargetError> {
        if !self.child.wait(DEADLINE) {
            return Err(TargetError::Signal(io::ErrorKind::TimedOut.into()));
        }
        self.launch.on_purpose = Arc::default();
        let leased = self.pool.iter().filter(|(_, unit)| unit.lessee.is_some());
        let units = leased.filter_map(|(address, unit)| Some((*address, unit.seen.clone()?)));
        let reset = |(address, spec)| control::Command::ResetLun { address, spec };
        let mut lines = String::new();
        for command in units.map(reset) {
            lines.push_str(&serde_json::to_string(&command).expect("string keys only"));
            lines.push('\n');
        }
        let path = self.dir.join(format!("{}.prepare", self.launch.name));
        let start_error =
            |source| TargetError::Start { binary: self.launch.binary.clone(), source };
        std::fs::write(&path, lines).map_err(start_error)?;
        (self.child, self.control) = self.launch.start(&["--prepare".into(), path.into()])?;
        Ok(())
    }

    /// A stop signal takes effect when each thread next leaves the kernel.
    fn wait_stopped(&self) -> bool {
        let stat = format!("/proc/{}/stat", self.child.id());
        let stopped = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')).then_some(())
        };
        wait::until(DEADLINE, "the stop of the target daemon", stopped).is_ok()
    }

    /// Media files named by a test live in the run's directory, whatever path it gave.
    fn localize(&self, mut spec: LunSpec) -> LunSpec {
        if let Medium::File { path } = &mut spec.medium {
            let name = path.file_name().unwrap_or("medium".as_ref());
            *path = self.dir.join(name);
        }
        spec
    }
}

/// Whether a guest that scanned a unit as `seen` need not look again when it becomes `spec`.
fn same_to_the_guest(seen: &LunSpec, spec: &LunSpec) -> bool {
    let blocks = |s: &LunSpec| (s.block_len, s.blocks, s.provisioning, s.physical_blocks);
    let shape = |s: &LunSpec| (s.device_type, s.write_protect, blocks(s));
    shape(seen) == shape(spec)
}

/// Waits until the daemon listens; its end ends the wait.
fn connect(child: &Child, path: &Path) -> Result<Client, TargetError> {
    let not_ready = |reason: String| TargetError::NotReady(reason);
    let connected =
        wait::until(DEADLINE, "the target daemon", || match Client::connect(path, DEADLINE) {
            Ok(client) => Some(Ok(client)),
            Err(ClientError::Io(_)) if !child.wait(Duration::ZERO) => None,
            Err(error) => Some(Err(not_ready(error.to_string()))),
        });
    connected.map_err(|error| not_ready(error.to_string()))?
}
