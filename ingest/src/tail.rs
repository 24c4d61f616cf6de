//! Follows the `orders` topic: what any ingest process accepted in the last minutes goes to
//! [`Recent`]. Each process reads the whole topic, from a window back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use events::{Merchant, Millis, Record, topics};
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use wire::operator::Readiness;

use crate::config::Config;
use crate::follow::{CALL_TIMEOUT, Consumer, Reader};
use crate::recent::Recent;

/// The readiness check that is fed from here.
pub(crate) const CHECK: &str = "tail";

/// Remembers orders; readiness is given once the end that the topic had at the start is reached.
pub(crate) struct Tail {
    window: Duration,
    most: i64,
    recent: Arc<Recent>,
    readiness: Readiness,
    merchants: HashMap<Merchant, Arc<Merchant>>,
}

impl Tail {
    /// For these settings, into this memory.
    pub(crate) fn new(config: &Config, recent: Arc<Recent>, readiness: Readiness) -> Result<Self> {
        Ok(Self {
            window: Duration::from_secs(60) * config.recent.window_minutes,
            most: i64::try_from(config.recent.orders).context("recent.orders is too large")?,
            recent,
            readiness,
            merchants: HashMap::new(),
        })
    }

    /// Skips what would be forgotten before the end is reached: no more fits into memory.
    fn not_too_far_back(
        &self,
        consumer: &Consumer,
        positions: &TopicPartitionList,
    ) -> Result<TopicPartitionList> {
        let partitions = i64::try_from(positions.count()).context("partitions are few")?;
        let mut bounded = TopicPartitionList::new();
        for position in positions.elements() {
            position.error().context("a partition doesn't tell where the window starts")?;
            let partition = position.partition();
            let (low, high) = consumer
                .fetch_watermarks(Self::TOPIC, partition, CALL_TIMEOUT)
                .context("Kafka doesn't tell where a partition ends")?;
            let earliest = high.saturating_sub(self.most / partitions).max(low);
            let start = match position.offset() {
                Offset::Offset(start) => start.max(earliest),
                // No record is as young as the window.
                _ => high,
            };
            bounded.add_partition_offset(Self::TOPIC, partition, Offset::Offset(start))?;
        }
        Ok(bounded)
    }
}

impl Reader for Tail {
    const TOPIC: &'static str = topics::ORDERS.name;
    const NAME: &'static str = "tail";
    const FETCH_EVERY_MS: u32 = 100;

    /// A window back: what is older is forgotten anyway.
    fn start(&mut self, consumer: &Consumer, partitions: i32) -> Result<TopicPartitionList> {
        let start = chrono::Utc::now().timestamp_millis() - i64::try_from(self.window.as_millis())?;
        let mut times = TopicPartitionList::new();
        for partition in 0..partitions {
            times.add_partition_offset(Self::TOPIC, partition, Offset::Offset(start))?;
        }
        let positions = consumer
            .offsets_for_times(times, CALL_TIMEOUT)
            .context("Kafka doesn't tell where the window starts")?;
        self.not_too_far_back(consumer, &positions)
    }

    fn caught_up(&mut self) {
        tracing::info!(orders = self.recent.len(), "orders topic caught up");
        self.readiness.ok(CHECK);
    }

    fn wants(&mut self, _: &BorrowedMessage<'_>) -> bool {
        true
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, record: Record) {
        let Record::OrderPlaced(order) = record else { return };
        let accepted_at = message.timestamp().to_millis().unwrap_or_default();
        let merchant = self
            .merchants
            .entry(order.merchant)
            .or_insert_with_key(|merchant| Arc::new(merchant.clone()));
        self.recent.logged(
            order.order_id.0,
            merchant,
            order.fingerprint,
            Millis(accepted_at),
            Instant::now(),
        );
    }
}
