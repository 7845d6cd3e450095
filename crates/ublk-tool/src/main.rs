//! Makes, serves, lists, recovers and deletes ublk devices from a shell.
//!
//! This program must not know the driver's protocol: it has a command line, and the words of what it prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what the program is for")]

mod args;
mod layout;
mod serve;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};
use ublk::{
    Control, Errno, Features,
    uapi::{DevInfo, Params, state},
};

use self::args::{Cli, Command};

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            if let Some(next) = next_step(&error) {
                eprintln!("{next}");
            }
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each of them once: some say their cause themselves.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// What helps against an error.
fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    let errno = error.downcast_ref::<ublk::Error>()?.errno()?;
    Some(match errno {
        Errno::NOENT => "Is the driver loaded? `modprobe ublk_drv` loads it.",
        Errno::ACCESS | Errno::PERM => "Run it as root: the devices of others need CAP_SYS_ADMIN.",
        Errno::NODEV => "`sensecheck-ublk list` shows the devices there are.",
        Errno::BUSY => "Somebody uses it: a server that runs has it open, or the disk is mounted.",
        _ => return None,
    })
}

fn control() -> Result<Control, ublk::Error> {
    Control::open()
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Features => features(cli.json),
        Command::List => list(cli.json),
        Command::Add(add) => serve::add(add, cli.json),
        Command::Recover { number, medium, scenario } => {
            serve::recover(*number, medium, scenario.as_deref(), cli.json)
        }
        Command::Del { numbers, no_wait } => {
            let mut control = control()?;
            for number in numbers {
                let deleted = match no_wait {
                    true => control.delete_async(*number),
                    false => control.delete(*number),
                };
                deleted.with_context(|| format!("cannot delete device {number}"))?;
            }
            Ok(())
        }
        Command::Stop { number, unless_open } => {
            let mut control = control()?;
            let stopped = match unless_open {
                true => control.try_stop(*number),
                false => control.stop(*number),
            };
            stopped.with_context(|| format!("cannot stop device {number}"))
        }
        Command::Quiesce { number, patience } => control()?
            .quiesce(*number, Duration::from_millis((*patience).into()))
            .with_context(|| format!("cannot quiesce device {number}")),
        Command::Resize { number, size } => control()?
            .update_size(*number, size / 512)
            .with_context(|| format!("cannot resize device {number}")),
    }
}

fn features(json: bool) -> Result<()> {
    let features = control()?.features()?;
    if json {
        println!("{}", json!({ "bits": features.bits(), "names": features.names() }));
    } else {
        for name in features.names() {
            println!("{name}");
        }
    }
    Ok(())
}

fn state_name(state: u16) -> &'static str {
    match state {
        state::DEAD => "dead",
        state::LIVE => "live",
        state::QUIESCED => "quiesced",
        state::FAIL_IO => "fail-io",
        _ => "unknown",
    }
}

/// A device, as far as it has parameters.
fn as_json(info: &DevInfo, params: Option<&Params>) -> Value {
    json!({
        "number": info.dev_id,
        "state": state_name(info.state),
        "bytes": params.map_or(0, |params| params.basic.dev_sectors * 512),
        "zones": params.map_or(Value::Null, layout::zones),
        "integrity": params.map_or(Value::Null, layout::integrity),
        "queues": info.nr_hw_queues,
        "depth": info.queue_depth,
        "server_pid": info.ublksrv_pid,
        "features": Features::from_bits_retain(info.flags).names(),
    })
}

/// Numbers of the devices whose char device there is.
fn numbers() -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/dev").context("cannot read /dev")? {
        let name = entry.context("cannot read /dev")?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("ublkc"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn list(json: bool) -> Result<()> {
    let mut control = control()?;
    let mut devices = Vec::new();
    for number in numbers()? {
        let info = match control.info2(number) {
            Ok(info) => info,
            // Deleted since its node was seen.
            Err(error) if error.errno() == Some(Errno::NODEV) => continue,
            Err(error) => return Err(error).with_context(|| format!("device {number}")),
        };
        // Not yet set, or of a device that is gone by now.
        devices.push((info, control.params(number).ok()));
    }
    if json {
        let all: Vec<Value> =
            devices.iter().map(|(info, params)| as_json(info, params.as_ref())).collect();
        println!("{}", Value::from(all));
        return Ok(());
    }
    for (info, params) in devices {
        let names = Features::from_bits_retain(info.flags).names().join(" ");
        println!(
            "/dev/ublkb{}  {}  {} bytes  {} queues of {}  server {}  {names}",
            info.dev_id,
            state_name(info.state),
            params.map_or(0, |params| params.basic.dev_sectors * 512),
            info.nr_hw_queues,
            info.queue_depth,
            info.ublksrv_pid,
        );
    }
    Ok(())
}
