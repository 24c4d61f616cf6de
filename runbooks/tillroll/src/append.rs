//! Commands that an operator appends to the log.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};

const DELIVERY_MS: u32 = 15_000;

/// A record: its partition, key and value.
pub(crate) type Keyed = (i32, Vec<u8>, Vec<u8>);

/// Partitions of every topic.
///
/// # Errors
/// When Kafka does not answer.
pub(crate) async fn partitions(brokers: &str) -> Result<i32> {
    let asked = brokers.to_owned();
    tokio::task::spawn_blocking(move || wire::admin::partitions(&asked)).await?
}

/// Appends these records, in their order within a partition.
///
/// # Errors
/// When Kafka doesn't acknowledge; some of them may stand in the topic all the same.
pub(crate) async fn append(brokers: &str, topic: &str, records: &[Keyed]) -> Result<()> {
    let producer: FutureProducer =
        wire::client::producer(brokers, "tillroll", DELIVERY_MS).create()?;
    let mut deliveries = Vec::new();
    for (partition, key, value) in records {
        let record = FutureRecord::to(topic).key(key).payload(value).partition(*partition);
        let queued = producer.send_result(record).map_err(|(error, _)| error);
        deliveries.push(queued.context("cannot queue a record")?);
    }
    for delivered in try_join_all(deliveries).await? {
        delivered
            .map_err(|(error, _)| error)
            .with_context(|| format!("topic {topic} did not acknowledge: try again"))?;
    }
    // Delivery reports said so already; this ends the client without waiting for its poll thread.
    drop(producer);
    Ok(())
}
