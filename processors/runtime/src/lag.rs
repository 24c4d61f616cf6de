//! `tillroll_consumer_lag_records` and `…_seconds` of the processors, from librdkafka's statistics: what was
//! fetched and not taken, and what is left to be fetched. Markers of transactions count until they were
//! fetched, so that a partition at its end has no lag. Seconds come from where the log's end stood at
//! earlier measurements, so they cost nothing per record; they are at most one interval too few.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::statistics::Partition;
use wire::telemetry::{LAG_RECORDS, LAG_SECONDS};

/// The lag of one consumer's partitions.
pub(crate) struct LagGauge {
    group: String,
    /// What was reported last: a partition that moved on is another one's to report.
    reported: Mutex<BTreeMap<(String, i32), Ends>>,
}

impl LagGauge {
    pub(crate) fn new(group: &str) -> Self {
        Self { group: group.to_string(), reported: Mutex::default() }
    }

    pub(crate) fn report(&self, statistics: &Statistics) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *reported);
        for (topic, of_topic) in &statistics.topics {
            for (partition, seen) in &of_topic.partitions {
                if let Some(lag) = lag(seen) {
                    let labels = [&*self.group, topic, &partition.to_string()];
                    let place = (topic.clone(), *partition);
                    let mut ends = gone.remove(&place).unwrap_or_default();
                    let end = seen.ls_offset.max(seen.next_offset);
                    LAG_RECORDS.with_label_values(&labels).set(lag);
                    LAG_SECONDS.with_label_values(&labels).set(ends.waited_s(
                        end,
                        lag,
                        Instant::now(),
                    ));
                    reported.insert(place, ends);
                }
            }
        }
        for (topic, partition) in gone.keys() {
            let labels = [&*self.group, topic, &partition.to_string()];
            // Another consumer of the process may have taken it away already.
            let _ = LAG_RECORDS.remove_label_values(&labels);
            let _ = LAG_SECONDS.remove_label_values(&labels);
        }
    }
}

/// Records behind the consumer; `None` for a partition that it does not fetch.
fn lag(seen: &Partition) -> Option<i64> {
    (seen.fetch_state == "active").then(|| {
        let unfetched = (seen.ls_offset - seen.next_offset).max(0);
        // Neither offset is known before the first answer to a fetch.
        let unfetched = if seen.ls_offset < 0 || seen.next_offset < 0 { 0 } else { unfetched };
        seen.fetchq_cnt + unfetched
    })
}

/// Where a partition's end stood at earlier measurements, as far as there are records before it that
/// still wait.
#[derive(Debug, Default)]
struct Ends(VecDeque<(i64, Instant)>);

impl Ends {
    /// Most measurements kept, nearly six hours of them.
    const MOST: usize = 4096;

    /// Whole seconds for which the oldest waiting record was seen to wait.
    fn waited_s(&mut self, end: i64, lag: i64, now: Instant) -> i64 {
        let position = end - lag;
        while self.0.front().is_some_and(|(end, _)| *end <= position) {
            self.0.pop_front();
        }
        let grown = self.0.back().is_none_or(|(last, _)| *last < end);
        if lag > 0 && grown && self.0.len() < Self::MOST {
            self.0.push_back((end, now));
        }
        let waited = self.0.front().map(|(_, at)| now.saturating_duration_since(*at).as_secs());
        waited.and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0)
    }
}

/// The context of a consumer that does nothing else than measure.
pub(crate) struct Measured(pub(crate) LagGauge);

impl ClientContext for Measured {
    fn stats(&self, statistics: Statistics) {
        self.0.report(&statistics);
    }
}

impl ConsumerContext for Measured {}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::statistics::Topic;

    fn partition(fetch_state: &str, fetched: i64, next: i64, stable: i64) -> Partition {
        Partition {
            fetch_state: fetch_state.into(),
            fetchq_cnt: fetched,
            next_offset: next,
            ls_offset: stable,
            ..Partition::default()
        }
    }

    #[test]
    fn lag_is_what_waits_here_and_there() {
        let table = [
            (("active", 0, 100, 100), Some(0)),
            (("active", 7, 100, 100), Some(7)),
            (("active", 7, 100, 130), Some(37)),
            // The last stable offset was heard of before what was fetched since.
            (("active", 7, 140, 130), Some(7)),
            (("active", 0, -1001, -1001), Some(0)),
            (("stopped", 7, 100, 130), None),
            (("none", 0, -1001, -1001), None),
        ];
        for ((state, fetched, next, stable), expected) in table {
            assert_eq!(
                lag(&partition(state, fetched, next, stable)),
                expected,
                "{state} {fetched}"
            );
        }
    }

    #[test]
    fn waiting_counts_from_the_first_look_at_the_oldest_record() {
        let mut ends = Ends::default();
        let start = Instant::now();
        let steps = [
            (0, 100, 0, 0),
            (5, 110, 10, 0),
            (10, 120, 20, 5),
            // Stands still, then some are processed, then what came first, then all.
            (65, 120, 20, 60),
            (70, 140, 35, 65),
            (75, 140, 25, 65),
            (80, 140, 20, 10),
            (85, 150, 0, 0),
            (90, 151, 1, 0),
        ];
        for (at_s, end, lag, expected_s) in steps {
            let now = start + std::time::Duration::from_secs(at_s);
            assert_eq!(ends.waited_s(end, lag, now), expected_s, "after {at_s} s");
        }
    }

    #[test]
    fn a_partition_that_moved_on_is_no_longer_reported() {
        let gauge = LagGauge::new("lag-test");
        let statistics = |state: &str| {
            let partitions = [(3, partition(state, 5, 10, 12))].into();
            let topic = Topic { topic: "orders".into(), partitions, ..Topic::default() };
            let topics = [("orders".to_string(), topic)].into();
            Statistics { topics, ..Statistics::default() }
        };
        let exported = || {
            let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather());
            let text = text.expect("metrics are text");
            let mine = text
                .lines()
                .find(|line| line.contains("records{group=\"lag-test"))
                .map(str::to_owned);
            mine.and_then(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
        };
        gauge.report(&statistics("active"));
        assert_eq!(exported(), Some(7));
        gauge.report(&statistics("stopping"));
        assert_eq!(exported(), None);
    }
}
