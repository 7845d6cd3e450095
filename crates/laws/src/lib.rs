//! What a SCSI logical unit must do, written once for everything that executes commands: the device
//! server in this process, a kernel's path to it, somebody else's device.
//!
//! This crate must not know who executes a command or how it travels, nor any of our own tables: a
//! [`Transport`] is all there is, and expected bytes are literals from the standards (SPC is SPC-4,
//! SBC is SBC-3, SAM is SAM-5; SPC-2 is itself).
//!
//! A [`Law`] says what logical unit it wants and how many initiators, and runs on a unit nobody else
//! uses that is as after power on. It panics where the law is broken.

#![forbid(unsafe_code)]

mod block_sizes;
mod blocks;
mod compare_and_write;
mod echo_buffer;
mod identity;
mod initiator;
mod mode_select;
mod persistent_reservation;
mod pre_fetch;
mod provisioning;
mod reports;
mod reserve;
mod start_stop;
mod transport;
mod unit_attention;
mod verify;
mod write_same;

pub use initiator::{Ended, Initiator};
pub use transport::{Completion, Transport};

/// The logical unit a law wants: a disk of 2048 blocks that is ready, not write protected and not
/// reserved, all zeros, with its mode parameters at their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    /// What to call it.
    pub name: &'static str,
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_len: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
    pub physical_exponent: u8,
    /// Whether it is thinly provisioned, in granules of 4096 bytes, with nothing mapped.
    pub thin: bool,
}

/// NUMBER OF LOGICAL BLOCKS of every unit.
pub const BLOCKS: u64 = 2048;

/// 512-byte blocks.
pub const DISK: Unit = Unit { name: "512", block_len: 512, physical_exponent: 0, thin: false };

/// 4096-byte blocks.
pub const DISK_4K: Unit = Unit { name: "4096", block_len: 4096, ..DISK };
/// 512-byte blocks, eight to a physical block.
pub const DISK_512E: Unit = Unit { name: "512e", physical_exponent: 3, ..DISK };
/// 512-byte blocks, thinly provisioned.
pub const THIN: Unit = Unit { name: "thin 512", thin: true, ..DISK };
/// 4096-byte blocks, thinly provisioned.
pub const THIN_4K: Unit = Unit { name: "thin 4096", thin: true, ..DISK_4K };

/// Who takes part in a law.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// One initiator.
    One(fn(&Initiator<'_>)),
    /// Two initiators, each with a nexus of its own to the unit.
    Two(fn(&Initiator<'_>, &Initiator<'_>)),
}

/// A law.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// Its subject and what it says, for example `start_stop::a_stopped_unit_is_not_ready`.
    pub name: &'static str,
    /// What it is about.
    pub unit: Unit,
    /// The test.
    pub body: Body,
}

impl Law {
    /// What it is about, for example `start_stop`.
    #[must_use]
    pub fn subject(&self) -> &'static str {
        self.name.split("::").next().expect("a name has a first part")
    }

    /// How many nexuses it wants.
    #[must_use]
    pub fn nexuses(&self) -> usize {
        match self.body {
            Body::One(_) => 1,
            Body::Two(_) => 2,
        }
    }

    /// Name of the law and of its unit.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} ({})", self.name, self.unit.name)
    }

    /// Tries it on a unit of this transport.
    ///
    /// # Panics
    /// If it is broken.
    pub fn check(&self, transport: &dyn Transport) {
        let initiator = |nexus| Initiator::new(transport, nexus, self.unit);
        match self.body {
            Body::One(body) => body(&initiator(0)),
            Body::Two(body) => body(&initiator(0), &initiator(1)),
        }
    }
}

/// Every law, by subject.
pub fn all() -> impl Iterator<Item = &'static Law> {
    [
        block_sizes::LAWS,
        blocks::LAWS,
        compare_and_write::LAWS,
        echo_buffer::LAWS,
        identity::LAWS,
        mode_select::LAWS,
        persistent_reservation::LAWS,
        pre_fetch::LAWS,
        provisioning::LAWS,
        reports::LAWS,
        reserve::LAWS,
        start_stop::LAWS,
        unit_attention::LAWS,
        verify::LAWS,
        write_same::LAWS,
    ]
    .into_iter()
    .flatten()
}

/// The laws of a module, as `units: initiators: names;`. One that is not listed is dead code, which the
/// compiler says.
macro_rules! laws {
    ($subject:literal $($unit:ident $body:ident: $($law:ident),+;)+) => {
        /// The laws of this subject.
        pub(crate) const LAWS: &[$crate::Law] = &[
            $($($crate::Law {
                name: concat!($subject, "::", stringify!($law)),
                unit: $crate::$unit,
                body: $crate::Body::$body($law),
            }),+),+
        ];
    };
}
use laws;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn titles_are_unique() {
        let titles: Vec<_> = super::all().map(super::Law::title).collect();
        let unique: BTreeSet<_> = titles.iter().collect();
        assert_eq!(titles.len(), unique.len());
    }
}
