//! Watches orders come out: in the log, in Postgres, in ClickHouse; and what each process costs.
//!
//! Watching must cost little, for its questions are paid by what is measured. A query costs ClickHouse
//! as much CPU as a hundred orders do, so it is only asked after a sink's counter of stored rows, which
//! moves when an insert is acknowledged, has moved.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use events::{Codec, OrderId, OrderStatus, Record, topics};
use local::{Service, Stack};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

/// How often the databases are asked how far they are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where an order's last status stands, and when it was seen there.
#[derive(Debug, Clone, Copy)]
pub struct Final {
    /// Partition of `order-status`.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When a reader of committed records had it.
    pub seen: Instant,
}

/// How far a reader was at a moment: next offset per partition.
pub type Progress = (Instant, HashMap<i32, i64>);

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Final statuses in the log.
    pub finals: Mutex<HashMap<OrderId, Final>>,
    /// Looks at Postgres.
    pub postgres: Mutex<Vec<Progress>>,
    /// Looks at ClickHouse.
    pub clickhouse: Mutex<Vec<Progress>>,
    stop: AtomicBool,
}

/// Unlocks whatever happened in another thread.
pub fn open<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Starts watching from the log's current end.
    ///
    /// # Errors
    /// When Kafka or a database does not answer.
    pub async fn start(stack: &Stack) -> Result<Arc<Self>> {
        let seen = Arc::new(Self::default());
        let registry = wire::config::Registry { url: stack.registry_url() };
        let codec = wire::registry::codec(&registry).await?;
        let consumer = consumer(&stack.brokers())?;
        let watching = seen.clone();
        std::thread::spawn(move || watching.follow(&consumer, &codec));
        let postgres = crate::reconcile::postgres::connect(&stack.postgres_url()).await?;
        let watching = seen.clone();
        tokio::spawn(async move { watching.follow_postgres(&postgres).await });
        let clickhouse = crate::reconcile::clickhouse::client(&stack.clickhouse_url());
        let sinks = stack.instances(Service::Sinks).iter().map(|s| s.url().to_owned()).collect();
        let watching = seen.clone();
        tokio::spawn(async move { watching.follow_clickhouse(&clickhouse, sinks).await });
        Ok(seen)
    }

    /// Stops watching.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn follow(&self, consumer: &BaseConsumer, codec: &Codec) {
        while !self.stopped() {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
            let record = codec.decode(message.payload().unwrap_or_default());
            let Ok(Record::OrderStatusChanged(changed)) = record else { continue };
            if matches!(changed.status, OrderStatus::Routed | OrderStatus::Rejected) {
                let (partition, offset) = (message.partition(), message.offset());
                let last = Final { partition, offset, seen: Instant::now() };
                open(&self.finals).insert(changed.order_id, last);
            }
        }
    }

    async fn follow_postgres(&self, client: &tokio_postgres::Client) {
        let query = "SELECT partition, next_offset FROM sink_offsets
            WHERE sink = 'tracking' AND topic = 'order-status'";
        let Ok(query) = client.prepare(query).await else { return };
        while !self.stopped() {
            if let Ok(rows) = client.query(&query, &[]).await {
                let progress = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                open(&self.postgres).push((Instant::now(), progress));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn follow_clickhouse(&self, client: &clickhouse::Client, sinks: Vec<String>) {
        let query = "SELECT toInt32(kafka_partition), toInt64(max(kafka_offset)) + 1 \
                     FROM order_events GROUP BY kafka_partition";
        let mut seen = None;
        while !self.stopped() {
            // Read before the query: what is stored in between moves it again.
            let stored = stored(&sinks).await;
            if (stored.is_none() || stored != seen)
                && let Ok(rows) = client.query(query).fetch_all::<(i32, i64)>().await
            {
                open(&self.clickhouse).push((Instant::now(), rows.into_iter().collect()));
                seen = stored;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The lines by which the sinks count rows stored in ClickHouse; `None` if one doesn't answer.
async fn stored(sinks: &[String]) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for sink in sinks {
        let answer = reqwest::get(format!("{sink}/metrics")).await.ok()?;
        let text = answer.error_for_status().ok()?.text().await.ok()?;
        let counters = text.lines().filter(|line| {
            line.starts_with("tillroll_sink_rows_total") && line.contains("sink=\"reports\"")
        });
        lines.extend(counters.map(str::to_owned));
    }
    Some(lines)
}

/// When each final status was visible to a reader that was looked at: the first look past it.
pub fn visible(finals: &HashMap<OrderId, Final>, looks: &[Progress]) -> HashMap<OrderId, Instant> {
    let first = |last: &Final| {
        let past = |look: &Progress| look.1.get(&last.partition).is_some_and(|n| *n > last.offset);
        looks.get(looks.partition_point(|look| !past(look))).map(|look| look.0)
    };
    finals.iter().filter_map(|(order, last)| Some((*order, first(last)?))).collect()
}

fn consumer(brokers: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "bench")
        .set("fetch.min.bytes", "65536")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let topic = topics::ORDER_STATUS.name;
    let mut list = TopicPartitionList::new();
    for partition in 0..wire::admin::partitions(brokers)? {
        let timeout = Duration::from_secs(10);
        let (_, end) = consumer.fetch_watermarks(topic, partition, timeout)?;
        list.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// CPU seconds (user and system) that each component has used so far, by kind of process.
///
/// # Errors
/// When a process is gone.
pub fn cpu_seconds(stack: &Stack) -> Result<HashMap<String, f64>> {
    // Linux counts in ticks of 1/100 s on every platform that Rust supports (USER_HZ).
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut seconds = HashMap::new();
    for component in stack.components() {
        let pid = component.pid().with_context(|| format!("{} has ended", component.name()))?;
        let ticks = ticks(pid)? + children(pid)?;
        let kind = component.name().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        *seconds.entry(kind.to_owned()).or_default() += ticks as f64 / TICKS_PER_SECOND;
    }
    Ok(seconds)
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15, counted behind the command's closing parenthesis.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| rest.split_whitespace().nth(n).and_then(|f| f.parse().ok());
    Ok(field(11).unwrap_or(0u64) + field(12).unwrap_or(0))
}

/// Postgres works in children of its first process.
fn children(pid: u32) -> Result<u64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.map(|pid| ticks(pid).unwrap_or(0)).sum())
}
