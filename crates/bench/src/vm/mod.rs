//! A virtual machine as a value: booted, spoken to, gone when dropped.
//!
//! It must not know tests. What happens to the machine arrives as [`VmEvent`]s on the channel given
//! to [`Vm::boot`].

mod args;
mod qmp;

use std::{
    fs::{self, File},
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use guest_protocol::{
    frame::{self, FrameError},
    message::{FromGuest, ToGuest},
    needs::HostShape,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::Signal,
};
use serde_json::{Value, json};

pub use args::{Accel, SHARED_SLOT, SPARE_SLOTS, Slot, VmConfig};
pub use qmp::QmpError;

use crate::coverage::Recorder;
use host::child::Child;

/// QEMU connects its sockets before it starts the guest; this is for a machine under heavy load.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// QEMU answers its monitor at once, but a host under stress may not schedule it.
const QMP_DEADLINE: Duration = Duration::from_secs(20);

/// Something that happened to a machine.
#[derive(Debug)]
pub enum VmEvent {
    /// A message from the agent.
    Guest(FromGuest),
    /// The agent's port is closed or out of step.
    LinkLost(String),
    /// QEMU has ended.
    Exited(ExitStatus),
    /// A device was unplugged by the guest, by its QEMU id.
    DeviceDeleted(String),
    /// A target daemon has ended, by the name of its host.
    TargetExited(String, ExitStatus),
}

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A file or socket of the run directory failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// QEMU ended before it connected its sockets.
    #[error("QEMU did not start: {0}")]
    NotStarted(String),
    /// The monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The agent's port failed.
    #[error("cannot write to the guest: {0}")]
    Link(#[from] FrameError),
}

/// The first version of QEMU whose sockets reconnect after so many milliseconds; before, it was seconds.
const RECONNECT_MS: (u32, u32, u32) = (9, 2, 0);

/// A running virtual machine; dropping it kills QEMU.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    qmp: qmp::Qmp,
    link: UnixStream,
    dir: PathBuf,
    version: (u32, u32, u32),
}

impl Vm {
    /// Starts QEMU in `dir` and connects monitor and agent port. The guest has not booted yet when
    /// this returns: its first event is [`FromGuest::Hello`]. Call it from the main thread: QEMU dies
    /// with the thread that started it.
    pub fn boot(
        config: &VmConfig<'_>,
        dir: &Path,
        shared_socket: &Path,
        events: &Sender<VmEvent>,
    ) -> Result<Self, VmError> {
        let agent = listen(&dir.join("agent.sock"))?;
        let monitor = listen(&dir.join("qmp.sock"))?;
        let log = dir.join("qemu.log");
        let log_file = File::create(&log).map_err(|source| io_error(&log, source))?;

        let mut command = config.qemu.command();
        command.args(config.arguments(dir, shared_socket));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let exits = events.clone();
        let child = Child::spawn(command, move |status| {
            // The receiver is gone when the machine was dropped on purpose.
            let _ = exits.send(VmEvent::Exited(status));
        });
        let child = child.map_err(|source| io_error(&config.qemu.binary, source))?;

        let not_started = |_| VmError::NotStarted(tail(&log, 20));
        let monitor = accept(&monitor, &child).map_err(not_started)?;
        let link = accept(&agent, &child).map_err(not_started)?;
        let deleted = events.clone();
        let qmp = qmp::Qmp::open(monitor, QMP_DEADLINE, move |event, data| {
            if let ("DEVICE_DELETED", Some(device)) = (event, data["device"].as_str()) {
                let _ = deleted.send(VmEvent::DeviceDeleted(device.to_owned()));
            }
        });
        // A QEMU that gives up at this point has said why in its log.
        let qmp =
            qmp.map_err(|error| VmError::NotStarted(format!("{error}: {}", tail(&log, 20))))?;
        // A guest that has stopped reading must not stop the bench.
        link.set_write_timeout(Some(QMP_DEADLINE)).map_err(|source| io_error(dir, source))?;
        let reader = link.try_clone().map_err(|source| io_error(dir, source))?;
        let messages = events.clone();
        let recorder = config.recorder.cloned();
        thread::spawn(move || forward(&reader, &messages, recorder.as_deref()));
        let version = config.qemu.version;
        Ok(Vm { child, qmp, link, dir: dir.to_owned(), version })
    }

    /// Sends a message to the agent.
    pub fn send(&mut self, message: &ToGuest) -> Result<(), VmError> {
        Ok(frame::write(&mut self.link, message)?)
    }

    /// Plugs a vhost-user-scsi device into a spare slot.
    pub fn plug_host(
        &mut self,
        id: &str,
        slot: &Slot,
        socket: &Path,
        shape: HostShape,
        reconnects: bool,
    ) -> Result<(), QmpError> {
        let addr = json!({ "type": "unix", "data": { "path": socket } });
        let mut data = json!({ "addr": addr, "server": false });
        if reconnects && self.version >= RECONNECT_MS {
            data["reconnect-ms"] = 100.into();
        } else if reconnects {
            data["reconnect"] = 1.into();
        }
        let backend = json!({ "type": "socket", "data": data });
        self.qmp
            .execute("chardev-add", json!({ "id": format!("{id}-socket"), "backend": backend }))?;
        let mut device = args::host_device(id, &format!("{id}-socket"), shape);
        device.insert("bus".into(), Value::from(slot.bus));
        self.qmp.execute("device_add", Value::Object(device)).map(drop)
    }

    /// Asks the guest to give a device up; [`VmEvent::DeviceDeleted`] says when it has.
    pub fn unplug(&mut self, id: &str) -> Result<(), QmpError> {
        self.qmp.execute("device_del", json!({ "id": id })).map(drop)
    }

    /// Whether the guest may boot again. If not, its attempt to is the end of QEMU.
    pub fn allow_reboot(&mut self, allowed: bool) -> Result<(), QmpError> {
        let action = if allowed { "reset" } else { "shutdown" };
        self.qmp.execute("set-action", json!({ "reboot": action })).map(drop)
    }

    /// Removes the character device of an unplugged host.
    pub fn forget_socket(&mut self, id: &str) -> Result<(), QmpError> {
        self.qmp.execute("chardev-remove", json!({ "id": format!("{id}-socket") })).map(drop)
    }

    /// Where each virtual CPU is, for a guest that does not answer any more.
    pub fn registers(&mut self) -> String {
        let arguments = json!({ "command-line": "info registers -a" });
        match self.qmp.execute("human-monitor-command", arguments) {
            Ok(text) => text.as_str().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// The serial console so far.
    pub fn console(&self) -> String {
        fs::read(self.dir.join(args::CONSOLE_LOG))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What QEMU itself had to say.
    pub fn log(&self) -> String {
        tail(&self.dir.join("qemu.log"), 20)
    }

    /// Kills QEMU as `kill -9` would.
    pub fn kill(&self) -> io::Result<()> {
        self.child.signal(Signal::KILL)
    }

    /// Waits for QEMU to end by itself.
    pub fn wait(&self, limit: Duration) -> bool {
        self.child.wait(limit)
    }

    /// Process id of QEMU, for messages.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

fn io_error(path: &Path, source: io::Error) -> VmError {
    VmError::Io { what: path.display().to_string(), source }
}

fn listen(path: &Path) -> Result<UnixListener, VmError> {
    UnixListener::bind(path).map_err(|source| io_error(path, source))
}

/// Waits for QEMU's connection; fails when QEMU ends first.
fn accept(listener: &UnixListener, child: &Child) -> io::Result<UnixStream> {
    let step = Duration::from_millis(50);
    let steps = CONNECT_DEADLINE.as_millis() / step.as_millis();
    for _ in 0..steps {
        let timeout = step.try_into().map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout))? == 1 {
            return listener.accept().map(|(stream, _)| stream);
        }
        if child.wait(Duration::ZERO) {
            return Err(io::Error::other("QEMU ended"));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn forward(link: &UnixStream, events: &Sender<VmEvent>, recorder: Option<&Recorder>) {
    loop {
        let event = match frame::read(link) {
            // Taken here, while the log is still about where it was when the guest looked.
            Ok(Some(FromGuest::ModuleCode { modules })) => {
                if let Some(recorder) = recorder {
                    recorder.modules(modules);
                }
                continue;
            }
            Ok(Some(message)) => VmEvent::Guest(message),
            Ok(None) => VmEvent::LinkLost("closed".into()),
            Err(error) => VmEvent::LinkLost(error.to_string()),
        };
        let last = matches!(event, VmEvent::LinkLost(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
