//! What stands between a position and the end of its partition.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Result;
use events::Millis;
use rdkafka::message::Message as _;

use super::age_ms;
use super::position::Position;
use crate::log::{Log, Wanted};

/// Records counted one by one; a reader that is further behind is known by its offsets.
const COUNTED: u64 = 10_000;

/// How far a reader is behind in a partition.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Behind {
    /// The reader's group, or the sink.
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Records before this offset are applied; `None` if the reader has not begun.
    pub(crate) applied: Option<i64>,
    /// Where committed records end.
    pub(crate) end: i64,
    /// Records not applied.
    pub(crate) records: u64,
    /// Whether they were counted, or are offsets, which markers of transactions have, too.
    pub(crate) exact: bool,
    /// Age of the oldest of them, milliseconds; `None` if there is none.
    pub(crate) oldest_ms: Option<i64>,
}

impl Behind {
    /// The higher, the worse.
    pub(super) fn rank(&self) -> (i64, u64, std::cmp::Reverse<(&str, &str, i32)>) {
        let name = (self.group.as_str(), self.topic.as_str(), self.partition);
        (self.oldest_ms.unwrap_or(-1), self.records, std::cmp::Reverse(name))
    }

    /// Whether it is worse than a limit.
    pub(super) fn beyond(&self, max_records: Option<u64>, max_seconds: Option<u64>) -> bool {
        let oldest_ms = self.oldest_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        max_records.is_some_and(|most| self.records > most)
            || max_seconds.is_some_and(|most| oldest_ms > most.saturating_mul(1_000))
    }
}

/// Measures each position. Blocks.
///
/// # Errors
/// When Kafka does not answer.
pub(super) fn measure(brokers: &str, positions: &[Position], now: Millis) -> Result<Vec<Behind>> {
    let log = Log::connect(brokers)?;
    let mut bounds: BTreeMap<(&str, i32), (i64, i64)> = BTreeMap::new();
    let mut readers: BTreeMap<(&str, &str), Vec<&Position>> = BTreeMap::new();
    for position in positions {
        if let Entry::Vacant(place) = bounds.entry((&position.topic, position.partition)) {
            let (topic, partition) = *place.key();
            place.insert(log.bounds(topic, partition)?);
        }
        readers.entry((&position.group, &position.topic)).or_default().push(position);
    }
    let mut all = Vec::new();
    for ((_, topic), positions) in readers {
        let range = |position: &&Position| {
            let (first, end) = bounds[&(topic, position.partition)];
            (position.partition, (position.next.unwrap_or(first).max(first), end))
        };
        let ranges: BTreeMap<i32, (i64, i64)> = positions.iter().map(range).collect();
        // By partition: how many, and when the first was appended.
        let mut seen: BTreeMap<i32, (u64, Millis)> = BTreeMap::new();
        log.read(topic, &ranges, |message| {
            let at = Millis(message.timestamp().to_millis().unwrap_or(now.0));
            let (count, _) = seen.entry(message.partition()).or_insert((0, at));
            *count += 1;
            if *count < COUNTED { Wanted::More } else { Wanted::Enough }
        })?;
        all.extend(positions.iter().map(|position| {
            let (from, end) = ranges[&position.partition];
            behind(position, (from, end), seen.get(&position.partition).copied(), now)
        }));
    }
    Ok(all)
}

fn behind(
    position: &Position,
    (from, end): (i64, i64),
    seen: Option<(u64, Millis)>,
    now: Millis,
) -> Behind {
    let counted = seen.map_or(0, |(count, _)| count);
    let exact = counted < COUNTED;
    let offsets = u64::try_from(end.saturating_sub(from)).unwrap_or(0);
    Behind {
        group: position.group.clone(),
        topic: position.topic.clone(),
        partition: position.partition,
        applied: position.next,
        end,
        records: if exact { counted } else { offsets },
        exact,
        oldest_ms: seen.map(|(_, at)| age_ms(now, at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(next: Option<i64>) -> Position {
        Position { group: "g".into(), topic: "t".into(), partition: 0, next }
    }

    #[test]
    fn markers_are_no_records_and_many_are_estimated() {
        let now = Millis(100_000);
        let idle = behind(&position(Some(7)), (7, 8), None, now);
        assert_eq!((idle.records, idle.exact, idle.oldest_ms), (0, true, None));
        let some = behind(&position(Some(7)), (7, 12), Some((3, Millis(40_000))), now);
        assert_eq!((some.records, some.exact, some.oldest_ms), (3, true, Some(60_000)));
        let many = behind(&position(None), (0, 50_000), Some((COUNTED, Millis(40_000))), now);
        assert_eq!((many.records, many.exact, many.applied), (50_000, false, None));
        let ahead = behind(&position(Some(7)), (7, 8), Some((1, Millis(100_001))), now);
        assert_eq!(ahead.oldest_ms, Some(0), "clocks differ");
    }

    #[test]
    fn limits_are_beyond_which_it_fails() {
        let now = Millis(100_000);
        let some = behind(&position(Some(7)), (7, 12), Some((3, Millis(40_000))), now);
        assert!(!some.beyond(None, None) && !some.beyond(Some(3), Some(60)));
        assert!(some.beyond(Some(2), None) && some.beyond(None, Some(59)));
        let idle = behind(&position(Some(7)), (7, 8), None, now);
        assert!(!idle.beyond(Some(0), Some(0)));
        assert!(some.rank() > idle.rank());
    }
}
