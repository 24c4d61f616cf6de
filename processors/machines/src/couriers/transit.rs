//! How long consignments of a lane really took: a histogram that forgets, and its quantiles.

use serde::{Deserialize, Serialize};

/// Consignments before a quantile says anything.
const ENOUGH: u32 = 20;
/// Counts are halved at this total: about the last two thousand consignments count.
const MOST: u32 = 2_048;
/// Longest time told apart, seconds: 97 days.
const LONGEST_S: u64 = (1 << 23) - 1;

/// Times by buckets of a quarter of a power of two, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transit {
    /// Bucket and count, by bucket.
    counts: Vec<(u8, u16)>,
}

impl Transit {
    /// A consignment took so long, milliseconds.
    pub fn note(&mut self, took_ms: i64) {
        let seconds = u64::try_from(took_ms / 1_000).unwrap_or(0).min(LONGEST_S);
        let bucket = bucket(seconds);
        match self.counts.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(1),
            Err(at) => self.counts.insert(at, (bucket, 1)),
        }
        if self.total() >= MOST {
            for (_, count) in &mut self.counts {
                *count /= 2;
            }
            self.counts.retain(|(_, count)| *count > 0);
        }
    }

    /// In this share of cases, 0 to 1000, it takes at most so long, milliseconds; `None` before
    /// enough is known. Interpolates within a bucket.
    pub fn quantile(&self, permille: u32) -> Option<i64> {
        let total = self.total();
        if total < ENOUGH {
            return None;
        }
        // In thousandths of a consignment.
        let wanted = u64::from(total) * u64::from(permille);
        let mut below = 0;
        for (bucket, count) in &self.counts {
            let count = u64::from(*count) * 1_000;
            if below + count >= wanted {
                let (from, to) = bounds(*bucket);
                let within = (to - from) * 1_000 * (wanted - below) / count;
                return i64::try_from(from * 1_000 + within).ok();
            }
            below += count;
        }
        None
    }

    fn total(&self) -> u32 {
        self.counts.iter().map(|(_, count)| u32::from(*count)).sum()
    }
}

/// 0 to 3 stand for themselves; above, the position of the highest bit and the two bits after it.
fn bucket(seconds: u64) -> u8 {
    if seconds < 4 {
        return u8::try_from(seconds).unwrap_or(0);
    }
    let high = 63 - seconds.leading_zeros();
    let quarter = (seconds >> (high - 2)) & 3;
    u8::try_from(4 * (u64::from(high) - 1) + quarter).unwrap_or(u8::MAX)
}

/// First second of a bucket, and the first after it.
fn bounds(bucket: u8) -> (u64, u64) {
    let bucket = u64::from(bucket);
    if bucket < 4 {
        return (bucket, bucket + 1);
    }
    let (shift, quarter) = (bucket / 4 - 1, bucket % 4);
    ((4 + quarter) << shift, (5 + quarter) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_is_in_its_bucket() {
        for seconds in (0..5_000).chain([86_399, 86_400, LONGEST_S]) {
            let (from, to) = bounds(bucket(seconds));
            assert!((from..to).contains(&seconds), "{seconds}: {from}..{to}");
        }
    }

    #[test]
    fn a_quantile_is_what_it_says_and_forgets() {
        let mut transit = Transit::default();
        for i in 0..19 {
            transit.note(i * 1_000);
        }
        assert_eq!(transit.quantile(900), None, "too little is known");
        let mut transit = Transit::default();
        for i in 1..=1_000 {
            transit.note(i * 60_000);
        }
        let nine_of_ten = transit.quantile(900).unwrap();
        assert!((nine_of_ten - 900 * 60_000).abs() < 900 * 600, "{nine_of_ten}");
        for _ in 0..10_000 {
            transit.note(3_600_000);
        }
        let after = transit.quantile(900).unwrap();
        assert!((3_000_000..4_200_000).contains(&after), "{after}");
    }
}
