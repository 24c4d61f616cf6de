//! What became of the records of one request; every click that shares them waits here.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use events::Millis;
use tokio::sync::Notify;

use super::door::Refusal;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Kafka has every record.
    Acknowledged {
        /// Append time of the last one, as far as the broker told it.
        at: Option<Millis>,
        /// Its offset, as far as the broker told it.
        offset: Option<i64>,
    },
    /// No record was handed to the producer: none can ever appear.
    Refused(Refusal),
    /// Some record may have been written, and the producer has given up on it.
    Unknown,
}

#[derive(Debug)]
struct Parts {
    open: usize,
    acknowledged: bool,
    unknown: bool,
    refused: Option<Refusal>,
    last: (Option<Millis>, Option<i64>),
}

/// Settled once, when the last of its records is.
#[derive(Debug)]
pub struct Outcome {
    /// An earlier attempt under the same key may have been written: even if this one is refused, the
    /// answer is that the outcome is unknown.
    pub doubtful: bool,
    parts: Mutex<Parts>,
    settled: OnceLock<Settled>,
    notify: Notify,
}

impl Outcome {
    /// An outcome of `records` records (one or more).
    pub fn new(records: usize, doubtful: bool) -> Self {
        let parts = Parts {
            open: records,
            acknowledged: false,
            unknown: false,
            refused: None,
            last: (None, None),
        };
        Self { doubtful, parts: Mutex::new(parts), settled: OnceLock::new(), notify: Notify::new() }
    }

    /// One record is acknowledged.
    pub fn acknowledged(&self, at: Option<Millis>, offset: Option<i64>) {
        self.part(|parts| {
            parts.acknowledged = true;
            parts.last = (at, offset);
        });
    }

    /// One record is given up on.
    pub fn unknown(&self) {
        self.part(|parts| parts.unknown = true);
    }

    /// One record was not handed over.
    pub fn refused(&self, refusal: Refusal) {
        self.part(|parts| parts.refused = Some(refusal));
    }

    fn part(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        parts.open = parts.open.saturating_sub(1);
        if parts.open > 0 {
            return;
        }
        let settled = match (parts.unknown, parts.acknowledged, parts.refused) {
            (false, false, Some(refusal)) => Settled::Refused(refusal),
            (false, true, None) => Settled::Acknowledged { at: parts.last.0, offset: parts.last.1 },
            // Written in part is not written, and not unwritten either: a retry completes it.
            _ => Settled::Unknown,
        };
        drop(parts);
        // Only the first end counts; there is one, since each record ends once.
        let _ = self.settled.set(settled);
        self.notify.notify_waiters();
    }

    /// How it ended, if it has.
    pub fn get(&self) -> Option<Settled> {
        self.settled.get().copied()
    }

    /// Waits for the end, at most until then.
    pub async fn wait(&self, until: Instant) -> Option<Settled> {
        let notified = self.notify.notified();
        let mut notified = std::pin::pin!(notified);
        // From here on a notification is not missed, so look after it.
        notified.as_mut().enable();
        if let Some(settled) = self.get() {
            return Some(settled);
        }
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // Whether woken or out of time, what counts is what is there now.
        let _ = tokio::time::timeout(left, notified).await;
        self.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_request_is_acknowledged_refused_or_unknown_as_a_whole() {
        let settle = |steps: &[char]| {
            let outcome = Outcome::new(steps.len(), false);
            for step in steps {
                assert_eq!(outcome.get(), None, "not before the last record");
                match step {
                    'a' => outcome.acknowledged(Some(Millis(5)), Some(7)),
                    'r' => outcome.refused(Refusal::Busy),
                    _ => outcome.unknown(),
                }
            }
            outcome.get()
        };
        let acknowledged = Settled::Acknowledged { at: Some(Millis(5)), offset: Some(7) };
        assert_eq!(settle(&['a']), Some(acknowledged));
        assert_eq!(settle(&['a', 'a']), Some(acknowledged));
        assert_eq!(settle(&['r', 'r']), Some(Settled::Refused(Refusal::Busy)));
        assert_eq!(settle(&['a', 'r']), Some(Settled::Unknown));
        assert_eq!(settle(&['a', 'u']), Some(Settled::Unknown));
        assert_eq!(settle(&['u', 'r']), Some(Settled::Unknown));
    }

    #[tokio::test]
    async fn every_waiter_hears_of_the_end() {
        let outcome = Arc::new(Outcome::new(1, false));
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let outcome = Arc::clone(&outcome);
                let until = Instant::now() + Duration::from_secs(10);
                tokio::spawn(async move { outcome.wait(until).await })
            })
            .collect();
        tokio::task::yield_now().await;
        outcome.unknown();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), Some(Settled::Unknown));
        }
        assert_eq!(outcome.wait(Instant::now()).await, Some(Settled::Unknown));
    }

    #[tokio::test]
    async fn waiting_ends_in_time() {
        let outcome = Outcome::new(1, false);
        let until = Instant::now() + Duration::from_millis(20);
        assert_eq!(outcome.wait(until).await, None);
        assert!(Instant::now() >= until);
    }
}
