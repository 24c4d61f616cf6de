//! Logs and metrics: one JSON object per line off a terminal; every metric declared once.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::SystemTime;

use prometheus::core::Collector as _;
use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, register_histogram_vec,
    register_int_counter, register_int_counter_vec, register_int_gauge, register_int_gauge_vec,
};
use tracing_subscriber::EnvFilter;

/// librdkafka's own log lines stay; its error events repeat them and report every end of a partition.
const DEFAULT_LEVELS: &str =
    "info,librdkafka=warn,rdkafka=warn,rdkafka::client=off,warp::server=off";

/// Starts logging to stderr: text on a terminal, JSON elsewhere; `RUST_LOG` chooses the level. Notes the
/// start's time for [`START_TIME`].
pub fn init() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    START_TIME.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LEVELS));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_thread_names(true)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
}

/// Stops exporting what a gauge says of one value of a label: it is another process' to report.
pub fn forget(gauge: &IntGaugeVec, label: &str, value: &str) {
    for family in gauge.collect() {
        for metric in family.get_metric() {
            let pairs = metric.get_label().iter();
            let labels: HashMap<_, _> = pairs.map(|pair| (pair.name(), pair.value())).collect();
            if labels.get(label) == Some(&value) {
                // An error means that it is gone already.
                let _ = gauge.remove(&labels);
            }
        }
    }
}

/// Buckets for latencies from 1 ms to 30 s.
const LATENCY_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A metric as it is declared: rules, dashboards and runbooks may name no other.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type in the client library, `IntCounterVec` for example.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

impl Metric {
    /// The names under which it is scraped: a histogram has three.
    pub fn series(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            "HistogramVec" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }
}

macro_rules! metrics {
    ($($name:ident: $kind:ident = $register:ident(
        $metric:literal, $help:literal $(, &[$($label:literal),+] $(, $buckets:expr)?)?
    );)+) => {
        $(
            #[doc = concat!("`", $metric, "`: ", $help)]
            pub static $name: LazyLock<$kind> = LazyLock::new(|| {
                $register!($metric, $help $(, &[$($label),+] $(, $buckets)?)?)
                    .expect("metric names are unique and legal")
            });
        )+

        /// Every metric that a service exports.
        pub const CATALOGUE: &[Metric] = &[
            $(Metric {
                name: $metric,
                kind: stringify!($kind),
                labels: &[$($($label),+)?],
            }),+
        ];
    };
}

metrics! {
    START_TIME: IntGauge = register_int_gauge(
        "tillroll_start_time_seconds", "When the process started, seconds since 1970.");
    READY: IntGaugeVec = register_int_gauge_vec(
        "tillroll_ready", "1 while a check of /readyz is ok, else 0.", &["check"]);
    HTTP_REQUESTS: IntCounterVec = register_int_counter_vec(
        "tillroll_http_requests_total", "HTTP requests answered.", &["route", "code"]);
    HTTP_SECONDS: HistogramVec = register_histogram_vec(
        "tillroll_http_request_duration_seconds", "From request to answer.", &["route"],
        LATENCY_BUCKETS.to_vec());
    ORDERS_REPLAYED: IntCounter = register_int_counter(
        "tillroll_orders_replayed_total", "Repeated clicks answered without a record of their own.");
    ORDER_WATCHERS: IntGauge = register_int_gauge(
        "tillroll_order_watchers", "Open event streams, and clients that wait for their order's next status.");
    RECORDS_PROCESSED: IntCounterVec = register_int_counter_vec(
        "tillroll_records_processed_total", "Records taken from a topic and committed.", &["topic"]);
    RECORDS_REJECTED: IntCounterVec = register_int_counter_vec(
        "tillroll_records_rejected_total", "Records sent to a dead letter queue.", &["topic", "stage"]);
    LAG_RECORDS: IntGaugeVec = register_int_gauge_vec(
        "tillroll_consumer_lag_records", "Committed records not yet processed.",
        &["group", "topic", "partition"]);
    LAG_SECONDS: IntGaugeVec = register_int_gauge_vec(
        "tillroll_consumer_lag_seconds",
        "How long the oldest record not yet processed has waited, as far as is known.",
        &["group", "topic", "partition"]);
    TRANSACTIONS: IntCounterVec = register_int_counter_vec(
        "tillroll_transactions_total", "Kafka transactions by result.", &["result"]);
    TRANSACTION_SECONDS: HistogramVec = register_histogram_vec(
        "tillroll_transaction_duration_seconds", "From begin to committed, by phase.", &["phase"],
        LATENCY_BUCKETS.to_vec());
    RESTORED_RECORDS: IntCounterVec = register_int_counter_vec(
        "tillroll_restored_records_total", "Changelog records applied to a state store.", &["task"]);
    COURIER_CALLS: IntCounterVec = register_int_counter_vec(
        "tillroll_courier_calls_total", "Calls to courier companies by outcome.",
        &["courier", "call", "outcome"]);
    COURIER_CALL_SECONDS: HistogramVec = register_histogram_vec(
        "tillroll_courier_call_duration_seconds", "From call to answer.", &["courier"],
        LATENCY_BUCKETS.to_vec());
    COURIER_BREAKER: IntGaugeVec = register_int_gauge_vec(
        "tillroll_courier_breaker_state",
        "0 asked, 1 probed, 2 rested; lane * is all lanes of the partition.",
        &["courier", "lane", "partition"]);
    ORDERS_WAITED: IntCounter = register_int_counter(
        "tillroll_courier_rounds_in_vain_total",
        "Rounds in which no courier took an order; it waits for the next.");
    PAYMENT_CALLS: IntCounterVec = register_int_counter_vec(
        "tillroll_payment_calls_total", "Calls to payment providers by outcome.",
        &["provider", "step", "outcome"]);
    PAYMENT_CALL_SECONDS: HistogramVec = register_histogram_vec(
        "tillroll_payment_call_duration_seconds", "From commit to answer, the wait for a free place included.",
        &["provider"], LATENCY_BUCKETS.to_vec());
    PAYMENTS_WAITING: IntGaugeVec = register_int_gauge_vec(
        "tillroll_payments_waiting", "Payments that wait for a step of their provider.",
        &["provider", "step", "partition"]);
    PAYMENTS_OLDEST: IntGaugeVec = register_int_gauge_vec(
        "tillroll_payments_waiting_since_timestamp_seconds",
        "Unix time since when the longest waiting payment waits; absent while none waits.",
        &["provider", "partition"]);
    INVARIANT_VIOLATIONS: IntCounterVec = register_int_counter_vec(
        "tillroll_invariant_violations_total", "Broken invariants by number.", &["invariant"]);
    SINK_ROWS: IntCounterVec = register_int_counter_vec(
        "tillroll_sink_rows_total", "Rows written by a sink.", &["sink", "table"]);
    SINK_CONFLICTS: IntCounterVec = register_int_counter_vec(
        "tillroll_sink_conflicts_total",
        "Same identity, other content: settled by term and sequence.", &["sink"]);
    STATUS_AGE_SECONDS: HistogramVec = register_histogram_vec(
        "tillroll_sink_status_age_seconds",
        "From a change of an order's status until the sink has stored it.", &["sink"],
        LATENCY_BUCKETS.to_vec());
    RESERVATION_SECONDS: HistogramVec = register_histogram_vec(
        "tillroll_order_reservation_seconds",
        "From an order's acceptance until its lines were reserved or refused, as tracking stores it.",
        &["status"], LATENCY_BUCKETS.to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_is_no_longer_exported() {
        for (lane, partition) in [("*", "0"), ("main-GB", "0"), ("*", "1")] {
            COURIER_BREAKER.with_label_values(&["swift", lane, partition]).set(2);
        }
        forget(&COURIER_BREAKER, "partition", "0");
        let left: Vec<_> = COURIER_BREAKER.collect()[0]
            .get_metric()
            .iter()
            .flat_map(|metric| metric.get_label())
            .map(|pair| pair.value().to_string())
            .collect();
        assert_eq!(left, ["swift", "*", "1"]);
    }

    #[test]
    fn a_histogram_is_scraped_under_three_names() {
        let of = |name: &str| CATALOGUE.iter().find(|metric| metric.name == name).unwrap();
        let histogram = of("tillroll_http_request_duration_seconds");
        assert!(histogram.series().contains(&format!("{}_bucket", histogram.name)));
        assert_eq!(histogram.labels, ["route"]);
        assert_eq!(of("tillroll_start_time_seconds").series(), ["tillroll_start_time_seconds"]);
        assert!(of("tillroll_start_time_seconds").labels.is_empty());
    }
}
