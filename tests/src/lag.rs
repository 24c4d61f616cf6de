//! How far readers are behind, counted: the committed records that stand behind a reader's own
//! position. Offsets alone cannot say, for markers of transactions have offsets too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use events::topics::{self, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

/// The processors' consumer group, as their `default.toml` names it.
const PROCESSORS: &str = "processors";
const ANSWERS: Duration = Duration::from_secs(15);

/// Where a reader goes on: topic, partition, next offset.
pub type Position = (String, i32, i64);

/// Counts records behind positions. Cheap to clone.
#[derive(Clone)]
pub struct Lag {
    /// Moved to other positions by every count.
    consumer: Arc<Mutex<BaseConsumer>>,
    partitions: i32,
}

impl Lag {
    /// A counter for this cluster. Blocks.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn connect(brokers: &str) -> Result<Self> {
        // Never joins the group: it only asks for its offsets.
        let consumer: BaseConsumer =
            wire::client::assigned_consumer(brokers, "lag").set("group.id", PROCESSORS).create()?;
        let partitions = wire::admin::partitions(brokers)?;
        Ok(Self { consumer: Arc::new(Mutex::new(consumer)), partitions })
    }

    /// Records in the processors' inboxes that no transaction of theirs has taken.
    ///
    /// # Errors
    /// When Kafka does not answer, or the group has never committed an inbox: nobody reads it.
    pub async fn of_processors(&self) -> Result<u64> {
        let lag = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut asked = TopicPartitionList::new();
            for topic in topics::INBOXES {
                asked.add_partition_range(topic.name, 0, lag.partitions - 1);
            }
            let committed = lag.consumer().committed_offsets(asked, ANSWERS)?;
            let position = |e: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                let offset = e.offset().to_raw().filter(|offset| *offset >= 0);
                let offset = offset.with_context(|| {
                    format!("group {PROCESSORS} reads no {}-{}", e.topic(), e.partition())
                })?;
                Ok((e.topic().to_owned(), e.partition(), offset))
            };
            let positions: Vec<Position> =
                committed.elements().into_iter().map(position).collect::<Result<_>>()?;
            lag.count(&positions)
        })
        .await?
    }

    /// Records that the sinks have not written: `tracking` says in Postgres where it goes on, and
    /// `reports` has written what ClickHouse holds.
    ///
    /// # Errors
    /// When Kafka or a database does not answer.
    pub async fn of_sinks(
        &self,
        postgres: &tokio_postgres::Client,
        reports: &clickhouse::Client,
    ) -> Result<u64> {
        let of = async |sink: &str| {
            let sql = "SELECT topic, partition, next_offset FROM sink_offsets WHERE sink = $1";
            let rows = postgres.query(sql, &[&sink]).await?;
            let positions = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2)));
            Ok::<Vec<Position>, tokio_postgres::Error>(positions.collect())
        };
        let (tracking, billing) = (of("tracking").await?, of("billing").await?);
        let written = "SELECT toInt32(kafka_partition), toInt64(max(kafka_offset)) + 1 \
                       FROM order_events GROUP BY kafka_partition";
        let written = reports.query(written).fetch_all::<(i32, i64)>().await?;
        let topic = topics::ORDER_STATUS.name;
        let reports: Vec<Position> =
            written.into_iter().map(|(p, next)| (topic.to_owned(), p, next)).collect();
        let tracking = self.complete(topics::TRACKED, tracking);
        let billing = self.complete(topics::BILLED, billing);
        let reports = self.complete(&[&topics::ORDER_STATUS], reports);
        let lag = self.clone();
        tokio::task::spawn_blocking(move || {
            Ok(lag.count(&tracking)? + lag.count(&reports)? + lag.count(&billing)?)
        })
        .await?
    }

    fn consumer(&self) -> MutexGuard<'_, BaseConsumer> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition that a sink says nothing of is one that it has not begun.
    fn complete(&self, topics: &[&Topic], known: Vec<Position>) -> Vec<Position> {
        let each = topics.iter().flat_map(|t| (0..self.partitions).map(move |p| (t.name, p)));
        each.map(|(topic, partition)| {
            let next = known.iter().find(|k| k.0 == topic && k.1 == partition).map_or(0, |k| k.2);
            (topic.to_owned(), partition, next)
        })
        .collect()
    }

    /// Committed records at and behind these positions.
    fn count(&self, positions: &[Position]) -> Result<u64> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, next) in positions {
            list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
        }
        let consumer = self.consumer();
        consumer.assign(&list)?;
        let (mut records, mut open) = (0, positions.len());
        let mut heard = Instant::now();
        while open > 0 {
            ensure!(heard.elapsed() < ANSWERS, "topics cannot be read to their end");
            match consumer.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Ok(_)) => records += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                // Brokers come and go; the silence above bounds it.
                Some(Err(error)) => {
                    tracing::debug!(%error, "lag");
                    continue;
                }
            }
            heard = Instant::now();
        }
        Ok(records)
    }
}
