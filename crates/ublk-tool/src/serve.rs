//! Serving a device in the foreground.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use bridge::{Bridge, Disk, Patience, Route};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use ublk::{
    Config, Control, DataMode, Faults, Features, FileTarget, NullTarget, Server, Target,
    uapi::{Params, SECTOR_LEN},
};
use ublk_fault::Scenario;

use crate::{
    args::{Add, Medium, Mode, Recovery},
    layout::{self, Layout},
};

/// What is served, and the device it makes.
fn open(
    medium: &Medium,
    layout: &Layout,
    mode: DataMode,
    depth: u16,
) -> Result<(Arc<dyn Target>, Config)> {
    if let Some(bytes) = medium.ram {
        let config = layout.config(bytes)?.mode(mode).queues(1, depth);
        return Ok((layout::memory(&config.params), config));
    }
    anyhow::ensure!(!layout.is_special(), "only memory has zones or metadata: give --ram");
    if let Some(node) = &medium.bsg {
        let disk = Disk::ask(node).context("cannot ask the disk")?;
        let route = Route::of(node).context("cannot tell the limits of the way to the disk")?;
        let config = disk.config(&route, mode, depth);
        return Ok((Arc::new(Bridge::new(node, disk, Patience::default())?), config));
    }
    let (target, sectors) = file_or_nothing(medium)?;
    Ok((target, Config::disk(sectors).mode(mode).queues(1, depth)))
}

/// What is served, and its length in sectors.
fn file_or_nothing(medium: &Medium) -> Result<(Arc<dyn Target>, u64)> {
    let sector = u64::from(SECTOR_LEN);
    if let Some(path) = &medium.file {
        let opened = File::options().read(true).write(true).open(path);
        let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        // Of a block device the metadata does not say it.
        let len = file.seek(SeekFrom::End(0)).context("its length cannot be found out")?;
        anyhow::ensure!(
            len >= sector && len % sector == 0,
            "{} has {len} bytes: make it a multiple of 512, as by `truncate -s 1G`",
            path.display()
        );
        return Ok((Arc::new(FileTarget::new(file)), len / sector));
    }
    let bytes = medium.null.expect("the command line asks for one of them");
    Ok((Arc::new(NullTarget), bytes / sector))
}

fn faults(scenario: Option<&Path>) -> Result<Option<Arc<Faults>>> {
    let Some(path) = scenario else { return Ok(None) };
    let name = || format!("{} is no scenario for ublk", path.display());
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let scenario = Scenario::parse(&text).with_context(name)?;
    Ok(Some(Faults::of(scenario).with_context(name)?))
}

/// `add`.
pub(crate) fn add(add: &Add, json: bool) -> Result<()> {
    let usual = if add.layout.is_special() { Mode::UserCopy } else { Mode::Copy };
    let mode = add.mode.unwrap_or(usual);
    let is_copied = matches!(mode, Mode::Copy | Mode::GetData);
    anyhow::ensure!(
        !add.layout.is_special() || !is_copied,
        "the driver does not copy the data of such a device: leave out --mode, or give another"
    );
    let (target, mut config) = open(&add.medium, &add.layout, mode.into(), add.depth)?;
    config.info.nr_hw_queues = add.queues;
    config.threads = add.threads;
    config.faults = faults(add.scenario.as_deref())?;
    if let Some(number) = add.number {
        config.info.dev_id = number;
    }
    if add.batch {
        // A driver that does not know the flag drops it without a word.
        anyhow::ensure!(
            Control::open()?.features()?.contains(Features::BATCH_IO),
            "this driver has no batches: leave out --batch, or boot Linux 7.0 or newer"
        );
        config = config.with(Features::BATCH_IO);
    }
    if let Some(recovery) = add.recovery {
        let how = match recovery {
            Recovery::Wait => Features::empty(),
            Recovery::Reissue => Features::USER_RECOVERY_REISSUE,
            Recovery::FailIo => Features::USER_RECOVERY_FAIL_IO,
        };
        config = config.with(Features::USER_RECOVERY | Features::QUIESCE | how);
    }
    let signals = signals()?;
    let server = Server::start(&config, target).context("cannot start the device")?;
    serve(server, signals, json)
}

/// `recover`.
pub(crate) fn recover(
    number: u32,
    medium: &Medium,
    scenario: Option<&Path>,
    json: bool,
) -> Result<()> {
    // Of the configuration only the server's part counts; the mode is what the device has.
    let (mut target, mut config) = open(medium, &Layout::default(), DataMode::Copy, 64)?;
    let sectors = config.params.basic.dev_sectors;
    let params: Params = Control::open()?.params(number)?;
    let has = params.basic.dev_sectors;
    anyhow::ensure!(
        sectors == has,
        "device {number} has {has} sectors and the medium {sectors}: give the medium it had"
    );
    if medium.ram.is_some() {
        // With the zones or the metadata that the device has.
        target = layout::memory(&params);
    }
    config.faults = faults(scenario)?;
    let signals = signals()?;
    let server = Server::recover(number, &config, target)
        .with_context(|| format!("cannot recover device {number}"))?;
    serve(server, signals, json)
}

/// The signals that end a server, kept from now on: one that comes before there is a device must not leave it behind.
fn signals() -> Result<Signals> {
    Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")
}

/// As long as a held request may keep its device.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Serves until a signal, which stops and deletes the device, or until another process has stopped it.
fn serve(mut server: Server, mut signals: Signals, json: bool) -> Result<()> {
    let number = server.dev_id();
    if json {
        let params = server.control().params(number)?;
        println!("{}", crate::as_json(server.info(), Some(&params)));
    } else {
        println!("{}", server.block_path().display());
    }
    let (ours, given_up) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (signalled, impatient, give_up) = (ours.clone(), given_up.clone(), server.give_up());
    thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                // Somebody is tired of waiting for a request that is held. Not `exit`: the kernel would wait for the
                // command that stops the device, which waits for the request, which waits for this process to be gone.
                impatient.store(true, Ordering::Relaxed);
                give_up.now();
                continue;
            }
            signalled.store(true, Ordering::Relaxed);
            // Requests may take their time, and the second signal must be seen meanwhile.
            thread::spawn(move || {
                let stopped = Control::open().and_then(|mut control| {
                    control.set_timeout(FOR_EVER);
                    control.stop(number)
                });
                if let Err(error) = stopped {
                    eprintln!("error: cannot stop device {number}: {error}");
                    std::process::exit(1);
                }
            });
        }
    });
    server.wait()?;
    if ours.load(Ordering::Relaxed) {
        server.delete().context("cannot delete the device")?;
        anyhow::ensure!(
            !given_up.load(Ordering::Relaxed),
            "requests of device {number} were given up, and failed"
        );
    } else {
        server.leave();
        eprintln!(
            "device {number} was stopped or quiesced by another: `sensecheck-ublk recover {number}` or `del {number}`"
        );
    }
    Ok(())
}
