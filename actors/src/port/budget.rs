//! How much may wait for the store's writer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What may wait for the store's writer, in records and bytes.
#[derive(Debug)]
pub struct Budget {
    records_max: usize,
    bytes_max: usize,
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    /// A budget with nothing taken.
    #[must_use]
    pub fn new(records_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { records_max, bytes_max, records: AtomicUsize::new(0), bytes: AtomicUsize::new(0) })
    }

    /// Takes a place for one record of `bytes`, or `None` if the queue is full.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        // Optimistic: both counters may overshoot for a moment, by what other threads give back at once.
        let records = self.records.fetch_add(1, Relaxed);
        let taken = self.bytes.fetch_add(bytes, Relaxed);
        let place = Place { budget: self.clone(), records: 1, bytes };
        (records < self.records_max && taken + bytes <= self.bytes_max).then_some(place)
    }

    /// No place at all, to [`merge`](Place::merge) others into.
    #[must_use]
    pub fn none(self: &Arc<Self>) -> Place {
        Place { budget: self.clone(), records: 0, bytes: 0 }
    }

    /// Records that wait.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records.load(Relaxed)
    }
}

/// A place in the writer's queue; given back when dropped, also by a panic.
#[derive(Debug)]
pub struct Place {
    budget: Arc<Budget>,
    records: usize,
    bytes: usize,
}

impl Place {
    /// Adds another place to this one.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget), "places of one store");
        self.records += std::mem::take(&mut other.records);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.records.fetch_sub(self.records, Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_dropped() {
        let budget = Budget::new(2, 100);
        let mut place = budget.take(60).unwrap();
        assert!(budget.take(60).is_none(), "too many bytes");
        place.merge(budget.take(40).unwrap());
        assert_eq!(budget.records(), 2);
        assert!(budget.take(0).is_none(), "too many records");
        drop(place);
        assert_eq!(budget.records(), 0);
        drop(budget.take(100).unwrap());
    }
}
