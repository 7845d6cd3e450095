//! What a logical unit says of its health in log pages.

use std::sync::atomic::{AtomicU32, Ordering};

/// The health of a unit: whoever runs the device says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Degrees Celsius; FFh is unknown.
    pub temperature: u8,
    /// ADDITIONAL SENSE CODE and QUALIFIER of an informational exception; zeros are none.
    pub exception: (u8, u8),
}

/// REFERENCE TEMPERATURE: the highest at which the unit works as it should.
pub(crate) const REFERENCE_TEMPERATURE: u8 = 60;

impl Default for Health {
    /// 30 degrees, and nothing to report.
    fn default() -> Self {
        Health { temperature: 30, exception: (0, 0) }
    }
}

/// The health as it is now.
#[derive(Debug)]
pub(crate) struct CurrentHealth(AtomicU32);

impl Default for CurrentHealth {
    fn default() -> Self {
        let current = CurrentHealth(AtomicU32::new(0));
        current.set(Health::default());
        current
    }
}

impl CurrentHealth {
    pub(crate) fn get(&self) -> Health {
        let [_, asc, ascq, temperature] = self.0.load(Ordering::Relaxed).to_be_bytes();
        Health { temperature, exception: (asc, ascq) }
    }

    pub(crate) fn set(&self, health: Health) {
        let (asc, ascq) = health.exception;
        let value = u32::from_be_bytes([0, asc, ascq, health.temperature]);
        self.0.store(value, Ordering::Relaxed);
    }
}
