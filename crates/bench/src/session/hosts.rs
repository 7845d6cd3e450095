//! The SCSI hosts of a machine: the shared one, and those of single tests in spare slots.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use control::{Faults, JournalPage, LunAddress, LunSpec};
use guest_protocol::{
    message::{HostPlace, Lease, RunId, TargetSignal},
    needs::{Feature, HostShape, Needs, ScsiHost},
};

use crate::{
    target::{HostIdentity, PoolSize, Target, TargetError},
    vm::{SHARED_SLOT, SPARE_SLOTS, Vm, VmEvent},
};

/// All hosts of a machine.
#[derive(Debug)]
pub(super) struct Hosts {
    shared: Target,
    own: BTreeMap<RunId, Own>,
    /// Places in [`SPARE_SLOTS`] that hold no host and until when they rest, the first to end it in front.
    free: VecDeque<(usize, Instant)>,
    /// How long a slot rests. A guest may eject a slot once more after QEMU has said that its device is
    /// gone, and would take the next device with it: QEMU names a slot to the guest again, whenever it
    /// names another, until it is ejected, and the guest works off what it was told in order.
    rest: Duration,
}

/// How many slots are kept for what a running test plugs itself.
const SPARE: usize = 2;
/// How long a slot rests, before the stretch for emulation.
const REST: Duration = Duration::from_millis(300);

/// The host of one test.
#[derive(Debug)]
struct Own {
    target: Target,
    /// Its HBAs, one for each nexus.
    adapters: Vec<Adapter>,
    shape: HostShape,
    /// Whether its QEMU reconnects.
    reconnects: bool,
    /// Whether the test is over, so that the host has to go.
    ending: bool,
}

/// An HBA of a test's own host.
#[derive(Debug)]
struct Adapter {
    /// QEMU's id.
    id: String,
    /// Place in [`SPARE_SLOTS`].
    slot: usize,
    place: Place,
}

/// Where an HBA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Plugged,
    /// The guest was asked to give it up.
    Leaving,
    /// QEMU has said that it is gone.
    Gone,
}

impl Own {
    fn is_gone(&self) -> bool {
        self.adapters.iter().all(|adapter| adapter.place == Place::Gone)
    }
}

/// Why a test may not say something to its target.
const NO_OWN_HOST: &str = "the target is shared: declare a SCSI host of the test's own";

/// The daemon's name of a run's own host.
fn name(run: RunId) -> String {
    format!("own{run}")
}

impl Hosts {
    /// Nothing is plugged; `slowdown` is that of the guest.
    pub(super) fn new(shared: Target, slowdown: u32) -> Self {
        let rested = Instant::now();
        let free = (0..SPARE_SLOTS.len()).map(|slot| (slot, rested)).collect();
        Hosts { shared, own: BTreeMap::new(), free, rest: REST * slowdown }
    }

    /// Gives a run the host it declared: nothing to do for the shared one.
    pub(super) fn prepare(
        &mut self,
        run: RunId,
        needs: &Needs,
        vm: &mut Vm,
        binary: &Path,
        dir: &Path,
        events: &Sender<VmEvent>,
    ) -> Result<(), String> {
        let ScsiHost::Own(shape) = needs.host else { return Ok(()) };
        let nexuses = shape.nexus_count();
        if self.free.len() < usize::from(nexuses) {
            return Err("no PCI slot is free for the test's own host".into());
        }
        let reconnects = needs.features.contains(&Feature::Reconnect);
        let name = name(run);
        let queues = shape.queues.unwrap_or(1);
        let identity = HostIdentity { number: run, queues, nexuses, hostile: true };
        let target = Target::start(binary, dir, &name, PoolSize::OWN, identity, events);
        let target = target.map_err(|error| error.to_string())?;
        let slots = self.free.drain(..usize::from(nexuses)).enumerate();
        let adapter = |(nexus, (slot, _))| Adapter {
            id: format!("{name}-{nexus}"),
            slot,
            place: Place::Plugged,
        };
        let adapters: Vec<_> = slots.map(adapter).collect();
        for (Adapter { id, slot, .. }, socket) in adapters.iter().zip(target.sockets()) {
            let plugged = vm.plug_host(id, &SPARE_SLOTS[*slot], socket, shape, reconnects);
            plugged.map_err(|error| error.to_string())?;
        }
        self.own.insert(run, Own { target, adapters, shape, reconnects, ending: false });
        Ok(())
    }

    /// Whether a test with this host can start now.
    pub(super) fn has_room(&self, host: ScsiHost) -> bool {
        match host {
            ScsiHost::Shared => true,
            ScsiHost::Own(shape) => {
                let count = usize::from(shape.nexus_count());
                let now = Instant::now();
                let rested = self.free.iter().take_while(|(_, until)| *until <= now).count();
                rested >= count && self.free.len() >= SPARE + count
            }
        }
    }

    fn target(&mut self, run: RunId) -> &mut Target {
        self.own.get_mut(&run).map_or(&mut self.shared, |own| &mut own.target)
    }

    /// Where a run's host is.
    pub(super) fn place(&self, run: RunId) -> HostPlace {
        let slots = match self.own.get(&run) {
            Some(own) => own.adapters.iter().map(|adapter| &SPARE_SLOTS[adapter.slot]).collect(),
            None => vec![&SHARED_SLOT],
        };
        let slots = slots.iter().map(|slot| slot.sysfs.to_owned()).collect();
        HostPlace { slots, plugged: self.own.contains_key(&run) }
    }

    pub(super) fn lease(&mut self, run: RunId, spec: LunSpec) -> Result<Lease, TargetError> {
        self.target(run).lease(run, spec)
    }

    /// Makes a leased unit new again.
    pub(super) fn renew(&mut self, run: RunId, address: LunAddress) -> Result<(), String> {
        self.target(run).renew(run, address)
    }

    pub(super) fn journal(
        &mut self,
        run: RunId,
        address: LunAddress,
    ) -> Result<JournalPage, String> {
        self.target(run).journal(run, address)
    }

    /// Signals a test's own daemon.
    pub(super) fn signal(&mut self, run: RunId, signal: TargetSignal) -> Result<(), String> {
        self.own_target(run)?.signal(signal).map_err(|error| error.to_string())
    }

    /// Says what goes wrong on a unit. What reaches beyond it needs a host of the test's own: a command that
    /// is held keeps error handling and removal of the whole host waiting.
    pub(super) fn faults(
        &mut self,
        run: RunId,
        address: LunAddress,
        faults: Faults,
        may_stay_unfired: bool,
    ) -> Result<(), String> {
        let target = if faults.rules.iter().any(|rule| rule.effect.reaches_beyond_the_unit()) {
            self.own_target(run)?
        } else {
            self.target(run)
        };
        target.faults(run, address, faults, may_stay_unfired)
    }

    /// Says what goes wrong on every unit of a test's own daemon.
    pub(super) fn all_faults(
        &mut self,
        run: RunId,
        faults: Faults,
        may_stay_unfired: &[String],
    ) -> Result<(), String> {
        self.own_target(run)?.all_faults(run, faults, may_stay_unfired)
    }

    /// Says something to a test's own daemon.
    pub(super) fn control(&mut self, run: RunId, command: control::Command) -> Result<(), String> {
        self.own_target(run)?.control(command)
    }

    /// Names of the rules that had to fire and did not.
    pub(super) fn unfired(&mut self, run: RunId) -> Result<Vec<String>, String> {
        self.target(run).unfired(run)
    }

    /// Carries out what a unit holds.
    pub(super) fn release_held(
        &mut self,
        run: RunId,
        at: LunAddress,
        order: Option<Vec<u32>>,
    ) -> Result<(), String> {
        self.own_target(run)?.release_held(run, at, order)
    }

    /// The host of a test's own; the shared one is everybody's.
    fn own(&mut self, run: RunId) -> Result<&mut Own, String> {
        self.own.get_mut(&run).ok_or_else(|| NO_OWN_HOST.into())
    }

    fn own_target(&mut self, run: RunId) -> Result<&mut Target, String> {
        self.own(run).map(|own| &mut own.target)
    }

    /// Lets a stopped daemon go on.
    pub(super) fn resume(&mut self, run: RunId) -> Result<(), String> {
        match self.own.get_mut(&run) {
            Some(own) => {
                own.target.signal(TargetSignal::Continue).map_err(|error| error.to_string())
            }
            None => Ok(()),
        }
    }

    /// Asks the guest to give up a run's own host; false if it has none.
    pub(super) fn unplug(&mut self, run: RunId, vm: &mut Vm) -> Result<bool, String> {
        if !self.own.contains_key(&run) {
            return Ok(false);
        }
        self.resume(run)?;
        match self.own_target(run)?.relent() {
            // A daemon that has died holds nothing, and its death is the outcome already.
            Err(error) if error.ends_the_conversation() => return Err(error.to_string()),
            Ok(()) | Err(_) => {}
        }
        self.pull(run, vm)?;
        let Some(own) = self.own.get_mut(&run) else { return Ok(false) };
        own.ending = true;
        // A test may have seen to it itself.
        Ok(!own.is_gone())
    }

    /// Asks the guest to give up what is plugged of a run's own host.
    pub(super) fn pull(&mut self, run: RunId, vm: &mut Vm) -> Result<(), String> {
        let own = self.own(run)?;
        let plugged = own.adapters.iter_mut().filter(|adapter| adapter.place == Place::Plugged);
        for adapter in plugged {
            vm.unplug(&adapter.id).map_err(|error| error.to_string())?;
            adapter.place = Place::Leaving;
        }
        Ok(())
    }

    /// Plugs HBAs in place of those that are gone, each into another slot, for its own has to rest.
    pub(super) fn plug_again(&mut self, run: RunId, vm: &mut Vm) -> Result<(), String> {
        let (free, until) = (&mut self.free, Instant::now() + self.rest);
        let own = self.own.get_mut(&run).ok_or(NO_OWN_HOST)?;
        if !own.is_gone() {
            return Err("the guest has not given it up".into());
        }
        for (adapter, socket) in own.adapters.iter_mut().zip(own.target.sockets()) {
            let (slot, _) = free.pop_front().ok_or("no PCI slot is free")?;
            free.push_back((std::mem::replace(&mut adapter.slot, slot), until));
            adapter.id.push_str("-again");
            vm.plug_host(&adapter.id, &SPARE_SLOTS[slot], socket, own.shape, own.reconnects)
                .map_err(|error| error.to_string())?;
            adapter.place = Place::Plugged;
        }
        Ok(())
    }

    /// The run whose daemon has this name.
    pub(super) fn run_of(&self, host: &str) -> Option<RunId> {
        self.own.keys().copied().find(|run| name(*run) == host)
    }

    /// A device is gone that the test has not sent away: the run it belonged to, and whether that has none left.
    pub(super) fn unplugged(&mut self, id: &str, vm: &mut Vm) -> Option<(RunId, bool)> {
        let (run, own) =
            self.own.iter_mut().find(|(_, own)| own.adapters.iter().any(|a| a.id == id))?;
        let mut asked = false;
        for adapter in own.adapters.iter_mut().filter(|adapter| adapter.id == id) {
            asked = adapter.place == Place::Leaving;
            adapter.place = Place::Gone;
        }
        // QEMU refuses while the device lets go of it; then it stays until QEMU ends.
        let _ = vm.forget_socket(id);
        (own.ending || !asked).then(|| (*run, own.is_gone()))
    }

    /// Ends a run's hold on units and host. The journals are fetched only of a bad run, for somebody
    /// will read them, and what the guest thinks of its units is not relied upon.
    pub(super) fn release(&mut self, run: RunId, bad: bool) -> Vec<(LunAddress, JournalPage)> {
        let target = self.target(run);
        // A daemon that has died has no journal any more, and its death is the outcome already.
        let journals = if bad { target.journals(run).unwrap_or_default() } else { Vec::new() };
        target.release(run, bad);
        let adapters = self.own.remove(&run).into_iter().flat_map(|own| own.adapters);
        let until = Instant::now() + self.rest;
        self.free.extend(adapters.map(|adapter| (adapter.slot, until)));
        journals
    }
}
