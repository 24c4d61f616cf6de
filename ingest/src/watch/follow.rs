//! Follows `order-status` for the [`Hub`]: one thread for all watchers, from the topic's end, by hand and in no group.
//!
//! What it costs without a watcher: the fetch, 20 times a second at most, and a look at each record's key.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use events::{Codec, DecodeError, Record, topics};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use uuid::Uuid;
use wire::config::Registry;
use wire::registry::LearnError;

use super::hub::Hub;
use crate::config::Config;
use crate::database::Event;
use crate::tail::{CALL_TIMEOUT, POLL, Quiet, RETRY, position_lost};

/// The last record of a partition lies within this many offsets before its end: what else takes offsets are the marks of
/// transactions.
const LOOK_BACK: i64 = 1000;

/// The thread that follows the topic; stops when dropped.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Reader {
    brokers: String,
    client_id: String,
    registry: Registry,
    partitions: i32,
    codec: Codec,
    hub: Arc<Hub>,
    stop: Arc<AtomicBool>,
    handle: Handle,
}

impl Follower {
    /// Starts following.
    pub(crate) fn start(
        config: &Config,
        partitions: i32,
        codec: Codec,
        hub: Arc<Hub>,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            brokers: config.kafka.brokers.clone(),
            client_id: format!("ingest-{}-watch", config.instance),
            registry: config.registry.clone(),
            partitions,
            codec,
            hub,
            stop: Arc::clone(&stop),
            handle: Handle::current(),
        };
        let thread = std::thread::Builder::new()
            .name("status-tail".into())
            .spawn(move || reader.run())
            .context("a thread cannot be started")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
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
                self.hub.lost();
                let reason = format!("{error:#}");
                tracing::warn!(reason, "order-status cannot be followed: tried again");
                std::thread::sleep(RETRY);
            }
        }
    }

    /// Follows until told to stop; fails when the position is lost or the registry does not answer.
    fn follow(&mut self) -> Result<()> {
        let mut settings = wire::client::assigned_consumer(&self.brokers, &self.client_id);
        settings.set("fetch.min.bytes", "1048576").set("fetch.wait.max.ms", "50");
        let consumer: BaseConsumer<Quiet> =
            settings.create_with_context(Quiet).context("consumer cannot be made")?;
        let mut positions = TopicPartitionList::new();
        for partition in 0..self.partitions {
            let (low, high) = consumer
                .fetch_watermarks(topics::ORDER_STATUS.name, partition, CALL_TIMEOUT)
                .context("Kafka doesn't tell where a partition ends")?;
            let start = (high - LOOK_BACK).max(low);
            // Nothing but marks and aborted records may follow: then no record moves the position.
            self.hub.passing(partition, start - 1);
            let start = Offset::Offset(start);
            positions.add_partition_offset(topics::ORDER_STATUS.name, partition, start)?;
        }
        consumer.assign(&positions).context("partitions cannot be assigned")?;
        let mut behind: HashSet<i32> = (0..self.partitions).collect();
        while !self.stop.load(Ordering::Relaxed) {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(KafkaError::PartitionEOF(partition)))
                    if behind.remove(&partition) && behind.is_empty() =>
                {
                    tracing::info!("order-status is followed");
                    self.hub.following();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if position_lost(&error) => {
                    bail!("the position in the topic is lost: {error}");
                }
                // The client reconnects by itself.
                Some(Err(error)) => tracing::debug!(%error, "order-status topic"),
            }
        }
        Ok(())
    }

    /// Passes a change on; fails when it cannot be known yet whether the record is one.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        self.hub.passing(message.partition(), message.offset());
        let key = message.key().and_then(|key| Uuid::from_slice(key).ok());
        let Some(order_id) = key.filter(|id| self.hub.watches(*id)) else { return Ok(()) };
        let bytes = message.payload().unwrap_or_default();
        let mut decoded = self.codec.decode(bytes);
        if let Err(DecodeError::UnknownSchema(id)) = decoded {
            let learning = wire::registry::learn(&mut self.codec, &self.registry, id);
            match self.handle.block_on(learning) {
                Ok(()) => {}
                Err(error @ LearnError::Unavailable { .. }) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "a record of order-status is passed over"),
            }
            decoded = self.codec.decode(bytes);
        }
        // The sinks send what cannot be read to the dead letters.
        if let Ok(Record::OrderStatusChanged(changed)) = decoded {
            self.hub.tell(order_id, &Arc::new(Event::from(&changed)));
        }
        Ok(())
    }
}
