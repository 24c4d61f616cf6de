//! The way back of calls: what came of one is written to the inbox of the machine that asked for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use events::{Codec, Record, topics};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// How long one try to write an outcome may take before it is tried again.
const OUTCOME_TIMEOUT_MS: u32 = 60_000;

/// Writes outcomes of calls.
pub(crate) struct Outcomes {
    producer: FutureProducer,
    codec: Codec,
    partitions: i32,
}

impl Outcomes {
    /// A writer to this Kafka, whose topics have so many partitions.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub(crate) fn new(
        brokers: &str,
        client_id: &str,
        codec: Codec,
        partitions: i32,
    ) -> Result<Self> {
        let producer = wire::client::producer(brokers, client_id, OUTCOME_TIMEOUT_MS)
            // Next to a call's time nothing, and it makes one request of many outcomes.
            .set("linger.ms", "10")
            .create()
            .with_context(|| format!("producer {client_id} cannot be made"))?;
        Ok(Self { producer, codec, partitions })
    }

    /// Writes an outcome, however long that takes, since an order waits for it; gives up only when the
    /// call's task has moved on.
    pub(crate) async fn write(&self, topic: &str, key: &[u8], outcome: &Record, live: &AtomicBool) {
        let bytes = self.codec.to_bytes(outcome);
        let partition = topics::partition_for(key, self.partitions);
        while live.load(Ordering::Acquire) {
            let record = FutureRecord::to(topic).partition(partition).key(key).payload(&bytes);
            match self.producer.send(record, Duration::from_secs(5)).await {
                Ok(_) => return,
                Err((error, _)) => tracing::warn!(topic, %error, "an outcome waits for Kafka"),
            }
        }
    }
}
