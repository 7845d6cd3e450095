//! The event queue: the driver's buffers wait in the ring until there is something to report. What finds no
//! buffer is lost, and the next event says so (virtio 1.2, 5.6.6.3).

use std::{
    mem::size_of,
    sync::{Mutex, MutexGuard},
};

use device_server::LunAddress;
use scsi_fault::RawEvent;
use tracing::{debug, warn};

use crate::{
    backend::Ring,
    chain::Chain,
    wire::{
        EVENTS_MISSED, EVT_RESET_HARD, EVT_RESET_REMOVED, EVT_RESET_RESCAN, Event, T_NO_EVENT,
        T_PARAM_CHANGE, T_TRANSPORT_RESET,
    },
};

/// The event queue of a port.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Known from the driver's first kick on.
    ring: Option<Ring>,
    missed: bool,
}

/// What happened to a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It is there now.
    Added,
    /// It is gone.
    Removed,
    /// It was reset.
    Reset,
    /// A parameter has changed: ADDITIONAL SENSE CODE and QUALIFIER of the unit attention condition.
    ParameterChanged(u8, u8),
}

impl EventQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// The driver has made buffers available.
    pub(crate) fn serve(&self, ring: &Ring) {
        let mut state = self.state();
        state.ring = Some(ring.clone());
        if state.missed {
            state.send(T_NO_EVENT, [0; 8], 0);
        }
    }

    /// Reports what happened.
    pub(crate) fn report(&self, at: LunAddress, happening: Happening) {
        let (event, reason) = match happening {
            Happening::Added => (T_TRANSPORT_RESET, EVT_RESET_RESCAN),
            Happening::Removed => (T_TRANSPORT_RESET, EVT_RESET_REMOVED),
            Happening::Reset => (T_TRANSPORT_RESET, EVT_RESET_HARD),
            Happening::ParameterChanged(asc, ascq) => {
                (T_PARAM_CHANGE, u32::from(asc) | u32::from(ascq) << 8)
            }
        };
        self.state().send(event, at.to_virtio_event(), reason);
    }

    /// Sends an event that may mean nothing.
    pub(crate) fn send_raw(&self, raw: RawEvent) {
        self.state().send(raw.event, raw.lun, raw.reason);
    }

    /// The front end has gone; the next knows nothing of what was lost.
    pub(crate) fn forget(&self) {
        *self.state() = State::default();
    }
}

impl State {
    fn send(&mut self, event: u32, lun: [u8; 8], reason: u32) {
        let Some(chain) = self.ring.as_ref().and_then(buffer) else {
            debug!(event, ?lun, reason, "no buffer for an event");
            self.missed = true;
            return;
        };
        let flag = if self.missed { EVENTS_MISSED } else { 0 };
        let written =
            chain.write_header(&Event { event: (event | flag).into(), lun, reason: reason.into() });
        let len = u32::try_from(size_of::<Event>()).expect("16 bytes");
        chain.complete(if written { len } else { 0 });
        // A buffer that is too short is the driver's mistake; the event is lost with it.
        self.missed = !written;
    }
}

/// A buffer of the driver's. From now on it kicks when it has put one where there was none.
fn buffer(ring: &Ring) -> Option<Chain> {
    loop {
        let popped = match ring.pop() {
            Ok(popped) => popped,
            Err(error) => {
                // There is more in it, so it seems, for as long as the driver leaves it so.
                warn!(%error, "the event ring is broken");
                ring.ask_for_a_kick();
                return None;
            }
        };
        // It may have come before the driver knew that it has to kick.
        if !ring.ask_for_a_kick() || popped.is_some() {
            return popped;
        }
    }
}
