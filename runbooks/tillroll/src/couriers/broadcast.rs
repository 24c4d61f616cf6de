//! Commands to every partition of `couriers`: each task has its place for them in its own log.

use anyhow::{Context, Result};
use events::topics::COURIERS;
use events::{Codec, Record};
use futures::future::try_join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};

const DELIVERY_MS: u32 = 15_000;

/// Appends every record, in order, to every partition; how many partitions there are.
///
/// # Errors
/// When Kafka doesn't acknowledge; the command can be repeated.
pub(super) async fn append(
    brokers: &str,
    codec: &Codec,
    records: &[(String, Record)],
) -> Result<i32> {
    let asked = brokers.to_owned();
    let partitions = tokio::task::spawn_blocking(move || wire::admin::partitions(&asked)).await??;
    let producer: FutureProducer =
        wire::client::producer(brokers, "tillroll", DELIVERY_MS).create()?;
    let mut deliveries = Vec::new();
    for (key, record) in records {
        let value = codec.to_bytes(record);
        for partition in 0..partitions {
            let record =
                FutureRecord::to(COURIERS.name).key(key).payload(&value).partition(partition);
            let queued = producer.send_result(record).map_err(|(error, _)| error);
            deliveries.push(queued.context("cannot queue a record")?);
        }
    }
    for delivered in try_join_all(deliveries).await? {
        delivered
            .map_err(|(error, _)| error)
            .with_context(|| format!("topic {} did not acknowledge: try again", COURIERS.name))?;
    }
    // Delivery reports said so already; this ends the client without waiting for its poll thread.
    drop(producer);
    Ok(partitions)
}
