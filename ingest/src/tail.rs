//! Follows the `orders` topic: what any ingest process accepted in the last minutes goes to
//! [`Recent`]. Each process reads the whole topic, from a window back, by hand and in no group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use events::{Codec, DecodeError, Merchant, Millis, Record, topics};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use wire::config::Registry;
use wire::operator::Readiness;
use wire::registry::LearnError;

use crate::config::Config;
use crate::recent::Recent;

/// The readiness check that is fed from here.
pub(crate) const CHECK: &str = "tail";
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const POLL: Duration = Duration::from_millis(200);
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// The thread that follows the topic; stops when dropped.
pub(crate) struct Tail {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Reader {
    brokers: String,
    client_id: String,
    registry: Registry,
    window: Duration,
    partitions: i32,
    most: i64,
    codec: Codec,
    recent: Arc<Recent>,
    readiness: Readiness,
    merchants: HashMap<Merchant, Arc<Merchant>>,
    stop: Arc<AtomicBool>,
    handle: Handle,
}

impl Tail {
    /// Starts following; readiness is given once the end that the topic had at the start is reached.
    pub(crate) fn start(
        config: &Config,
        partitions: i32,
        codec: Codec,
        recent: Arc<Recent>,
        readiness: Readiness,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            brokers: config.kafka.brokers.clone(),
            client_id: format!("ingest-{}-tail", config.instance),
            registry: config.registry.clone(),
            window: Duration::from_secs(60) * config.recent.window_minutes,
            partitions,
            most: i64::try_from(config.recent.orders).context("recent.orders is too large")?,
            codec,
            recent,
            readiness,
            merchants: HashMap::new(),
            stop: Arc::clone(&stop),
            handle: Handle::current(),
        };
        let thread = std::thread::Builder::new()
            .name("orders-tail".into())
            .spawn(move || reader.run())
            .context("a thread cannot be started")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Reader {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.follow() {
                let reason = format!("{error:#}");
                tracing::warn!(reason, "orders topic cannot be followed: tried again");
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Follows until told to stop; fails when the position is lost or the registry does not
    /// answer, which starts over a window back.
    fn follow(&mut self) -> Result<()> {
        let mut settings = wire::client::assigned_consumer(&self.brokers, &self.client_id);
        // Ten fetches a second, however many batches there are.
        settings.set("fetch.min.bytes", "1048576");
        let consumer: BaseConsumer<Quiet> =
            settings.create_with_context(Quiet).context("consumer cannot be made")?;
        let start = chrono::Utc::now().timestamp_millis() - i64::try_from(self.window.as_millis())?;
        let mut times = TopicPartitionList::new();
        for partition in 0..self.partitions {
            times.add_partition_offset(topics::ORDERS.name, partition, Offset::Offset(start))?;
        }
        let positions = consumer
            .offsets_for_times(times, CALL_TIMEOUT)
            .context("Kafka doesn't tell where the window starts")?;
        let positions = self.not_too_far_back(&consumer, &positions)?;
        consumer.assign(&positions).context("partitions cannot be assigned")?;
        let mut behind: HashSet<i32> = (0..self.partitions).collect();
        while !self.stop.load(Ordering::Relaxed) {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(KafkaError::PartitionEOF(partition)))
                    if behind.remove(&partition) && behind.is_empty() =>
                {
                    tracing::info!(orders = self.recent.len(), "orders topic caught up");
                    self.readiness.ok(CHECK);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if position_lost(&error) => {
                    bail!("the position in the topic is lost: {error}");
                }
                // The client reconnects by itself.
                Some(Err(error)) => tracing::debug!(%error, "orders topic"),
            }
        }
        Ok(())
    }

    /// Skips what would be forgotten before the end is reached: no more fits into memory.
    fn not_too_far_back(
        &self,
        consumer: &BaseConsumer<Quiet>,
        positions: &TopicPartitionList,
    ) -> Result<TopicPartitionList> {
        let mut bounded = TopicPartitionList::new();
        for position in positions.elements() {
            position.error().context("a partition doesn't tell where the window starts")?;
            let partition = position.partition();
            let (low, high) = consumer
                .fetch_watermarks(topics::ORDERS.name, partition, CALL_TIMEOUT)
                .context("Kafka doesn't tell where a partition ends")?;
            let earliest = high.saturating_sub(self.most / i64::from(self.partitions)).max(low);
            let start = match position.offset() {
                Offset::Offset(start) => start.max(earliest),
                // No record is as young as the window.
                _ => high,
            };
            bounded.add_partition_offset(topics::ORDERS.name, partition, Offset::Offset(start))?;
        }
        Ok(bounded)
    }

    /// Remembers an order; fails when it cannot be known yet whether the record is one.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let bytes = message.payload().unwrap_or_default();
        let mut decoded = self.codec.decode(bytes);
        if let Err(DecodeError::UnknownSchema(id)) = decoded {
            let learning = wire::registry::learn(&mut self.codec, &self.registry, id);
            match self.handle.block_on(learning) {
                Ok(()) => {}
                Err(error @ LearnError::Unavailable { .. }) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "a record of orders is passed over"),
            }
            decoded = self.codec.decode(bytes);
        }
        let order = match decoded {
            Ok(Record::OrderPlaced(order)) => order,
            // The orders processor sends what cannot be read to the dead letters.
            Ok(_) | Err(_) => return Ok(()),
        };
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
        Ok(())
    }
}

/// Leaves errors to the loop that polls: by default the end of a partition, too, is logged as one.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// Whether the consumer has stopped for good: its offset is no longer in the topic.
pub(crate) fn position_lost(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
