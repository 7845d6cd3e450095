//! Reservations of a logical unit: RESERVE and RELEASE of SPC-2, and persistent reservations (SPC,
//! Persistent reservations model).

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use scsi::{
    Sense,
    command::Conflict,
    reservation::{Registrant, ReservationType},
    vpd::naa_locally_assigned,
};

use crate::{NexusId, error::CommandError};

/// The reservations of a logical unit.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    /// Whether a command has to look at all.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who has reserved the unit with RESERVE.
    reserved_by: Option<NexusId>,
    /// PRGENERATION.
    generation: u32,
    /// Registered nexuses and their reservation keys.
    registrations: BTreeMap<NexusId, u64>,
    /// The persistent reservation. With a type of all registrants the nexus means nothing.
    held: Option<(NexusId, ReservationType)>,
}

/// What a service action of PERSISTENT RESERVE OUT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReserveOut {
    Register,
    RegisterAndIgnoreExistingKey,
    Reserve,
    Release,
    Clear,
    Preempt,
}

/// The parameters of a PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    /// RESERVATION KEY.
    pub(crate) key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub(crate) service_action_key: u64,
    /// SCOPE and TYPE, if they are valid.
    pub(crate) kind: Option<ReservationType>,
}

/// What others learn of a PERSISTENT RESERVE OUT.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Unit attention conditions to be established.
    pub(crate) attentions: Vec<(NexusId, Sense)>,
    /// Nexuses whose registrations were removed by another one.
    pub(crate) preempted: Vec<NexusId>,
}

impl Reservations {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Works on the state and notes whether there is anything in it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        let any = state.reserved_by.is_some() || !state.registrations.is_empty();
        // Read by commands sent after this one has ended, which the transport orders.
        self.any.store(any, Ordering::Relaxed);
        result
    }

    /// Whether a command of this nexus conflicts with what others hold.
    pub(crate) fn conflict(&self, nexus: NexusId, conflict: Conflict) -> bool {
        self.any.load(Ordering::Relaxed) && self.state().conflicts(nexus, conflict)
    }

    /// RESERVE.
    pub(crate) fn reserve(&self, nexus: NexusId) -> Result<(), CommandError> {
        self.change(|state| {
            if !state.registrations.is_empty() || state.reserved_by.is_some_and(|by| by != nexus) {
                return Err(CommandError::ReservationConflict);
            }
            state.reserved_by = Some(nexus);
            Ok(())
        })
    }

    /// RELEASE: of another's reservation it is no error, and does nothing.
    pub(crate) fn release(&self, nexus: NexusId) -> Result<(), CommandError> {
        self.change(|state| {
            if !state.registrations.is_empty() {
                return Err(CommandError::ReservationConflict);
            }
            state.release_of(nexus);
            Ok(())
        })
    }

    /// Whether RESERVE has reserved the unit for whomever.
    pub(crate) fn is_reserved(&self) -> bool {
        self.any.load(Ordering::Relaxed) && self.state().reserved_by.is_some()
    }

    /// The nexus is lost: what RESERVE has reserved for it is released; registrations last.
    pub(crate) fn nexus_lost(&self, nexus: NexusId) {
        self.change(|state| state.release_of(nexus));
    }

    /// LOGICAL UNIT RESET: what RESERVE has reserved is released; registrations last.
    pub(crate) fn reset(&self) {
        self.change(|state| state.reserved_by = None);
    }

    /// PRGENERATION and the reservation keys, for READ KEYS.
    pub(crate) fn keys(&self) -> (u32, Vec<u64>) {
        let state = self.state();
        (state.generation, state.registrations.values().copied().collect())
    }

    /// PRGENERATION and the reservation, for READ RESERVATION.
    pub(crate) fn held(&self) -> (u32, Option<(u64, ReservationType)>) {
        let state = self.state();
        let key = |nexus: NexusId, kind: ReservationType| match kind.is_all_registrants() {
            true => 0,
            false => state.registrations.get(&nexus).copied().unwrap_or(0),
        };
        (state.generation, state.held.map(|(nexus, kind)| (key(nexus, kind), kind)))
    }

    /// PRGENERATION and the registrations, for READ FULL STATUS.
    pub(crate) fn registrants(&self) -> (u32, Vec<Registrant>) {
        let state = self.state();
        let registrant = |(nexus, key): (&NexusId, &u64)| Registrant {
            key: *key,
            holds: state.held.filter(|_| state.holds(*nexus)).map(|(_, kind)| kind),
            initiator_port: naa_locally_assigned(nexus.0.into()),
        };
        (state.generation, state.registrations.iter().map(registrant).collect())
    }

    /// PERSISTENT RESERVE OUT. A refused one changes nothing.
    pub(crate) fn persistent(
        &self,
        nexus: NexusId,
        action: ReserveOut,
        parameters: Parameters,
    ) -> Result<Effects, CommandError> {
        self.change(|state| {
            state.check_key(nexus, action, parameters)?;
            let mut effects = Effects::default();
            match action {
                ReserveOut::Register | ReserveOut::RegisterAndIgnoreExistingKey => {
                    state.register(nexus, parameters.service_action_key, &mut effects);
                }
                ReserveOut::Reserve => state.hold(nexus, parameters)?,
                ReserveOut::Release => state.release_held(nexus, parameters, &mut effects)?,
                ReserveOut::Clear => state.clear(nexus, &mut effects),
                ReserveOut::Preempt => state.preempt(nexus, parameters, &mut effects)?,
            }
            if !matches!(action, ReserveOut::Reserve | ReserveOut::Release) {
                state.generation = state.generation.wrapping_add(1);
            }
            Ok(effects)
        })
    }
}

impl State {
    fn conflicts(&self, nexus: NexusId, conflict: Conflict) -> bool {
        if self.reserved_by.is_some_and(|by| by != nexus) {
            return conflict != Conflict::Never;
        }
        let Some((_, kind)) = self.held else { return false };
        let admitted = self.holds(nexus)
            || kind.admits_registrants() && self.registrations.contains_key(&nexus);
        !admitted
            && match conflict {
                Conflict::Never | Conflict::Reserve | Conflict::Field => false,
                Conflict::Exclusive => kind.is_exclusive_access(),
                Conflict::All => true,
            }
    }

    /// Whether this nexus is a holder of the persistent reservation.
    fn holds(&self, nexus: NexusId) -> bool {
        self.held.is_some_and(|(holder, kind)| match kind.is_all_registrants() {
            true => self.registrations.contains_key(&nexus),
            false => holder == nexus,
        })
    }

    fn release_of(&mut self, nexus: NexusId) {
        if self.reserved_by == Some(nexus) {
            self.reserved_by = None;
        }
    }

    /// Only a registered nexus with its own key may do anything; an unregistered one may register.
    fn check_key(
        &self,
        nexus: NexusId,
        action: ReserveOut,
        parameters: Parameters,
    ) -> Result<(), CommandError> {
        let allowed = match (action, self.registrations.get(&nexus)) {
            (ReserveOut::RegisterAndIgnoreExistingKey, _) => true,
            (ReserveOut::Register, None) => parameters.key == 0,
            (_, None) => false,
            (_, Some(key)) => parameters.key == *key,
        };
        if allowed { Ok(()) } else { Err(CommandError::ReservationConflict) }
    }

    /// REGISTER: another key, or with zero none.
    fn register(&mut self, nexus: NexusId, key: u64, effects: &mut Effects) {
        if key != 0 {
            self.registrations.insert(nexus, key);
            return;
        }
        let held = self.held.filter(|_| self.holds(nexus));
        self.registrations.remove(&nexus);
        let Some((_, kind)) = held else { return };
        // Of all registrants the last one takes the reservation with it.
        if !kind.is_all_registrants() || self.registrations.is_empty() {
            self.held = None;
            if kind.admits_registrants() {
                self.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED, effects);
            }
        }
    }

    /// RESERVE.
    fn hold(&mut self, nexus: NexusId, parameters: Parameters) -> Result<(), CommandError> {
        let kind = valid(parameters)?;
        match self.held {
            None => self.held = Some((nexus, kind)),
            Some((_, held)) if held == kind && self.holds(nexus) => {}
            Some(_) => return Err(CommandError::ReservationConflict),
        }
        Ok(())
    }

    /// RELEASE: of a reservation that is another's it is no error, and does nothing.
    fn release_held(
        &mut self,
        nexus: NexusId,
        parameters: Parameters,
        effects: &mut Effects,
    ) -> Result<(), CommandError> {
        let Some((_, kind)) = self.held.filter(|_| self.holds(nexus)) else { return Ok(()) };
        if parameters.kind != Some(kind) {
            return Err(CommandError::InvalidRelease);
        }
        self.held = None;
        if kind.admits_registrants() {
            self.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED, effects);
        }
        Ok(())
    }

    fn clear(&mut self, nexus: NexusId, effects: &mut Effects) {
        self.tell_registrants(nexus, Sense::RESERVATIONS_PREEMPTED, effects);
        self.registrations.clear();
        self.held = None;
    }

    /// PREEMPT: takes the registrations with a key away, and the reservation if theirs was the holder's.
    fn preempt(
        &mut self,
        nexus: NexusId,
        parameters: Parameters,
        effects: &mut Effects,
    ) -> Result<(), CommandError> {
        let key = parameters.service_action_key;
        let everybody = key == 0 && self.held.is_some_and(|(_, kind)| kind.is_all_registrants());
        let of_holder = self.held.is_some_and(|(holder, kind)| {
            !kind.is_all_registrants() && self.registrations.get(&holder) == Some(&key)
        });
        if key == 0 && !everybody {
            // SERVICE ACTION RESERVATION KEY.
            return Err(CommandError::parameter(8));
        }
        let named = |each: u64| everybody || each == key;
        if !everybody && !self.registrations.values().any(|each| named(*each)) {
            return Err(CommandError::ReservationConflict);
        }
        let taken = if everybody || of_holder { Some(valid(parameters)?) } else { None };
        self.registrations.retain(|registered, each| {
            let stays = *registered == nexus || !named(*each);
            if !stays {
                effects.preempted.push(*registered);
                effects.attentions.push((*registered, Sense::REGISTRATIONS_PREEMPTED));
            }
            stays
        });
        if let Some(kind) = taken {
            if self.held.is_some_and(|(_, before)| before != kind) {
                self.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED, effects);
            }
            self.held = Some((nexus, kind));
        }
        Ok(())
    }

    /// Every registered nexus but this one learns of it.
    fn tell_registrants(&self, but: NexusId, sense: Sense, effects: &mut Effects) {
        let others = self.registrations.keys().filter(|nexus| **nexus != but);
        effects.attentions.extend(others.map(|nexus| (*nexus, sense)));
    }
}

/// SCOPE and TYPE, which make a reservation.
fn valid(parameters: Parameters) -> Result<ReservationType, CommandError> {
    // SCOPE is bits 7 to 4 of byte 2, TYPE the others.
    parameters.kind.ok_or(CommandError::field(2))
}
