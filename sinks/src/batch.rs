//! Pure: when a batch is written.
//!
//! A batch is written when it is full, or once `interval` has passed since the last one *began*: the
//! first record after a pause goes at once, and under load batches grow to what arrives in one
//! interval, so that their fixed cost is shared by many records.
//!
//! A store that is slow to take a batch is busy: the next batch then waits longer and grows, so that
//! the store spends its time on rows rather than on transactions. Once it is quick again, so are we.

use std::time::Duration;

/// Bytes of records a batch may hold; bounds memory where records are large.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The interval is at least this many times as long as the last batch took to write.
const SHARE: u32 = 10;
/// Most times its normal length that it is stretched to.
const STRETCH: u32 = 5;

/// Bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most records.
    pub(crate) records: usize,
    /// Least time between the beginnings of two batches.
    pub(crate) interval: Duration,
}

/// The last batch that was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Last {
    /// How long ago its writing began.
    pub(crate) since: Duration,
    /// How long it took to write.
    pub(crate) took: Duration,
}

/// What to do with what is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Write it.
    Now,
    /// Collect on for at most this long.
    In(Duration),
    /// Nothing is collected: wait for records.
    Never,
}

impl Limits {
    /// Whether no further record may join.
    pub(crate) fn full(&self, records: usize, bytes: usize) -> bool {
        records >= self.records || bytes >= MOST_BYTES
    }

    /// When to write, given what is collected and what was written last.
    pub(crate) fn due(&self, records: usize, bytes: usize, last: Option<Last>) -> Due {
        if records == 0 {
            return Due::Never;
        }
        if self.full(records, bytes) {
            return Due::Now;
        }
        let left = |last: Last| {
            let interval = self.interval.max((last.took * SHARE).min(self.interval * STRETCH));
            interval.checked_sub(last.since)
        };
        match last.and_then(left) {
            Some(left) if !left.is_zero() => Due::In(left),
            _ => Due::Now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { records: 10, interval: Duration::from_millis(100) };
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_never_due() {
        assert_eq!(LIMITS.due(0, 0, None), Due::Never);
        assert_eq!(LIMITS.due(0, 0, last(500, 5)), Due::Never);
    }

    fn last(since: u32, took: u32) -> Option<Last> {
        Some(Last { since: since * MS, took: took * MS })
    }

    #[test]
    fn the_first_record_after_a_pause_goes_at_once() {
        assert_eq!(LIMITS.due(1, 9, None), Due::Now);
        assert_eq!(LIMITS.due(1, 9, last(100, 5)), Due::Now);
        assert_eq!(LIMITS.due(1, 9, last(500, 50)), Due::Now);
    }

    #[test]
    fn under_load_a_batch_waits_for_its_interval_or_until_it_is_full() {
        assert_eq!(LIMITS.due(9, 9, last(30, 5)), Due::In(70 * MS));
        assert_eq!(LIMITS.due(10, 9, last(30, 5)), Due::Now);
        assert_eq!(LIMITS.due(1, MOST_BYTES, last(30, 5)), Due::Now);
    }

    #[test]
    fn a_slow_store_is_given_more_time_within_bounds() {
        assert_eq!(LIMITS.due(9, 9, last(100, 20)), Due::In(100 * MS));
        assert_eq!(LIMITS.due(9, 9, last(100, 900)), Due::In(400 * MS));
        assert_eq!(LIMITS.due(10, 9, last(100, 900)), Due::Now);
    }
}
