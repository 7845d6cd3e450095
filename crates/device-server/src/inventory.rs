//! Which targets and logical units there are.
//!
//! An inventory is a value: who changes it makes another one, and commands go on with the one they began with.
//! The units themselves are shared by both.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use scsi::{LunAddress, Sense, lun::LUN_MAX};

use crate::{ConfigError, NexusId, unit::LogicalUnit};

/// Where a logical unit is; a reset puts a new one there.
type Slot = ArcSwap<LogicalUnit>;

/// The targets of a device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    targets: BTreeMap<u8, Target>,
}

/// A target: its logical units by LUN, in two forms because most commands want one unit and few the
/// whole list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    units: BTreeMap<u16, Arc<Slot>>,
    luns: Vec<u16>,
}

impl Inventory {
    /// The target with this number.
    pub(crate) fn target(&self, number: u8) -> Option<&Target> {
        self.targets.get(&number)
    }

    /// Every target, in order of number.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (u8, &Target)> {
        self.targets.iter().map(|(number, target)| (*number, target))
    }

    /// Every logical unit as it is now, in order of target and LUN.
    pub(crate) fn units(&self) -> impl Iterator<Item = (LunAddress, Arc<LogicalUnit>)> {
        self.targets().flat_map(|(number, target)| {
            let address = move |lun| LunAddress { target: number, lun };
            target.units().map(move |(lun, unit)| (address(lun), unit))
        })
    }

    /// Whether a logical unit can be put at an address.
    pub(crate) fn check_free(&self, address: LunAddress) -> Result<(), ConfigError> {
        if address.lun > LUN_MAX {
            return Err(ConfigError::LunTooHigh(address));
        }
        match self.target(address.target).and_then(|target| target.unit(address.lun)) {
            Some(_) => Err(ConfigError::DuplicateAddress(address)),
            None => Ok(()),
        }
    }

    /// Puts a logical unit at an address that is free.
    pub(crate) fn add(&mut self, address: LunAddress, unit: impl Into<Arc<LogicalUnit>>) {
        let target = self.targets.entry(address.target).or_default();
        target.units.insert(address.lun, Arc::new(Slot::new(unit.into())));
        if let Err(at) = target.luns.binary_search(&address.lun) {
            target.luns.insert(at, address.lun);
        }
    }

    /// Takes a logical unit away; false if there is none.
    pub(crate) fn remove(&mut self, address: LunAddress) -> bool {
        let Some(target) = self.targets.get_mut(&address.target) else { return false };
        let removed = target.units.remove(&address.lun).is_some();
        target.luns.retain(|lun| *lun != address.lun);
        removed
    }
}

impl Target {
    /// Where the logical unit with this LUN is.
    pub(crate) fn unit(&self, lun: u16) -> Option<&Slot> {
        self.units.get(&lun).map(|slot| &**slot)
    }

    /// The LUNs, in order.
    pub(crate) fn luns(&self) -> &[u16] {
        &self.luns
    }

    /// The logical units as they are now, in order of LUN.
    pub(crate) fn units(&self) -> impl Iterator<Item = (u16, Arc<LogicalUnit>)> {
        self.units.iter().map(|(lun, slot)| (*lun, slot.load_full()))
    }

    /// What the loss of a nexus does to the units (SAM, I_T nexus loss).
    pub(crate) fn lose_nexus(&self, nexus: NexusId) {
        for (_, unit) in self.units() {
            unit.reservations.nexus_lost(nexus);
            unit.attentions.establish(nexus, Sense::I_T_NEXUS_LOSS_OCCURRED);
        }
    }
}
