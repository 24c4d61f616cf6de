//! Pure: which records may be handed to the producer, and how long those before them wait.
//!
//! A record that is refused here certainly never leaves. That is the only proof there is: librdkafka
//! can be told to purge its queue, but a record that was sent and came back for a retry is purged
//! with the same code, a leader that resigns answers "not written" for what its followers may keep,
//! and the purge leaves a gap in the producer's sequence numbers. So nothing is purged, and what
//! went through this door without an acknowledgement has an unknown outcome.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why records were not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many records or bytes wait already.
    Busy,
    /// Kafka is known to be down, or the partition has stalled.
    Unavailable,
}

/// A record on its way to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) slot: usize,
    sequence: u64,
    bytes: usize,
}

/// The records of one partition on their way.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// By sequence, so the first is the oldest.
    handed_over: BTreeMap<u64, Instant>,
    /// The producer gave up on a record: closed until the partition is seen to have a leader.
    failed: bool,
}

/// Counts what is on its way, and refuses more than can be expected to arrive.
#[derive(Debug)]
pub(crate) struct Door {
    queues: Vec<Mutex<Queue>>,
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// No broker can be reached.
    down: AtomicBool,
    most_records: usize,
    most_bytes: usize,
    stalled_after: Duration,
}

impl Door {
    pub(crate) fn new(
        slots: usize,
        most_records: usize,
        most_bytes: usize,
        stalled_after: Duration,
    ) -> Self {
        Self {
            queues: (0..slots).map(|_| Mutex::default()).collect(),
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            most_records,
            most_bytes,
            stalled_after,
        }
    }

    /// Lets all of these records (slot, bytes) through, or none.
    pub(crate) fn admit(
        &self,
        records: &[(usize, usize)],
        now: Instant,
    ) -> Result<Vec<Pass>, Refusal> {
        if self.down.load(Ordering::Relaxed) {
            return Err(Refusal::Unavailable);
        }
        let bytes: usize = records.iter().map(|(_, bytes)| bytes).sum();
        let had = self.records.fetch_add(records.len(), Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let refusal = if had + records.len() > self.most_records || held + bytes > self.most_bytes {
            Some(Refusal::Busy)
        } else if records.iter().any(|(slot, _)| self.closed(*slot, now)) {
            Some(Refusal::Unavailable)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.records.fetch_sub(records.len(), Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(refusal);
        }
        let pass = |(slot, bytes): &(usize, usize)| {
            let mut queue = self.queue(*slot);
            let sequence = queue.next;
            queue.next += 1;
            queue.handed_over.insert(sequence, now);
            Pass { slot: *slot, sequence, bytes: *bytes }
        };
        Ok(records.iter().map(pass).collect())
    }

    /// A record arrived, or the producer gave it up.
    pub(crate) fn settle(&self, pass: Pass, acknowledged: bool) {
        let mut queue = self.queue(pass.slot);
        queue.handed_over.remove(&pass.sequence);
        queue.failed = !acknowledged;
        drop(queue);
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(pass.bytes, Ordering::Relaxed);
    }

    /// A record that was admitted and then not taken by the producer.
    pub(crate) fn withdraw(&self, pass: Pass) {
        self.queue(pass.slot).handed_over.remove(&pass.sequence);
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(pass.bytes, Ordering::Relaxed);
    }

    /// No broker can be reached, as far as the producer knows.
    pub(crate) fn down(&self) {
        self.down.store(true, Ordering::Relaxed);
    }

    /// Whether it stays closed until [`Door::reopen`].
    pub(crate) fn awaits_proof(&self) -> bool {
        self.down.load(Ordering::Relaxed)
            || (0..self.queues.len()).any(|slot| self.queue(slot).failed)
    }

    /// Every partition has a leader that can be reached.
    pub(crate) fn reopen(&self) {
        self.down.store(false, Ordering::Relaxed);
        for slot in 0..self.queues.len() {
            self.queue(slot).failed = false;
        }
    }

    /// How many of these partitions take no records now.
    pub(crate) fn closed_partitions(&self, slots: Range<usize>, now: Instant) -> usize {
        let down = self.down.load(Ordering::Relaxed);
        slots.filter(|slot| down || self.closed(*slot, now)).count()
    }

    /// Records on their way.
    pub(crate) fn records(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    fn closed(&self, slot: usize, now: Instant) -> bool {
        let queue = self.queue(slot);
        let oldest = queue.handed_over.first_key_value();
        let waits = |at: &Instant| now.saturating_duration_since(*at) > self.stalled_after;
        queue.failed || oldest.is_some_and(|(_, at)| waits(at))
    }

    fn queue(&self, slot: usize) -> MutexGuard<'_, Queue> {
        self.queues[slot].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALLED: Duration = Duration::from_millis(1500);

    fn door() -> Door {
        Door::new(2, 3, 1000, STALLED)
    }

    #[test]
    fn records_and_bytes_are_bounded_and_given_back() {
        let (door, now) = (door(), Instant::now());
        let first = door.admit(&[(0, 400), (1, 400)], now).unwrap();
        assert_eq!(door.admit(&[(0, 300)], now), Err(Refusal::Busy), "bytes");
        assert_eq!(door.admit(&[(0, 1), (1, 1)], now), Err(Refusal::Busy), "records");
        let last = door.admit(&[(0, 200)], now).unwrap();
        door.settle(first[0], true);
        door.withdraw(last[0]);
        assert_eq!(door.records(), 1);
        assert!(door.admit(&[(0, 300), (0, 300)], now).is_ok());
    }

    #[test]
    fn a_partition_stalls_alone_and_recovers_by_an_acknowledgement() {
        let (door, start) = (door(), Instant::now());
        let slow = door.admit(&[(0, 1)], start).unwrap();
        assert!(door.admit(&[(0, 1)], start + STALLED).is_ok(), "not over the limit yet");
        let late = start + STALLED + Duration::from_millis(1);
        assert_eq!(door.admit(&[(0, 1)], late), Err(Refusal::Unavailable));
        assert_eq!(door.admit(&[(1, 1), (0, 1)], late), Err(Refusal::Busy));
        assert_eq!(door.closed_partitions(0..2, late), 1);
        assert!(door.admit(&[(1, 1)], late).is_ok(), "the other partition is open");
        assert!(!door.awaits_proof(), "an acknowledgement is enough");
        door.settle(slow[0], true);
        assert!(door.admit(&[(0, 1)], late).is_ok());
    }

    #[test]
    fn after_a_failure_the_partition_waits_for_proof() {
        let (door, now) = (door(), Instant::now());
        let pass = door.admit(&[(0, 1)], now).unwrap();
        door.settle(pass[0], false);
        assert!(door.awaits_proof());
        assert_eq!(door.admit(&[(0, 1)], now), Err(Refusal::Unavailable));
        assert!(door.admit(&[(1, 1)], now).is_ok());
        door.reopen();
        assert!(door.admit(&[(0, 1)], now).is_ok());
    }

    #[test]
    fn without_a_broker_nothing_goes_out() {
        let (door, now) = (door(), Instant::now());
        door.down();
        assert_eq!(door.admit(&[(0, 1)], now), Err(Refusal::Unavailable));
        assert_eq!(door.closed_partitions(0..2, now), 2);
        assert_eq!(door.records(), 0);
        door.reopen();
        assert!(door.admit(&[(0, 1)], now).is_ok());
    }
}
