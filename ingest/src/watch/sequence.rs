//! Pure: an order's events in their order, each once, out of what the store has and what the log brings.
//!
//! Versions are gapless, so whoever has heard one from the log can do without the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::Millis;

use super::ending::Ending;
use crate::database::{Event, History};

/// Events that wait for one before them: an order has about ten in all.
const MOST_AHEAD: usize = 100;

/// See the module.
pub(super) struct Sequence {
    /// The version that is told next.
    next: i32,
    /// Later ones, for which it has to be found first.
    ahead: BTreeMap<i32, Arc<Event>>,
    /// The store has to be read when it has got there; `None` once the log alone is enough.
    needed: Option<i64>,
    /// An order with this id that was accepted earlier is another one.
    not_before: DateTime<Utc>,
    ending: Ending,
}

impl Sequence {
    /// Events behind this version; those before this offset of the log are in the store alone.
    pub(super) fn new(after: i32, from: i64) -> Self {
        Self {
            next: after.saturating_add(1),
            ahead: BTreeMap::new(),
            needed: Some(from),
            not_before: DateTime::UNIX_EPOCH,
            ending: Ending::default(),
        }
    }

    /// Passes over what happened to an order that was accepted earlier.
    pub(super) fn not_before(&mut self, accepted_at: Millis) {
        self.not_before = DateTime::from_timestamp_millis(accepted_at.0).unwrap_or_default();
    }

    /// Where the store has to get before it is read again; `None`: not at all.
    pub(super) fn needed(&self) -> Option<i64> {
        self.needed
    }

    /// Whether nothing can follow what was told, at this time in UTC milliseconds.
    pub(super) fn over(&self, now: i64) -> bool {
        self.ending.over(now)
    }

    /// What the store has, and what of the log waited for it. Holes that the store has, too, stay.
    pub(super) fn merge(&mut self, history: History) -> Vec<Arc<Event>> {
        let complete = self.needed.is_none_or(|offset| history.stored >= offset);
        let mut events = Vec::new();
        let mut ending = Ending::default();
        let own = history.events.into_iter().filter(|event| event.accepted_at >= self.not_before);
        for event in own {
            ending.note(&event);
            if event.version >= self.next {
                self.next = event.version + 1;
                events.push(Arc::new(event));
            }
        }
        if ending.version >= self.ending.version {
            self.ending = ending;
        }
        if complete {
            self.needed = None;
            for (version, event) in std::mem::take(&mut self.ahead) {
                if version >= self.next {
                    self.tell(event, &mut events);
                }
            }
        } else {
            events.extend(self.contiguous());
        }
        events
    }

    /// A change from the log, which is followed up to this position; `None` when too much is missing before it.
    pub(super) fn take(&mut self, change: Arc<Event>, position: i64) -> Option<Vec<Arc<Event>>> {
        if change.accepted_at < self.not_before {
            return Some(Vec::new());
        }
        if change.version > self.next {
            // Either the store has what is missing by now, or nobody has.
            self.needed = self.needed.or(Some(position));
            self.ahead.insert(change.version, change);
            return (self.ahead.len() <= MOST_AHEAD).then(Vec::new);
        }
        let mut events = Vec::new();
        if change.version == self.next {
            self.tell(change, &mut events);
        }
        events.extend(self.contiguous());
        // Whatever comes after this one comes from the log.
        self.needed = (!self.ahead.is_empty()).then_some(position);
        Some(events)
    }

    fn contiguous(&mut self) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.ahead.remove(&self.next) {
            self.tell(event, &mut events);
        }
        events
    }

    fn tell(&mut self, event: Arc<Event>, events: &mut Vec<Arc<Event>>) {
        self.next = event.version + 1;
        self.ending.note(&event);
        events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: i64 = 1_790_000_000_000;
    const TODAY: i64 = 1_795_305_600_000;

    fn event(accepted_at: i64, version: i32) -> Event {
        let mut event = Event::sample(version, "reserved", "");
        event.accepted_at = DateTime::from_timestamp_millis(accepted_at).unwrap();
        event
    }

    fn history(accepted_at: i64, versions: i32, stored: i64) -> History {
        History { events: (1..=versions).map(|n| event(accepted_at, n)).collect(), stored }
    }

    fn change(accepted_at: i64, version: i32) -> Arc<Event> {
        Arc::new(event(accepted_at, version))
    }

    fn versions(events: &[Arc<Event>]) -> Vec<i32> {
        events.iter().map(|event| event.version).collect()
    }

    #[test]
    fn what_the_log_brings_early_waits_for_what_the_store_has() {
        let mut sequence = Sequence::new(0, 10);
        assert!(sequence.take(change(TODAY, 3), 12).unwrap().is_empty());
        assert_eq!(sequence.needed(), Some(10));
        // It is not there yet.
        assert_eq!(versions(&sequence.merge(history(TODAY, 1, 9))), [1]);
        assert_eq!(sequence.needed(), Some(10));
        assert_eq!(versions(&sequence.merge(history(TODAY, 2, 10))), [2, 3]);
        assert_eq!(sequence.needed(), None);
        assert!(sequence.take(change(TODAY, 3), 14).unwrap().is_empty(), "once");
        assert_eq!(versions(&sequence.take(change(TODAY, 4), 15).unwrap()), [4]);
    }

    #[test]
    fn the_first_order_under_an_expired_key_is_not_told_for_the_second() {
        let mut sequence = Sequence::new(0, 10);
        sequence.not_before(Millis(TODAY));
        // The store has the first one only, and something comes late of it.
        assert!(sequence.merge(history(LONG_AGO, 5, 9)).is_empty());
        assert!(sequence.take(change(LONG_AGO, 6), 11).unwrap().is_empty());
        assert!(!sequence.over(i64::MAX));
        assert_eq!(versions(&sequence.take(change(TODAY, 1), 12).unwrap()), [1]);
        assert_eq!(versions(&sequence.take(change(TODAY, 2), 13).unwrap()), [2]);
    }

    #[test]
    fn too_much_ahead_ends_it() {
        let mut sequence = Sequence::new(0, 10);
        for version in 2..=101 {
            assert!(sequence.take(change(TODAY, version), 12).is_some());
        }
        assert!(sequence.take(change(TODAY, 102), 12).is_none());
    }
}
