//! How far a member's partitions are, as metrics.
//!
//! What is measured of a partition that was given back meanwhile is dropped: the series would stand still for
//! as long as the process lives, and be taken for a partition that is behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::Millis;
use wire::telemetry::{LAG_RECORDS, LAG_SECONDS};

use super::Place;
use super::health::Progress;

type Known = BTreeMap<Place, Arc<Progress>>;

/// The partitions that a member of a sink's group has. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Positions {
    sink: &'static str,
    /// Held while their metrics change, too.
    known: Arc<Mutex<Known>>,
}

impl Positions {
    /// None yet, of this sink.
    pub(crate) fn of(sink: &'static str) -> Self {
        Self { sink, known: Arc::default() }
    }

    /// A partition was assigned.
    pub(crate) fn insert(&self, place: Place, progress: Arc<Progress>) {
        self.known().insert(place, progress);
    }

    /// A partition was given back: nothing is exported of it any more.
    pub(crate) fn remove(&self, place: Place) {
        let mut known = self.known();
        known.remove(&place);
        let partition = place.partition.to_string();
        let labels = [self.sink, place.topic.name, &partition];
        // There is no series if it was never measured.
        let _ = LAG_RECORDS.remove_label_values(&labels);
        let _ = LAG_SECONDS.remove_label_values(&labels);
    }

    /// The partitions as they are now.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.known().keys().copied().collect()
    }

    /// Exports for how long the oldest record of each partition has waited.
    pub(crate) fn export_seconds(&self, now: Millis) {
        for (place, progress) in self.known().iter() {
            let partition = place.partition.to_string();
            LAG_SECONDS
                .with_label_values(&[self.sink, place.topic.name, &partition])
                .set(progress.lag_seconds(now));
        }
    }

    /// Exports how many records wait in a partition, given the end of its log.
    pub(crate) fn export_records(&self, place: Place, end: i64) {
        if let Some(progress) = self.known().get(&place) {
            let partition = place.partition.to_string();
            LAG_RECORDS
                .with_label_values(&[self.sink, place.topic.name, &partition])
                .set(progress.lag(end));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::topics::ORDER_STATUS;

    #[test]
    fn nothing_is_exported_of_a_partition_that_was_given_back() {
        let place = |partition| Place { topic: &ORDER_STATUS, partition };
        let positions = Positions::of("positions");
        for partition in [0, 1] {
            let progress = Progress::assigned(Millis(1_000));
            positions.insert(place(partition), Arc::new(progress));
        }
        let measured = positions.places();
        positions.remove(place(0));
        positions.export_seconds(Millis(9_000));
        for place in measured {
            positions.export_records(place, 7);
        }
        let labels = |partition| ["positions", ORDER_STATUS.name, partition];
        // What cannot be removed is not there.
        assert!(LAG_RECORDS.remove_label_values(&labels("0")).is_err());
        assert!(LAG_SECONDS.remove_label_values(&labels("0")).is_err());
        assert_eq!(LAG_RECORDS.with_label_values(&labels("1")).get(), 7);
        assert_eq!(LAG_SECONDS.with_label_values(&labels("1")).get(), 8);
    }
}
