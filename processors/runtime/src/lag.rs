//! `tillroll_consumer_lag_records` of the processors, from librdkafka's statistics: what was fetched and
//! not taken, and what is left to be fetched. Markers of transactions count until they were fetched, so
//! that a partition at its end has no lag.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::statistics::Partition;
use wire::telemetry::LAG_RECORDS;

/// The lag of one consumer's partitions.
pub(crate) struct LagGauge {
    group: String,
    /// What was reported last: a partition that moved on is another one's to report.
    reported: Mutex<BTreeSet<(String, i32)>>,
}

impl LagGauge {
    pub(crate) fn new(group: &str) -> Self {
        Self { group: group.to_string(), reported: Mutex::default() }
    }

    pub(crate) fn report(&self, statistics: &Statistics) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = std::mem::take(&mut *reported);
        for (topic, of_topic) in &statistics.topics {
            for (partition, seen) in &of_topic.partitions {
                if let Some(lag) = lag(seen) {
                    let labels = [&*self.group, topic, &partition.to_string()];
                    LAG_RECORDS.with_label_values(&labels).set(lag);
                    reported.insert((topic.clone(), *partition));
                }
            }
        }
        for (topic, partition) in gone.difference(&reported) {
            let labels = [&*self.group, topic, &partition.to_string()];
            // Another consumer of the process may have taken it away already.
            let _ = LAG_RECORDS.remove_label_values(&labels);
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
            let mine = text.lines().find(|line| line.contains("lag-test")).map(str::to_owned);
            mine.and_then(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
        };
        gauge.report(&statistics("active"));
        assert_eq!(exported(), Some(7));
        gauge.report(&statistics("stopping"));
        assert_eq!(exported(), None);
    }
}
