//! How long a guest may take for what no test waits for, before the stretch for emulation.

use std::time::Duration;

/// How long a guest may take to say what its tasks do, and to kill them.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a machine may take to end once it cannot be spoken to, and its last words to arrive.
pub(super) const END_DEADLINE: Duration = Duration::from_secs(5);

/// How long a guest may take to shut its devices down and power off.
pub(super) const POWER_OFF_DEADLINE: Duration = Duration::from_secs(10);
