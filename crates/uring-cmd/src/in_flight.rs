//! The operations in flight, by their `user_data`.

use std::{collections::BTreeMap, mem};

/// Numbers below this have a place of their own: those of programs that count their operations.
const PLACES: u64 = 1024;

/// Operations by number.
pub(crate) struct InFlight<O> {
    /// By number, as far as the highest below [`PLACES`] that was there.
    places: Vec<Option<O>>,
    others: BTreeMap<u64, O>,
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

    pub(crate) fn contains(&self, number: u64) -> bool {
        match Self::place(number) {
            Some(place) => self.places.get(place).is_some_and(Option::is_some),
            None => self.others.contains_key(&number),
        }
    }

    /// Adds an operation.
    ///
    /// # Panics
    /// If there is one of this number: it would be dropped.
    pub(crate) fn insert(&mut self, number: u64, operation: O) {
        let before = match Self::place(number) {
            Some(place) => {
                if place >= self.places.len() {
                    self.places.resize_with(place + 1, || None);
                }
                self.places[place].replace(operation)
            }
            None => self.others.insert(number, operation),
        };
        assert!(before.is_none(), "{number} is in flight");
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<O> {
        let removed = match Self::place(number) {
            Some(place) => self.places.get_mut(place)?.take(),
            None => self.others.remove(&number),
        };
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// All of them; none is left.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = O> {
        let InFlight { places, others, .. } = mem::replace(self, Self::new());
        places.into_iter().flatten().chain(others.into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_small_and_by_large_numbers() {
        let numbers = [0, PLACES - 1, PLACES, u64::MAX, 7];
        let mut in_flight = InFlight::new();
        for number in numbers {
            assert!(!in_flight.contains(number));
            in_flight.insert(number, number);
        }
        assert_eq!(
            (in_flight.len(), in_flight.remove(8), in_flight.remove(PLACES + 1)),
            (5, None, None)
        );
        assert_eq!(in_flight.remove(PLACES), Some(PLACES));
        assert_eq!((in_flight.len(), in_flight.contains(PLACES)), (4, false));
        let mut rest: Vec<u64> = in_flight.take().collect();
        rest.sort_unstable();
        assert_eq!(rest, [0, 7, PLACES - 1, u64::MAX]);
        assert!(in_flight.is_empty());
    }

    #[test]
    #[should_panic(expected = "7 is in flight")]
    fn a_number_is_taken_once() {
        let mut in_flight = InFlight::new();
        in_flight.insert(7, ());
        in_flight.insert(7, ());
    }
}
