//! The control socket: JSON lines in, JSON lines out, see the `control` crate.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread::{Builder, JoinHandle},
};

use control::{CONTROL_VERSION, Command, Hello, Reply, Request, Response};
use device_server::NexusId;
use tracing::{debug, info, warn};

use crate::{
    poll::either_readable,
    spec::{address_of, config_of, happening_of, readiness_of, state_of},
    target::{ChangeError, Target},
    unit::Unit,
};

/// Longest line from a client in bytes, newline included.
pub const LINE_LEN_MAX: u64 = 1 << 20;

/// Most clients at once; each has a thread.
const CLIENTS_MAX: usize = 64;

/// Serves clients on a socket until stopped.
#[derive(Debug)]
pub struct ControlServer {
    clients: Arc<Clients>,
    /// Closing it wakes the thread out of its wait for a connection.
    wake: UnixStream,
    thread: JoinHandle<io::Result<()>>,
}

/// The connections that are open, to be shut down at the end.
#[derive(Debug, Default)]
struct Clients {
    state: Mutex<ClientsState>,
}

#[derive(Debug, Default)]
struct ClientsState {
    stopped: bool,
    next: u64,
    open: HashMap<u64, (UnixStream, JoinHandle<()>)>,
}

impl ControlServer {
    /// Starts serving `target` to whoever connects to `listener`.
    ///
    /// # Errors
    /// If the system gives no thread or descriptor.
    pub fn start(target: Arc<Target>, listener: UnixListener) -> io::Result<Self> {
        let clients = Arc::new(Clients::default());
        let (wake, woken) = UnixStream::pair()?;
        let thread = {
            let clients = Arc::clone(&clients);
            Builder::new()
                .name("control".into())
                .spawn(move || accept(&target, &listener, &woken, &clients))?
        };
        Ok(ControlServer { clients, wake, thread })
    }

    /// Stops listening, hangs up on every client and waits for their threads.
    ///
    /// # Errors
    /// What ended the serving before.
    pub fn stop(self) -> io::Result<()> {
        let open = {
            let mut state = self.clients.state();
            state.stopped = true;
            std::mem::take(&mut state.open)
        };
        drop(self.wake);
        for (stream, thread) in open.into_values() {
            // An error means that the client has gone, which is what is wanted.
            let _gone = stream.shutdown(Shutdown::Both);
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Clients {
    fn state(&self) -> MutexGuard<'_, ClientsState> {
        self.state.lock().expect("no holder panics")
    }
}

fn accept(
    target: &Arc<Target>,
    listener: &UnixListener,
    woken: &UnixStream,
    clients: &Arc<Clients>,
) -> io::Result<()> {
    loop {
        either_readable(listener, woken)?;
        let mut state = clients.state();
        if state.stopped {
            return Ok(());
        }
        let (stream, _) = listener.accept()?;
        if state.open.len() >= CLIENTS_MAX {
            warn!(CLIENTS_MAX, "too many control clients, one more is turned away");
            continue;
        }
        let id = state.next;
        state.next += 1;
        let thread = {
            let (target, clients) = (Arc::clone(target), Arc::clone(clients));
            let conversation = stream.try_clone()?;
            Builder::new().name(format!("control-{id}")).spawn(move || {
                if let Err(error) = converse(&target, conversation) {
                    debug!(client = id, %error, "control client gone");
                }
                clients.state().open.remove(&id);
            })?
        };
        state.open.insert(id, (stream, thread));
    }
}

/// Answers the lines of one client until it hangs up.
fn converse(target: &Target, stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut conversation = Conversation::new(target);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        if line.is_empty() || (!whole && (line.len() as u64) < LINE_LEN_MAX) {
            // Hung up, perhaps within a line, which then is no request.
            return Ok(());
        }
        let response = if whole {
            conversation.respond(&line)
        } else {
            Response { id: 0, result: Err(format!("line is longer than {LINE_LEN_MAX} bytes")) }
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        writer.write_all(&text)?;
        if !whole {
            // What follows is the middle of a line.
            return writer.shutdown(Shutdown::Both);
        }
    }
}

/// What is said with one client, without a socket.
#[derive(Debug)]
pub struct Conversation<'a> {
    target: &'a Target,
    greeted: bool,
}

/// Carries out a request other than hello. A refused one has changed nothing.
///
/// # Errors
/// Why it is refused.
pub fn carry_out(target: &Target, command: Command) -> Result<Reply, String> {
    match command {
        Command::Hello { .. } => Err("hello opens a conversation".into()),
        Command::ResetLun { address, spec } => {
            let address = address_of(address);
            target.reset_lun(address, &config_of(spec)).map_err(|error| error.to_string())?;
            info!(target = address.target, lun = address.lun, "logical unit reset");
            Ok(Reply::Done)
        }
        Command::Faults { address, faults } => {
            done(target.set_faults(address_of(address), &faults))
        }
        Command::AllFaults { faults } => done(target.set_standing_faults(&faults)),
        Command::Release { address, order } => {
            done(target.release(address_of(address), order.as_deref()))
        }
        Command::Plug { address, spec, silent } => {
            done(target.plug(address_of(address), config_of(spec), silent))
        }
        Command::Unplug { address, silent } => done(target.unplug(address_of(address), silent)),
        Command::Resize { address, blocks, silent } => {
            done(target.resize(address_of(address), blocks, silent))
        }
        Command::UnitAttention { address, nexus, sense } => {
            done(target.unit_attention(address_of(address), nexus.map(NexusId), &sense))
        }
        Command::Readiness { address, readiness } => {
            done(target.set_readiness(address_of(address), readiness_of(readiness)))
        }
        Command::Event { address, event } => {
            target.report(address_of(address), happening_of(event));
            Ok(Reply::Done)
        }
        Command::AbortHeld { address } => done(target.abort_held(address_of(address))),
        Command::Journal { address } => Ok(Reply::Journal(unit(target, address)?.journal_page())),
        Command::Statistics => Ok(Reply::Statistics(target.statistics())),
    }
}

/// Carries out requests from a file, one command a line in JSON, before anything else can.
///
/// # Errors
/// The first line that is none or is refused; those before it have been carried out.
pub fn prepare(target: &Target, path: &Path) -> io::Result<()> {
    for (number, line) in (1..).zip(BufReader::new(File::open(path)?).lines()) {
        let command = serde_json::from_str(&line?).map_err(|error| error.to_string());
        let done = command.and_then(|command| carry_out(target, command));
        done.map_err(|reason| io::Error::other(format!("line {number}: {reason}")))?;
    }
    Ok(())
}

fn unit(target: &Target, address: control::LunAddress) -> Result<Arc<Unit>, String> {
    target
        .unit(address_of(address))
        .ok_or_else(|| format!("target {} has no logical unit {}", address.target, address.lun))
}

fn done(result: Result<(), ChangeError>) -> Result<Reply, String> {
    result.map(|()| Reply::Done).map_err(|error| error.to_string())
}

impl<'a> Conversation<'a> {
    /// With a client that has said nothing yet.
    #[must_use]
    pub fn new(target: &'a Target) -> Self {
        Conversation { target, greeted: false }
    }

    /// Carries out what a line asks for, and answers.
    pub fn respond(&mut self, line: &[u8]) -> Response {
        match serde_json::from_slice(line) {
            Ok(Request { id, command }) => Response { id, result: self.carry_out(command) },
            Err(error) => Response { id: 0, result: Err(format!("not understood: {error}")) },
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<Reply, String> {
        if !self.greeted && !matches!(command, Command::Hello { .. }) {
            return Err("the first request must be hello".into());
        }
        match command {
            Command::Hello { version } => self.hello(version),
            command => carry_out(self.target, command),
        }
    }

    fn hello(&mut self, version: u32) -> Result<Reply, String> {
        if version != CONTROL_VERSION {
            return Err(format!("version {version} is not spoken here, only {CONTROL_VERSION}"));
        }
        self.greeted = true;
        let luns = self.target.device().addresses().into_iter().map(state_of).collect();
        Ok(Reply::Hello(Hello { version: CONTROL_VERSION, pid: std::process::id(), luns }))
    }
}
