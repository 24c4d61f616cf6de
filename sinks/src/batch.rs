//! Pure: when a batch is written.
//!
//! A batch is written when it is full, or once `interval` has passed since the last one *began*: the
//! first record after a pause goes at once, and under load batches grow to what arrives in one
//! interval, so that their fixed cost is shared by many records.

use std::time::Duration;

/// Bytes of records a batch may hold; bounds memory where records are large.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most records.
    pub(crate) records: usize,
    /// Least time between the beginnings of two batches.
    pub(crate) interval: Duration,
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

    /// When to write, given what is collected and how long ago the last write began (`None`: never).
    pub(crate) fn due(&self, records: usize, bytes: usize, since: Option<Duration>) -> Due {
        if records == 0 {
            return Due::Never;
        }
        if self.full(records, bytes) {
            return Due::Now;
        }
        match since.and_then(|since| self.interval.checked_sub(since)) {
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
        assert_eq!(LIMITS.due(0, 0, Some(500 * MS)), Due::Never);
    }

    #[test]
    fn the_first_record_after_a_pause_goes_at_once() {
        assert_eq!(LIMITS.due(1, 9, None), Due::Now);
        assert_eq!(LIMITS.due(1, 9, Some(100 * MS)), Due::Now);
        assert_eq!(LIMITS.due(1, 9, Some(500 * MS)), Due::Now);
    }

    #[test]
    fn under_load_a_batch_waits_for_its_interval_or_until_it_is_full() {
        assert_eq!(LIMITS.due(9, 9, Some(30 * MS)), Due::In(70 * MS));
        assert_eq!(LIMITS.due(10, 9, Some(30 * MS)), Due::Now);
        assert_eq!(LIMITS.due(1, MOST_BYTES, Some(30 * MS)), Due::Now);
    }
}
