//! Descriptor chains and rings, as a driver writes them, on every queue.
//!
//! In most sessions the driver keeps to itself: what it says is wild, but no descriptor points into a ring, so
//! that what the device gives back can be held against what it was given. In the others nothing is sacred.

use std::{fs::File, num::NonZeroU32, os::fd::AsRawFd, path::Path, time::Duration};

use device_server::{Device, DeviceConfig, DeviceType, LuConfig, LunAddress, MediumConfig};
use fastrand::Rng;
use rustix::fs::{MemfdFlags, memfd_create};
use vhost_user_scsi::{
    backend::{Detached, Placed, QueueHandler, Ring},
    event_queue::Happening,
    target::{Settings, Target},
};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::{
    Sessions,
    chain::{self, Driver},
    corpus,
};
use crate::mutate::{once_in, one};

/// Rounds of a session: chains are made available on one queue, which then is served.
const ROUNDS: usize = 40;
/// Two regions that follow each other, and one far away: address and length.
const REGIONS: &[(u64, u64)] =
    &[(0, 0x2_0000), (0x2_0000, 0x2_0000), (chain::TABLES, 4 * chain::TABLES_LEN)];
/// Control, event and two request queues.
const QUEUES: usize = 4;
/// There is nothing to wait for.
const WAIT_LIMIT: Duration = Duration::from_millis(50);

fn file(len: u64) -> anyhow::Result<File> {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
    file.set_len(len)?;
    Ok(file)
}

/// The same memory twice: as the guest has it, and as the device does.
fn memory() -> anyhow::Result<(GuestMemoryMmap, Detached)> {
    let (mut guest, mut device) = (Vec::new(), Vec::new());
    for (address, len) in REGIONS {
        let file = file(*len)?;
        device.push((*address, *len, file.try_clone()?));
        guest.push((
            GuestAddress(*address),
            usize::try_from(*len)?,
            Some(FileOffset::new(file, 0)),
        ));
    }
    Ok((GuestMemoryMmap::from_ranges_with_files(guest)?, Detached::new(device)?))
}

/// Some of its disks are in a file, which lasts as long as this process.
fn target(rng: &mut Rng, medium: &Path) -> std::sync::Arc<Target> {
    let unit = LuConfig { blocks: 256, ..LuConfig::default() };
    let task_set_max = NonZeroU32::new(rng.u32(0..3));
    let medium = if once_in(rng, 4) {
        MediumConfig::File { path: medium.to_owned() }
    } else {
        MediumConfig::Ram
    };
    let disk = LuConfig { device_type: DeviceType::Disk, task_set_max, medium, ..unit.clone() };
    let units = vec![
        (LunAddress { target: 0, lun: 0 }, unit),
        (LunAddress { target: 0, lun: *one(rng, &[1, 300]) }, disk),
    ];
    let device = Device::new(DeviceConfig { identifier: 0, units }).expect("sound units");
    Target::new(device, Settings { wait_limit: WAIT_LIMIT, ..Settings::new(1, QUEUES - 2) })
        .expect("a thread")
}

/// Things a control client does meanwhile.
fn happen(rng: &mut Rng, target: &Target, rules: &[Vec<scsi_fault::Rule>]) {
    let at = LunAddress { target: 0, lun: rng.u16(0..2) };
    // Whether it can be done at all does not matter.
    match rng.u8(0..5) {
        0 => {
            target.report(at, *one(rng, &[Happening::Added, Happening::Removed, Happening::Reset]));
        }
        1 => drop(target.release(at, None)),
        2 => drop(target.abort_held(at)),
        3 => drop(target.resize(at, rng.u64(1..300), false)),
        _ => {
            let faults = control::Faults { seed: rng.u64(..), rules: one(rng, rules).clone() };
            drop(target.set_faults(at, &faults));
        }
    }
}

pub(super) fn prepare() -> anyhow::Result<Sessions> {
    let (memory, device_memory) = memory()?;
    let medium = file(256 * 512)?;
    let mut rules = corpus::rules()?;
    // A session does not last long enough for the others.
    rules.retain(|rules| {
        rules
            .iter()
            .all(|rule| rule.effect.delay_us.max(rule.effect.delay_up_to_us).unwrap_or(0) <= 1000)
    });
    Ok(Box::new(move |session| {
        let wild = once_in(&mut session.rng, 4);
        let faulty = once_in(&mut session.rng, 3);
        for (address, len) in REGIONS {
            let zeros = vec![0; usize::try_from(*len).expect("small")];
            memory.write_slice(&zeros, GuestAddress(*address)).expect("guest memory");
        }
        let medium = format!("/proc/self/fd/{}", medium.as_raw_fd());
        let target = target(&mut session.rng, medium.as_ref());
        let (mut drivers, rings): (Vec<Driver<'_>>, Vec<Ring>) = (0..QUEUES)
            .map(|queue| {
                let placed = placed(&mut session.rng, queue);
                let driver = Driver::new(&memory, placed, wild);
                (driver, device_memory.ring(&placed).expect("a sound ring"))
            })
            .unzip();
        for _ in 0..ROUNDS {
            let queue = *one(&mut session.rng, &[0, 1, 2, 2, 2, 3]);
            if faulty && once_in(&mut session.rng, 8) {
                session.tell(|| "something happens");
                happen(&mut session.rng, &target, &rules);
            }
            let chains = session.rng.usize(1..16);
            for _ in 0..chains {
                let made = chain::any(&mut session.rng, queue, wild);
                session.send(|| format!("queue {queue}: {made:x?}"));
                drivers[queue].offer(&mut session.rng, &made);
            }
            let sane = drivers[queue].disturb(&mut session.rng);
            target.serve(0, queue, &rings[queue]);
            for driver in &mut drivers {
                driver.check();
            }
            if sane && !faulty && queue != 1 {
                drivers[queue].check_all_back();
            }
        }
        rings.iter().for_each(Detached::stop);
        target.session_ended(0);
    }))
}

fn placed(rng: &mut Rng, queue: usize) -> Placed {
    let base = chain::RING_LEN * queue as u64;
    let size = *one(rng, &[16, 64]);
    Placed {
        descriptors: base,
        available: base + 0x1000,
        used: base + 0x1800,
        size,
        base: 0,
        event_idx: rng.bool(),
    }
}
