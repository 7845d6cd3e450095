//! The operations in flight, by their `user_data`.

use std::{collections::BTreeMap, mem};

/// Numbers below this have a place of their own: those of programs that count their operations.
const PLACES: u64 = 1024;

/// Operations by number.
pub(crate) struct InFlight<O> {
    /// By number, as far as the highest below [`PLACES`] that was there.
    places: Vec<Option<O>>,
    others: BTreeMap<u64, Option<O>>,
    len: usize,
}

impl<O> InFlight<O> {
    pub(crate) fn new() -> Self {
        InFlight { places: Vec::new(), others: BTreeMap::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(number: u64) -> Option<usize> {
        if number < PLACES { usize::try_from(number).ok() } else { None }
    }

    /// Adds an operation, and says where it is; gives it back if there is one of this number.
    pub(crate) fn insert(&mut self, number: u64, operation: O) -> Result<&mut O, O> {
        let place = match Self::place(number) {
            Some(place) => {
                if place >= self.places.len() {
                    self.places.resize_with(place + 1, || None);
                }
                &mut self.places[place]
            }
            None => self.others.entry(number).or_default(),
        };
        if place.is_some() {
            return Err(operation);
        }
        self.len += 1;
        Ok(place.insert(operation))
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut O> {
        match Self::place(number) {
            Some(place) => self.places.get_mut(place)?.as_mut(),
            None => self.others.get_mut(&number)?.as_mut(),
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<O> {
        let removed = match Self::place(number) {
            Some(place) => self.places.get_mut(place)?.take(),
            None => self.others.remove(&number)?,
        };
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// All of them; none is left.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = O> {
        let InFlight { places, others, .. } = mem::replace(self, Self::new());
        places.into_iter().chain(others.into_values()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_small_and_by_large_numbers() {
        let mut in_flight = InFlight::new();
        for number in [0, PLACES - 1, PLACES, u64::MAX, 7] {
            assert_eq!(in_flight.insert(number, number), Ok(&mut number.clone()));
            assert_eq!(in_flight.insert(number, 99), Err(99), "{number} is in flight");
        }
        assert_eq!(in_flight.get_mut(PLACES), Some(&mut PLACES.clone()));
        assert_eq!([8, PLACES + 1].map(|number| in_flight.get_mut(number).is_some()), [false; 2]);
        let absent = [8, PLACES + 1].map(|number| in_flight.remove(number));
        assert_eq!((in_flight.len(), absent), (5, [None, None]));
        assert_eq!([PLACES, 7].map(|number| in_flight.remove(number)), [Some(PLACES), Some(7)]);
        assert_eq!([PLACES, 7].map(|number| in_flight.remove(number)), [None, None]);
        assert_eq!(in_flight.len(), 3);
        let mut rest: Vec<u64> = in_flight.take().collect();
        rest.sort_unstable();
        assert_eq!(rest, [0, PLACES - 1, u64::MAX]);
        assert!(in_flight.is_empty());
    }
}
