//! Logs and metrics: one JSON object per line off a terminal; metric names declared once.

use std::io::IsTerminal;
use std::sync::LazyLock;

use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, register_histogram_vec,
    register_int_counter, register_int_counter_vec, register_int_gauge_vec,
};
use tracing_subscriber::EnvFilter;

/// librdkafka's own log lines stay; its error events repeat them and report every end of a partition.
const DEFAULT_LEVELS: &str =
    "info,librdkafka=warn,rdkafka=warn,rdkafka::client=off,warp::server=off";

/// Starts logging to stderr: text on a terminal, JSON elsewhere; `RUST_LOG` chooses the level.
pub fn init() {
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

/// Buckets for latencies from 1 ms to 30 s.
const LATENCY_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

macro_rules! metric {
    ($name:ident: $kind:ty = $register:ident($metric:literal, $help:literal $(, $more:expr)*)) => {
        #[doc = concat!("`", $metric, "`: ", $help)]
        pub static $name: LazyLock<$kind> = LazyLock::new(|| {
            $register!($metric, $help $(, $more)*)
                .expect("metric names are unique and legal")
        });
    };
}

metric!(HTTP_REQUESTS: IntCounterVec = register_int_counter_vec(
    "tillroll_http_requests_total", "HTTP requests answered.", &["route", "code"]));
metric!(HTTP_SECONDS: HistogramVec = register_histogram_vec(
    "tillroll_http_request_duration_seconds", "From request to answer.", &["route"],
    LATENCY_BUCKETS.to_vec()));
metric!(ORDERS_REPLAYED: IntCounter = register_int_counter(
    "tillroll_orders_replayed_total", "Repeated clicks answered without a record of their own."));
metric!(RECORDS_PROCESSED: IntCounterVec = register_int_counter_vec(
    "tillroll_records_processed_total", "Records taken from a topic and committed.", &["topic"]));
metric!(RECORDS_REJECTED: IntCounterVec = register_int_counter_vec(
    "tillroll_records_rejected_total", "Records sent to a dead letter queue.", &["topic", "stage"]));
metric!(LAG_RECORDS: IntGaugeVec = register_int_gauge_vec(
    "tillroll_consumer_lag_records", "Committed records not yet processed.",
    &["group", "topic", "partition"]));
metric!(TRANSACTIONS: IntCounterVec = register_int_counter_vec(
    "tillroll_transactions_total", "Kafka transactions by result.", &["result"]));
metric!(TRANSACTION_SECONDS: HistogramVec = register_histogram_vec(
    "tillroll_transaction_duration_seconds", "From begin to committed, by phase.", &["phase"],
    LATENCY_BUCKETS.to_vec()));
metric!(RESTORED_RECORDS: IntCounterVec = register_int_counter_vec(
    "tillroll_restored_records_total", "Changelog records applied to a state store.", &["task"]));
metric!(COURIER_CALLS: IntCounterVec = register_int_counter_vec(
    "tillroll_courier_calls_total", "Calls to courier companies by outcome.",
    &["courier", "call", "outcome"]));
metric!(COURIER_CALL_SECONDS: HistogramVec = register_histogram_vec(
    "tillroll_courier_call_duration_seconds", "From call to answer.", &["courier"],
    LATENCY_BUCKETS.to_vec()));
metric!(COURIER_BREAKER: IntGaugeVec = register_int_gauge_vec(
    "tillroll_courier_breaker_state",
    "0 asked, 1 probed, 2 rested; lane * is all lanes of the partition.",
    &["courier", "lane", "partition"]));
metric!(ORDERS_WAITED: IntCounter = register_int_counter(
    "tillroll_courier_rounds_in_vain_total",
    "Rounds in which no courier took an order; it waits for the next."));
metric!(PAYMENT_CALLS: IntCounterVec = register_int_counter_vec(
    "tillroll_payment_calls_total", "Calls to payment providers by outcome.",
    &["provider", "step", "outcome"]));
metric!(PAYMENT_CALL_SECONDS: HistogramVec = register_histogram_vec(
    "tillroll_payment_call_duration_seconds", "From commit to answer, the wait for a free place included.",
    &["provider"], LATENCY_BUCKETS.to_vec()));
metric!(PAYMENTS_WAITING: IntGaugeVec = register_int_gauge_vec(
    "tillroll_payments_waiting", "Payments that wait for a step of their provider.",
    &["provider", "step", "partition"]));
metric!(PAYMENTS_OLDEST: IntGaugeVec = register_int_gauge_vec(
    "tillroll_payments_waiting_since_timestamp_seconds",
    "Unix time since when the longest waiting payment waits; absent while none waits.",
    &["provider", "partition"]));
metric!(INVARIANT_VIOLATIONS: IntCounterVec = register_int_counter_vec(
    "tillroll_invariant_violations_total", "Broken invariants by number.", &["invariant"]));
metric!(SINK_ROWS: IntCounterVec = register_int_counter_vec(
    "tillroll_sink_rows_total", "Rows written by a sink.", &["sink", "table"]));
metric!(SINK_CONFLICTS: IntCounterVec = register_int_counter_vec(
    "tillroll_sink_conflicts_total",
    "Same identity, other content: settled by term and sequence.", &["sink"]));
