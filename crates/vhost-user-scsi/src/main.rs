//! `sensecheck-target`: the daemon. It must not do anything the library could: it reads the command
//! line, binds the sockets, waits for the end.

#![forbid(unsafe_code)]

mod args;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, error::ErrorKind};
use device_server::{Device, DeviceConfig};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tracing::info;
use tracing_subscriber::EnvFilter;
use vhost_user_scsi::{
    backend::FrontEnd,
    control_server::{self, ControlServer},
    scenario, socket,
    target::Target,
};

use crate::args::Args;

/// How long the end may take once it is asked for. A command that hangs in the kernel must not keep
/// the process.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// Why the daemon stops.
enum End {
    Signal(i32),
    FrontEndFailed,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(path) = &args.check {
        return check(path, args.hostile);
    }
    let config = args
        .device()
        .unwrap_or_else(|error| Args::command().error(ErrorKind::ValueValidation, error).exit());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would complain to stderr that it cannot write to stderr, and panic because it cannot.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    abort_on_panic();
    match run(&args, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// A worker that panicked would leave a guest waiting for ever: the whole daemon goes, loudly.
fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

/// `--check`.
fn check(path: &Path, hostile: bool) -> ExitCode {
    let said = match scenario::read(path, hostile) {
        Ok(scenario) => {
            let names: Vec<_> = scenario.rules.iter().map(|rule| rule.name.as_str()).collect();
            let count = names.len();
            writeln!(
                io::stdout(),
                "{}: sound, {count} rule(s): {}",
                path.display(),
                names.join(", ")
            )
        }
        Err(error) => {
            report(&anyhow::anyhow!("{}: {error}", path.display()));
            return ExitCode::FAILURE;
        }
    };
    // Whoever closed the output did not want to know.
    said.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn report(error: &anyhow::Error) {
    // With nobody there to read it, the exit code has to do.
    let _ = writeln!(io::stderr(), "error: {error:#}");
}

fn run(args: &Args, config: DeviceConfig) -> anyhow::Result<()> {
    // Before the sockets exist, so that whoever sees them can already stop us.
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot catch signals")?;
    let device = Device::new(config)?;
    let units = device.addresses().len();
    let target = Target::new(device, args.settings()).context("no thread for the timers")?;
    if let Some(path) = &args.prepare {
        control_server::prepare(&target, path).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.scenario {
        let name = || path.display().to_string();
        let faults = scenario::read(path, args.hostile).with_context(name)?;
        scenario::install(&target, &faults).with_context(name)?;
    }

    let (ended, end) = mpsc::channel();
    let (mut front_ends, mut paths) = (Vec::new(), Vec::new());
    for (port, socket) in args.sockets.iter().enumerate() {
        let (listener, path) = socket::bind(socket)?;
        paths.push(path);
        let ended = ended.clone();
        let tell = move || drop(ended.send(End::FrontEndFailed));
        let front_end = FrontEnd::start(Arc::clone(&target) as _, port, listener, tell);
        front_ends.push(front_end.context("cannot serve the vhost-user socket")?);
    }
    // Last: a bench that can connect here finds everything ready.
    let control = match &args.control {
        None => None,
        Some(path) => {
            let (listener, path) = socket::bind(path)?;
            paths.push(path);
            let server = ControlServer::start(target, listener);
            Some(server.context("cannot serve the control socket")?)
        }
    };
    info!(units, queues = args.queues, sockets = ?args.sockets, "ready");

    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            // The receiver is gone only when the end has come already.
            drop(ended.send(End::Signal(signal)));
        }
    })?;
    match end.recv()? {
        End::Signal(signal) => {
            info!(signal, "stopping");
            drop(paths);
            stop(front_ends, control);
            Ok(())
        }
        End::FrontEndFailed => front_ends
            .into_iter()
            .try_for_each(FrontEnd::stop)
            .context("a vhost-user socket cannot be served"),
    }
}

/// Ends the threads, within [`STOP_LIMIT`].
fn stop(front_ends: Vec<FrontEnd>, control: Option<ControlServer>) {
    let (done, stopped) = mpsc::channel();
    thread::spawn(move || {
        let results = front_ends.into_iter().map(FrontEnd::stop);
        let results = results.chain(control.map(ControlServer::stop)).collect::<Vec<_>>();
        // The receiver is gone when the limit has passed.
        drop(done.send(results));
    });
    match stopped.recv_timeout(STOP_LIMIT) {
        Ok(results) => {
            for error in results.into_iter().filter_map(Result::err) {
                tracing::warn!(%error, "while stopping");
            }
        }
        Err(_) => tracing::warn!("commands still run, leaving without them"),
    }
}
