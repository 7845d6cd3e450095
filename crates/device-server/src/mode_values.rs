//! The mode parameters of a logical unit that MODE SELECT can change.

use std::sync::atomic::{AtomicU32, Ordering};

use scsi::{
    SenseFormat,
    mode::{D_SENSE, GLTSD, QERR, SWP, UNRESTRICTED_REORDERING, WCE},
};

/// The bytes of mode pages that hold a parameter. All other bytes of all pages are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModeValues {
    /// Byte 2 of the Caching mode page.
    pub(crate) caching: u8,
    /// Bytes 2 to 4 of the Control mode page.
    pub(crate) control: [u8; 3],
}

impl ModeValues {
    /// What MODE SELECT may change: a mask.
    pub(crate) const CHANGEABLE: ModeValues =
        ModeValues { caching: WCE, control: [D_SENSE, QERR, SWP] };

    /// The default values of a unit whose medium has a volatile cache or has none.
    pub(crate) fn default_for(has_volatile_cache: bool) -> Self {
        ModeValues {
            caching: if has_volatile_cache { WCE } else { 0 },
            control: [GLTSD, UNRESTRICTED_REORDERING, 0],
        }
    }

    /// Format of the sense data that comes with CHECK CONDITION.
    pub(crate) fn sense_format(self) -> SenseFormat {
        if self.control[0] & D_SENSE == 0 { SenseFormat::Fixed } else { SenseFormat::Descriptor }
    }

    /// QERR in place.
    pub(crate) fn queue_error(self) -> u8 {
        self.control[1] & QERR
    }

    /// SWP.
    pub(crate) fn software_write_protect(self) -> bool {
        self.control[2] & SWP != 0
    }

    /// WCE.
    pub(crate) fn write_cache_enabled(self) -> bool {
        self.caching & WCE != 0
    }
}

/// The current values. They are read by every command, so no lock is taken.
#[derive(Debug)]
pub(crate) struct CurrentValues(AtomicU32);

impl CurrentValues {
    pub(crate) fn new(values: ModeValues) -> Self {
        CurrentValues(AtomicU32::new(pack(values)))
    }

    pub(crate) fn get(&self) -> ModeValues {
        let [caching, control @ ..] = self.0.load(Ordering::Relaxed).to_be_bytes();
        ModeValues { caching, control }
    }

    /// Sets them, and returns whether that was a change.
    pub(crate) fn set(&self, values: ModeValues) -> bool {
        let new = pack(values);
        self.0.swap(new, Ordering::Relaxed) != new
    }
}

fn pack(values: ModeValues) -> u32 {
    let [second, third, fourth] = values.control;
    u32::from_be_bytes([values.caching, second, third, fourth])
}
